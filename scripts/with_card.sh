#!/usr/bin/env bash
# Runs a command on a machine that seems to have a card: programs find the emulator where they look for the driver. Settings of
# the device (EMU_VRAM, EMU_FAIL...) are in the head of tests/emulator/driver.cpp. Needs a C++20 compiler.
#
#     scripts/with_card.sh cargo test --locked
#     EMU_FAIL=cuInit=100 scripts/with_card.sh target/debug/powerinfer-run -p "Once upon a time" -n 4
set -euo pipefail
repository=$(cd "$(dirname "$0")/.." && pwd)
[ $# -gt 0 ] || { sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
# Where the tests build it, too.
emulator=${CARGO_TARGET_DIR:-$repository/target}/tmp/emulator
"$repository/tests/emulator/build.sh" "$emulator" driver
emulator=$(cd "$emulator" && pwd)
export LD_LIBRARY_PATH=$emulator${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
exec "$@"
