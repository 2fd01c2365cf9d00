#!/usr/bin/env python3
"""Check scripts/convert_hf_to_gguf.py against transformers: tiny random models of its own classes, converted, and their logits.

    pip install -r scripts/requirements.txt
    python scripts/compare_transformers.py [--keep DIR] [--tolerance 2e-5] [NAME...]

Each model is made and saved by transformers, converted to F32, and computed twice: by transformers, and by scripts/reference.py
from the converted file. Prints the largest difference of all logits relative to the largest logit; exits with 1 when one is above
the tolerance. Architectures whose code transformers does not have, or whose checkpoints are not converted, are
not here: bamboo, exaone, minicpm, plm, smallthinker and gpt-oss; nor, yet, are nemotron_h and nemotron_h_moe.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers

import reference
from make_hf_checkpoint import made_up_tokenizer

N_VOCAB, N_TOKENS = 40, 12
USUAL = {
    "vocab_size": N_VOCAB,
    "hidden_size": 32,
    "intermediate_size": 36,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rope_theta": 20.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
}
WIDE = {"head_dim": 10}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
LONG = {"rope_type": "longrope", "long_factor": [1.5, 2.0, 2.5, 3.0], "short_factor": [1.0, 1.1, 1.2, 1.3]}
MINISTRAL = YARN | {"original_max_position_embeddings": 5, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.4}
BASE = {"rope_theta": 20.0}
OLMO3 = {"full_attention": YARN | BASE, "sliding_attention": {"rope_type": "default"} | BASE}
GRANITE = {"attention_multiplier": 0.3, "embedding_multiplier": 3.0, "residual_multiplier": 0.4, "logits_scaling": 2.0}
# Of the usual settings, what these do not know.
WITHOUT = ("intermediate_size", "num_key_value_heads")
# Name: class of the configuration, and what differs from the usual.
MODELS = {
    "llama": ("LlamaConfig", WIDE | {"hidden_act": "relu", "tie_word_embeddings": True}),
    "llama-biases": ("LlamaConfig", {"attention_bias": True, "mlp_bias": True, "rope_scaling": {"rope_type": "linear", "factor": 2.5}}),
    "llama-3": ("LlamaConfig", {"rope_scaling": LLAMA3}),
    "mistral": ("MistralConfig", WIDE | {"sliding_window": None}),
    "arcee": ("ArceeConfig", WIDE | {"rope_scaling": YARN}),
    "qwen2": ("Qwen2Config", {"use_sliding_window": False}),
    "qwen2-yarn": ("Qwen2Config", {"rope_scaling": YARN | {"attention_factor": 1.3}, "tie_word_embeddings": True}),
    "qwen3": ("Qwen3Config", WIDE),
    "granite": ("GraniteConfig", GRANITE),
    "smollm3": ("SmolLM3Config", {"num_hidden_layers": 9}),
    "nemotron": ("NemotronConfig", {"partial_rotary_factor": 0.5, "head_dim": 8}),
    "nemotron-biases": ("NemotronConfig", {"attention_bias": True, "mlp_bias": True, "partial_rotary_factor": 1.0, "head_dim": 8}),
    "olmo2": ("Olmo2Config", {}),
    "olmo3": ("Olmo3Config", {"sliding_window": 4, "rope_parameters": OLMO3, "num_hidden_layers": 8}),
    "ministral3": ("Ministral3Config", WIDE | {"sliding_window": None, "rope_scaling": MINISTRAL}),
    "stablelm": ("StableLmConfig", {"use_qkv_bias": True, "partial_rotary_factor": 0.5}),
    "stablelm-parallel": ("StableLmConfig", {"use_parallel_residual": True, "partial_rotary_factor": 0.75}),
    "stablelm-heads": ("StableLmConfig", {"use_parallel_residual": True, "qk_layernorm": True, "partial_rotary_factor": 0.5}),
    "starcoder2": ("Starcoder2Config", {"sliding_window": None}),
    "opt": ("OPTConfig", {"ffn_dim": 36, "word_embed_proj_dim": 32, "without": WITHOUT}),
    "falcon-7b": ("FalconConfig", {"new_decoder_architecture": False, "multi_query": True, "parallel_attn": True, "bias": False, "without": WITHOUT}),
    "falcon-40b": ("FalconConfig", {"new_decoder_architecture": True, "num_kv_heads": 2, "bias": False, "activation": "relu", "without": WITHOUT}),
    "jais2": ("Jais2Config", {}),
    "phi3": ("Phi3Config", {"sliding_window": None}),
    "phi3-long": ("Phi3Config", {"sliding_window": None, "rope_scaling": LONG, "original_max_position_embeddings": 16}),
    "gemma2": ("Gemma2Config", WIDE | {"sliding_window": 4, "query_pre_attn_scalar": 8}),
    "mixtral": ("MixtralConfig", WIDE | {"num_local_experts": 6, "num_experts_per_tok": 2, "sliding_window": None}),
    "qwen3moe": ("Qwen3MoeConfig", WIDE | {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 20, "norm_topk_prob": True}),
    "granitemoe": ("GraniteMoeConfig", {"num_local_experts": 6, "num_experts_per_tok": 2} | GRANITE),
    "granitemoe-shared": ("GraniteMoeSharedConfig", {"num_local_experts": 6, "shared_intermediate_size": 20} | GRANITE),
    "gemma3": ("Gemma3TextConfig", WIDE | {"sliding_window": 4, "query_pre_attn_scalar": 10, "num_hidden_layers": 8}),
}


def make(name, folder):
    """A model of transformers, saved with a tokenizer."""
    kind, settings = MODELS[name]
    torch.manual_seed(sum(name.encode()))
    settings = {key: value for key, value in {**USUAL, **settings}.items() if key not in settings.get("without", ())}
    settings.pop("without", None)
    config = getattr(transformers, kind)(**settings)
    config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn_like(parameter) * 1.5 / parameter.shape[-1] ** 0.5)
            else:
                # Norms and biases that are neither 0 nor 1.
                parameter.add_(0.3 * torch.randn_like(parameter))
        if "embed" in name:
            parameter.mul_(parameter.shape[-1] ** 0.5)
    model.save_pretrained(folder)
    tokenizer, tokenizer_config = made_up_tokenizer(N_VOCAB)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    return model


def difference(name, folder):
    model = make(name, folder / name)
    path = folder / f"{name}.gguf"
    command = [sys.executable, str(Path(__file__).with_name("convert_hf_to_gguf.py")), folder / name, "-o", path, "--outtype", "f32"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return done.stderr.strip()
    tokens = np.random.default_rng(1).integers(0, N_VOCAB, N_TOKENS).tolist()
    with torch.no_grad():
        theirs = model(torch.tensor([tokens])).logits[0].double().numpy()
    try:
        ours = reference.logits(path, tokens)
    except SystemExit as e:
        return str(e)
    return np.abs(theirs - ours).max() / np.abs(theirs).max()


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(MODELS)} (default: all)")
    ap.add_argument("--keep", type=Path, metavar="DIR", help="folder in which the models stay")
    ap.add_argument("--tolerance", type=float, default=2e-5, help="relative to the largest logit (default: 2e-5)")
    args = ap.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as temporary:
        folder, apart = args.keep or Path(temporary), False
        folder.mkdir(parents=True, exist_ok=True)
        for name in args.names or MODELS:
            result = difference(name, folder)
            apart |= isinstance(result, str) or not result <= args.tolerance
            print(f"{name:20} {result if isinstance(result, str) else f'{result:.1e}'}", flush=True)
    if apart:
        raise SystemExit("not all models agree")


if __name__ == "__main__":
    main()
