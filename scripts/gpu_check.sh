#!/usr/bin/env bash
# What a machine with an NVIDIA card can tell that no other can: whether everything works there, and how fast it is. Needs the
# driver, bash, coreutils and what scripts/gpu_pack.sh packs; no Rust, no network. For a whole 7B, Python 3.
#
#     scripts/gpu_pack.sh target/gpu.tar.xz                         where Rust is
#     scripts/gpu_check.sh --bundle target/gpu.tar.xz --out OUT     where the card is, in the root of the repository
#
#     --plan           print the steps with their estimated seconds, and the sum; run nothing
#     --list           print the names of the steps
#     --part N         1 (the default): what teaches most, in four minutes; 2: sanitizers, whole models
#     --only NAME...   these steps, of either part
#     --bundle FILE    the programs, packed; or --bin FOLDER (the four commands) and --tests FILE (the GPU test program)
#     --out FOLDER     results, a few small files [gpu-check]; what is there stays, and rows are appended
#     --work FOLDER    models, logs, the unpacked programs: gigabytes [a new folder in TMPDIR, removed at the end]
#     --threads N      threads of the CPU [all]
#     --llama FOLDER   where llama.cpp's llama-bench is, for part 2
#     --seconds N      begin no step that would end later, by its estimate
#     --limit N        no step may take more than N seconds
#     --tiny           tiny shapes, for a rehearsal under the emulator
#
# A step has a process, a log and a limit of time of its own; what becomes of it is a row in OUT/results.tsv (step, ok, failed,
# timed out or skipped, seconds, a figure or the reason), which is written before the next step begins. Whatever happens, what was
# found until then is there: OUT/summary.txt (the rows, to be read), OUT/tails.txt (how each log ends), kernels.jsonl, rows.jsonl,
# hardware-*.toml, and at the end logs.tar.xz. Exit status 1 if a step failed, 143 after SIGTERM.
set -uo pipefail
export LC_ALL=C
here=$(cd "$(dirname "$0")" && pwd)
steps=$here/gpu_steps.sh

bin='' tests='' bundle='' llama='' out=gpu-check work='' part=1 only='' threads=$(nproc) seconds='' limit='' tiny='' show=''
usage() {
  echo "gpu_check.sh: $*; see the head of the script" >&2
  exit 2
}
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help)
      sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"
      exit
      ;;
    --plan | --list) show=${1#--} ;;
    --tiny) tiny=1 ;;
    --only)
      while [ $# -ge 2 ] && [[ $2 != --* ]]; do
        only="$only $2"
        shift
      done
      [ -n "$only" ] || usage "--only needs names of steps"
      ;;
    --bin | --tests | --bundle | --llama | --out | --work | --part | --threads | --seconds | --limit)
      [ $# -ge 2 ] || usage "$1 needs a value"
      printf -v "${1#--}" %s "$2"
      shift
      ;;
    *) usage "$1 is not known" ;;
  esac
  shift
done
[[ $part =~ ^[12]$ ]] || usage "--part $part: there are 1 and 2"
for number in "$threads" "${seconds:-1}" "${limit:-1}"; do
  [[ $number =~ ^[1-9][0-9]{0,5}$ ]] || usage "$number is no number of threads or seconds"
done

export LLAMA=$llama
# What is to be done: name | part | estimate | limit | what it tells.
chosen=()
known=" $("$steps" --table | cut -d'|' -f1 | tr '\n' ' ')"
for name in $only; do
  [[ $known == *" $name "* ]] || usage "--only $name: no such step (--list names them)"
done
while IFS= read -r line; do
  IFS='|' read -r name of _ <<< "$line"
  if [ "$name" = unpack ]; then
    [ -z "$bundle" ] && [ -z "$show" ] || chosen+=("$line")
  elif [ -n "$only" ]; then
    [[ " $only " != *" $name "* ]] || chosen+=("$line")
  elif [ "$of" = "$part" ] || [ "$name" = driver ]; then
    chosen+=("$line")
  fi
done < <("$steps" --table)

if [ "$show" = list ]; then
  for line in "${chosen[@]}"; do
    echo "${line%%|*}"
  done
  exit
