"""Nemotron 3 and 4, and Minitron."""

from ..family import UNGATED, Family

FAMILY = Family(
    arch="nemotron",
    classes=("NemotronForCausalLM",),
    types=("nemotron",),
    defaults={"partial_rotary_factor": 0.5, "norm_eps": 1e-5},
    activation="relu2",
    norm="layer",
    norm_plus=1.0,
    layer=lambda config: UNGATED,
    head_required=True,
)
