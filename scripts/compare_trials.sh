#!/usr/bin/env bash
# Counts how often powerinfer-bench calls a build slower: one that is 5 % slower, and one that is the same.
#
#     scripts/compare_trials.sh BIN_DIR [TRIALS]     20 trials of each kind: a quarter of an hour, or two where the machine is noisy
#     SLOWER=1.05 ARGS="-p 0 -n 64" scripts/compare_trials.sh target/release 20
#
# --against in turns, and --compare of files of eight runs each, one side after the other. The slower build is the same program with a
# clock that goes 5 % too fast (a library that LD_PRELOAD puts before the system's): all that it measures takes 5 % longer, with
# whatever noise the machine has. Nothing of it is in the program. Needs a C compiler, and a dynamically linked program.
#
#     SLOWER [1.05]: how much longer  ARGS [-p 64 -n 64]: what is measured  TURNS [as many as needed]  RUNS [8]  REPETITIONS [20]
#     THREADS [all cores]  HOWS [in_turns apart]
#
# Prints a line per trial and the counts. Exits with 1 where a slower build is missed in more than one of ten, or an equal one is
# called slower in more than one of twenty.
set -euo pipefail
shopt -s inherit_errexit
if [[ $# -lt 1 ]]; then
  sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0" >&2
  exit 2
fi
bench=$1/powerinfer-bench trials=${2:-20}
[[ -x $bench ]] || { echo "compare_trials.sh: $bench: is not there" >&2; exit 2; }
turns=(${TURNS:+--turns "$TURNS"}) runs=${RUNS:-8} repetitions=${REPETITIONS:-20}
read -ra hows <<< "${HOWS:-in_turns apart}"
read -ra args <<< "${ARGS:--p 64 -n 64}"
args+=(--device cpu)
[[ ${THREADS:-} ]] && args+=(-t "$THREADS")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$bench" "$work/bench"
bench=$work/bench

# Times since the first look are stretched, so that the clock never jumps.
cat > "$work/clock.c" << 'END'
#define _GNU_SOURCE
#include <time.h>
#include <unistd.h>
#include <sys/syscall.h>
int clock_gettime(clockid_t clock, struct timespec *now) {
  static long long first;
  int failed = syscall(SYS_clock_gettime, clock, now);
  if (failed || clock != CLOCK_MONOTONIC) return failed;
  long long ns = now->tv_sec * 1000000000LL + now->tv_nsec, begin = __atomic_load_n(&first, __ATOMIC_RELAXED);
  if (!begin && __atomic_compare_exchange_n(&first, &begin, ns, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) begin = ns;
  ns = begin + (long long)((ns - begin) * SLOWER);
  now->tv_sec = ns / 1000000000LL;
  now->tv_nsec = ns % 1000000000LL;
  return 0;
}
END
for kind in equal slower; do
  factor=1.0
  [[ $kind == equal ]] || factor=${SLOWER:-1.05}
  "${CC:-cc}" -shared -fPIC -O2 "-DSLOWER=$factor" -o "$work/$kind.so" "$work/clock.c"
  # The other clock costs a little, too, so both builds have one.
  printf '#!/bin/sh\nLD_PRELOAD=%s exec %s "$@"\n' "$work/$kind.so" "$bench" > "$work/$kind"
  chmod +x "$work/$kind"
done

# What a comparison found: its exit code, and its table in one line.
found() { # COMMAND...
  local status=0
  "$@" -o jsonl > "$work/found" 2> "$work/log" || status=$?
  [[ $status == 0 || $status == 3 ]] || { echo "compare_trials.sh: $*: $(tail -n 1 "$work/log")" >&2; exit 1; }
  sed -nE 's/.*"test":"([^"]*)".*"ratio":([0-9.]*),"ratio_low":([0-9.]*),"ratio_high":([0-9.]*),.*/\1 \2 (\3 to \4)/p' "$work/found" |
    paste -sd ';'
  echo "$status" > "$work/status"
}

rows() { # SIDE FILE
  local i
  for ((i = 0; i < runs; i++)); do "$work/$1" "${args[@]}" -r "$repetitions" -o jsonl >> "$2" 2> "$work/log"; done
}

# The comparison of this build with another in turns. What compares is the slow one or its equal; what it is compared with
# takes the place of the old build.
in_turns() { # KIND
  found "$work/$1" "${args[@]}" --against "$work/equal" "${turns[@]}"
}

apart() { # KIND
  rm -f "$work"/{old,new}.jsonl
  rows equal "$work/old.jsonl"
  rows "$1" "$work/new.jsonl"
  found "$bench" --compare "$work/old.jsonl" "$work/new.jsonl"
}

declare -A slower=()
for ((trial = 1; trial <= trials; trial++)); do
  for how in "${hows[@]}"; do
    for kind in equal slower; do
      line=$("$how" "$kind")
      status=$(< "$work/status")
      [[ $status != 3 ]] || slower[$how/$kind]=$((${slower[$how/$kind]:-0} + 1))
      echo "trial $trial, $how, $kind: exit code $status: $line"
    done
  done
done
bad=0
for how in "${hows[@]}"; do
  alarms=${slower[$how/equal]:-0} hits=${slower[$how/slower]:-0}
  echo "$how: $hits of $trials slower builds found, $alarms of $trials equal builds called slower"
  ((hits * 10 >= trials * 9 && alarms * 20 <= trials)) || bad=1
done
exit "$bad"
