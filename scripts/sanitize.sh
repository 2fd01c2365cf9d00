#!/usr/bin/env bash
# The unsafe parts under sanitizers: kernels and prefill products under AddressSanitizer, the thread pool under
# ThreadSanitizer, pool and plain kernels under Miri (undefined behaviour). Minutes each. Needs the toolchain's sanitizer
# runtimes and, for Miri, its component and rust-src; they are unstable features, hence RUSTC_BOOTSTRAP.
set -euo pipefail
cd "$(dirname "$0")/.."
export RUSTC_BOOTSTRAP=1
target=$(rustc -vV | sed -n 's/^host: //p')

run() {
  echo "== $1" >&2
  shift
  "$@"
}

want=${1:-all}
if [[ $want == all || $want == address ]]; then
  run "address sanitizer: cpu" env RUSTFLAGS="-Zsanitizer=address" CARGO_TARGET_DIR=target/asan \
    cargo test --locked --lib --target "$target" cpu::
fi
if [[ $want == all || $want == thread ]]; then
  run "thread sanitizer: pool" env RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer" CARGO_TARGET_DIR=target/tsan \
    cargo test --locked --lib --target "$target" cpu::pool
fi
if [[ $want == all || $want == miri ]]; then
  run "miri: pool, rows, plain kernels" env MIRIFLAGS="-Zmiri-disable-isolation" CARGO_TARGET_DIR=target/miri \
    cargo miri test --locked --lib --target "$target" -- cpu::pool cpu::rows cpu::plain
fi
