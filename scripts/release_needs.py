#!/usr/bin/env python3
"""Which dynamic libraries programs need, and how old a system may be: for the three formats of programs.

    scripts/release_needs.py PROGRAM...

Prints a line per program, and fails where one needs what does not come with the system. ELF is read by readelf, Windows' format by
objdump, both of binutils.
"""
import re
import struct
import subprocess
import sys
from pathlib import Path

LINUX = {"libc.so.6", "libm.so.6", "libgcc_s.so.1", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libutil.so.1",
         "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
# Those of Windows 10 itself; msvcrt.dll is the system's own, not one that compilers bring.
WINDOWS = re.compile(r"(api-ms-win-[a-z0-9-]+|kernel32|kernelbase|ntdll|advapi32|user32|userenv|ws2_32|bcrypt|bcryptprimitives|shell32|gdi32|"
                     r"ole32|crypt32|secur32|dbghelp|synchronization|msvcrt|ucrtbase)\.dll")
MACOS = "/usr/lib/", "/System/Library/"
# Mach-O's commands.
LOAD, WEAK, REEXPORT, BUILD_VERSION, SIGNATURE = 0xC, 0x80000018, 0x8000001F, 0x32, 0x1D


def said(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def elf(path: str) -> tuple[list[str], str]:
    needs = re.findall(r"\(NEEDED\).*\[(.*)\]", said("readelf", "-d", path))
    versions = {tuple(map(int, v.split("."))) for v in re.findall(r"GLIBC_(\d+(?:\.\d+)+)", said("readelf", "-V", path))}
    return needs, "glibc " + ".".join(map(str, max(versions))) if versions else "any Linux"


def windows(path: str) -> tuple[list[str], str]:
    return re.findall(r"DLL Name: (\S+)", said("objdump", "-p", path)), "Windows 10"


def macos(data: bytes) -> tuple[list[str], str]:
    n_commands, at, needs, oldest, signed = struct.unpack_from("<I", data, 16)[0], 32, [], "macOS", False
    for _ in range(n_commands):
        command, size = struct.unpack_from("<2I", data, at)
        if command in (LOAD, WEAK, REEXPORT):
            name = at + struct.unpack_from("<I", data, at + 8)[0]
            needs.append(data[name : at + size].split(b"\0")[0].decode())
        elif command == BUILD_VERSION:
            version = struct.unpack_from("<I", data, at + 12)[0]
            oldest = f"macOS {version >> 16}.{version >> 8 & 255}"
        signed |= command == SIGNATURE
        at += size
    # ARM's refuse to run what is not signed, be it by nobody.
    return needs, oldest + ("" if signed else ", not signed")


def main() -> None:
    foreign = False
    for path in sys.argv[1:]:
        data = Path(path).read_bytes()
        if data.startswith(b"\x7fELF"):
            (needs, oldest), own = elf(path), LINUX.__contains__
        elif data.startswith(b"MZ"):
            (needs, oldest), own = windows(path), lambda name: WINDOWS.fullmatch(name.lower())
        elif data.startswith(b"\xcf\xfa\xed\xfe"):
            (needs, oldest), own = macos(data), lambda name: name.startswith(MACOS)
        else:
            sys.exit(f"{path}: is no program of Linux, Windows or macOS")
        print(f"{Path(path).name}: {len(data):,} bytes, {oldest}, needs {' '.join(sorted(needs)) or 'no library'}")
        for name in needs:
            if not own(name):
                print(f"error: {path}: needs {name}, which does not come with the system", file=sys.stderr)
                foreign = True
    sys.exit(foreign)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main()
