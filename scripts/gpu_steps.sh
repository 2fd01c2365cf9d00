#!/usr/bin/env bash
# The steps of gpu_check.sh, which runs each in a process of its own, under a limit of time:
#
#     scripts/gpu_steps.sh --table     a line for each: name | part | estimated seconds | limit in seconds | what it tells
#     scripts/gpu_steps.sh NAME        does it
#
# A step prints what it likes. `figure: TEXT` is what the row shows of it, `skipped: WHY` with exit status 77 that it cannot be
# done here; any other status but 0 is a failure, for which the last line counts. Estimates are for the card's time on a machine
# with 16 cores, an SSD and PCIe 4.0 or better; nothing of them has been measured on a card.
#
# From the environment: BUNDLE (what gpu_pack.sh made, or empty), BIN (folder of the four commands), TESTS (the GPU test program),
# OUT (small results), WORK (models), THREADS, LLAMA (folder of llama-bench, or empty), TINY (1: shapes for the emulator).
set -euo pipefail
shopt -s inherit_errexit
export LC_ALL=C
here=$(cd "$(dirname "$0")" && pwd)

table() {
  cat << 'TABLE'
unpack|0|3|60|the programs, out of the bundle
driver|1|3|30|driver, card, bus and processor
kernels|1|15|60|each decode kernel at the shapes of a 7B: microseconds and GB/s; launching a graph of 80 layers
hardware-cold|1|20|75|what the planner measures, with the kernels compiled anew by the driver
hardware-warm|1|14|60|the same with the driver's cache
TABLE
  local file module cost
  for file in $(cd "$here/../tests/gpu" && grep -l '^#\[test\]' -- *.rs); do
    module=${file%.rs}
    case $module in
      main) continue ;;
      hybrid) cost="12|60" ;;
      attention | attention_prefill | gemm | ffn) cost="5|40" ;;
      *) cost="2|30" ;;
    esac
    echo "test-${module//_/-}|1|$cost|tests/gpu/$file on the card"
  done
  cat << 'TABLE'
text-cuda|1|4|40|200 tokens of the embedded model on the card
text-again|1|2|40|the same once more: is the text the same?
text-cpu|1|3|40|the same on the CPU: where does the text differ first?
layers-model|1|8|75|writes 8 layers of a 7B, Q4_0, 10 % of the neurons firing
layers-100|1|8|60|these on the card, exact and dense, without a limit of memory
layers-70|1|8|60|within 70 % of their bytes
layers-25|1|8|60|within 25 % of their bytes
sanitizer-memcheck|2|25|90|compute-sanitizer: accesses out of bounds
sanitizer-racecheck|2|25|90|compute-sanitizer: races in shared memory
sanitizer-synccheck|2|25|90|compute-sanitizer: barriers
sanitizer-initcheck|2|25|90|compute-sanitizer: reads of what was not written
long-text|2|15|90|1000 tokens of the embedded model twice on the card
TABLE
  # llama.cpp is started a dozen times for each budget.
  local costs=("90|300" "150|400")
  [ -z "${LLAMA:-}" ] || costs=("270|560" "400|590")
  echo "bench-7b|2|${costs[0]}|a whole 7B, Q4_0, within 110 to 25 % of its bytes${LLAMA:+, beside llama.cpp}"
  echo "bench-mistral|2|${costs[1]}|a whole Mistral 7B, F16, likewise"
}

skip() {
  echo "skipped: $*"
  exit 77
}

# What commands say is kept in variables and shown on standard error: a full disk must not look like a fault of theirs.

# on_card COMMAND...: runs it, and fails where the card was not used after all.
on_card() {
  local said
  { said=$("$@" 2>&1 >&3 | tee /dev/stderr); } 3>&1
  if [[ $said == *"computing on the CPU"* ]]; then
    grep 'computing on the CPU' <<< "$said" >&2
    return 1
  fi
}

# field NAME: values of a field in rows of JSON on standard input.
field() {
  grep -oE "\"$1\": ?(\"[^\"]*\"|[0-9.e+-]+)" | sed -E "s/^\"$1\": ?//; s/^\"//; s/\"$//"
}

