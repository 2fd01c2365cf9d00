#!/usr/bin/env bash
# The GPU tests under the emulator with sanitizers, once for each seed: reads and writes out of bounds, misaligned
# loads, undefined behaviour, and what depends on the order of threads, blocks and streams. No GPU is needed; g++ 12 or
# clang with their sanitizer runtimes are.
#
#     scripts/emulate.sh [WORDS]    only tests with one of these words in their names
#     SEEDS="1 2 3"                 orders to try
set -euo pipefail
cd "$(dirname "$0")/.."
cxx=${CXX:-c++}
out=${CARGO_TARGET_DIR:-target}/emulate
sanitize=(-fsanitize=address,undefined -fno-sanitize-recover=all -DEMU_STATIC_SHARED)

tests/emulator/build.sh "$out" selftest "${sanitize[@]}"
export ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0:abort_on_error=1:${ASAN_OPTIONS:-}
export UBSAN_OPTIONS=print_stacktrace=1
"$out/selftest"
for found in out_of_bounds:heap-buffer-overflow out_of_shared_bounds:"out of bounds" misaligned:"misaligned address"; do
  said=$("$out/selftest" "${found%%:*}" 2>&1 || true)
  [[ $said == *"${found#*:}"* ]] || { echo "emulate.sh: ${found%%:*} was not found: $said" >&2; exit 1; }
done

tests/emulator/build.sh "$out" driver "${sanitize[@]}"
EMULATOR=$(cd "$out" && pwd)
EMULATOR_PRELOAD=$("$cxx" -print-file-name=libasan.so)
export EMULATOR EMULATOR_PRELOAD
cargo test --locked --test gpu --no-run
for seed in ${SEEDS:-1 2 3}; do
  echo "== seed $seed" >&2
  EMU_SEED=$seed EMULATED_TESTS="$*" cargo test --locked --test gpu under_the_emulator -- --nocapture
done
