#!/bin/sh
# Compares the planner's prediction with what bench measures, on six configurations of the CPU. Needs a quiet machine.
# Usage: scripts/check_plan.sh [PERCENT]   fails where a prediction is further off [15]. BENCH names the program.
set -eu
bench=${BENCH:-target/release/powerinfer-bench}
most=${1:-15}
[ -x "$bench" ] || { echo "check_plan.sh: $bench: build it first: cargo build --release (or set BENCH)" >&2; exit 1; }
log=$(mktemp)
trap 'rm -f "$log"' EXIT
"$bench" --synthetic 1b-8:q4_0 -p 0 -n 64 -r 5 -t 1,2 --mode dense,exact --predict 2>> "$log"
"$bench" --synthetic 1b-8:q8_0 -p 0 -n 64 -r 5 -t 2 --mode dense,exact --predict 2>> "$log"
grep '^predicted' "$log"
awk -v most="$most" '/^predicted/ { n++; off = $(NF - 1) + 0; if (off < -most || off > most) bad++ }
    END { printf "%d configurations, %d further off than %s %%\n", n, bad, most; exit n != 6 || bad > 0 }' "$log"
