#!/usr/bin/env bash
# Everything that must hold on a machine with an NVIDIA card, and how fast it is there. Needs the driver, Python 3, and
# programs that were built elsewhere (`cargo build --release`, and the test program below); nothing else of this
# repository, and no Rust.
#
#   cargo build --release --locked
#   cargo test --release --locked --no-run --test gpu        # prints the path of the test program
#   scripts/gpu_check.sh --bin target/release --tests target/release/deps/gpu-HASH [--only tests|7b|mistral]
#       [--llama FOLDER] [--out FOLDER] [--threads N]
#
# Run it from the root of the repository, whose models the tests read.
# --llama: folder with llama.cpp's llama-bench, for the comparison; without it only our own figures are printed.
# --only:  one part, where a machine is lent for ten minutes at a time: `tests`, `7b` (Q4_0) or `mistral` (F16).
# Results go to stdout and, as JSON, to --out (default: gpu-check).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bin=target/release tests= llama= out=gpu-check only=all threads=$(nproc)
while [ $# -gt 0 ]; do
  [ $# -ge 2 ] || { echo "gpu_check.sh: $1 needs a value" >&2; exit 2; }
  case $1 in
    --bin) bin=$2 ;; --tests) tests=$2 ;; --llama) llama=$2 ;; --out) out=$2 ;; --only) only=$2 ;; --threads) threads=$2 ;;
    *) echo "gpu_check.sh: $1 is not known; see the head of the script" >&2; exit 2 ;;
  esac
  shift 2
done
case $only in all | tests | 7b | mistral) ;; *) echo "gpu_check.sh: --only $only: tests, 7b and mistral are known" >&2; exit 2 ;; esac
for program in powerinfer-run powerinfer-bench powerinfer-profile powerinfer-split; do
  [ -x "$bin/$program" ] || { echo "gpu_check.sh: $bin/$program is not there; build it and give its folder with --bin" >&2; exit 1; }
done
mkdir -p "$out"
wants() { [ "$only" = all ] || [ "$only" = "$1" ]; }

echo "date     $(date -u +%Y-%m-%d)"
echo "commit   $(git -C "$here" rev-parse --short HEAD 2>/dev/null || cat "$here/../COMMIT" 2>/dev/null || echo unknown)"
if command -v nvidia-smi >/dev/null; then
  nvidia-smi --query-gpu=name,driver_version,memory.total,pcie.link.gen.current,pcie.link.width.current --format=csv,noheader
fi
echo "host     $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $threads threads"

if wants tests; then
  [ -n "$tests" ] && [ -x "$tests" ] || { echo "gpu_check.sh: --tests: the test program is needed" >&2; exit 1; }
  echo "== kernels against plain Rust, and whole tokens against the CPU"
  # One at a time: freeing memory waits for all that runs on the card, and holds up the driver's calls of other threads
  # meanwhile, among them the thread whose answer the running kernel waits for.
  REQUIRE_GPU=1 "$tests" --test-threads 1 --skip under_the_emulator --skip the_emulator_finds 2>&1 | tail -n 40
  # What must have run on the card, and how it ended.
  on_card() {
    log=$1; shift
    "$@" 2> "$log" || { echo "failed:"; tail -n 5 "$log"; return 1; }
    if grep -q 'computing on the CPU' "$log"; then echo "the card was not used:"; grep 'computing on the CPU' "$log"; return 1; fi
  }
  echo "== 1000 tokens twice: the same text"
  for i in 1 2; do
    on_card "$out/text-$i.log" "$bin/powerinfer-run" -p "Once upon a time" -n 1000 --ignore-eos --temp 0 -c 2048 --device cuda > "$out/text-$i.txt" \
      || { cat "$out/text-$i.txt"; exit 1; }
  done
  cmp "$out/text-1.txt" "$out/text-2.txt" && echo "equal, $(wc -c < "$out/text-1.txt") bytes"
  tail -n 4 "$out/text-1.log"
  if command -v compute-sanitizer >/dev/null; then
    echo "== compute-sanitizer"
    # Kernels that wait for the CPU take long under it, so a short run.
    for tool in memcheck racecheck synccheck initcheck; do
      on_card "$out/sanitizer-$tool.log" timeout 120 compute-sanitizer --tool "$tool" --error-exitcode 9 --log-file "$out/sanitizer-$tool.txt" \
        "$bin/powerinfer-run" -p "Once" -n 4 --temp 0 --device cuda > /dev/null && echo "$tool: clean" || echo "$tool: see $out/sanitizer-$tool.txt"
    done
  else
    echo "== compute-sanitizer: not installed"
  fi
  echo "== this machine, as the planner sees it"
  rm -f "$out/machine.toml"
  "$bin/powerinfer-bench" --measure-hardware "$out/machine.toml" --device cuda -t "$threads"
fi
for part in 7b mistral; do
  if wants $part; then
    python3 "$here/gpu_bench.py" --bin "$bin" --part $part --threads "$threads" --out "$out" ${llama:+--llama "$llama"}
  fi
done
