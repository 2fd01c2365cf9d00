#!/usr/bin/env bash
# Pages of the manual and completions of the four commands, for a release:
#
#   scripts/release_docs.sh [--bin FOLDER] OUT      OUT/man/man1, OUT/completions/SHELL
#   scripts/release_docs.sh [--bin FOLDER] --page   docs/llama-cpp.md, from the table of flags
set -euo pipefail

bin=target/release
if [ "${1:-}" = --bin ]; then
  bin=${2:?--bin needs a folder}
  shift 2
fi
out=${1:?give a folder, or --page}
if [ "$out" = --page ]; then
  page=$(dirname "$0")/../docs/llama-cpp.md
  "$bin/powerinfer-run" --llama-cpp-page >"$page.new"
  mv "$page.new" "$page"
  exit
fi

mkdir -p "$out/man/man1" "$out"/completions/{bash,elvish,fish,powershell,zsh}
for name in run profile split bench; do
  command=powerinfer-$name
  "$bin/$command" --manual-page >"$out/man/man1/$command.1"
  "$bin/$command" completions bash >"$out/completions/bash/$command"
  "$bin/$command" completions elvish >"$out/completions/elvish/$command.elv"
  "$bin/$command" completions fish >"$out/completions/fish/$command.fish"
  "$bin/$command" completions powershell >"$out/completions/powershell/_$command.ps1"
  "$bin/$command" completions zsh >"$out/completions/zsh/_$command"
done
