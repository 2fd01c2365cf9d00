"""What the functions of make_hf_checkpoint.py are made of: a file's keys and tensors, and LLaMA's names and layout."""

import gguf
import numpy as np

# Tensors that follow from config.json.
FOLLOW = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")


class Source:
    """Keys and tensors of a GGUF file."""

    def __init__(self, path):
        self.reader = gguf.GGUFReader(path)
        self.arch = self.reader.get_field("general.architecture").contents()
        self.tensors = {t.name: np.array(gguf.quants.dequantize(t.data, t.tensor_type)) for t in self.reader.tensors}
        # The reader gives shapes in the file's order.
        for t in self.reader.tensors:
            self.tensors[t.name] = self.tensors[t.name].reshape([int(n) for n in reversed(t.shape)])

    @classmethod
    def of(cls, source, wanted):
        """The same with some of its tensors only."""
        other = cls.__new__(cls)
        other.reader, other.arch = source.reader, source.arch
        other.tensors = {name: values for name, values in source.tensors.items() if wanted(name)}
        return other

    def key(self, name, default=None):
        field = self.reader.get_field(f"{self.arch}.{name}")
        return default if field is None else field.contents()

    def tokenizer(self, name, default=None):
        field = self.reader.get_field(f"tokenizer.{name}")
        return default if field is None else field.contents()


# Layouts.


def halves(rows, n_head):
    """Rows of each head from pairs side by side to halves: 0 2 4 .. and 1 3 5 .."""
    head = len(rows) // n_head
    return np.concatenate([rows[h * head + half : (h + 1) * head : 2] for h in range(n_head) for half in (0, 1)])


LLAMA = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "model.layers.{}.input_layernorm",
    "attn_q": "model.layers.{}.self_attn.q_proj",
    "attn_k": "model.layers.{}.self_attn.k_proj",
    "attn_v": "model.layers.{}.self_attn.v_proj",
    "attn_output": "model.layers.{}.self_attn.o_proj",
    "attn_q_norm": "model.layers.{}.self_attn.q_norm",
    "attn_k_norm": "model.layers.{}.self_attn.k_norm",
    "ffn_norm": "model.layers.{}.post_attention_layernorm",
    "ffn_gate": "model.layers.{}.mlp.gate_proj",
    "ffn_up": "model.layers.{}.mlp.up_proj",
    "ffn_down": "model.layers.{}.mlp.down_proj",
}


def place(name, names):
    """Where a tensor is in a checkpoint."""
    *block, role, suffix = name.split(".")
    return names[role].format(*block[1:]) + f".{suffix}"


def with_names(source, **names):
    """The tensors where LLaMA's code has them, but for those in `names`."""
    return {place(name, LLAMA | names): values for name, values in source.tensors.items() if name not in FOLLOW}


def in_halves(source, tensors):
    """The same with queries and keys whose pairs are halves."""
    n_head = {"q_proj": source.key("attention.head_count"), "k_proj": source.key("attention.head_count_kv")}
    for name in tensors:
        of = n_head.get(name.split(".")[-2])
        if of:
            tensors[name] = halves(tensors[name], of)
    return tensors


def less_one(tensors):
    """The same with norms that add 1 to their weights."""
    return {name: values - np.float32(1) if name.endswith("norm.weight") else values for name, values in tensors.items()}


def scaling(source):
    kind = source.key("rope.scaling.type")
    if kind == "linear":
        return {"rope_type": "linear", "factor": source.key("rope.scaling.factor")}
    if kind == "yarn":
        keys = ("factor", "original_context_length", "yarn_beta_fast", "yarn_beta_slow", "attn_factor")
        names = ("factor", "original_max_position_embeddings", "beta_fast", "beta_slow", "attention_factor")
        found = {name: source.key(f"rope.scaling.{key}") for key, name in zip(keys, names)}
        return {"rope_type": "yarn"} | {name: value for name, value in found.items() if value is not None}
    # Files by llama.cpp's converter have no name for it.
    if kind == "longrope" or "rope_factors_long.weight" in source.tensors:
        factors = {f"{kind}_factor": source.tensors[f"rope_factors_{kind}.weight"].tolist() for kind in ("short", "long")}
        original = source.key("rope.scaling.original_context_length")
        attention = source.key("rope.scaling.attn_factor", 1.0)
        return {"rope_type": "longrope", "original_max_position_embeddings": original, "attention_factor": attention} | factors
    return None


def usual_config(source, classes, model_type, eps="rms_norm_eps", **settings):
    n_embd, n_head = source.key("embedding_length"), source.key("attention.head_count")
    head_dim = source.key("attention.key_length", n_embd // n_head)
    n_rot = source.key("rope.dimension_count", head_dim)
    config = {
        "architectures": [classes],
        "model_type": model_type,
        "vocab_size": source.key("vocab_size"),
        "max_position_embeddings": source.key("context_length"),
        "hidden_size": n_embd,
        "num_hidden_layers": source.key("block_count"),
        "intermediate_size": source.key("feed_forward_length"),
        "num_attention_heads": n_head,
        "num_key_value_heads": source.key("attention.head_count_kv"),
        "head_dim": head_dim,
        eps: source.key("attention.layer_norm_rms_epsilon", source.key("attention.layer_norm_epsilon")),
        "tie_word_embeddings": "output.weight" not in source.tensors,
        "rope_theta": source.key("rope.freq_base"),
        "rope_scaling": scaling(source),
    }
    if n_rot != head_dim:
        config["partial_rotary_factor"] = n_rot / head_dim
    return {**config, **windows(source), **settings}


def windows(source):
    """Layers that look back on a limited number of tokens, one by one."""
    # What files need not say.
    period = 4 if source.arch == "olmo2" else 0
    length, pattern = source.key("attention.sliding_window"), source.key("attention.sliding_window_pattern", period)
    if not length:
        return {}
    n_layer = source.key("block_count")
    limited = pattern if isinstance(pattern, list) else [pattern == 0 or (i + 1) % pattern != 0 for i in range(n_layer)]
    kinds = ["sliding_attention" if layer else "full_attention" for layer in limited]
    return {"sliding_window": length, "use_sliding_window": True, "layer_types": kinds}
