#!/usr/bin/env bash
# The unsafe parts under sanitizers: kernels and prefill products under AddressSanitizer, the thread pool under
# ThreadSanitizer and Miri, the plain kernels and the mailbox under Miri (undefined behaviour). Minutes each. The first needs the
# sanitizer runtimes that come with the toolchain; the others need a nightly toolchain with rust-src and miri.
#
#     scripts/sanitize.sh [address|thread|miri]
set -euo pipefail
cd "$(dirname "$0")/.."
target=$(rustc -vV | sed -n 's/^host: //p')

run() {
  echo "== $1" >&2
  shift
  "$@"
}

want=${1:-all}
if [[ $want == all || $want == address ]]; then
  run "address sanitizer: cpu" env RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address" CARGO_TARGET_DIR=target/asan \
    cargo test --locked --lib --target "$target" cpu::
fi
if [[ $want == all || $want == thread ]]; then
  run "thread sanitizer: pool" env RUSTFLAGS="-Zsanitizer=thread" CARGO_TARGET_DIR=target/tsan \
    cargo +nightly test -Zbuild-std --locked --release --lib --target "$target" cpu::pool
fi
if [[ $want == all || $want == miri ]]; then
  run "miri: pool, rows, plain kernels, mailbox" env MIRIFLAGS="-Zmiri-disable-isolation" CARGO_TARGET_DIR=target/miri \
    cargo +nightly miri test --locked --lib -- cpu::pool cpu::rows cpu::plain gpu::mailbox gpu::memory
fi
