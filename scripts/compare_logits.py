#!/usr/bin/env python3
"""Compare logits of scripts/reference.py with llama.cpp's: F32 weights and KV cache, no flash attention, one batch.

    pip install -r scripts/requirements.txt llama-cpp-python
    python scripts/compare_logits.py tests/golden/arch/*.gguf [--tokens 3,1,4] [--tolerance 1e-5]

Prints for each model the largest difference of all logits of all tokens, beside the largest logit; exits with 1 when one is
above the tolerance times the largest logit. A model needs no tokenizer.
"""

import argparse
import ctypes
from pathlib import Path

import llama_cpp as L
import numpy as np

from reference import Model, fail, logits, some_tokens

log = []


@L.llama_log_callback
def keep_log(_level, text, _data):
    log.append(text.decode(errors="replace"))


def begin():
    """Once before the first model: what llama.cpp has to say is kept for errors."""
    L.llama_log_set(keep_log, ctypes.c_void_p(0))
    L.llama_backend_init()


def llama_cpp_logits(path, tokens, n_vocab):
    log.clear()
    params = L.llama_model_default_params()
    params.n_gpu_layers = 0
    model = L.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        reasons = [line.strip() for line in "".join(log).splitlines() if "error" in line]
        fail(f"{path}: {(reasons or ['llama.cpp cannot load it'])[0]}")
    params = L.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = max(len(tokens), 32)
    params.type_k = params.type_v = L.GGML_TYPE_F32
    params.flash_attn_type = L.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.n_threads = params.n_threads_batch = 1
    context = L.llama_init_from_model(model, params)
    if not context:
        fail(f"{path}: llama.cpp cannot make a context")
    batch = L.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for i, token in enumerate(tokens):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, i, 1, 1
        batch.seq_id[i][0] = 0
    status = L.llama_decode(context, batch)
    if status:
        fail(f"{path}: llama_decode: status {status}")
    rows = np.ctypeslib.as_array(L.llama_get_logits(context), (len(tokens), n_vocab)).astype(np.float64)
    L.llama_batch_free(batch)
    L.llama_free(context)
    L.llama_model_free(model)
    return rows


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("models", type=Path, nargs="+", metavar="MODEL.gguf")
    ap.add_argument("--tokens", metavar="N,N", help="token ids (default: those of reference.py)")
    ap.add_argument("--tolerance", type=float, default=1e-5, help="of the largest logit (default: 1e-5)")
    args = ap.parse_args()

    begin()
    apart = False
    for path in args.models:
        tokens = [int(n) for n in args.tokens.split(",")] if args.tokens else some_tokens(path)
        ours = logits(path, tokens)
        theirs = llama_cpp_logits(path, tokens, Model(path).n_vocab)
        difference, largest = np.abs(ours - theirs).max(), np.abs(ours).max()
        apart |= not difference <= args.tolerance * largest
        print(f"{path}: {ours.size} logits up to {largest:.2f}, at most {difference:.1e} apart")
    if apart:
        fail(f"logits differ by more than {args.tolerance:g} of the largest")


if __name__ == "__main__":
    main()