elif [ "$show" = plan ]; then
  sum=0
  printf '%-24s %9s %9s  %s\n' step estimate limit "what it tells"
  for line in "${chosen[@]}"; do
    IFS='|' read -r name _ estimate most what <<< "$line"
    printf '%-24s %7s s %7s s  %s\n' "$name" "$estimate" "$most" "$what"
    sum=$((sum + estimate))
  done
  printf '%-24s %7s s\n' "in all" "$sum"
  exit
fi

if [ -z "$bundle" ]; then
  [ -n "$bin" ] && [ -n "$tests" ] || { echo "gpu_check.sh: --bundle, or --bin and --tests, must say where the programs are; see the head of the script" >&2; exit 1; }
  for program in "$bin"/powerinfer-{run,bench} "$tests"; do
    [ -x "$program" ] || { echo "gpu_check.sh: $program is not there; --bundle, or --bin and --tests, say where the programs are" >&2; exit 1; }
  done
  bin=$(cd "$bin" && pwd)
  tests=$(realpath "$tests")
else
  [ -f "$bundle" ] || { echo "gpu_check.sh: $bundle is not there; scripts/gpu_pack.sh makes it" >&2; exit 1; }
  bundle=$(realpath "$bundle")
fi
[ -z "$llama" ] || llama=$(cd "$llama" && pwd) || exit 1
mkdir -p "$out" || exit 1
out=$(cd "$out" && pwd)
if [ -n "$work" ]; then
  mkdir -p "$work" && work=$(cd "$work" && pwd) || exit 1
else
  work=$(mktemp -d) || exit 1
  trap 'rm -rf "$work"' EXIT
fi
logs=$work/logs
mkdir -p "$logs" || exit 1
# The tests read models of the repository.
cd "$here/.." || exit 1
[ -z "$bundle" ] || bin=$work/bundle tests=$work/bundle/gpu-tests
export BIN=$bin TESTS=$tests OUT=$out WORK=$work THREADS=$threads LLAMA=$llama TINY=$tiny BUNDLE=$bundle

# A disk that is full when a row is to be written has this much room again.
spare=$out/spare.tmp
{ head -c 262144 /dev/zero > "$spare"; } 2> /dev/null

append() { # FILE TEXT
  { printf '%s\n' "$2" >> "$1"; } 2> /dev/null && return
  rm -f "$spare"
  { printf '%s\n' "$2" >> "$1"; } 2> /dev/null
}

running='' writing='' signal=''
results=$out/results.tsv rows=() counts=() began=$SECONDS
[ -s "$results" ] || append "$results" $'step\tresult\tseconds\tfigure or reason'
title="$(date -u '+%Y-%m-%d %H:%M') UTC, part $part${only:+, only$only}${tiny:+, tiny shapes: figures mean nothing}"

summary() { # STATE
  {
    printf '%s\n%s after %s s\n\n' "$title" "$1" "$((SECONDS - began))"
    printf '%s\n' "${rows[@]}"
  } > "$out/summary.tmp" 2> /dev/null && mv -f "$out/summary.tmp" "$out/summary.txt" 2> /dev/null || rm -f "$out/summary.tmp"
}

# row NAME RESULT SECONDS TEXT: of the step that ran. A signal waits until it is written.
row() {
  local text
  writing=1
  text=$(printf '%s' "$4" | tr -c '[:print:]' ' ' | cut -c1-300)
  append "$results" "$1"$'\t'"$2"$'\t'"$3"$'\t'"$text"
  printf -v text '%-24s %-9s %7s s  %s' "$1" "$2" "$3" "$text"
  rows+=("$text")
  counts+=("$2")
  echo "$text"
  summary "under way"
  running='' writing=''
  [ -z "$signal" ] || ended $signal
}

pack() {
  local kind file
  [ -d "$logs" ] || return
  for kind in xz gz; do
    file=$out/logs.tar.$kind
    if tar -C "$work" --$([ $kind = xz ] && echo xz || echo gzip) -cf "$file.tmp" logs 2> /dev/null && mv -f "$file.tmp" "$file"; then
      [ $kind = gz ] || rm -f "$out/logs.tar.gz"
      return
    fi
    rm -f "$file.tmp"
  done
  echo "gpu_check.sh: the logs could not be packed; their ends are in $out/tails.txt" >&2
}

