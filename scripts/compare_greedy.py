#!/usr/bin/env python3
"""Compare the text that powerinfer-run writes at temperature 0 with llama.cpp's, token by token.

    pip install -r scripts/requirements.txt llama-cpp-python
    python scripts/compare_greedy.py --bin target/release models/tiny-stories-hybrid-f16.gguf [--prompt TEXT] [-n 200] [--mode dense]

llama.cpp gets the prompt and all tokens before, and must like none better than the next one, up to a rounding: it rounds activations
to half precision beside F16 weights. Prints how many tokens agree; exits with 1 where one does not.
"""

import argparse
import json
import subprocess
from pathlib import Path

import compare_logits
from reference import Model, fail

# Of the spread of the logits: two that are nearer may come out in either order.
TIE = 1e-3


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("models", type=Path, nargs="+", metavar="MODEL.gguf")
    ap.add_argument("--bin", type=Path, required=True, metavar="DIR", help="folder of the commands")
    ap.add_argument("--prompt", default="Once upon a time", help="default: Once upon a time")
    ap.add_argument("-n", type=int, default=200, help="tokens at most (default: 200)")
    ap.add_argument("--mode", default="exact", help="--mode of powerinfer-run (default: exact)")
    args = ap.parse_args()
    compare_logits.begin()
    apart = False
    for path in args.models:
        command = [args.bin.resolve() / "powerinfer-run", "-m", path, "-p", args.prompt, "--device", "cpu"]
        told = subprocess.run([*command, "--tokenize"], capture_output=True, text=True, check=True).stdout
        tokens = [int(token) for token in told.split()]
        told = subprocess.run(
            [*command, "-n", str(args.n), "--temp", "0", "--cache-type", "f32", "--mode", args.mode, "--json"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        greedy, n_vocab = json.loads(told)["tokens"], Model(path).n_vocab
        rows = compare_logits.llama_cpp_logits(path, [*tokens, *greedy], n_vocab)[len(tokens) - 1 : -1]
        lags = [(row.max() - row[token]) / (row.max() - row.min()) for row, token in zip(rows, greedy)]
        equal = sum(lag == 0 for lag in lags)
        apart |= max(lags) > TIE
        print(f"{path}: {equal} of {len(greedy)} tokens are llama.cpp's first choice; the farthest lags by {max(lags):.1e} of the spread")
    if apart:
        fail(f"a token lags by more than {TIE:g}")


if __name__ == "__main__":
    main()
