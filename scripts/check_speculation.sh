#!/usr/bin/env bash
# Speculation changes nothing but the speed: long texts with each kind of draft against the text without, byte for byte.
#
#   scripts/check_speculation.sh [--bin FOLDER] [--tokens N] [--sampling NAMES] [MODEL [DRAFT]]
#
# MODEL is the embedded one unless it is given, DRAFT the same model. Each kind is run greedily, at temperature 1, with penalties
# and with a grammar (NAMES: greedy,drawn,penalties,grammar), N tokens (10000) each, in a context that is shifted when it is full, or
# in one that has room for all where layers recur. Where MODEL has predictors (powerinfer-profile --predictor) or thresholds, it also
# drafts for itself.
set -euo pipefail

bin=target/release
tokens=10000
samplings=greedy,drawn,penalties,grammar
while [ $# -gt 0 ]; do
  case $1 in
    --bin) bin=${2:?--bin needs a folder} ;;
    --tokens) tokens=${2:?--tokens needs a number} ;;
    --sampling) samplings=${2:?--sampling needs names} ;;
    *) break ;;
  esac
  shift 2
done
model=${1:-}
draft=${2:-$model}
where=$(mktemp -d)
trap 'rm -r "$where"' EXIT

# The embedded model has a name for -m and -md, too.
named=(-m "${model:-tiny-stories}")
drafting=(-md "${draft:-tiny-stories}")

context=(-c 256 --context-shift --keep 8)

say() {
  "$bin/powerinfer-run" "${named[@]}" --device cpu --ignore-eos --seed 3 -n "$tokens" "${context[@]}" \
    -p "Once upon a time there was a little dog. Once upon a time there was a" "$@"
}

run() {
  local out=$1
  shift
  say --stats "$@" >"$where/$out" 2>"$where/said"
}

# States of recurrent layers do not shift: such a text ends where the context does.
if say -n 400 --draft-max 0 2>&1 >/dev/null | grep -q 'stopped by context'; then context=(-c $((tokens + 64))); fi

kinds=(lookup model)
if run probe -n 1 --draft-mode predicted; then kinds+=(predicted); fi
if run probe -n 1 --draft-mode thresholded; then kinds+=(thresholded); fi

failed=0
compare() {
  local name=$1 sampling=$2 said
  said=$(sed -n 's/^speculation: //p' "$where/said")
  if ! cmp -s "$where/plain" "$where/drafted"; then
    said="DIFFERS: $(cmp "$where/plain" "$where/drafted" 2>&1)"
    failed=1
  elif [[ $name != usual && $said != *stayed* ]]; then
    said="NOTHING WAS DRAFTED"
    failed=1
  fi
  printf '%-12s %-10s %6s bytes: %s\n' "$name" "$sampling" "$(wc -c <"$where/plain")" "$said"
}

for sampling in ${samplings//,/ }; do
  case $sampling in
    greedy) flags=(--temp 0) ;;
    drawn) flags=(--temp 1) ;;
    penalties) flags=(--temp 1 --repeat-penalty 1.2 --presence-penalty 0.3 --dry-multiplier 0.8) ;;
    grammar) flags=(--temp 1 --grammar 'root ::= ([a-zA-Z.,!?"] | " " | "\n")+') ;;
  esac
  run plain "${flags[@]}" --draft-max 0
  run drafted "${flags[@]}"
  compare usual "$sampling"
  for kind in "${kinds[@]}"; do
    case $kind in
      lookup) how=() ;;
      model) how=("${drafting[@]}" --no-lookup) ;;
      *) how=(--draft-mode "$kind" --no-lookup) ;;
    esac
    run drafted "${flags[@]}" --draft-min 1 --draft-max 6 "${how[@]}"
    compare "$kind" "$sampling"
  done
done
exit "$failed"
