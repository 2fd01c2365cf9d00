"""Nemotron 3 and 4, and Minitron."""

from ..family import UNGATED, Family

FAMILY = Family(
    arch="nemotron",
    classes=("NemotronForCausalLM",),
    types=("nemotron",),
    activation="relu2",
    norm="layer",
    norm_plus=1.0,
    layer=UNGATED,
    head_required=True,
)
