#!/usr/bin/env python3
"""Write what llama.cpp's own formatting makes of conversations, by the names that it has for chat formats.

    pip install xllamacpp
    python scripts/make_builtin_golden.py --out tests/golden/builtin_templates.json
    python scripts/make_builtin_golden.py --against target/release/powerinfer-run

Calls llama_chat_apply_template in the library that is in xllamacpp (--library names another one), with the names that
llama_chat_builtin_templates gives. --against has a build render its own templates, and prints what differs. `cargo test --lib
chat::builtin` compares with the file.
"""

import argparse
import ctypes
import importlib.util
import json
import subprocess
from pathlib import Path

HERE = Path(__file__).parent.parent
CONVERSATIONS = {
    "one": [("user", "Hi")],
    "one, with a system prompt": [("system", "Be brief."), ("user", "Hi")],
    "two": [("user", "Hi"), ("assistant", "Hello."), ("user", "Why?")],
    "two, with a system prompt": [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello."), ("user", "Why?")],
    "three": [
        ("system", "Be brief."), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"), ("user", "e"),
    ],
    "several lines": [("system", "One.\nTwo."), ("user", "a\n\nb"), ("assistant", "c\nd"), ("user", "e: <f> & \"g\"")],
    "other letters": [("user", "Grüß 日本 🦙"), ("assistant", "é"), ("user", "?")],
    "white space at the ends": [("system", " S "), ("user", " a "), ("assistant", " b "), ("user", "\nc\n")],
}  # fmt: skip


class Message(ctypes.Structure):
    _fields_ = [("role", ctypes.c_char_p), ("content", ctypes.c_char_p)]


def names(lib):
    found = (ctypes.c_char_p * 200)()
    n = lib.llama_chat_builtin_templates(found, ctypes.c_size_t(len(found)))
    return sorted(name.decode() for name in found[:n])


def formatted(lib, name, said):
    messages = (Message * len(said))(*[Message(role.encode(), content.encode()) for role, content in said])
    room = ctypes.create_string_buffer(1 << 16)
    n = lib.llama_chat_apply_template(name.encode(), messages, ctypes.c_size_t(len(said)), True, room, len(room))
    return room.raw[:n].decode() if n >= 0 else None


def ours(program, source, said):
    request = {
        "source": source,
        "messages": [{"role": role, "content": content} for role, content in said],
        "variables": {"bos_token": "<s>", "eos_token": "</s>"},
        "add_generation_prompt": True,
    }
    answer = subprocess.run([program, "--render-chat-template"], input=json.dumps(request), capture_output=True, text=True)
    return json.loads(answer.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--library", type=Path, help="a shared library that has llama.cpp's functions")
    args = parser.parse_args()
    library = args.library
    if library is None:
        library = next(Path(importlib.util.find_spec("xllamacpp").origin).parent.glob("xllamacpp*.so"))
    lib = ctypes.CDLL(str(library))
    own = [name for name in names(lib) if (HERE / f"src/chat/builtin/{name}.jinja").exists()]
    found = {name: {what: formatted(lib, name, said) for what, said in CONVERSATIONS.items()} for name in own}
    said = {what: [{"role": role, "content": content} for role, content in said] for what, said in CONVERSATIONS.items()}
    if args.out:
        args.out.write_text(json.dumps({"said": said, "formats": found}, indent=1, ensure_ascii=False) + "\n")
        print(f"{args.out}: {len(found)} formats, {len(CONVERSATIONS)} conversations each")
    if args.against:
        n = 0
        for name, wanted in found.items():
            path = HERE / f"src/chat/builtin/{name}.jinja"
            for what, said in CONVERSATIONS.items():
                answer = ours(args.against, path.read_text(), said)
                got = answer.get("Prompt", answer.get("Ok", answer))
                if got != wanted[what]:
                    n += 1
                    print(f"{name}, {what}:\n  llama.cpp {wanted[what]!r}\n  here      {got!r}")
        print(f"{n} differ")


if __name__ == "__main__":
    main()
