#!/usr/bin/env bash
# Builds the tests for other machines and runs them here: for AArch64 under QEMU, as three processors, and for Windows under Wine.
#
#   scripts/cross.sh [--all | --quick] [arm] [windows]      both, unless one is named
#
# For each processor: the library's unit tests and the golden tests; for the last, which has all instruction sets, those that hold bits
# against each other, too, on every instruction set and for every type; the perplexity of the embedded model beside that on this machine.
# For Windows, which runs at full speed: unit tests, library, fuzz, the tests of the commands, writers that are killed or run out of disk,
# Ctrl-C at a terminal. --all takes all tests of the library crate for AArch64, too (hours); --quick only units of kernels and types.
# What is not installed is passed over and named; REQUIRE=1 makes that an error. From Debian: qemu-user, gcc-aarch64-linux-gnu,
# gcc-mingw-w64-x86-64, wine, wine64; from rustup: `rustup target add aarch64-unknown-linux-gnu x86_64-pc-windows-gnu`.
set -euo pipefail
cd "$(dirname "$0")/.."

# Cortex-A72 has NEON alone, Neoverse N1 dot products, too; QEMU's best has products of matrices of bytes.
PROCESSORS=(cortex-a72 neoverse-n1 max)
ARM=aarch64-unknown-linux-gnu
WINDOWS=x86_64-pc-windows-gnu
GOLDEN=(golden:: architectures::)
BITS=(exact::exact batches:: architecture_experts:: architecture_hybrid:: recurrent:: short_prompts::)
# Training is slow under an emulator, and the same on all processors: once is enough.
TRAINING=(predictor::mlp:: predictor::lowrank:: predictor::calibrate::)
# Holds that something takes seconds at the most.
TIMED=(placement::tests::eighty_layers)

how=some targets=()
for argument in "$@"; do
  case $argument in
    --all) how=all ;;
    --quick) how=quick ;;
    arm | windows) targets+=("$argument") ;;
    -h | --help) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"; exit ;;
    *) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
  esac
done
[ "${#targets[@]}" -gt 0 ] || targets=(arm windows)

work=$(mktemp -d)
trap '[ ! -d "$work/wine" ] || WINEPREFIX=$work/wine wineserver -k || true; rm -rf "$work"' EXIT
failed=0

# Says what is missing for a target; false if anything is.
have() { # NAME RUST_TARGET COMMAND...
  local name=$1 target=$2 missing=()
  shift 2
  for command in "$@"; do command -v "$command" >/dev/null || missing+=("$command"); done
  [ -d "$(rustc --print sysroot)/lib/rustlib/$target" ] || rustup target add "$target" >/dev/null 2>&1 || missing+=("Rust's target $target")
  [ "${#missing[@]}" = 0 ] && return
  printf '%s: skipped, there is no %s\n' "$name" "$(printf '%s, ' "${missing[@]}" | sed 's/, $//')"
  [ -z "${REQUIRE:-}" ] || failed=1
  return 1
}

# Builds and prints where: lines of NAME PATH for the tests, and the commands.
built() { # TARGET CARGO_ARGUMENT...
  local target=$1
  shift
  cargo test --locked --no-run --target "$target" "$@" --message-format=json >"$work/messages" || return
  python3 -c '
import json, sys
for line in open(sys.argv[1]):
    message = json.loads(line)
    if message.get("executable"):
        print(message["target"]["name"], message["executable"])' "$work/messages" >"$work/executables"
}
executable() { sed -n "s/^$1 //p" "$work/executables" | tail -n 1; }

# Runs tests; prints a line with their number, what failed, and how long they took.
tests() { # LABEL COMMAND...
  local label=$1 start=$SECONDS
  shift
  "$@" >"$work/log" 2>&1 || true
  local counts
  counts=$(sed -n 's/^test result: [^ ]* \([0-9]*\) passed; \([0-9]*\) failed; \([0-9]*\) ignored.*/\1 passed, \2 failed, \3 ignored/p' "$work/log" | tail -n 1)
  printf '%-34s %s, %d s\n' "$label" "${counts:-ended early}" $((SECONDS - start))
  case $counts in
    *", 0 failed,"*) ;;
    *)
      failed=1
      grep -E '^test .* FAILED|panicked|^---- ' "$work/log" | head -n 20 || tail -n 20 "$work/log"
      ;;
  esac
}

