"""MiniCPM 1 and 2, MiniCPM-S among them."""

from math import sqrt

from ..family import Family


def keys(config, keys):
    keys.f32("{}.embedding_scale", config["scale_emb"])
    keys.f32("{}.residual_scale", config["scale_depth"] / sqrt(config["n_layer"]))
    keys.f32("{}.logit_scale", config["n_embd"] / config["dim_model_base"])


def check(config):
    for key in ("scale_emb", "scale_depth", "dim_model_base"):
        if config[key] <= 0:
            config.wrong(key, config[key])


FAMILY = Family(
    arch="minicpm",
    classes=("MiniCPMForCausalLM",),
    types=("minicpm",),
    interleaved=True,
    tied=True,
    keys=keys,
    check=check,
)
