#!/usr/bin/env bash
# Makes a folder in which Wine runs builds for Windows. Where Wine is older than 8.13 it lacks the system's random numbers that
# Rust's standard library asks for; they are compiled then, on those that it has.
#
#     scripts/wine_prefix.sh FOLDER
#     export WINEPREFIX=$PWD/FOLDER WINEDEBUG=-all
#     wine target/x86_64-pc-windows-gnu/debug/powerinfer-run.exe -p "Once upon a time" -n 32
#
# Needs wine, wine64 and x86_64-w64-mingw32-gcc; no display.
set -euo pipefail

if [[ $# -ne 1 || $1 == -* ]]; then
  sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0" >&2
  exit 2
fi
mkdir -p "$1"
WINEPREFIX=$(cd "$1" && pwd)
export WINEPREFIX WINEDEBUG=-all WINEDLLOVERRIDES=mscoree,mshtml=
wineboot -i
wineserver -w
system=$WINEPREFIX/drive_c/windows/system32
[[ ! -e $system/bcryptprimitives.dll ]] || exit 0
x86_64-w64-mingw32-gcc -O2 -shared -x c - -o "$system/bcryptprimitives.dll" -ladvapi32 << 'EOF'
#include <windows.h>
BOOLEAN NTAPI SystemFunction036(PVOID, ULONG);
__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE bytes, SIZE_T n)
{
    for (SIZE_T part; n > 0; bytes += part, n -= part) {
        part = n < 1 << 20 ? n : 1 << 20;
        if (!SystemFunction036(bytes, (ULONG)part)) return FALSE;
    }
    return TRUE;
}
EOF
