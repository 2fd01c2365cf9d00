"""StableLM 3B, StableLM 2 1.6B and their relatives."""

from ..family import LAYER, Family

PARALLEL = "use_parallel_residual"


def layer(config):
    """Parallel blocks have no second norm."""
    return {role: source for role, source in LAYER.items() if role != "ffn_norm" or not config.truth(PARALLEL)}


FAMILY = Family(
    arch="stablelm",
    classes=("StableLmForCausalLM", "StableLMEpochForCausalLM"),
    types=("stablelm", "stablelm_epoch"),
    defaults={"partial_rotary_factor": 0.25, "layer_norm_eps": 1e-5},
    norm="layer",
    layer=layer,
    keys=lambda config, keys: keys.bool(f"{{}}.{PARALLEL}", config.truth(PARALLEL)),
    check=lambda config: config.refuse("qk_layernorm", (False,), "norms of heads of queries and keys are"),
)
