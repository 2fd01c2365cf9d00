"""Prints the part of docs/plans.md that is about models with experts. Usage: plans_table.py SPLIT [MACHINE MODEL TYPE]

SPLIT is a build of powerinfer-split; with the others only these rows are printed."""

import concurrent.futures
import json
import subprocess
import sys

MACHINES = ["rtx-4090-ddr5", "rtx-3060-ddr4", "rtx-2080ti-ddr4", "h200"]
TYPES = ["q4_0", "q8_0"]
BUDGETS = [4, 8, 16, 24]
# Density and popularity where little is gained, the same where much is, and where the densities come from.
MODELS = {
    "smallthinker-21b": ((0.4, 0.0), (0.2, 1.0), "its authors: more than 60 % of a chosen expert idle (technical report)"),
    "nemotron-3-nano": ((0.3, 0.0), (0.05, 1.0), "nobody has published it: assumed"),
    "mixtral": ((0.15, 0.0), (0.08, 0.5), "TurboSparse-Mixtral, dReLU: 85 to 90 % and more idle (arXiv 2406.05955)"),
    "nemotron-3-super": ((0.3, 0.0), (0.05, 1.0), "nobody has published it: assumed"),
}

HEAD = """
## Mixtures of experts

Exact mode, where of each expert a part may be on the card. **Nothing here was measured** either, and less is known: nobody has
published how many neurons of Nemotron's experts rest, and how unequally experts are chosen differs from model to model and from text
to text. So each cell is a range, from a dense model whose experts are all chosen equally often to a sparse one with favourites.

Made by `scripts/plans_table.py`, which runs, for both ends of a cell,

    powerinfer-split --dry-run --json --shape MODEL:TYPE:DENSITY:POPULARITY -c 2048 --vram-budget BUDGETGiB --hardware hardware/MACHINE.toml

- *layers*: whole layers on the card as far as they fit, the rest on the CPU, everything computed (llama.cpp's `-ngl`). In brackets:
  layers on the card.
- *experts*: everything but experts on the card, and the experts of the last layers as far as they fit; everything that is chosen is
  computed (llama.cpp's `--n-cpu-moe`). In brackets: layers whose experts are on the CPU, of those that have some.
- *neurons*: our plan: a hot prefix for every expert, chosen by how often the expert is chosen and how often the neuron fires, and
  for some experts the whole mask matrix, so that the card names the cold neurons that fire. Only what fires is read.
- *gain*: neurons against the better of the other two.
- *hot*: share of all neurons that are hot, and share of choices that fall on experts of which the card has nothing.
- *gap*: no division of experts' neurons whatever is faster than the plan by more than that, in this model of time; the larger one.

All three by the same model of time, within the same bytes (scratch memory of a batch of 512 among them). A row is missing where
the card has less memory, and `-` stands where everything but the experts takes more than that. POPULARITY is the exponent of a power
law: an expert is chosen as often as its rank to the power of minus that, up to always.
With 0.5, a tenth of Nano's experts has 28 % of the choices, with 1.0 it has 58 %. Neurons within an expert fire by the power law of
the dense models above. Which experts a token gets is random, so the time of a layer is the mean, over what may be chosen, of that of
the slower side.

| model | low: density, popularity | high | source of the densities |
|---|---|---|---|
"""


def plan(split, machine, model, dtype, budget, density, popularity):
    """What the planner says, or None where the budget is too small, or more than the card has."""
    command = [split, "--dry-run", "--json", "--shape", f"{model}:{dtype}:{density}:{popularity}", "-c", "2048"]
    command += ["--vram-budget", f"{budget}GiB", "--hardware", f"hardware/{machine}.toml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return json.loads(done.stdout)
    if "are too few" in done.stderr or "are more than" in done.stderr:
        return None
    raise SystemExit(f"plans_table.py: {' '.join(command)}: {done.stderr}")


def span(values, form):
    """Both ends of a range, or one where they are shown alike."""
    texts = [form(value) for value in values]
    return texts[0] if texts[0] == texts[1] else " to ".join(texts)


def row(split, machine, model, dtype, budget):
    low, high, _ = MODELS[model]
    plans = [plan(split, machine, model, dtype, budget, *end) for end in (low, high)]
    if None in plans:
        return None
    first = plans[0]
    layers, experts = first["offload_tokens_per_second"], first["expert_offload_tokens_per_second"]
    routed = [layer["experts"] for layer in first["layers"] if layer["experts"]]
    best = max(layers, experts or 0)
    cold = lambda p: sum(l["experts"]["choices_on_cold"] for l in p["layers"] if l["experts"]) / len(routed)
    speed = lambda p: p["tokens_per_second"]
    cells = [
        model,
        str(budget),
        f"{layers:.1f} ({first['offload_layers']}/{len(first['layers'])})",
        "-" if experts is None else f"{experts:.1f} ({first['expert_offload_layers']}/{len(routed)})",
        span(plans, lambda p: f"{speed(p):.1f}"),
        span(plans, lambda p: f"{speed(p) / best:.1f}x"),
        span(plans, lambda p: f"{100 * p['hot_share']:.0f} %, {100 * cold(p):.0f} %"),
        f"{100 * max(p['gap'] for p in plans):.1f} %",
    ]
    return "| " + " | ".join(cells) + " |"


def main():
    split, *only = sys.argv[1:]
    if only:
        machine, model, dtype = only
        rows = [row(split, machine, model, dtype, budget) for budget in BUDGETS]
        print("\n".join(filter(None, rows)))
        return
    out = HEAD
    for model, (low, high, source) in MODELS.items():
        out += f"| {model} | {low[0]}, {low[1]} | {high[0]}, {high[1]} | {source} |\n"
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for machine in MACHINES:
            for dtype in TYPES:
                of = [(model, budget) for model in MODELS for budget in BUDGETS]
                lines = pool.map(lambda r: row(split, machine, r[0], dtype, r[1]), of)
                out += f"\n### {machine}, {dtype.upper()}\n\n"
                out += "| model | GiB | layers | experts | neurons | gain | hot, cold choices | gap |\n"
                out += "|---|--:|--:|--:|--:|--:|--:|--:|\n" + "\n".join(filter(None, lines)) + "\n"
    sys.stdout.write(out)


if __name__ == "__main__":
    main()