unpack() {
  mkdir -p "$BIN"
  if command -v xz > /dev/null; then
    xz -dc "$BUNDLE" | tar -C "$BIN" -xf -
  else
    python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' "$BUNDLE" "$BIN"
  fi
  chmod +x "$BIN"/powerinfer-* "$TESTS"
  echo "figure: $(du -sb "$BIN" | cut -f1) bytes of programs, of $(cat "$BIN/COMMIT")"
}

driver() {
  date -u +"date %Y-%m-%d %H:%M:%S"
  echo "commit $(cat "$BIN/COMMIT" 2> /dev/null || git -C "$here" rev-parse --short HEAD 2> /dev/null || echo unknown)"
  echo "host $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores, kernel $(uname -r)"
  sed -n 's/^\(MemTotal\|MemAvailable\)/memory \1/p' /proc/meminfo
  df -h "$WORK" "$OUT" | sed 's/^/disk /'
  lscpu 2> /dev/null | grep -iE 'numa|l3|mhz' || true
  cat /proc/driver/nvidia/version 2> /dev/null || echo "no /proc/driver/nvidia/version"
  for tool in nvcc compute-sanitizer ncu python3; do
    echo "$tool $(command -v $tool || echo -)"
  done
  ldconfig -p 2> /dev/null | grep libcuda || true
  if command -v lspci > /dev/null; then lspci -vv -d 10de: 2> /dev/null | grep -iE '^[0-9a-f]|LnkCap:|LnkSta:' || true; fi
  command -v nvidia-smi > /dev/null || skip "no nvidia-smi"
  # Under load, since links and clocks rest otherwise: the step `kernels` follows, and hardware files have the bandwidth.
  nvidia-smi -q | grep -E 'Product Name|Driver Version|CUDA Version|Persistence|Display Active|MIG Mode|Current|Max  |Link Gen|Link Width|Host |Device |Total  |Free  |Power Limit|Graphics  |SM  |Memory  |Compute Mode|ECC|BAR1|Bus Id|Addressing' || true
  nvidia-smi topo -m 2> /dev/null || true
  nvidia-smi --query-compute-apps=pid,used_memory --format=csv,noheader || true
  echo "figure: $(nvidia-smi --query-gpu=name,driver_version,memory.total,pcie.link.gen.max,pcie.link.width.max,clocks.max.mem --format=csv,noheader | head -n 1)"
}

kernels() {
  local help rows run=("$BIN/powerinfer-bench" --synthetic $few --cache-dir "$WORK/kernels" --kernels --device cuda -t "$THREADS" -o jsonl)
  help=$("$BIN/powerinfer-bench" --help)
  [[ $help == *--kernels* ]] || skip "this build has no bench --kernels"
  [[ $help != *--types* ]] || run+=(--types $types)
  rows=$("${run[@]}" | tee /dev/stderr)
  rm -rf "$WORK/kernels"
  keep kernels.jsonl "$rows"
  local best graph loading
  best=$(field gb_per_s <<< "$rows" | sort -g | tail -n 1 | sed -E 's/\..*//') || true
  graph=$(grep '"graph"' <<< "$rows" | grep 'the call' | field us) || true
  loading=$(grep '"loading"' <<< "$rows" | field us) || true
  echo "figure: $(wc -l <<< "$rows") rows, up to ${best:-?} GB/s; launching a graph of 80 layers ${graph:-?} us; loading ${loading:-?} us"
}

# keep FILE TEXT: appends to a file of results. What cannot be kept is in the log.
keep() {
  printf '%s\n' "$2" >> "$OUT/$1" || echo "$1 cannot be written"
}

# value KEY FILE: of the last `KEY = value` in a TOML file.
value() {
  sed -n "s/^$1 = //p" "$2" | tail -n 1
}

# hardware NAME: what the planner measures, into NAME.toml.
hardware() {
  local file=$OUT/$1.toml start=$EPOCHREALTIME
  rm -f "$file"
  on_card "$BIN/powerinfer-bench" --measure-hardware "$file" --device cuda -t "$THREADS"
  [ -n "$(value rendezvous_us "$file")" ] || { echo "no card in $file"; return 1; }
  local took
  took=$(awk "BEGIN { printf \"%.1f\", $EPOCHREALTIME - $start }")
  echo "figure: $took s in all; kernel $(value kernel_us "$file") us, rendezvous $(value rendezvous_us "$file") us, bus $(sed -n '/^\[bus\]/,$p' "$file" | sed -n 's/^gb_s = //p') GB/s"
}

