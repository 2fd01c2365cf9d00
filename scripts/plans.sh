#!/bin/sh
# Writes docs/plans.md: plans for six dense models and four with experts on four machines, none of which need be there.
# Usage: scripts/plans.sh   (from the repository's folder; needs a release or debug build of powerinfer-split, and python3)
set -eu
split=${SPLIT:-target/release/powerinfer-split}
[ -x "$split" ] || { echo "plans.sh: $split: build it first: cargo build --release (or set SPLIT)" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for machine in rtx-4090-ddr5 rtx-3060-ddr4 rtx-2080ti-ddr4 h200; do
    for shape in llama-2-7b mistral-7b falcon-40b llama-70b opt-30b opt-175b; do
        for type in f16 q4_0; do
            for mode in exact predicted; do
                "$split" --dry-run --json --shape "$shape:$type" --mode "$mode" -c 2048 \
                    --hardware "hardware/$machine.toml" > "$work/$machine.$shape.$type.$mode.json"
            done
        done
    done
done
{ python3 scripts/plans.py "$work" && python3 scripts/plans_table.py "$split"; } > "$work/plans.md"
mv "$work/plans.md" docs/plans.md
