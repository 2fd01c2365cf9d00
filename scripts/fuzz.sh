#!/usr/bin/env bash
# Every target of tests/fuzz for MINUTES in all, with optimisation, checked arithmetic and a new order each time: how many
# executions, how many per second, and what went wrong. With COVERAGE=1 and the llvm-tools of the toolchain (rustup
# component add llvm-tools), the share of the readers' regions that were reached, too; that is slower by half.
#
#     scripts/fuzz.sh MINUTES [TARGET...]
#     FUZZ_SEED=7        the order of a run before; tests/fuzz/main.rs lists the other settings
set -euo pipefail
cd "$(dirname "$0")/.."
minutes=${1:?usage: scripts/fuzz.sh MINUTES [TARGET...]}
shift
targets=("$@")
[[ $# -gt 0 ]] || targets=(gguf variant predictor profile hardware registry template tokenizer text)
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/fuzz RUST_BACKTRACE=0
export CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS=true CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true
if [[ -n ${COVERAGE:-} ]]; then
  tools=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin
  [[ -x $tools/llvm-cov ]] || { echo "fuzz.sh: no $tools/llvm-cov: rustup component add llvm-tools" >&2; exit 1; }
  export RUSTFLAGS="-C instrument-coverage ${RUSTFLAGS:-}" LLVM_PROFILE_FILE=$CARGO_TARGET_DIR/fuzz-%p.profraw
  export CARGO_TARGET_DIR=$CARGO_TARGET_DIR/coverage
  rm -f "${LLVM_PROFILE_FILE%-*}"-*.profraw
fi
binary=$(cargo test --release --locked --test fuzz --no-run --message-format=json |
  sed -n 's/.*"executable":"\([^"]*fuzz-[^"]*\)".*/\1/p')

FUZZ_SECONDS=$((60 * minutes / ${#targets[@]}))
export FUZZ_SECONDS
failed=()
for target in "${targets[@]}"; do
  said=$(FUZZ_TARGET=$target "$binary" --test-threads 1 2>&1) || failed+=("$target")
  echo "$said" | sed -n "s/.*\.\.\. \($target .*\)/\1/; /^$target /p"
done

if [[ -n ${COVERAGE:-} ]]; then
  "$tools/llvm-profdata" merge -sparse "${LLVM_PROFILE_FILE%-*}"-*.profraw -o "$CARGO_TARGET_DIR/fuzz.profdata"
  readers=(src/gguf src/tokenizer src/profile/{file,header,sections,samples,fired_sets,reuse,choice}.rs
    src/model/{keys,load,lossless,neurons,predictor,cold,registry,activation,matrix}.rs src/model/arch
    src/predictor/file.rs src/placement/hardware.rs src/chat src/units.rs)
  "$tools/llvm-cov" report "$binary" --instr-profile "$CARGO_TARGET_DIR/fuzz.profdata" "${readers[@]}"
fi
[[ ${#failed[@]} -eq 0 ]] || { echo "fuzz.sh: faults in ${failed[*]}; inputs are in $CARGO_TARGET_DIR/tmp/fuzz" >&2; exit 1; }
