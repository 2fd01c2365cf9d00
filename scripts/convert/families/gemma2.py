"""Gemma 2."""

from ..family import LAYER, Family

# What both generations share.
NORMS = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}


CAPS = ("attn_logit_softcapping", "final_logit_softcapping")


def scale_keys(config, keys, caps=CAPS):
    """Scores are divided by the root of a number that is mostly the size of a head; `caps` are those that are computed."""
    scalar = config.get("query_pre_attn_scalar", config.head_dim)
    if scalar <= 0:
        config.wrong("query_pre_attn_scalar", scalar)
    if scalar != config.head_dim:
        keys.f32("{}.attention.scale", scalar**-0.5)
    keys.u32("{}.attention.key_length", config.head_dim)
    keys.u32("{}.attention.value_length", config.head_dim)
    for cap in CAPS:
        value = config.get(cap)
        if value is not None and value <= 0:
            config.wrong(cap, value)
        # What is said to be none is no cap, where files that say nothing have one.
        if value is None or config.raw.get(cap, value) is None:
            value = 0
        if value and cap not in caps:
            config.wrong(cap, value)
        if value or cap in config.defaults:
            keys.f32(f"{{}}.{cap}", value)


FAMILY = Family(
    arch="gemma2",
    classes=("Gemma2ForCausalLM",),
    types=("gemma2",),
    defaults={
        "head_dim": 256,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    },
    activation="gelu_pytorch_tanh",
    norm_plus=1.0,
    tied=True,
    windowed=lambda config: lambda i: i % 2 == 0,
    windowed_in_files=lambda i: i % 2 == 0,
    layer=lambda config: LAYER | NORMS,
    keys=scale_keys,
)
