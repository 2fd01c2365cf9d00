"""Makes docs/plans.md out of the plans that scripts/plans.sh has made. Usage: plans.py FOLDER"""

import json
import pathlib
import sys

MACHINES = ["rtx-4090-ddr5", "rtx-3060-ddr4", "rtx-2080ti-ddr4", "h200"]
SHAPES = {
    "llama-2-7b": ("0.11", "ProSparse LLaMA-2 7B: 89 % sparse (arXiv 2402.13516)"),
    "mistral-7b": ("0.12", "Bamboo and TurboSparse-Mistral: 85 to 90 % sparse (model cards, arXiv 2406.05955)"),
    "falcon-40b": ("0.07", "assumed: 5 to 10 % for a ReLU Falcon"),
    "llama-70b": ("0.30", "ReluLLaMA: 67 to 72 % sparse (model cards)"),
    "opt-30b": ("0.06", "assumed: 3 to 10 % for OPT (arXiv 2310.17157)"),
    "opt-175b": ("0.05", "assumed: 3 to 10 % for OPT (arXiv 2310.17157)"),
}
TYPES = ["f16", "q4_0"]

# Reported by others, on machines whose host memory was slower than in our files.
REPORTED = {
    ("rtx-4090-ddr5", "mistral-7b", "f16"): "92 PowerInfer, 58 llama.cpp (Bamboo-7B, all on the card)",
    ("rtx-2080ti-ddr4", "mistral-7b", "f16"): "33.5 PowerInfer, 7.6 llama.cpp (Bamboo-7B)",
}

HEAD = """# Plans

What the planner expects of six dense models on four machines, before any of it is run; four models with experts follow. **Nothing here was
measured**: the machines are descriptions (`hardware/*.toml`, from public bandwidths and assumed shares of them), the models are shapes
whose neurons fire by a power law, and what runs on a graphics card has been tested on an emulated one only. A shape is planned whether or not there are kernels
for all of it ([gpu.md](gpu.md) says for what there are none); `--dry-run` of a file says so. The tables say what is worth building and what a
user may hope for, no more.

Made by `scripts/plans.sh`, which runs, for each row,

    powerinfer-split --dry-run --json --shape SHAPE:TYPE --mode MODE -c 2048 --hardware hardware/MACHINE.toml

## How to read it

- *offload*: llama.cpp's way with the same time model: whole layers on the card as far as they fit, the rest on the CPU,
  everything computed. In brackets: layers on the card.
- *exact*: the mask matrix in full, the rest where neurons fire; the result of dense. *predicted*: a predictor of
  two factors of rank n_embd / 8 (Q4_0) for cold neurons, assumed to name 1.5 neurons for each that fires.
- *hot* and *mass*: share of all neurons in the hot prefix, and of the activation mass that it covers (mean over layers),
  in exact and in predicted mode. Mass is taken to follow the firing rate.
- The context holds 2048 tokens (F16), and a token is timed when it is full. Batches of 512. The budget is what the card
  has less 400 MiB for the driver.
- Beyond what independent neurons would do, the number of neurons that fire is assumed to stray by 20 % from token to
  token.
- All plans are proved optimal (gap 0) for the model of time, on a grid of about 448 prefix sizes per layer, unless a star
  says that the search was cut off.
- *limit*, in exact mode: the share of what both memories, each read at its full speed, and the card's kernels would allow if
  nothing were waited for (`run` and `bench` call that `limit_ts`).
- *reported*: decode tokens/s that others measured on a machine like this, for what they are worth.

Where a model fits on the card as a whole, everything is hot, and sparsity only saves reading there.

## Densities

| shape | neurons that fire | source |
|---|---|---|
"""

TAIL = """
## What was reported

From the paper (arXiv 2312.12456; RTX 4090 and i9-13900K with host memory of 67.2 GB/s, where our file says 76.2 GB/s
achieved): FP16 8.3 tokens/s on average over its models and 16 at the peak, up to 11.7x llama.cpp of 2023 (Falcon-40B);
INT4 13.2 on average and 29.1 at the peak. On an RTX 2080 Ti (host memory 38.4 GB/s) INT4 up to 8x llama.cpp. Its models,
context and prompts differ from those here, and single numbers per model are in its figures only, so most cells are empty.
"""


def share(value):
    return f"{100 * value:.0f} %"


def main():
    folder = pathlib.Path(sys.argv[1])
    out = HEAD
    for shape, (density, source) in SHAPES.items():
        out += f"| {shape} | {density} | {source} |\n"
    for machine in MACHINES:
        lines, name = [], machine
        for shape in SHAPES:
            for dtype in TYPES:
                plans = {m: json.loads((folder / f"{machine}.{shape}.{dtype}.{m}.json").read_text()) for m in ("exact", "predicted")}
                exact, predicted = plans["exact"], plans["predicted"]
                name = exact["hardware"]
                star = {m: "" if p["optimal"] else " *" for m, p in plans.items()}
                dense = exact["offload_tokens_per_second"]
                times = lambda p: f"{p['tokens_per_second']:.2f} ({p['tokens_per_second'] / dense:.1f}x)"
                cells = [
                    shape,
                    dtype.upper(),
                    f"{exact['weights_bytes'] / 2**30:.1f}",
                    f"{dense:.2f} ({exact['offload_layers']}/{len(exact['layers'])})",
                    times(exact) + star["exact"],
                    share(exact["tokens_per_second"] / exact["limit_tokens_per_second"]),
                    f"{share(exact['hot_share'])}, {share(exact['mass_covered'])}",
                    times(predicted) + star["predicted"],
                    f"{share(predicted['hot_share'])}, {share(predicted['mass_covered'])}",
                    REPORTED.get((machine, shape, dtype), ""),
                ]
                lines.append("| " + " | ".join(cells) + " |")
        budget = exact["budget_bytes"] / 2**30
        out += f"\n## {name}\n\nBudget {budget:.2f} GiB. Tokens per second, in brackets against offload.\n\n"
        out += "| model | type | GiB | offload (layers) | exact | limit | hot, mass | predicted | hot, mass | reported |\n"
        out += "|---|---|--:|--:|--:|--:|--:|--:|--:|---|\n" + "\n".join(lines) + "\n"
    sys.stdout.write(out + TAIL)


if __name__ == "__main__":
    main()
