"""Qwen 3 with experts."""

from ..family import HEAD_NORMS, Family, with_experts
from .qwen2 import windowed

EXPERT = "mlp.experts.{expert}"
EXPERTS = with_experts("mlp.gate", f"{EXPERT}.gate_proj", f"{EXPERT}.up_proj", f"{EXPERT}.down_proj")


def keys(config, keys):
    keys.u32("{}.expert_feed_forward_length", config.n_ff_expert)


def check(config):
    """Files do not say what these would."""
    config.refuse("mlp_only_layers", ([],), "layers without experts are")
    config.refuse("decoder_sparse_step", (1,), "layers without experts are")
    config.refuse("norm_topk_prob", (True,), "experts whose weights do not add up to 1 are")


FAMILY = Family(
    arch="qwen3moe",
    classes=("Qwen3MoeForCausalLM",),
    types=("qwen3_moe",),
    defaults={"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768, "use_sliding_window": False},
    windowed=windowed,
    layer=lambda config: EXPERTS | HEAD_NORMS,
    experts=lambda config: config["n_expert"],
    keys=keys,
    check=check,
)
