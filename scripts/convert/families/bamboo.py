"""Bamboo and TurboSparse-Mistral, whose FFN has a ReLU behind both of gate and up."""

from ..family import Family

FAMILY = Family(
    arch="bamboo",
    classes=("BambooForCausalLM",),
    types=("bamboo",),
    activation="drelu",
    # Their code applies what config.json says to both.
    activations={"relu": "drelu"},
    interleaved=True,
    # TurboSparse brings predictors, which exact computation does without.
    ignored=(".rotary_emb.inv_freq", ".predictor.fc1.weight", ".predictor.fc2.weight"),
)
