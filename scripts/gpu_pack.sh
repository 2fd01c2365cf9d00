#!/usr/bin/env bash
# Builds the four commands and the GPU test program for release, and packs them, stripped, for a machine with a card and
# nothing else: scripts/gpu_check.sh --bundle unpacks them there. Needs Rust, strip, tar and xz.
#
#     scripts/gpu_pack.sh [--bin FOLDER --tests FILE] [OUT]     [target/gpu.tar.xz]
#
# --bin and --tests pack programs that are built already. Prints the sizes; fails where the bundle and the tree (every file
# that git does not ignore; of it models/, tests/golden/, hardware/ and scripts/ are needed there) are over 64 MiB together.
set -euo pipefail
cd "$(dirname "$0")/.."
limit=$((64 << 20))
bin='' tests='' out=target/gpu.tar.xz
while [ $# -gt 0 ]; do
  case $1 in
    --bin | --tests)
      [ $# -ge 2 ] || { echo "gpu_pack.sh: $1 needs a value" >&2; exit 2; }
      printf -v "${1#--}" %s "$2"
      shift
      ;;
    -*) echo "gpu_pack.sh: $1 is not known; see the head of the script" >&2; exit 2 ;;
    *) out=$1 ;;
  esac
  shift
done
names="powerinfer-run powerinfer-bench powerinfer-profile powerinfer-split"
programs=()
if [ -z "$bin$tests" ]; then
  # The commands are built with the tests, which run some of them.
  built=$(cargo test --release --locked --no-run --test gpu --message-format json-render-diagnostics | sed -nE 's/.*"executable":"([^"]+)".*/\1/p')
  for name in $names; do
    programs+=("$(grep -E "/$name\$" <<< "$built")")
  done
  tests=$(grep -E '/gpu-[0-9a-f]+$' <<< "$built")
else
  for name in $names; do
    programs+=("$bin/$name")
  done
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for program in "${programs[@]}" "$tests"; do
  [ -x "$program" ] || { echo "gpu_pack.sh: $program is not there" >&2; exit 1; }
  name=$(basename "$program")
  [ "$program" != "$tests" ] || name=gpu-tests
  strip -s -o "$work/$name" "$program"
  printf '%12d  %s\n' "$(stat -c %s "$work/$name")" "$name"
done
{ git describe --always --dirty --exclude '*' 2> /dev/null || echo unknown; } > "$work/COMMIT"
mkdir -p "$(dirname "$out")"
# All programs hold the same model: a dictionary that reaches from one to the next stores it once.
tar -C "$work" -cf - COMMIT $names gpu-tests | xz --lzma2=preset=9,dict=128MiB > "$out.tmp"
mv "$out.tmp" "$out"
packed=$(stat -c %s "$out")
tree=$(git ls-files -z --cached --others --exclude-standard | xargs -0 stat -c %s 2> /dev/null | awk '{ n += $1 } END { print n + 0 }')
printf '%12d  %s\n%12d  the tree\n%12d  in all, of %d\n' "$packed" "$out" "$tree" $((packed + tree)) "$limit"
[ $((packed + tree)) -le "$limit" ] || { echo "gpu_pack.sh: that is more than 64 MiB" >&2; exit 1; }
