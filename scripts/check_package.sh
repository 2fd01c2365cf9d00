#!/usr/bin/env bash
# Whether the crate that `cargo package` makes is all that is needed: it is unpacked elsewhere, built, and tells a story.
#
#   scripts/check_package.sh             built as for development: a few minutes, less where target/ has the dependencies
#   scripts/check_package.sh --release   built as users do with cargo install
#   scripts/check_package.sh --quick     not built: whatever a build here reads must be in it; seconds, where that is built already
#
# Packs what is committed; with ALLOW_DIRTY=1, what lies here.
set -euo pipefail
cd "$(dirname "$0")/.."

quick=
if [ "${1:-}" = --quick ]; then
  quick=1
  # What has been built needs nothing from elsewhere.
  export CARGO_NET_OFFLINE=true
fi
profile=debug
flags=()
if [ "${1:-}" = --release ]; then
  profile=release
  flags=(--release)
fi
dirty=()
if [ -n "${ALLOW_DIRTY:-}" ]; then
  dirty=(--allow-dirty)
fi

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Building is checked below, once and with the lock file.
cargo package --locked --no-verify --quiet "${dirty[@]}"
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
crate=$target/package/powerinfer-rs-$version.crate
tar -xzf "$crate" -C "$work"
source=$work/powerinfer-rs-$version

# crates.io takes 10 MiB.
size=$(stat -c %s "$crate")
[ "$size" -lt $((10 << 20)) ] || { echo "$crate: $size bytes are more than crates.io takes" >&2; exit 1; }

if [ -n "$quick" ]; then
  # Cargo writes down what a build has read, the files that are part of a program among it.
  cargo build --locked --bins --quiet
  read=$(cat "$target"/debug/powerinfer-{run,profile,split,bench}.d)
  missing=$(sed 's/^[^:]*: *//' <<<"$read" | sed 's/\\ /\x01/g' | tr ' \001' '\n ' | sort -u | while read -r path; do
    case $path in
      # What the build script has made of sources that are looked at themselves.
      "$PWD/.git"/* | "$target"/*) ;;
      "$PWD"/*) [ -e "$source/${path#"$PWD"/}" ] || echo "${path#"$PWD"/}" ;;
    esac
  done)
  [ -z "$missing" ] || { echo "the crate has not what is built from:" $missing "(include in Cargo.toml)" >&2; exit 1; }
  n=$(grep -o "$PWD/src/[^ ]*" <<<"$read" | sort -u | wc -l)
  [ "$n" -gt 100 ] || { echo "$target/debug: only $n files were read; build the commands first" >&2; exit 1; }
  # Its manifest is another one; all that it names must be there, and the lock file must fit.
  (cd "$source" && cargo metadata --locked --offline --format-version 1 >metadata.json)
  for command in run profile split bench; do
    grep -q "\"name\":\"powerinfer-$command\"" "$source/metadata.json" || { echo "powerinfer-$command: is not in the crate" >&2; exit 1; }
  done
  echo "$crate: $size bytes; it has all that the commands are built from ($n files of src among it)"
  exit
fi

(cd "$source" && CARGO_TARGET_DIR=$target/from-package cargo build --locked --bins "${flags[@]}")
bin=$target/from-package/$profile
# From a folder that has nothing of the repository.
cd "$work"
for command in run profile split bench; do
  "$bin/powerinfer-$command" --version >/dev/null
done
story=$("$bin/powerinfer-run" -p "Once upon a time" -n 16 --temp 0 --device cpu </dev/null 2>/dev/null)
[ "${#story}" -gt 30 ] || { echo "the packed powerinfer-run tells no story: $story" >&2; exit 1; }
echo "$crate: $size bytes; it builds and tells: $story"
