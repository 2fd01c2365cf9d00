#!/usr/bin/env bash
# Compares the speed of two builds of powerinfer-bench in alternating pairs, and prints the median of the pairs' ratios.
#
#     scripts/compare_speed.sh OLD_DIR NEW_DIR [SHAPE...]     shapes as --synthetic takes them [7b]; 7b-8 has 8 of its layers
#     PAIRS=7 scripts/compare_speed.sh target/before/release target/release 7b mistral-7b
#
# For each shape: decode exact (the variant), decode dense and prefill of 128 tokens (the plain file, which llama.cpp opens, too),
# on the same files for both builds. Then decode of the embedded model, exact. Speeds of a shared machine drift, so only the two
# runs of a pair are compared, and every other pair begins with the new build. Each run is a process that does the test once
# unmeasured. Exits with 1 where a median is below LEAST.
#
#     PAIRS [5]  N_GEN [32]: tokens that shapes decode  THREADS [all cores]  LEAST [0.98]  CACHE [the tools' own]: folder of the files
set -euo pipefail
shopt -s inherit_errexit
if [[ $# -lt 2 ]]; then
  sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0" >&2
  exit 2
fi
old=$1/powerinfer-bench new=$2/powerinfer-bench
shift 2
for program in "$old" "$new"; do
  [[ -x $program ]] || { echo "compare_speed.sh: $program: is not there" >&2; exit 2; }
done
[[ $# -gt 0 ]] || set -- 7b
pairs=${PAIRS:-5} n_gen=${N_GEN:-32} least=${LEAST:-0.98}
common=(--device cpu -o json)
[[ ${THREADS:-} ]] && common+=(-t "$THREADS")
copies=$(mktemp -d)
log=$copies/log
trap 'rm -rf "$copies"' EXIT
# A program that has just been linked lies in other pages than one that was copied, which shows on the model that it carries.
cp "$old" "$copies/old"
cp "$new" "$copies/new"
old=$copies/old new=$copies/new

# Runs a program that prints one row, and prints what the row says under a key.
row() { # KEY PROGRAM ARGUMENT...
  local key=$1 found
  shift
  found=$("$@" "${common[@]}" 2> "$log" | sed -nE "s/^ *\"$key\": \"?([^\",]*)\"?,?$/\1/p") || found=
  [[ $found ]] || { echo "compare_speed.sh: $*: no row: $(tail -n 1 "$log")" >&2; exit 1; }
  echo "$found"
}

# The synthetic model of a shape, written if it is not there yet.
model() { # SHAPE [--synthetic-plain]
  local shape=$1
  shift
  row model_filename "$old" --synthetic "$shape" "$@" ${CACHE:+--cache-dir "$CACHE"} -p 0 -n 1 -r 1
}

slower=
# Measures pairs and prints a line of the table.
compare() { # TITLE ARGUMENT...
  local title=$1 i a b line
  shift
  line=$(
    for ((i = 0; i < pairs; i++)); do
      if ((i % 2)); then
        b=$(row avg_ts "$new" "$@")
        a=$(row avg_ts "$old" "$@")
      else
        a=$(row avg_ts "$old" "$@")
        b=$(row avg_ts "$new" "$@")
      fi
      awk -v a="$a" -v b="$b" 'BEGIN { print b / a, a, b }'
    done | sort -g | awk -v title="$title" -v least="$least" '
      function median(values, n) { return n % 2 ? values[(n + 1) / 2] : (values[n / 2] + values[n / 2 + 1]) / 2 }
      # Small: by insertion.
      function sorted(values, n,   i, j, v) {
        for (i = 2; i <= n; i++) {
          v = values[i]
          for (j = i - 1; j > 0 && values[j] > v; j--) values[j + 1] = values[j]
          values[j + 1] = v
        }
      }
      { ratio[NR] = $1; a[NR] = $2; b[NR] = $3 }
      END {
        sorted(a, NR)
        sorted(b, NR)
        m = median(ratio, NR)
        printf "| %-32s | %9.2f | %9.2f | %.3f (%.3f to %.3f) | %d |%s\n", title, median(a, NR), median(b, NR), m, ratio[1],
          ratio[NR], NR, m < least ? " slower" : ""
      }'
  )
  echo "$line"
  [[ $line != *slower ]] || slower=1
}

printf '| %-32s | %9s | %9s | new / old              | pairs |\n' "tokens/s" old new
echo '|---|---:|---:|---:|---:|'
for shape in "$@"; do
  variant=$(model "$shape")
  plain=$(model "$shape" --synthetic-plain)
  compare "$shape, tg$n_gen, exact" -m "$variant" --mode exact --text random -p 0 -n "$n_gen" -r 1
  compare "$shape, tg$n_gen, dense, plain file" -m "$plain" --mode dense --text random -p 0 -n "$n_gen" -r 1
  compare "$shape, pp128, plain file" -m "$plain" --mode exact --text random -p 128 -n 0 -r 1
done
compare "embedded, tg128, exact" --mode exact -p 0 -n 128 -r 20
if [[ $slower ]]; then
  echo "compare_speed.sh: medians are below $least" >&2
  exit 1
fi
