"""config.json: its numbers under one name each, and its activation."""

from .checkpoint import read_json
from .fail import fail

# What our tools call a size or a setting: what config.json may call it.
NAMES = {
    "n_embd": ("hidden_size", "n_embd", "d_model"),
    "n_ff": ("intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner"),
    "n_layer": ("num_hidden_layers", "num_layers", "n_layer"),
    "n_head": ("num_attention_heads", "n_head"),
    "n_head_kv": ("num_key_value_heads", "num_kv_heads", "n_head_kv"),
    "head_dim": ("head_dim",),
    "n_vocab": ("vocab_size",),
    "n_ctx": ("max_position_embeddings", "max_sequence_length", "n_positions"),
    "eps": ("rms_norm_eps", "norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"),
    "activation": ("hidden_act", "hidden_activation", "activation_function", "activation"),
    "rotated_share": ("partial_rotary_factor", "rope_pct", "rope_percent"),
    "rope_base": ("rope_theta",),
}
# The activations that our tools compute, as they call them: what config.json may call them.
ACTIVATIONS = {
    "silu": ("silu", "swish"),
    "gelu": ("gelu_pytorch_tanh", "gelu_tanh", "gelu_new", "gelu_fast"),
    "relu": ("relu",),
    "relu2": ("relu2", "relu_squared", "squared_relu"),
    "drelu": ("drelu", "d_relu"),
    "fatrelu": ("fatrelu",),
}


class Config:
    """The settings of a model, checked as they are asked for."""

    def __init__(self, path):
        self.path, self.raw = path, read_json(path)

    def __getitem__(self, name):
        value = self.get(name)
        if value is None:
            fail(f"{self.path}: no {NAMES.get(name, (name,))[0]}")
        return value

    def get(self, name, default=None):
        """What config.json says under any of the names of `name`."""
        for key in NAMES.get(name, (name,)):
            if self.raw.get(key) is not None:
                return self.checked(key, self.raw[key], type(default))
        return default

    def checked(self, key, value, like):
        whole = type(value) is int and 0 <= value < 1 << 31
        number = type(value) in (int, float) and abs(value) < 1e30
        sizes = [name for names in NAMES.values() if names is not NAMES["activation"] for name in names]
        if (like is bool and type(value) is not bool) or (like is float and not number) or (key in sizes and not number):
            fail(f"{self.path}: {key}: {value!r} makes no sense")
        integers = (*NAMES["n_embd"], *NAMES["n_ff"], *NAMES["n_layer"], *NAMES["n_head"], *NAMES["n_head_kv"], *NAMES["head_dim"],
                    *NAMES["n_vocab"], *NAMES["n_ctx"])  # fmt: skip
        if key in integers and (not whole or value == 0):
            fail(f"{self.path}: {key}: {value!r} makes no sense")
        return value

    def refuse(self, key, neutral, what):
        """Refuses a setting that makes another model of it and that no command here computes."""
        value = self.raw.get(key)
        if value is not None and value not in neutral:
            fail(f"{self.path}: {key}: {value}: {what} not supported")

    # Sizes.

    @property
    def n_head_kv(self):
        return self.get("n_head_kv") or self["n_head"]

    @property
    def head_dim(self):
        return self.get("head_dim") or self["n_embd"] // self["n_head"]

    @property
    def n_rot(self):
        """Elements of a head that are rotated."""
        rope = self.rope
        share = rope.get("partial_rotary_factor") or self.get("rotated_share") or 1.0
        if not isinstance(share, (int, float)) or not 0 < share <= 1:
            fail(f"{self.path}: partial_rotary_factor: {share!r} makes no sense")
        return int(self.head_dim * share)

    @property
    def rope(self):
        """What says how positions are rotated, where it is one object: without those of single kinds of layers."""
        rope = self.raw.get("rope_parameters") or self.raw.get("rope_scaling") or {}
        if not isinstance(rope, dict):
            fail(f"{self.path}: rope_scaling: {rope!r} makes no sense")
        return rope

    def activation(self, default):
        """(name, threshold or None)."""
        name = self.get("activation") or default
        if not isinstance(name, str):
            fail(f"{self.path}: activation {name!r} makes no sense")
        ours = next((ours for ours, theirs in ACTIVATIONS.items() if name.lower() in theirs), None)
        if ours is None:
            known = ", ".join(names[0] for names in ACTIVATIONS.values())
            fail(f"{self.path}: activation {name} is not computed by any command here; {known} are")
        threshold = self.raw.get("hidden_act_param")
        if ours == "fatrelu":
            if type(threshold) not in (int, float):
                fail(f"{self.path}: hidden_act: fatrelu without its threshold, hidden_act_param")
            return ours, float(threshold)
        if threshold:
            fail(f"{self.path}: activation {name} with a parameter, hidden_act_param {threshold}, is not supported")
        return ours, None
