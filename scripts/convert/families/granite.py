"""Granite, the dense ones."""

from ..family import Family

SCALES = {
    "attention_multiplier": "{}.attention.scale",
    "embedding_multiplier": "{}.embedding_scale",
    "residual_multiplier": "{}.residual_scale",
    "logits_scaling": "{}.logit_scale",
}


def keys(config, keys):
    for theirs, ours in SCALES.items():
        scale = config.get(theirs, 1.0)
        if scale == 0:
            config.wrong(theirs, scale)
        keys.f32(ours, scale)


FAMILY = Family(
    arch="granite",
    classes=("GraniteForCausalLM",),
    types=("granite",),
    interleaved=True,
    keys=keys,
)
