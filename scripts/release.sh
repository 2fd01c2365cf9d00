#!/usr/bin/env bash
# An archive of this machine's target for a release: the four commands, licences, README, manual pages and completions.
#
#   scripts/release.sh [--bin FOLDER] [OUT]     OUT/powerinfer-rs-VERSION-TARGET.tar.gz and its .sha256 [target/dist]
#
# Builds with --release --locked, unless --bin names a folder where that was done. Two archives of the same programs are the same, byte for
# byte. What was packed is unpacked again, and tells a story, before anything appears in OUT.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=
if [ "${1:-}" = --bin ]; then
  bin=${2:?--bin needs a folder}
  shift 2
fi
out=${1:-target/dist}

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
target=$(rustc -vV | sed -n 's/^host: //p')
if [ -z "$bin" ]; then
  cargo build --release --locked --bins
  bin=${CARGO_TARGET_DIR:-target}/release
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
name=powerinfer-rs-$version-$target
mkdir -p "$work/$name"
for command in run profile split bench; do
  install -m 755 "$bin/powerinfer-$command" "$work/$name/"
done
install -m 644 LICENSE-APACHE LICENSE-MIT README.md CHANGELOG.md "$work/$name/"
if [ -e scripts/release_docs.sh ]; then
  scripts/release_docs.sh --bin "$bin" "$work/$name"
fi

# The time of the last commit, so that the archive does not depend on when it is made.
time=$(git log -1 --format=%ct 2>/dev/null || echo 0)
tar --sort=name --mtime="@$time" --owner=0 --group=0 --numeric-owner -C "$work" -cf - "$name" | gzip -n9 >"$work/$name.tar.gz"

mkdir "$work/again"
tar -xzf "$work/$name.tar.gz" -C "$work/again"
for command in run profile split bench; do
  "$work/again/$name/powerinfer-$command" --version >/dev/null
done
story=$(cd "$work/again" && "./$name/powerinfer-run" -p "Once upon a time" -n 16 --temp 0 --device cpu </dev/null 2>/dev/null)
[ "${#story}" -gt 30 ] || { echo "the packed powerinfer-run tells no story: $story" >&2; exit 1; }

mkdir -p "$out"
(cd "$work" && sha256sum "$name.tar.gz" >"$name.tar.gz.sha256")
mv "$work/$name.tar.gz" "$work/$name.tar.gz.sha256" "$out/"
echo "$out/$name.tar.gz"
