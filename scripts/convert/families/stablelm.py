"""StableLM 3B, StableLM 2 and their relatives."""

from ..family import LAYER, ROW, Family

PARALLEL = "use_parallel_residual"


def layer(config):
    """Parallel blocks have no second norm; each head of StableLM 2 12B has norms of its own."""
    parts = {role: source for role, source in LAYER.items() if role != "ffn_norm" or not config.truth(PARALLEL)}
    if config.truth("qk_layernorm"):
        parts |= {f"attn_{x}_norm": f"self_attn.{x}_layernorm.norms.{ROW}" for x in "qk"}
    return parts


FAMILY = Family(
    arch="stablelm",
    classes=("StableLmForCausalLM", "StableLMEpochForCausalLM"),
    types=("stablelm", "stablelm_epoch"),
    defaults={"partial_rotary_factor": 0.25, "layer_norm_eps": 1e-5},
    norm="layer",
    layer=layer,
    keys=lambda config, keys: keys.bool(f"{{}}.{PARALLEL}", config.truth(PARALLEL)),
    sizes=lambda config: {
        "attn_q_norm": (config["n_head"], config.head_dim),
        "attn_k_norm": (config.n_head_kv, config.head_dim),
    },
)
