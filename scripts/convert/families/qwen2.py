"""Qwen 1.5 to 2.5."""

from ..family import Family


def windowed(config):
    """Layers from a number on, where any have a window."""
    first = config.get("max_window_layers", 28)
    return lambda i: i >= first


FAMILY = Family(
    arch="qwen2",
    classes=("Qwen2ForCausalLM",),
    types=("qwen2",),
    defaults={"use_sliding_window": False},
    windowed=windowed,
)
