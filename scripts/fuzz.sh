#!/usr/bin/env bash
# Every target of tests/fuzz, for MINUTES in all, with optimisation, checked arithmetic and another order each time: how
# many executions, how many per second, and what went wrong. With COVERAGE=1 also what share of the readers was reached,
# which takes about half as long again; that needs the toolchain's llvm-tools (rustup component add llvm-tools).
#
#     scripts/fuzz.sh MINUTES [TARGET...]
#     FUZZ_SEED=7        the order of a run before; tests/fuzz/main.rs lists the other settings
set -euo pipefail
cd "$(dirname "$0")/.."
minutes=${1:?usage: scripts/fuzz.sh MINUTES [TARGET...]}
shift
targets=("$@")
[[ $# -gt 0 ]] || targets=(gguf variant mixtures pwri predictor profile hardware registry template tokenizer text)
out=$(realpath -m "${CARGO_TARGET_DIR:-target}/fuzz")
export CARGO_TARGET_DIR=$out RUST_BACKTRACE=0
export CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS=true CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true
if [[ -n ${COVERAGE:-} ]]; then
  tools=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin
  [[ -x $tools/llvm-cov ]] || { echo "fuzz.sh: no $tools/llvm-cov: rustup component add llvm-tools" >&2; exit 1; }
  rm -rf "$out/counts"
  mkdir -p "$out/counts"
  # Only what is ours counts. The path stays the same, or all would be compiled again. Other shells drop the variables with
  # dashes in their names that cargo sets.
  printf '#!/usr/bin/env bash\nexec "$@" -C instrument-coverage\n' > "$out/counting-rustc"
  chmod +x "$out/counting-rustc"
  export RUSTC_WORKSPACE_WRAPPER=$out/counting-rustc LLVM_PROFILE_FILE=$out/build.profraw
fi
binary=$(cargo test --release --locked --test fuzz --no-run --message-format=json-render-diagnostics |
  sed -n 's/.*"executable":"\([^"]*\/fuzz-[^"]*\)".*/\1/p')

FUZZ_SECONDS=$((60 * minutes / ${#targets[@]}))
export FUZZ_SECONDS LLVM_PROFILE_FILE=$out/counts/%p.profraw
failed=()
for target in "${targets[@]}"; do
  said=$(FUZZ_TARGET=$target "$binary" --test-threads 1 2>&1) || failed+=("$target")
  sed -n "s/^test .* \.\.\. \($target .*\)/\1/; /^$target /p" <<< "$said"
done

if [[ -n ${COVERAGE:-} ]]; then
  "$tools/llvm-profdata" merge -sparse "$out"/counts/*.profraw -o "$out/counts.profdata"
  readers=(src/gguf/{cursor,decode,header,metadata,v1,value}.rs src/tokenizer
    src/profile/{file,header,sections,samples,fired_sets,reuse,choice}.rs
    src/model/{activation,cold,config,keys,load,lossless,neurons,predictor,registry,weights}.rs src/model/arch
    src/predictor/file.rs src/placement/hardware.rs src/chat src/units.rs)
  "$tools/llvm-cov" report "$binary" --instr-profile "$out/counts.profdata" "${readers[@]}"
fi
[[ ${#failed[@]} -eq 0 ]] || { echo "fuzz.sh: faults in ${failed[*]}; inputs are in $out/tmp/fuzz" >&2; exit 1; }
