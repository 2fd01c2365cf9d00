"""How positions are rotated: keys, and tensors where a scaling has any."""

import math

import numpy as np

from .fail import fail

KINDS = {"default": "default", "linear": "linear", "yarn": "yarn", "llama3": "llama3", "longrope": "longrope", "su": "longrope"}


class Rope:
    """How the layers of a kind rotate, checked as it is asked for. `kind` is one of `KINDS`."""

    def __init__(self, config, settings):
        self.config, self.settings = config, settings
        said = settings.get("rope_type") or settings.get("type") or "default"
        self.kind = KINDS.get(said) if isinstance(said, str) else None
        if self.kind is None:
            fail(f"{config.path}: rope scaling {str(said)[:60]} is not supported; {', '.join(KINDS)} are")

    def number(self, key, default=None):
        value = self.settings.get(key, default)
        if type(value) not in (int, float) or not 0 < value < 1e30:
            fail(f"{self.config.path}: rope scaling {self.kind}: {key}: {str(value)[:60]!r} makes no sense")
        return value

    @property
    def base(self):
        return self.number("rope_theta", self.config.get("rope_base", 10000.0))

    @property
    def original_context(self):
        """Tokens of context before scaling."""
        key = "original_max_position_embeddings"
        value = self.settings.get(key, self.config.raw.get(key))
        if type(value) is not int or not 0 < value < 1 << 31:
            fail(f"{self.config.path}: rope scaling {self.kind}: {key}: {str(value)[:60]!r} makes no sense")
        return value

    def factors(self, key, n):
        """Divisors of frequencies, one per rotated pair."""
        values = self.settings.get(key)
        if not isinstance(values, list) or not all(type(value) in (int, float) and 0 < value < 1e30 for value in values):
            fail(f"{self.config.path}: rope scaling {self.kind}: {key} is no list of positive numbers")
        if len(values) != n:
            fail(f"{self.config.path}: rope scaling {self.kind}: {key} has {len(values)} numbers for {n} pairs")
        return np.array(values, np.float32)


def write(keys, config, log_multiplier=False):
    """The keys of a model that rotates. `log_multiplier`: whether its files say by `yarn_log_multiplier` what YaRN multiplies
    cosine and sine with."""
    n_rot, rope = config.n_rot, Rope(config, config.rope)
    if n_rot < 2 or n_rot % 2:
        fail(f"{config.path}: {n_rot} elements of a head cannot be rotated in pairs")
    keys.u32("{}.rope.dimension_count", n_rot)
    keys.f32("{}.rope.freq_base", rope.base)
    if rope.kind == "linear":
        keys.string("{}.rope.scaling.type", "linear")
        keys.f32("{}.rope.scaling.factor", rope.number("factor"))
    elif rope.kind == "yarn":
        write_yarn(keys, config, rope, log_multiplier)
    elif rope.kind == "longrope":
        keys.string("{}.rope.scaling.type", "longrope")
        keys.u32("{}.rope.scaling.original_context_length", rope.original_context)
        longer = config["n_ctx"] / rope.original_context
        usual = math.sqrt(1 + math.log(longer) / math.log(rope.original_context)) if longer > 1 else 1.0
        keys.f32("{}.rope.scaling.attn_factor", rope.number("attention_factor", usual))


def write_yarn(keys, config, rope, log_multiplier):
    factor = rope.number("factor")
    if rope.settings.get("truncate") is False:
        fail(f"{config.path}: rope scaling yarn without truncate is not supported")
    keys.string("{}.rope.scaling.type", "yarn")
    keys.f32("{}.rope.scaling.factor", factor)
    said = rope.settings.get("original_max_position_embeddings")
    keys.u32("{}.rope.scaling.original_context_length", config["n_ctx"] if said is None else rope.original_context)
    for ours, theirs, usual in (("yarn_beta_fast", "beta_fast", 32), ("yarn_beta_slow", "beta_slow", 1)):
        if rope.number(theirs, usual) != usual or log_multiplier:
            keys.f32(f"{{}}.rope.scaling.{ours}", rope.number(theirs, usual))

    def magnitude(multiplier):
        return 0.1 * multiplier * math.log(factor) + 1 if factor > 1 else 1.0

    # Where nothing is said, cosine and sine are multiplied with magnitude(1).
    attention_factor = rope.settings.get("attention_factor")
    both = [rope.settings.get(key) for key in ("mscale", "mscale_all_dim")]
    if attention_factor is not None:
        keys.f32("{}.rope.scaling.attn_factor", rope.number("attention_factor") / magnitude(1))
    elif all(both) and log_multiplier and both[0] == 1:
        keys.f32("{}.rope.scaling.yarn_log_multiplier", rope.number("mscale_all_dim"))
    elif all(both):
        of = [magnitude(rope.number(key)) for key in ("mscale", "mscale_all_dim")]
        keys.f32("{}.rope.scaling.attn_factor", of[0] / of[1] / magnitude(1))


def tensors(config):
    """Tensors by name: what frequencies are divided by."""
    rope, n = Rope(config, config.rope), config.n_rot // 2
    if rope.kind == "longrope":
        names = {"rope_factors_long.weight": "long_factor", "rope_factors_short.weight": "short_factor"}
        return {name: rope.factors(key, n) for name, key in names.items()}
    if rope.kind != "llama3":
        return {}
    low, high, factor = (rope.number(key) for key in ("low_freq_factor", "high_freq_factor", "factor"))
    if low >= high:
        fail(f"{config.path}: rope scaling llama3: low_freq_factor {low} is not below high_freq_factor {high}")
    wavelength = 2 * math.pi * rope.base ** (np.arange(n) / n)
    smooth = (rope.original_context / wavelength - low) / (high - low)
    between = 1 / ((1 - smooth) / factor + smooth)
    divisors = np.where(smooth < 0, factor, np.where(smooth > 1, 1.0, between))
    return {"rope_freqs.weight": divisors.astype(np.float32)}
