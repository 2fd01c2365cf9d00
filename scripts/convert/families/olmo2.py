"""OLMo 2, whose norms stand behind the blocks."""

from ..family import HEAD_NORMS, LAYER, Family

SOURCES = {"post_attention_norm": "post_attention_layernorm", "post_ffw_norm": "post_feedforward_layernorm"}


def layer(config):
    parts = {role: source for role, source in LAYER.items() if "norm" not in role}
    return parts | HEAD_NORMS | SOURCES


FAMILY = Family(
    arch="olmo2",
    classes=("Olmo2ForCausalLM",),
    types=("olmo2",),
    layer=layer,
    # Of all heads together.
    sizes=lambda config: {
        "attn_q_norm": (config["n_head"] * config.head_dim,),
        "attn_k_norm": (config.n_head_kv * config.head_dim,),
    },
)