child=
# Ends what is left of the step, whose group timeout leads: what ignores a signal may have outlived it.
kill_step() {
  [ -n "$child" ] || return
  kill "$child" 2> /dev/null
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    kill -0 "$child" 2> /dev/null || break
    sleep 0.1
  done
  kill -KILL -- "-$child" 2> /dev/null
}

ended() { # SIGNAL STATUS
  signal="$1 $2"
  [ -z "$writing" ] || return
  trap '' TERM INT HUP
  signal=''
  kill_step
  [ -z "$running" ] || row "$running" "cut off" "$(elapsed)" "by SIG$1"
  summary "ended by SIG$1"
  pack
  rm -f "$spare"
  exit "$2"
}
trap 'ended TERM 143' TERM
trap 'ended INT 130' INT
trap 'ended HUP 129' HUP
# Who reads what is printed may leave; the results are in files.
trap : PIPE

elapsed() {
  local now=${EPOCHREALTIME/[.,]/}
  printf '%d.%d' $(((now - start) / 1000000)) $(((now - start) / 100000 % 10))
}

# do_step NAME LIMIT: runs it and writes its row. Its output is read here, so that a full disk takes the log alone, and a process
# that nothing can end, as when a driver hangs, is left behind.
do_step() {
  local line='' figure='' last='' deadline pipe status log written=0 tail=()
  running=$1 start=${EPOCHREALTIME/[.,]/} deadline=$((SECONDS + $2 + 8))
  log=$logs/$1.log
  { : > "$log"; } 2> /dev/null || log=/dev/null
  exec {pipe}< <(exec timeout -k 5 "$2" "$steps" "$1" < /dev/null 2>&1)
  child=$!
  while [ $SECONDS -lt $deadline ]; do
    IFS= read -r -t $((deadline - SECONDS)) -u "$pipe" line
    status=$?
    if [ -n "$line" ]; then
      case $line in "figure: "* | "skipped: "*) figure=${line#*: } ;; esac
      [[ $line =~ ^[[:space:]]*$ ]] || last=$line
      tail+=("${line:0:400}")
      [ ${#tail[@]} -le 15 ] || tail=("${tail[@]:1}")
      written=$((written + ${#line}))
      # Nobody reads more, and all of it must go back.
      [ $written -gt 1000000 ] || { printf '%s\n' "$line" >> "$log"; } 2> /dev/null
    fi
    [ $status -eq 0 ] || break
  done
  exec {pipe}<&-
  if kill -0 "$child" 2> /dev/null && [ $SECONDS -ge $deadline ]; then
    status=overdue
  else
    wait "$child" 2> /dev/null
    status=$?
  fi
  kill_step
  case $status in
    0) row "$1" ok "$(elapsed)" "${figure:-$last}" ;;
    77) row "$1" skipped "$(elapsed)" "${figure:-$last}" ;;
    124 | 137) row "$1" "timed out" "$(elapsed)" "after $2 s: $last" ;;
    overdue) row "$1" "timed out" "$(elapsed)" "after $2 s, and does not end: $last" ;;
    *) row "$1" failed "$(elapsed)" "status $status: $last" ;;
  esac
  child=''
  append "$out/tails.txt" "== $1
$(printf '%s\n' "${tail[@]}")"
}

echo "$title"
for line in "${chosen[@]}"; do
  IFS='|' read -r name _ estimate most _ <<< "$line"
  # The emulator is slow.
  [ -z "$tiny" ] || most=$((most * 4))
  [ -z "$limit" ] || [ "$limit" -ge "$most" ] || most=$limit
  if [ -n "$seconds" ]; then
    left=$((seconds - (SECONDS - began)))
    if [ "$left" -lt "$estimate" ]; then
      row "$name" skipped 0.0 "$left s are left, about $estimate are needed"
      continue
    fi
    [ "$left" -ge "$most" ] || most=$left
  fi
  do_step "$name" "$most"
done
summary complete
pack
rm -f "$spare"
[[ " ${counts[*]} " != *failed* && " ${counts[*]} " != *"timed out"* ]]
