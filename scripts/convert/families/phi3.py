"""Phi 3, Phi 3.5 and Phi 4, which have queries, keys and values in one matrix, and gate and up in another."""

from ..family import LAYER, Family

FUSED = {"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"}


def layer(config):
    roles = ("attn_norm", "attn_qkv", "attn_output", "ffn_norm", "ffn_up", "ffn_down")
    return {role: (LAYER | FUSED)[role] for role in roles}


FAMILY = Family(
    arch="phi3",
    classes=("Phi3ForCausalLM",),
    types=("phi3",),
    layer=layer,
    sizes=lambda config: {"ffn_up": (2 * config["n_ff"], config["n_embd"])},
)
