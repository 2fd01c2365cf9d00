#!/usr/bin/env python3
"""Presses Ctrl-C at a terminal while a command works, and looks at what it says, how it ends and what is left.

    scripts/ctrl_c.py [BUILD]
    RUNNER=wine scripts/ctrl_c.py target/x86_64-pc-windows-gnu/debug

BUILD is a folder with the four commands [default: target/release]. RUNNER=wine runs a build for Windows (scripts/wine_prefix.sh): its
console is this terminal, and what is typed here arrives as Ctrl-C of that console. The tests of tests/cli/interrupt.rs do the same without
a terminal, which Wine cannot. Exits with 1 at the first that does otherwise.
"""

import os
import pty
import re
import select
import struct
import sys
import tempfile
import time

PATIENCE = 120.0
# Of the embedded model's layers: a few hundred megabytes.
N_TIMES = 16
# Of a terminal, with and without parameters.
SEQUENCE = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|\][^\x07]*\x07|[=>])")


class Command:
    """A command on a terminal of its own."""

    def __init__(self, build, name, *args, folder):
        end = ".exe" if os.path.exists(os.path.join(build, "powerinfer-run.exe")) else ""
        line = os.environ.get("RUNNER", "").split() + [os.path.join(build, f"powerinfer-{name}{end}"), *args]
        self.name, self.text, self.code = " ".join([name, *args]), b"", None
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execvp(line[0], line)

    def said(self):
        """What the terminal shows, without spaces: Wine moves the cursor instead of writing them."""
        return re.sub(r"\s", "", SEQUENCE.sub("", self.text.decode("utf-8", "replace")))

    def read(self, seconds):
        """Takes what is written within this time. False at the end."""
        if not select.select([self.terminal], [], [], seconds)[0]:
            return True
        try:
            more = os.read(self.terminal, 65536)
        except OSError:
            return False
        self.text += more
        return bool(more)

    def until(self, what, is_so):
        begun = time.monotonic()
        while not is_so():
            if not self.read(0.01):
                fail(self, f"ended before {what}")
            if time.monotonic() - begun > PATIENCE:
                fail(self, f"{what}: waited in vain")

    def press(self, keys):
        os.write(self.terminal, keys.encode())

    def ended(self):
        """Its exit code, once it has ended."""
        begun = time.monotonic()
        while self.read(0.05) and time.monotonic() - begun < PATIENCE:
            pass
        self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.terminal)
        return self.code


# Bytes of a value of each type of metadata; strings (8) and arrays (9) say their length.
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
ALIGNMENT = 32


