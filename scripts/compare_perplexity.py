#!/usr/bin/env python3
"""Compare perplexity by powerinfer-bench with that by llama.cpp, over the same windows of the same text.

    pip install -r scripts/requirements.txt llama-cpp-python
    python scripts/compare_perplexity.py --model M.gguf --text FILE --ctx N --bench PATH [--tolerance 0.001]

The model has to be one that llama.cpp computes right: SiLU, such as scripts/make_silu_gguf.py makes. Windows are
those of llama.cpp's perplexity tool: the text's tokens, BOS first, are cut into consecutive windows of N and what
is left is dropped; each window's first token is replaced by BOS; in each window the predictions of tokens
N/2+1 ..= N-1 count. Exits with 1 when a row of the bench differs by more than the tolerance, relatively. Without
--bench it prints llama.cpp's figure alone. Tiny random models of every architecture are for scripts/compare_forms.py.
"""

import argparse
import json
import math
import subprocess
from pathlib import Path

import llama_cpp
import numpy as np

KV_TYPES = {"f32": llama_cpp.GGML_TYPE_F32, "f16": llama_cpp.GGML_TYPE_F16}


def window_nll(llm, window, first):
    """Sum of -ln p over the tokens after index `first`."""
    llm.reset()
    llm.eval(window)
    scores = np.array(llm.scores[first : len(window) - 1], dtype=np.float64)
    top = scores.max(-1, keepdims=True)
    log_sum = np.log(np.exp(scores - top).sum(-1)) + top[:, 0]
    return (log_sum - scores[np.arange(len(scores)), window[first + 1 :]]).sum()


def reference_perplexity(model, text, n_ctx, kv_type, threads):
    try:
        llm = llama_cpp.Llama(
            model_path=str(model),
            n_ctx=n_ctx,
            n_batch=n_ctx,
            n_threads=threads,
            n_threads_batch=threads,
            n_gpu_layers=0,
            logits_all=True,
            type_k=KV_TYPES[kv_type],
            type_v=KV_TYPES[kv_type],
            verbose=False,
        )
    except ValueError as e:
        raise SystemExit(f"{model}: {e}")
    tokens = llm.tokenize(text, add_bos=True, special=False)
    adds_bos = llama_cpp.llama_vocab_get_add_bos(llama_cpp.llama_model_get_vocab(llm.model))
    n_windows = len(tokens) // n_ctx
    if n_windows == 0:
        raise SystemExit(f"the text's {len(tokens)} tokens do not fill a window of {n_ctx}")
    first, total = n_ctx // 2, 0.0
    for w in range(n_windows):
        window = tokens[w * n_ctx : (w + 1) * n_ctx]
        if adds_bos:
            window[0] = llm.token_bos()
        total += window_nll(llm, window, first)
    return math.exp(total / (n_windows * (n_ctx - first - 1))), n_windows


def bench_rows(bench, model, text, n_ctx):
    command = [str(bench.resolve()), "-m", str(model), "--perplexity", str(text), "-c", str(n_ctx), "-o", "json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as e:
        raise SystemExit(f"{bench}: {e.strerror}")
    if done.returncode:
        raise SystemExit(f"{bench}: exit status {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
    try:
        rows = [row for row in json.loads(done.stdout) if row.get("perplexity") is not None]
    except ValueError as e:
        raise SystemExit(f"{bench}: not JSON: {e}")
    if not rows:
        raise SystemExit(f"{bench}: no row with a perplexity")
    return rows


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--model", type=Path, required=True, metavar="M.gguf", help="model, SiLU")
    ap.add_argument("--text", type=Path, required=True, metavar="FILE", help="text to score")
    ap.add_argument("--ctx", type=int, default=256, metavar="N", help="window (default: 256)")
    ap.add_argument("--bench", type=Path, metavar="PATH", help="powerinfer-bench")
    ap.add_argument("--tolerance", type=float, default=0.001, help="largest |ratio - 1| (default: 0.001)")
    ap.add_argument("--kv", choices=KV_TYPES, default="f32", help="llama.cpp's KV cache (default: f32)")
    ap.add_argument("--threads", type=int, default=2, help="llama.cpp's threads (default: 2)")
    args = ap.parse_args()

    try:
        text = args.text.read_bytes()
    except OSError as e:
        raise SystemExit(f"{args.text}: {e.strerror}")
    reference, n_windows = reference_perplexity(args.model, text, args.ctx, args.kv, args.threads)
    print(f"llama.cpp  {reference:.6f}  ({n_windows} windows of {args.ctx})")
    if args.bench is None:
        return
    apart = False
    for row in bench_rows(args.bench, args.model, args.text, args.ctx):
        ratio = row["perplexity"] / reference
        apart |= not abs(ratio - 1) <= args.tolerance
        print(f"bench      {row['perplexity']:.6f}  mode {row.get('mode')}  ratio {ratio:.6f}")
    if apart:
        raise SystemExit(f"{args.model}: perplexities differ by more than {args.tolerance:g}")


if __name__ == "__main__":
    main()
