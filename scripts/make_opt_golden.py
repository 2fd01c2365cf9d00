#!/usr/bin/env python3
"""Logits that transformers gives for OPT models in GGUF files, which llama.cpp does not know.

    pip install -r scripts/requirements.txt torch transformers
    python scripts/make_opt_golden.py tests/golden/arch/opt.gguf tests/golden/arch/opt-offset.gguf
    python scripts/make_opt_golden.py --golden tests/golden/arch/opt-transformers.json tests/golden/arch/opt-offset.gguf

Puts the weights of a file into transformers' own model, in 64 bits. Prints the largest difference of all logits of all tokens to
those of scripts/reference.py, beside the largest logit; exits with 1 when one is above the tolerance times the largest logit.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from transformers import OPTConfig, OPTForCausalLM

from reference import Model, fail, logits, some_tokens

# Without what opt's own positions have before the first.
BEFORE = 2


def opt(model):
    table = model["position_embd.weight"]
    n_ctx = model.key("context_length")
    if len(table) == n_ctx:
        table = np.concatenate([np.full((BEFORE, table.shape[1]), np.nan), table])
    config = OPTConfig(
        vocab_size=model.n_vocab, hidden_size=table.shape[1], word_embed_proj_dim=table.shape[1], ffn_dim=model.key("feed_forward_length"),
        num_attention_heads=model.n_head, num_hidden_layers=model.n_layer, max_position_embeddings=len(table) - BEFORE, dropout=0.0,
        tie_word_embeddings="output.weight" not in model.tensors, attn_implementation="eager",
    )  # fmt: skip
    theirs = OPTForCausalLM(config).double().eval()
    names = {"model.decoder.embed_tokens": "token_embd", "model.decoder.embed_positions": None, "model.decoder.final_layer_norm": "output_norm"}
    names["lm_head"] = "token_embd" if config.tie_word_embeddings else "output"
    for i in range(model.n_layer):
        for ours, name in (
            ("attn_norm", "self_attn_layer_norm"), ("attn_q", "self_attn.q_proj"), ("attn_k", "self_attn.k_proj"),
            ("attn_v", "self_attn.v_proj"), ("attn_output", "self_attn.out_proj"), ("ffn_norm", "final_layer_norm"),
            ("ffn_up", "fc1"), ("ffn_down", "fc2"),
        ):  # fmt: skip
            names[f"model.decoder.layers.{i}.{name}"] = f"blk.{i}.{ours}"
    state = {}
    for name in theirs.state_dict():
        stem, end = name.rsplit(".", 1)
        state[name] = torch.tensor(table if names[stem] is None else model[f"{names[stem]}.{end}"])
    theirs.load_state_dict(state)
    for module in theirs.modules():
        # transformers has no key for it.
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = model.key("attention.layer_norm_epsilon")
    return theirs


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("models", type=Path, nargs="+", metavar="MODEL.gguf")
    ap.add_argument("--golden", type=Path, metavar="FILE", help="write transformers' logits of the last model there")
    ap.add_argument("--tolerance", type=float, default=1e-6, help="of the largest logit (default: 1e-6)")
    args = ap.parse_args()
    apart = False
    for path in args.models:
        model = Model(path)
        if model.arch != "opt":
            fail(f'{path}: general.architecture: "{model.arch}" is not opt')
        tokens = some_tokens(path)
        with torch.no_grad():
            theirs = opt(model)(torch.tensor([tokens])).logits[0].numpy()
        ours = logits(path, tokens)
        difference, largest = np.abs(ours - theirs).max(), np.abs(ours).max()
        apart |= not difference <= args.tolerance * largest
        print(f"{path}: {ours.size} logits up to {largest:.2f}, at most {difference:.1e} apart")
        if args.golden:
            rows = ",\n".join("  [" + ", ".join(f"{value:.9g}" for value in row) + "]" for row in theirs)
            head = f'"model": {json.dumps(path.name)},\n "tokens": {json.dumps(tokens)},\n "activation": null'
            args.golden.write_text("{" + head + ',\n "logits": [\n' + rows + "\n]}\n")
    if apart:
        fail(f"logits differ by more than {args.tolerance:g} of the largest")


if __name__ == "__main__":
    main()
