"""One file for each architecture."""

from . import (
    arcee,
    bamboo,
    exaone,
    falcon,
    gemma2,
    gemma3,
    granite,
    jais2,
    llama,
    minicpm,
    mistral3,
    nemotron,
    olmo2,
    opt,
    phi3,
    plm,
    qwen2,
    qwen3,
    smollm3,
    stablelm,
    starcoder2,
)

ALL = [
    module.FAMILY
    for module in (llama, bamboo, arcee, qwen2, qwen3, granite, minicpm, smollm3, nemotron, olmo2, mistral3, stablelm, starcoder2,
                   exaone, opt, falcon, jais2, phi3, gemma2, gemma3, plm)
]  # fmt: skip
