#!/usr/bin/env python3
"""How often the tools say that an activation function does not fit, when it does and when it does not.

    pip install -r scripts/requirements.txt
    python scripts/activation_doubts.py MODEL.gguf --right relu --text stories.txt --text code.rs [--prompts 6] [--run powerinfer-run]

Takes prompts of 64 tokens from evenly spread places of each text, labels the model with each function in turn, and decides by
the rule of src/measure/doubt.rs, whose numbers are repeated here. Gates and likelihoods are those of scripts/reference.py.
"""

import argparse
import subprocess
from pathlib import Path

import numpy as np

from reference import ACTIVATIONS, ARCHITECTURES, Model

N_TOKENS, MIN_TOKENS = 64, 16
NEVER_REST = ["silu", "gelu"]
FEW_POSITIVE, MANY_FIRST, MANY_ALL = 0.35, 0.45, 0.40
NATS, ERRORS, TEXT = 0.25, 3.0, 0.75
LABELS = ["silu", "gelu", "relu", "relu2", "drelu"]


class Watched(Model):
    """A model that keeps its matrices, and what the gates were."""

    def __init__(self, path):
        self.kept, self.gates = {}, []
        super().__init__(path)
        gated = any("ffn_gate" in name for name in self.tensors)
        self.mask = "ffn_gate" if gated else "ffn_up"

    def get(self, name):
        if name not in self.kept:
            self.kept[name] = super().get(name)
        return self.kept[name]

    def __getitem__(self, name):
        return self.get(name)

    def linear(self, x, name):
        y = super().linear(x, name)
        if name.endswith(self.mask):
            self.gates.append(y[1:] > 0)
        return y


def compute(model, tokens, label):
    """What each token costs in nats, and the shares of positive gates in the first layer and in all."""
    model.gates.clear()
    with np.errstate(all="ignore"):
        logits = ARCHITECTURES[model.arch](model, model["token_embd.weight"][tokens], activation=ACTIVATIONS[label])
    logits = logits[:-1] - logits[:-1].max(-1, keepdims=True)
    nats = np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(tokens) - 1), tokens[1:]]
    return nats, model.gates[0].mean(), np.mean([gates.mean() for gates in model.gates])


def doubts(label, computed, n_vocab):
    """The function that would be named, or None."""
    now, first, everywhere = computed[label]
    suspected = first < FEW_POSITIVE if label in NEVER_REST else first > MANY_FIRST or everywhere > MANY_ALL
    if not suspected:
        return None
    better = min((other for other in computed if other != label), key=lambda other: computed[other][0].mean())
    gain = now - computed[better][0]
    error = gain.std(ddof=1) / np.sqrt(len(gain))
    sure = gain.mean() > NATS and gain.mean() > ERRORS * error
    return better if sure and computed[better][0].mean() < TEXT * np.log(n_vocab) else None


def prompts(args, text):
    text = text.read_text(errors="replace")
    step = len(text) // (args.prompts + 1)
    for i in range(args.prompts):
        command = [args.run, "-m", args.model, "--tokenize", "-f", "-"]
        ids = subprocess.run(command, input=text[step * i + 37 :][:500], capture_output=True, text=True, check=True)
        yield [int(token) for token in ids.stdout.split()][:N_TOKENS]


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("model", type=Path, metavar="MODEL", help="a trained model")
    ap.add_argument("--right", required=True, help="the function it was trained with")
    ap.add_argument("--text", type=Path, action="append", required=True, help="where prompts are taken from")
    ap.add_argument("--prompts", type=int, default=6, metavar="N", help="of each text")
    ap.add_argument("--run", default="powerinfer-run", help="for its tokenizer")
    args = ap.parse_args()
    model = Watched(args.model)
    labels = [label for label in LABELS if label != "drelu" or model.mask == "ffn_gate"]
    for text in args.text:
        cases = [{label: compute(model, tokens, label) for label in labels} for tokens in prompts(args, text) if len(tokens) >= MIN_TOKENS]
        for label in labels:
            named = [doubts(label, computed, model.n_vocab) for computed in cases]
            found = {name: named.count(name) for name in labels if name in named}
            costs = np.mean([computed[label][0].mean() for computed in cases])
            first = [computed[label][1] for computed in cases]
            everywhere = [computed[label][2] for computed in cases]
            print(
                f"{text.name}: labelled {label}{' (right)' if label == args.right else ''}: {sum(found.values())} of {len(cases)} doubted"
                f" {found or ''}; {costs:.2f} nats per token, {100 * min(first):.0f} to {100 * max(first):.0f} % of the first layer's gates"
                f" positive, {100 * min(everywhere):.0f} to {100 * max(everywhere):.0f} % of all",
                flush=True,
            )


if __name__ == "__main__":
    main()
