#!/usr/bin/env bash
# Kills each command that writes files with SIGKILL, N times in all, at random moments and around the end of its work, and looks
# at what is left: an output is the old one or the new one, whole, and after the next writer there are no temporary files. What
# was interrupted and can be resumed must end with the bytes of an unbroken run. Takes seconds per kill.
#
#     scripts/kill_writers.sh N [BUILD]
#     scripts/kill_writers.sh 200 target/release
#
# BUILD is a folder with the four commands [default: target/release]. SEED=NUMBER repeats the choice of moments, as far as the
# machine does. ONLY="profile plot" takes only those writers. Prints a line per writer; exits with 1 at the first wrong file.
set -euo pipefail

if [[ $# -lt 1 || ! $1 =~ ^[0-9]+$ ]]; then
  sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0" >&2
  exit 2
fi
n_kills=$1
repository=$(cd "$(dirname "$0")/.." && pwd)
build=$(cd "${2:-$repository/target/release}" && pwd)
RANDOM=${SEED:-$$}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
model=$repository/models/tiny-stories-f16.gguf
for i in $(seq 60); do echo "The dog and the big girl ran to house number $i and were happy."; done > text

profile=("$build/powerinfer-profile" -t 2) split=("$build/powerinfer-split" -t 2) bench=("$build/powerinfer-bench" -t 1)

# Sets `command` to what writes $2.
command_of() { # WRITER OUTPUT
  case $1 in
    profile) command=("${profile[@]}" -m "$model" -f text -c 64 --samples 400 --checkpoint-seconds 0 -o "$2") ;;
    merged) command=("$build/powerinfer-profile" --merge reference.profile -o "$2") ;;
    plot) command=("$build/powerinfer-profile" --show reference.profile --plot "$2") ;;
    report) command=("$build/powerinfer-profile" --show reference.profile --report "$2") ;;
    plan) command=("${split[@]}" --dry-run --shape mistral-7b --hardware "$repository/hardware/rtx-4090-ddr5.toml" --plot "$2") ;;
    variant) command=("${split[@]}" -m "$model" --profile reference.profile --no-kl -o "$2") ;;
    quantized) command=("${split[@]}" -m "$model" --type q8_0 --quantize-only -o "$2") ;;
    packed) command=("${split[@]}" -m reference.variant --predictor reference.sign -o "$2") ;;
    sign) command=("${profile[@]}" -m "$model" --predictor sign --samples-from reference.profile -o "$2") ;;
    lowrank)
      command=("${profile[@]}" -m "$model" --predictor lowrank --predictor-size 32 --samples-from reference.profile -o "$2")
      ;;
    # The cache is a folder, in which the file has a name of its own.
    synthetic) command=("${bench[@]}" --synthetic test-4 --cache-dir "$(dirname "$2")" -p 1 -n 0 -r 1) ;;
    session) command=("$build/powerinfer-run" -p "$(head -n 20 text)" -n 1 --temp 0 -t 2 --device cpu --prompt-cache "$2") ;;
    # A conversation that is typed into a pipe; `exec` keeps its process the one to kill.
    saved)
      printf 'hi\nand more\n/save %s\n' "$2" > said
      command=(bash -c 'exec "$0" "$@" < said' "$build/powerinfer-run" -cnv --chat-template chatml -n 4 --temp 0 -t 2 --device cpu)
      ;;
    hardware) command=("${bench[@]}" --measure-hardware "$2") ;;
    *) die "$1: no such writer" ;;
  esac
}
writers=${ONLY:-profile merged plot report plan variant quantized packed sign lowrank session saved synthetic hardware}

die() { echo "kill_writers.sh: $*" >&2; exit 1; }
# Runs the writer to its end.
whole() { # WRITER OUTPUT
  command_of "$1" "$2"
  "${command[@]}" > whole.out 2> whole.err || { cat whole.err >&2; die "$1: failed without being killed"; }
}
temporary() { find "$1" -name '*.partial' | wc -l; }
seconds() { date +%s.%N; }

echo "what was there before" > before.file
# `/save` writes over nothing else.
echo '[{"role": "user", "content": "before"}]' > before.saved
whole profile reference.profile
whole variant reference.variant
whole sign reference.sign

all=0
count=$(wc -w <<< "$writers")
place=0
printf '%-10s %6s %6s %6s %6s %8s %10s\n' writer kills none old new resumed temporary
for writer in $writers; do
  place=$((place + 1))
  wanted=$((n_kills * place / count - n_kills * (place - 1) / count))
  mkdir "$writer"
  out=$writer/out
  [[ $writer != synthetic ]] || out=$writer/synthetic-test-q4_0-d0.10-l4-s0-v1-variant.gguf
  begun=$(seconds)
  whole "$writer" "$out"
  once=$(awk "BEGIN { print $(seconds) - $begun }")
  mv "$out" "$writer.reference"
  none=0 old=0 new=0 resumed=0 temporary=0
  for i in $(seq "$wanted"); do
    # Something is there before, every second time. What is never replaced, or only where it is of its kind, has nothing before it.
    before=
    if [[ $writer != session && $writer != synthetic && $writer != hardware && $((i % 2)) -eq 0 ]]; then
      before=before.file
      [[ $writer != saved ]] || before=before.saved
      cp "$before" "$out"
    fi
    share=$((RANDOM % 1000))
    [[ $((i % 3)) -ne 0 ]] || share=$((800 + RANDOM % 250))
    command_of "$writer" "$out"
    "${command[@]}" > killed.out 2> killed.err &
    pid=$!
    sleep "$(awk "BEGIN { printf \"%.4f\", $once * $share / 1000 }")"
    kill -KILL $pid 2> /dev/null || true
    { wait $pid || true; } 2> /dev/null
    all=$((all + 1))
    ! grep -q 'resuming after' killed.err || resumed=$((resumed + 1))
    temporary=$((temporary + $(temporary "$writer")))
    if [[ ! -e $out ]]; then
      [[ ! $before ]] || die "$writer: what was there before is gone"
      none=$((none + 1))
    elif [[ $before ]] && cmp -s "$out" "$before"; then
      old=$((old + 1))
      rm "$out"
    elif [[ $writer == hardware ]]; then
      # Measured, so never the same twice: it is whole if it can be planned with.
      "${split[@]}" --shape 7b --dry-run --hardware "$out" > /dev/null 2>&1 || die "$writer: a part of a file"
      new=$((new + 1))
      rm "$out"
    else
      cmp -s "$out" "$writer.reference" || die "$writer: neither the old file nor the new one"
      new=$((new + 1))
      rm "$out" && rm -f "$out.part"
    fi
  done
  rm -f "$out"
  whole "$writer" "$out"
  [[ $writer == hardware ]] || cmp -s "$out" "$writer.reference" || die "$writer: after the kills it writes something else"
  left=$(temporary "$writer")
  [[ $left -eq 0 ]] || die "$writer: $left temporary files stay after the next writer"
  [[ ! -e $out.part ]] || die "$writer: a checkpoint stays"
  printf '%-10s %6d %6d %6d %6d %8d %10d\n' "$writer" "$wanted" "$none" "$old" "$new" "$resumed" "$temporary"
done
echo "$all kills: every file whole, no temporary file after the next writer"
