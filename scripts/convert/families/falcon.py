"""Falcon 7B and 40B, Falcon 2, and ReluFalcon."""

import numpy as np

from ..family import Family

NEW = "new_decoder_architecture"


def n_head_kv(config):
    """As its code has it, whatever else config.json says."""
    if config.truth(NEW):
        return config.n_head_kv
    return 1 if config.truth("multi_query", True) else config["n_head"]


def sizes(config):
    n_embd, n_ff = config["n_embd"], config["n_ff"]
    rows = (config["n_head"] + 2 * n_head_kv(config)) * config.head_dim
    return {"attn_qkv": (rows, n_embd), "ffn_up": (n_ff, n_embd), "ffn_down": (n_embd, n_ff)}


def regroup(config):
    """From rows of each group of heads, its queries, key and value, to all queries, all keys, all values."""
    n_kv, per_group, head_dim = n_head_kv(config), config["n_head"] // n_head_kv(config), config.head_dim

    def reorder(bits):
        groups = bits.reshape(n_kv, per_group + 2, head_dim, *bits.shape[1:])
        shares = (groups[:, :per_group], groups[:, per_group], groups[:, per_group + 1])
        return np.concatenate([share.reshape(-1, *bits.shape[1:]) for share in shares])

    return reorder


def layer(config):
    two_norms = config.truth(NEW) and config.get("num_ln_in_parallel_attn", 2) == 2
    norms = {"attn_norm": "ln_mlp", "attn_norm_2": "ln_attn"} if two_norms else {"attn_norm": "input_layernorm"}
    return norms | {
        "attn_qkv": "self_attention.query_key_value",
        "attn_output": "self_attention.dense",
        "ffn_up": "mlp.dense_h_to_4h",
        "ffn_down": "mlp.dense_4h_to_h",
    }


def keys(config, keys):
    keys.u32("{}.attention.head_count_kv", n_head_kv(config))
    keys.string("{}.tensor_data_layout", "jploski")


def check(config):
    config.refuse("alibi", (False,), "a bias by distance (ALiBi) is")
    if not config.truth(NEW):
        config.refuse("parallel_attn", (True,), "attention before the FFN is")


FAMILY = Family(
    arch="falcon",
    classes=("FalconForCausalLM", "RWForCausalLM"),
    types=("falcon", "RefinedWebModel", "RefinedWeb"),
    defaults=lambda raw: {
        "max_position_embeddings": 2048,
        "layer_norm_epsilon": 1e-5,
        "ffn_hidden_size": 4 * width if type(width := raw.get("hidden_size")) is int else None,
    },
    activation="gelu",
    norm="layer",
    tied=True,
    around={"token_embd": "transformer.word_embeddings", "output_norm": "transformer.ln_f", "output": "lm_head"},
    layers="transformer.h",
    layer=layer,
    sizes=sizes,
    reorders=lambda config: {"attn_qkv": regroup(config)},
    keys=keys,
    check=check,
)