tests() {
  # Without a compiler, for the tests that build the emulator: this is about the card.
  # One thread, so that the name of a test comes before what it does.
  local said status=0 failed
  said=$(REQUIRE_GPU=1 CXX=/nonexistent "$TESTS" "$1::" --nocapture --test-threads 1 2>&1 | tee /dev/stderr) || status=$?
  failed=$(sed -nE 's/^    ([a-z_]+::[a-z0-9_:]+)$/\1/p' <<< "$said" | sort -u | paste -sd' ')
  if [ $status -ne 0 ]; then
    echo "${failed:-ended with status $status in $(sed -nE 's/^test ([a-z_]+::[a-z0-9_:]+).*/\1/p' <<< "$said" | tail -n 1)}"
    return 1
  fi
  said=$(sed -nE 's/^test result: [a-zA-Z]+\. ([0-9]+ passed; [0-9]+ failed).*/\1/p' <<< "$said")
  case $said in "" | "0 passed"*) echo "no test of $1 has run"; return 1 ;; esac
  echo "figure: $said"
}

# text NAME DEVICE N: prints the tokens that follow, and how fast they came, as JSON, which is kept for other steps.
text() {
  local said run=("$BIN/powerinfer-run" -p "Once upon a time" -n "$3" --ignore-eos --temp 0 -c 2048 -t "$THREADS" --device "$2" --json)
  run+=(--hardware "$described")
  if [ "$2" = cpu ]; then said=$("${run[@]}"); else said=$(on_card "${run[@]}"); fi
  echo "$said" > "$WORK/$1.json" || true
  echo "$said"
}

tokens() {
  grep -oE '"tokens": ?\[[^]]*\]' | grep -oE '[0-9]+'
}

# differ A B: where the tokens of two texts, as JSON, differ first.
differ() {
  local n a b
  a=$(tokens <<< "$1") b=$(tokens <<< "$2")
  [ "$a" != "$b" ] || { echo "the same $(wc -l <<< "$a") tokens"; return; }
  n=$(diff <(echo "$a") <(echo "$b") | sed -nE '1s/^([0-9]+).*/\1/p') || true
  echo "other tokens from number $n on"
}

# speeds: tokens/s by mode, of rows of JSON on standard input.
speeds() {
  sed -nE 's/.*"mode": ?"([a-z]+)".*"avg_ts": ?([0-9]+(\.[0-9]{1,2})?).*/\1 \2 tokens\/s/p' | paste -sd, | sed 's/,/, /g'
}

# speed: tokens/s of a text, as JSON on standard input.
speed() {
  field decode_ts | sed -E 's/(\.[0-9]{2})[0-9]*/\1/'
}

# layers PERCENT: the model of `layers-model` with so much of its bytes on the card.
layers() {
  local file row rows='' budget=() known=()
  file=$(ls "$WORK"/layers/synthetic-*.gguf 2> /dev/null | tail -n 1 || true)
  [ -n "$file" ] || skip "there is no model (layers-model)"
  [ "$1" = 100 ] || budget=(--vram-budget "$(($(stat -Lc %s "$file") * $1 / 100 / 2097152 * 2097152))B")
  [ ! -s "$OUT/hardware-warm.toml" ] || known=(--hardware "$OUT/hardware-warm.toml")
  if [ "${TINY:-}" = 1 ]; then
    # The emulator is slower than the processor, and the model smaller than what is not weights.
    known=(--hardware "$described")
    [ "$1" = 100 ] || budget=(--vram-budget 24MiB)
  fi
  for mode in exact dense; do
    row=$(on_card "$BIN/powerinfer-bench" -m "$file" -p 0 -n $n_gen -r $repetitions --text random --mode $mode --device cuda \
      "${budget[@]}" "${known[@]}" -t "$THREADS" -o jsonl | tee /dev/stderr)
    keep rows.jsonl "$row"
    [[ $row != *'"backend":"CPU"'* ]] || { echo "the card was not used"; return 1; }
    rows+=$row$'\n'
  done
  echo "figure: $(speeds <<< "$rows")"
}