# Runs one of the scripts beside this one.
script() { # NAME ARGUMENT...
  local name=$1 start=$SECONDS end=passed
  shift
  "scripts/$name" "$@" >"$work/log" 2>&1 || { end=failed failed=1; }
  printf '%-34s %s, %d s\n' "wine: $name" "$end" $((SECONDS - start))
  [ "$end" = passed ] || tail -n 5 "$work/log"
}

# The perplexity of the embedded model.
perplexity() { # COMMAND...
  "$@" --perplexity tests/golden/stories.txt -c 128 --chunks 6 --mode exact --device cpu -t 2 -o json 2>"$work/log" |
    python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["perplexity"])' || { tail -n 3 "$work/log" >&2; echo none; }
}

arm() {
  have "AArch64" "$ARM" qemu-aarch64 aarch64-linux-gnu-gcc || return 0
  export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
  export QEMU_LD_PREFIX=/usr/aarch64-linux-gnu
  local here='' start=$SECONDS units=() library=("${GOLDEN[@]}")
  if [ "$how" != quick ]; then
    cargo build --locked --bin powerinfer-bench
    here=$(perplexity "${CARGO_TARGET_DIR:-target}/debug/powerinfer-bench" --isa plain)
    echo "perplexity on this machine, plain kernels: $here"
  fi
  built "$ARM" --lib --test library --bin powerinfer-bench
  echo "built for AArch64 in $((SECONDS - start)) s"
  for processor in "${PROCESSORS[@]}"; do
    export QEMU_CPU=$processor
    units=()
    [ "$how" != quick ] || units=(cpu:: quant::)
    for name in "${TIMED[@]}"; do units+=(--skip "$name"); done
    if [ "$processor" != max ]; then
      for name in "${TRAINING[@]}"; do units+=(--skip "$name"); done
    fi
    tests "$processor: units" qemu-aarch64 "$(executable powerinfer)" "${units[@]}"
    [ "$how" != quick ] || continue
    [ "$processor" != max ] || library+=("${BITS[@]}")
    [ "$how" != all ] || library=()
    tests "$processor: library" qemu-aarch64 "$(executable library)" "${library[@]}"
    there=$(perplexity qemu-aarch64 "${CARGO_TARGET_DIR:-target}/$ARM/debug/powerinfer-bench")
    python3 - "$here" "$there" "$processor" <<'END' || failed=1
import sys
if "none" in sys.argv[1:3]:
    sys.exit(f"{sys.argv[3]}: no perplexity")
here, there = map(float, sys.argv[1:3])
off = abs(there / here - 1)
print(f"{sys.argv[3] + ': perplexity':34} {there}, {off:.1e} from this machine's")
sys.exit(not off < 5e-4)
END
  done
}

windows() {
  have "Windows" "$WINDOWS" wine x86_64-w64-mingw32-gcc || return 0
  export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER=x86_64-w64-mingw32-gcc CC_x86_64_pc_windows_gnu=x86_64-w64-mingw32-gcc
  local start=$SECONDS build=${CARGO_TARGET_DIR:-target}/$WINDOWS/debug
  export WINEDEBUG=-all WINEPREFIX=$work/wine
  scripts/wine_prefix.sh "$WINEPREFIX" >"$work/log" 2>&1 || { tail -n 5 "$work/log"; failed=1; return; }
  local crates=(--lib --test library --test fuzz --test cli)
  [ "$how" != quick ] || crates=(--lib)
  built "$WINDOWS" "${crates[@]}"
  echo "built for Windows in $((SECONDS - start)) s"
  tests "wine: units" wine "$(executable powerinfer)"
  [ "$how" != quick ] || return 0
  for crate in library fuzz cli; do tests "wine: $crate" wine "$(executable "$crate")"; done
  export RUNNER=wine
  script kill_writers.sh 20 "$build"
  script full_disk.sh "$build"
  script ctrl_c.py "$build"
}

for target in "${targets[@]}"; do "$target"; done
exit "$failed"
