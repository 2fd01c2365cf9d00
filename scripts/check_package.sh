#!/usr/bin/env bash
# Whether the crate that `cargo package` makes is all that is needed: it is unpacked elsewhere, built, and tells a story.
#
#   scripts/check_package.sh             built as for development: a few minutes, less where target/ has the dependencies
#   scripts/check_package.sh --release   built as users do with cargo install
#
# Packs what is committed; with ALLOW_DIRTY=1, what lies here.
set -euo pipefail
cd "$(dirname "$0")/.."

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
