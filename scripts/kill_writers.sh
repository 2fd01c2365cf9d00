#!/usr/bin/env bash
# Kills each command that writes files with SIGKILL, N times in all, at random moments and around the end of its work, and looks
# at what is left: an output is the old one or the new one, whole, and after the next writer there are no temporary files. What
# was interrupted and can be resumed must end with the bytes of an unbroken run. Takes seconds per kill.
#
#     scripts/kill_writers.sh N [BUILD]
#     scripts/kill_writers.sh 200 target/release
#
# BUILD is a folder with the four commands [default: target/release]. SEED=NUMBER repeats the choice of moments, as far as the
# machine does. ONLY="profile plot" takes only those writers. RUNNER=wine runs a build for Windows (scripts/wine_prefix.sh).
# Prints a line per writer; exits with 1 at the first wrong file.
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
. "$repository/scripts/writers.sh"
seconds() { date +%s.%N; }

echo "what was there before" > before.file
# `/save` writes over nothing else.
echo '[{"role": "user", "content": "before"}]' > before.saved

all=0
count=$(wc -w <<< "$writers")
place=0
printf '%-10s %6s %6s %6s %6s %8s %10s\n' writer kills none old new resumed temporary
for writer in $writers; do
  place=$((place + 1))
  wanted=$((n_kills * place / count - n_kills * (place - 1) / count))
  mkdir "$writer"
  out=$(output_of "$writer")
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
