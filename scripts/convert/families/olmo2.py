"""OLMo 2 and 3, whose norms stand behind the blocks."""

from ..fail import fail
from ..family import HEAD_NORMS, LAYER, Family
from ..rope import Rope

SOURCES = {"post_attention_norm": "post_attention_layernorm", "post_ffw_norm": "post_feedforward_layernorm"}


def check(config):
    """Layers with a window rotate by the same base, and unscaled."""
    rope = config.raw.get("rope_parameters")
    if isinstance(rope, dict) and any(isinstance(value, dict) for value in rope.values()):
        near, far = (Rope(config, config.rope_of(kind)) for kind in ("sliding_attention", "full_attention"))
        if near.kind != "default" or near.base != far.base:
            fail(f"{config.path}: rope_parameters: layers with a window that rotate by another base, or scaled, are not supported")


def layer(config):
    parts = {role: source for role, source in LAYER.items() if "norm" not in role}
    return parts | HEAD_NORMS | SOURCES


FAMILY = Family(
    arch="olmo2",
    classes=("Olmo2ForCausalLM", "Olmo3ForCausalLM"),
    types=("olmo2", "olmo3"),
    # OLMo 3 has windows, in three of four layers.
    windowed=lambda config: lambda i: (i + 1) % 4 != 0,
    windowed_in_files=lambda i: (i + 1) % 4 != 0,
    check=check,
    layer=layer,
    # Of all heads together.
    sizes=lambda config: {
        "attn_q_norm": (config["n_head"] * config.head_dim,),
        "attn_k_norm": (config.n_head_kv * config.head_dim,),
    },
)
