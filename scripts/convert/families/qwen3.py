"""Qwen 3, the dense ones."""

from ..family import HEAD_NORMS, LAYER, Family
from .qwen2 import windowed

FAMILY = Family(
    arch="qwen3",
    classes=("Qwen3ForCausalLM",),
    types=("qwen3",),
    defaults={"head_dim": 128, "use_sliding_window": False},
    windowed=windowed,
    layer=lambda config: LAYER | HEAD_NORMS,
)
