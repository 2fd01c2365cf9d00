"""Jais 2."""

from ..family import UNGATED, Family

FAMILY = Family(
    arch="jais2",
    classes=("Jais2ForCausalLM",),
    types=("jais2",),
    defaults={"layer_norm_eps": 1e-5},
    activation="relu2",
    norm="layer",
    layer=lambda config: UNGATED,
)
