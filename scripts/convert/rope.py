"""How positions are rotated: keys, and tensors where a scaling has any."""

import math

import numpy as np

from .fail import fail

# Other names of the same: none of them changes frequencies.
PLAIN = ("default", None)


def kind(config):
    return config.rope.get("rope_type") or config.rope.get("type") or "default"


def number(config, key, default=None):
    value = config.rope.get(key, default)
    if type(value) not in (int, float) or not math.isfinite(value):
        fail(f"{config.path}: rope scaling {kind(config)}: {key}: {value!r} makes no sense")
    return value


def base(config):
    value = config.rope.get("rope_theta") or config.get("rope_base") or 10000.0
    if type(value) not in (int, float) or value <= 0:
        fail(f"{config.path}: rope_theta: {value!r} makes no sense")
    return value


def write(keys, config):
    """The keys of a model that rotates."""
    n_rot, scaling = config.n_rot, kind(config)
    if n_rot % 2:
        fail(f"{config.path}: {n_rot} elements of a head cannot be rotated in pairs")
    keys.u32("{}.rope.dimension_count", n_rot)
    keys.f32("{}.rope.freq_base", base(config))
    if scaling == "linear":
        keys.string("{}.rope.scaling.type", "linear")
        keys.f32("{}.rope.scaling.factor", number(config, "factor"))
    elif scaling == "yarn":
        write_yarn(keys, config)
    elif scaling not in ("default", "llama3"):
        fail(f"{config.path}: rope scaling {scaling} is not supported; linear, llama3 and yarn are")


def original_context(config):
    value = config.rope.get("original_max_position_embeddings") or config.raw.get("original_max_position_embeddings")
    if type(value) is not int or value < 1:
        fail(f"{config.path}: rope scaling {kind(config)} without original_max_position_embeddings")
    return value


def write_yarn(keys, config):
    factor = number(config, "factor")
    keys.string("{}.rope.scaling.type", "yarn")
    keys.f32("{}.rope.scaling.factor", factor)
    original = config.rope.get("original_max_position_embeddings")
    keys.u32("{}.rope.scaling.original_context_length", original_context(config) if original else config["n_ctx"])
    for theirs, ours, usual in (("beta_fast", "yarn_beta_fast", 32), ("beta_slow", "yarn_beta_slow", 1)):
        if number(config, theirs, usual) != usual:
            keys.f32(f"{{}}.rope.scaling.{ours}", number(config, theirs))
    # Cosine and sine are multiplied with 0.1 ln(factor) + 1 where nothing else is said.
    usual = 0.1 * math.log(factor) + 1 if factor > 1 else 1.0
    said = config.rope.get("attention_factor")
    if said is not None:
        keys.f32("{}.rope.scaling.attn_factor", number(config, "attention_factor") / usual)
    elif config.rope.get("mscale") and config.rope.get("mscale_all_dim"):
        of = [0.1 * number(config, key) * math.log(factor) + 1 for key in ("mscale", "mscale_all_dim")]
        keys.f32("{}.rope.scaling.attn_factor", of[0] / of[1] / usual)
    if config.rope.get("truncate") is False:
        fail(f"{config.path}: rope scaling yarn without truncate is not supported")


def factors(config):
    """Tensors by name: what frequencies are divided by."""
    if kind(config) != "llama3":
        return {}
    low, high, factor = (number(config, key) for key in ("low_freq_factor", "high_freq_factor", "factor"))
    original = original_context(config)
    i = np.arange(0, config.n_rot, 2)
    wavelength = 2 * math.pi * base(config) ** (i / config.n_rot)
    smooth = (original / wavelength - low) / (high - low)
    between = 1 / ((1 - smooth) / factor + smooth)
    divisors = np.where(wavelength > original / low, factor, np.where(wavelength < original / high, 1.0, between))
    return {"rope_freqs.weight": divisors.astype(np.float32)}
