"""Gemma 3, its text part."""

from ..family import HEAD_NORMS, LAYER, Family
from ..rope import Rope
from .gemma2 import CAPS, NORMS, scale_keys


def windowed(config):
    every = config.get("sliding_window_pattern", 6)
    if type(every) is not int or every < 1:
        config.wrong("sliding_window_pattern", every)
    return lambda i: (i + 1) % every != 0


def keys(config, keys):
    scale_keys(config, keys, CAPS[1:])
    # Layers with a window rotate by another base, and none of them is scaled.
    local = config.rope_of("sliding_attention") if "rope_parameters" in config.raw else {}
    rope = Rope(config, {"rope_theta": config.get("rope_local_base_freq", 10000.0)} | local)
    if rope.kind != "default" and rope.settings != config.rope:
        config.wrong("rope_parameters", rope.kind)
    keys.f32("{}.rope.freq_base_swa", rope.base)


FAMILY = Family(
    arch="gemma3",
    classes=("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"),
    types=("gemma3_text", "gemma3"),
    defaults={
        "vocab_size": 262208,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "query_pre_attn_scalar": 256,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "sliding_window": 4096,
    },
    activation="gelu_pytorch_tanh",
    norm_plus=1.0,
    tied=True,
    windowed=windowed,
    windowed_in_files=lambda i: i % 6 < 5,
    prefixes={"language_model.": "", "model.language_model.": "model."},
    # Pictures are not read.
    left_out=("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector."),
    layer=lambda config: LAYER | HEAD_NORMS | NORMS,
    keys=keys,
)