sanitizer() {
  command -v compute-sanitizer > /dev/null || skip "compute-sanitizer is not installed"
  # Kernels that wait for the CPU take long under it: a short run.
  on_card compute-sanitizer --tool "$1" --error-exitcode 9 "$BIN/powerinfer-run" -p "Once" -n 4 --temp 0 \
    -t "$THREADS" --device cuda
  echo "figure: clean"
}

bench() {
  command -v python3 > /dev/null || skip "no python3"
  local part=$1 known=()
  [ "${TINY:-}" != 1 ] || part=tiny known=(--hardware "$described")
  python3 "$here/gpu_bench.py" --bin "$BIN" --part $part --n-gen $n_gen --repetitions $repetitions --threads "$THREADS" \
    --out "$OUT" --work "$WORK" "${known[@]}" ${LLAMA:+--llama "$LLAMA"}
}

[ $# -eq 1 ] || { sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
[ "$1" != --table ] || { table; exit; }
: "${BIN:?}" "${TESTS:?}" "${OUT:?}" "${WORK:?}" "${THREADS:?}"
mkdir -p "$OUT" "$WORK"
# Nothing of the user's: neither models nor measurements nor what the driver compiled.
export XDG_CACHE_HOME=$WORK/cache CUDA_CACHE_PATH=$WORK/cache/cuda
# With which the card is worth its while for the smallest model, too, and nothing need be measured first.
described=$here/../hardware/rtx-4090-ddr5.toml
few=7b-2 eight=7b-8 types=q4_0,q4_k,q6_k,q8_0,f16 n_text=200 n_long=1000 n_gen=64 repetitions=3
[ "${TINY:-}" != 1 ] || few=test-1 eight=test-2 types=q4_0,f16 n_text=8 n_long=12 n_gen=4 repetitions=1

case $1 in
  unpack | driver) ;;
  *) [ -x "$BIN/powerinfer-bench" ] && [ -x "$TESTS" ] || skip "the programs are not there" ;;
esac
case $1 in
  unpack) unpack ;;
  driver) driver ;;
  kernels) kernels ;;
  hardware-cold)
    rm -rf "$CUDA_CACHE_PATH"
    CUDA_CACHE_DISABLE=1 hardware "$1"
    ;;
  hardware-warm)
    # Fills the driver's cache; the step before was to find none.
    "$BIN/powerinfer-run" -p x -n 1 -t "$THREADS" --device cuda --hardware "$described" > /dev/null || true
    hardware "$1"
    ;;
  test-*)
    module=${1#test-}
    tests "${module//-/_}"
    ;;
  text-cuda)
    text=$(text text-cuda cuda $n_text)
    echo "figure: $(speed <<< "$text") tokens/s"
    ;;
  text-again)
    [ -s "$WORK/text-cuda.json" ] || skip "there is no text-cuda to compare with"
    text=$(text text-again cuda $n_text)
    said=$(differ "$(cat "$WORK/text-cuda.json")" "$text")
    echo "figure: $said"
    [[ $said == "the same "* ]]
    ;;
  text-cpu)
    [ -s "$WORK/text-cuda.json" ] || skip "there is no text-cuda to compare with"
    text=$(text text-cpu cpu $n_text)
    echo "figure: $(differ "$(cat "$WORK/text-cuda.json")" "$text"); $(speed <<< "$text") tokens/s on the CPU"
    ;;
  layers-model)
    "$BIN/powerinfer-bench" --synthetic $eight:q4_0:0.1 --cache-dir "$WORK/layers" -p 0 -n 1 -r 1 --device cpu -t "$THREADS" -o jsonl
    size=$(stat -Lc %s "$WORK"/layers/synthetic-*.gguf | tail -n 1)
    echo "figure: $size bytes"
    ;;
  layers-*) layers "${1#layers-}" ;;
  sanitizer-*) sanitizer "${1#sanitizer-}" ;;
  long-text)
    text=$(text long-1 cuda $n_long)
    said=$(differ "$text" "$(text long-2 cuda $n_long)")
    echo "figure: $said, $(speed <<< "$text") tokens/s"
    [[ $said == "the same "* ]]
    ;;
  bench-*) bench "${1#bench-}" ;;
  *)
    echo "gpu_steps.sh: $1: no such step" >&2
    exit 2
    ;;
esac
