"""Arcee: AFM-4.5B and its relatives."""

from ..family import UNGATED, Family

FAMILY = Family(
    arch="arcee",
    classes=("ArceeForCausalLM",),
    types=("arcee",),
    activation="relu2",
    interleaved=True,
    layer=lambda config: UNGATED,
)
