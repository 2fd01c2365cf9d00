"""Bamboo, whose FFN has a ReLU behind both of gate and up."""

from ..family import Family

FAMILY = Family(
    arch="bamboo",
    classes=("BambooForCausalLM",),
    types=("bamboo",),
    activation="drelu",
    # Its code applies what config.json says to both.
    activations={"relu": "drelu"},
    interleaved=True,
)