def enlarged(path, n_times):
    """A GGUF file with float16 matrices `n_times` as deep: its layers, again and again."""
    data = memoryview(open(path, "rb").read())
    n_tensors, n_keys = struct.unpack_from("<QQ", data, 8)
    at = 24

    def take(form):
        nonlocal at
        value = struct.unpack_from("<" + form, data, at)[0]
        at += struct.calcsize("<" + form)
        return value

    def string():
        nonlocal at
        n = take("Q")
        at += n
        return bytes(data[at - n : at]).decode()

    def skip(kind):
        nonlocal at
        if kind == 8:
            string()
        elif kind == 9:
            of, n = take("I"), take("Q")
            for _ in range(n if of in (8, 9) else 0):
                skip(of)
            at += SIZES.get(of, 0) * n
        else:
            at += SIZES[kind]

    keys = bytearray()
    for _ in range(n_keys):
        begin = at
        name, kind = string(), take("I")
        value = at
        skip(kind)
        keys += data[begin:value]
        keys += struct.pack("<I", struct.unpack_from("<I", data, value)[0] * n_times) if name.endswith(".block_count") else data[value:at]
    tensors = [(string(), [take("Q") for _ in range(take("I"))], take("I"), take("Q")) for _ in range(n_tensors)]
    begin = -(-at // ALIGNMENT) * ALIGNMENT
    ends = sorted(offset for *_, offset in tensors) + [len(data) - begin]
    n_layers = 1 + max(int(name.split(".")[1]) for name, *_ in tensors if name.startswith("blk."))
    copies = []
    for name, *rest in tensors:
        parts = name.split(".", 2)
        more = range(n_times) if parts[0] == "blk" else [None]
        copies += [(name if i is None else f"blk.{int(parts[1]) + i * n_layers}.{parts[2]}", *rest) for i in more]
    head, body, offset = bytearray(data[:8]) + struct.pack("<QQ", len(copies), n_keys) + keys, [], 0
    for name, shape, kind, old in copies:
        head += struct.pack("<Q", len(name)) + name.encode() + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
        n = ends[ends.index(old) + 1] - old
        part = bytes(data[begin + old : begin + old + n]).ljust(-(-n // ALIGNMENT) * ALIGNMENT, b"\0")
        body.append(part)
        offset += len(part)
    return bytes(head).ljust(-(-len(head) // ALIGNMENT) * ALIGNMENT, b"\0") + b"".join(body)


def fail(command, why):
    sys.exit(f"ctrl_c.py: {command.name}: {why}\n{command.said()[-1500:]}")


def expect(command, what, is_so):
    if not is_so:
        fail(command, what)


def interrupted(command):
    """Presses Ctrl-C and holds that the command ends by it."""
    pressed = time.monotonic()
    command.press("\x03")
    code = command.ended()
    expect(command, f"ends with {code}", code == 130)
    expect(command, "does not say so", command.said().endswith("interrupted"))
    print(f"{command.name}: interrupted after {time.monotonic() - pressed:.1f} s")


def main(repository, build):
    with tempfile.TemporaryDirectory() as folder:
        names = lambda: sorted(os.listdir(folder))
        start = lambda name, *args: Command(build, name, *args, folder=folder)
        with open(os.path.join(folder, "text"), "w") as text:
            text.write("The dog and the big girl ran to the house and were happy. " * 5000)
        with open(os.path.join(folder, "large.gguf"), "wb") as large:
            large.write(enlarged(os.path.join(repository, "models", "tiny-stories-f16.gguf"), N_TIMES))
        before = names()

        split = start("split", "-m", "large.gguf", "--type", "q8_0", "--quantize-only", "-t", "1", "-o", "out.gguf")
        split.until("it writes", lambda: "writing" in split.said())
        interrupted(split)
        expect(split, f"leaves {names()}", names() == before)

        profile = start("profile", "-f", "text", "-c", "64", "--checkpoint-seconds", "0", "-t", "1", "-o", "out.profile")
        profile.until("a checkpoint is there", lambda: "out.profile.part" in names())
        interrupted(profile)
        expect(profile, f"leaves {names()}", names() == sorted(before + ["out.profile.part"]))

        run = start("run", "-p", "Grüße, 猫", "--ignore-eos", "-n", "-1", "-c", "20000", "-t", "1", "--device", "cpu")
        run.until("the prompt is shown", lambda: "Grüße,猫" in run.said() and len(run.said()) > 40)
        interrupted(run)

        talk = start("run", "-cnv", "--chat-template", "chatml", "-n", "4", "--temp", "0", "-t", "1", "--device", "cpu")
        talk.until("it asks", lambda: ">" in talk.said())
        talk.press("\x03")
        if os.environ.get("RUNNER"):
            # Wine's console makes an event of it, where that of Windows gives a key to who edits a line.
            time.sleep(1)
        else:
            talk.until("it says what leaves", lambda: "/exitleaves" in talk.said())
        talk.press("/exit\r")
        expect(talk, f"ends with {talk.ended()}", talk.code == 0)
        print(f"{talk.name}: Ctrl-C leaves it at its prompt")
    print("Ctrl-C ends every command, and what is half written is gone")


if __name__ == "__main__":
    if len(sys.argv) > 2 or sys.argv[1:2] in (["-h"], ["--help"]):
        sys.exit(__doc__)
    repository = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    main(repository, os.path.abspath(sys.argv[1]) if sys.argv[1:] else os.path.join(repository, "target", "release"))
