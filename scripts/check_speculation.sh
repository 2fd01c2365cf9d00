#!/usr/bin/env bash
# Speculation changes nothing but the speed: long texts with each kind of draft against the text without, byte for byte.
#
#   scripts/check_speculation.sh [--bin FOLDER] [--tokens N] [MODEL [DRAFT]]
#
# MODEL is the embedded one unless it is given, DRAFT the same model. Each kind is run greedily, at temperature 1, with penalties
# and with a grammar, N tokens (10000) each, in a context that is shifted when it is full. Where MODEL has predictors
# (powerinfer-profile --predictors), it also drafts for itself.
set -euo pipefail

bin=target/release
tokens=10000
while [ $# -gt 0 ]; do
  case $1 in
    --bin) bin=${2:?--bin needs a folder} ;;
    --tokens) tokens=${2:?--tokens needs a number} ;;
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

run() {
  local out=$1
  shift
  "$bin/powerinfer-run" "${named[@]}" --device cpu -q --ignore-eos --seed 3 -n "$tokens" -c 256 --context-shift --keep 8 \
    -p "Once upon a time there was a little dog. Once upon a time there was a" "$@" >"$where/$out"
}

kinds=(lookup model)
if run probe -n 1 --draft-mode predicted 2>/dev/null; then kinds+=(predicted); fi
if run probe -n 1 --draft-mode thresholded 2>/dev/null; then kinds+=(thresholded); fi

failed=0
compare() {
  local name=$1 sampling=$2
  if cmp -s "$where/plain" "$where/drafted"; then
    printf '%-12s %-10s the same %s bytes\n' "$name" "$sampling" "$(wc -c <"$where/plain")"
  else
    printf '%-12s %-10s DIFFERS: %s\n' "$name" "$sampling" "$(cmp "$where/plain" "$where/drafted" 2>&1)"
    failed=1
  fi
}

for sampling in greedy drawn penalties grammar; do
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
