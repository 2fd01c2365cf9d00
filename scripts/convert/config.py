"""config.json: its numbers under one name each, and its activation."""

from .checkpoint import read_json
from .fail import fail

# What our tools call a size: what config.json may call it.
SIZES = {
    "n_embd": ("hidden_size", "n_embd", "d_model"),
    "n_ff": ("intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner"),
    "n_layer": ("num_hidden_layers", "num_layers", "n_layer"),
    "n_head": ("num_attention_heads", "n_head"),
    "n_head_kv": ("num_key_value_heads", "num_kv_heads", "n_head_kv"),
    "head_dim": ("head_dim", "attention_head_dim"),
    "n_vocab": ("vocab_size",),
    "n_expert": ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts", "moe_num_primary_experts"),
    "n_expert_used": ("num_experts_per_tok", "moe_num_active_primary_experts"),
    "n_ff_expert": ("moe_intermediate_size", "moe_ffn_hidden_size"),
    "n_ff_shared": ("shared_intermediate_size", "moe_shared_expert_intermediate_size"),
    "n_ctx": ("max_position_embeddings", "max_sequence_length", "n_positions"),
}
# What it may call another number.
NUMBERS = {
    "eps": ("rms_norm_eps", "norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"),
    "rotated_share": ("partial_rotary_factor", "rope_pct", "rope_percent"),
    "rope_base": ("rope_theta",),
}
# What it may call the activation.
ACTIVATION = ("hidden_activation", "hidden_act", "mlp_hidden_act", "activation_function", "activation")
# The activations that our tools compute, as they call them: what config.json may call them.
ACTIVATIONS = {
    "silu": ("silu", "swish"),
    "gelu": ("gelu_pytorch_tanh", "gelu_tanh", "gelu_new", "gelu_fast", "gelu_python_tanh"),
    "gelu_erf": ("gelu", "gelu_python"),
    "gelu_quick": ("quick_gelu",),
    "relu": ("relu",),
    "relu2": ("relu2", "relu_squared", "squared_relu"),
    "drelu": ("drelu", "d_relu"),
    "fatrelu": ("fatrelu",),
}
# Names of these that mean anything beside `hidden_act_param`.
TAKE_NO_THRESHOLD = ("silu", "gelu", "gelu_erf", "gelu_quick")
LARGEST = 1 << 31


class Config:
    """The settings of a model, checked as they are asked for. `defaults` are those of the class that reads config.json."""

    def __init__(self, path, raw=None, defaults=None):
        self.path, self.raw, self.defaults = path, read_json(path) if raw is None else raw, defaults or {}

    def of(self, family):
        """The same for models of a family: of what is there for text, with what its class takes where nothing is said."""
        text = self.raw.get("text_config")
        raw = {**self.raw, **text} if isinstance(text, dict) else self.raw
        return Config(self.path, raw, family.defaults(raw) if callable(family.defaults) else family.defaults)

    def wrong(self, key, value):
        fail(f"{self.path}: {key}: {str(value)[:60]!r} makes no sense")

    def __getitem__(self, name):
        """A size or a number, which must be there."""
        value = self.get(name)
        if value is None:
            fail(f"{self.path}: no {(SIZES | NUMBERS).get(name, (name,))[0]}")
        return value

    def get(self, name, default=None):
        """A size or a number by any of its names: whole and at least 1, or finite."""
        names = (SIZES | NUMBERS).get(name, (name,))
        for key in names:
            value = self.raw.get(key, self.defaults.get(key))
            if value is None:
                continue
            whole = type(value) is int and 0 < value < LARGEST
            if not whole if name in SIZES else type(value) not in (int, float) or not abs(value) < LARGEST:
                self.wrong(key, value)
            return value
        return default

    def count(self, name):
        """A size that may be missing, or 0, which is the same."""
        there = any(self.raw.get(key, self.defaults.get(key)) for key in SIZES[name])
        return self[name] if there else 0

    def truth(self, key, default=False):
        """Yes or no."""
        value = self.raw.get(key, self.defaults.get(key))
        if value is None:
            return default
        if type(value) is not bool:
            self.wrong(key, value)
        return value

    def refuse(self, key, neutral, what):
        """Refuses a setting that makes another model of it and that no command here computes."""
        value = self.raw.get(key)
        if value is not None and value not in neutral:
            fail(f"{self.path}: {key}: {str(value)[:60]}: {what} not supported")

    @property
    def n_head_kv(self):
        return self.get("n_head_kv") or self["n_head"]

    @property
    def n_ff_expert(self):
        return self.count("n_ff_expert") or self["n_ff"]

    @property
    def head_dim(self):
        return self.get("head_dim") or self["n_embd"] // self["n_head"]

    @property
    def n_rot(self):
        """Elements of a head that are rotated."""
        share = self.rope.get("partial_rotary_factor") or self.get("rotated_share", 1.0)
        if type(share) not in (int, float) or not 0 < share <= 1:
            self.wrong("partial_rotary_factor", share)
        return int(self.head_dim * share)

    def rope_of(self, kind):
        """What says how layers of a kind rotate."""
        rope = self.raw.get("rope_parameters") or self.raw.get("rope_scaling") or {}
        if isinstance(rope, dict) and any(isinstance(value, dict) for value in rope.values()):
            rope = rope.get(kind) or {}
        if not isinstance(rope, dict):
            self.wrong("rope_scaling", rope)
        return rope

    @property
    def rope(self):
        """What says how layers without a window rotate."""
        return self.rope_of("full_attention")

    def activation(self, default):
        """(name, threshold or None), as our tools have them."""
        name = next((self.raw[key] for key in ACTIVATION if self.raw.get(key) is not None), default)
        if not isinstance(name, str):
            self.wrong("hidden_act", name)
        ours = next((ours for ours, theirs in ACTIVATIONS.items() if name.lower() in theirs), None)
        if ours is None:
            known = ", ".join(names[0] for names in ACTIVATIONS.values())
            fail(f"{self.path}: activation {name[:60]} is not computed by any command here; {known} are")
        threshold = self.get("hidden_act_param")
        if ours == "fatrelu":
            if threshold is None or threshold < 0:
                fail(f"{self.path}: hidden_act: fatrelu needs its threshold, hidden_act_param, from 0 up; it is {threshold}")
            return ours, threshold
        if threshold and ours not in TAKE_NO_THRESHOLD:
            fail(f"{self.path}: hidden_act_param: {threshold}: activation {name} has no threshold")
        return ours, None
