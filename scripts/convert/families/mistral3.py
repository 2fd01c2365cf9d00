"""Ministral 3, and the text part of what Mistral has published since 2025."""

from ..family import Family


def keys(config, keys):
    scale = config.rope.get("llama_4_scaling_beta")
    if scale is not None:
        if type(scale) not in (int, float) or scale < 0:
            config.wrong("llama_4_scaling_beta", scale)
        keys.f32("{}.attention.temperature_scale", scale)


FAMILY = Family(
    arch="mistral3",
    classes=("Ministral3ForCausalLM", "Mistral3ForConditionalGeneration"),
    types=("ministral3", "mistral3"),
    interleaved=True,
    log_multiplier=True,
    prefixes={"language_model.": "", "model.language_model.": "model."},
    # Pictures are not read.
    left_out=("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector."),
    keys=keys,
)
