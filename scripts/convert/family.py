"""What distinguishes the models of an architecture, as data, and what follows from it."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from . import floats, rope, window
from .config import SIZES
from .fail import fail


@dataclass(frozen=True)
class Part:
    """A tensor: what it is in the checkpoint, its sizes there and in the file, and how its bits are changed."""

    # Several are its rows.
    sources: tuple
    source_shape: tuple
    shape: tuple
    # From bits as they are to bits as the file has them, of the same type.
    reorder: Callable | None = None
    # Is added to all its elements.
    plus: float = 0.0
    # From 32-bit floats to what the file has, where it is something else; before they are put in order.
    values: Callable | None = None
    # Whether it is F32 whatever other matrices are.
    exact: bool = False
    # Whether sources are experts' matrices, one behind the other.
    experts: bool = False


def sizes(config):
    """Rows and columns of each matrix, length of each vector, by role."""
    n_embd, n_vocab = config["n_embd"], config["n_vocab"]
    n_q, n_kv = config["n_head"] * config.head_dim, config.n_head_kv * config.head_dim
    n_ff, n_expert, n_shared = config.n_ff_expert, config.count("n_expert"), config.count("n_ff_shared")
    return {
        "token_embd": (n_vocab, n_embd),
        "output": (n_vocab, n_embd),
        "output_norm": (n_embd,),
        "attn_norm": (n_embd,),
        "attn_norm_2": (n_embd,),
        "attn_q": (n_q, n_embd),
        "attn_k": (n_kv, n_embd),
        "attn_v": (n_kv, n_embd),
        "attn_qkv": (n_q + 2 * n_kv, n_embd),
        "attn_q_norm": (config.head_dim,),
        "attn_k_norm": (config.head_dim,),
        "attn_output": (n_embd, n_q),
        "post_attention_norm": (n_embd,),
        "ffn_norm": (n_embd,),
        "ffn_gate": (config["n_ff"], n_embd),
        "ffn_up": (config["n_ff"], n_embd),
        "ffn_down": (n_embd, config["n_ff"]),
        "post_ffw_norm": (n_embd,),
        "ffn_gate_inp": (n_expert, n_embd),
        "ffn_gate_exps": (n_expert, n_ff, n_embd),
        "ffn_up_exps": (n_expert, n_ff, n_embd),
        "ffn_down_exps": (n_expert, n_embd, n_ff),
        "ffn_gate_shexp": (n_shared, n_embd),
        "ffn_up_shexp": (n_shared, n_embd),
        "ffn_down_shexp": (n_embd, n_shared),
    }


# Where LLaMA's code has its tensors, and most others after it; those of layers in the order of a file.
AROUND = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
MOST_EXPERTS = 1024
DENSE_FFN = ("ffn_gate", "ffn_up", "ffn_down")
UNGATED = {role: source for role, source in LAYER.items() if role != "ffn_gate"}
# In a name, the number of a row that is a tensor of its own.
ROW = "{row}"
# And that of an expert.
EXPERT = "{expert}"
HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}


@dataclass(frozen=True)
class Family:
    """The models of one `general.architecture`."""

    arch: str
    # `architectures` and `model_type` of config.json.
    classes: tuple
    types: tuple
    # What the class that reads config.json takes where it says nothing: an object, or what makes it of config.json.
    defaults: dict | Callable = field(default_factory=dict)
    activation: str = "silu"
    # What activations mean here, where it is another one than they say.
    activations: dict = field(default_factory=dict)
    # `rms` or `layer`.
    norm: str = "rms"
    # What norms add to their weights.
    norm_plus: float = 0.0
    # Rotated pairs lie side by side in GGUF, and in halves in the checkpoint.
    interleaved: bool = False
    rotates: bool = True
    # Whether files say by `yarn_log_multiplier` what YaRN multiplies cosine and sine with.
    log_multiplier: bool = False
    # Whether config.json is of this one, where several have the same class.
    meant: Callable = lambda config: True
    # Which layers have a window where config.json has one and does not list them; and where a file has one and no pattern.
    windowed: Callable = lambda config: lambda i: True
    windowed_in_files: Callable = lambda i: True
    around: dict = field(default_factory=lambda: AROUND)
    # Of a layer, from the configuration.
    layer: Callable = lambda config: LAYER
    # A letter for each layer, from the configuration, and in place of `layer` what there is in one of that letter.
    kinds: Callable | None = None
    of_kind: Callable = lambda config: {}
    # Roles whose names have no `.weight` behind them, neither here nor in the checkpoint.
    bare: tuple = ()
    # What tensors are the value of, by role.
    values: dict = field(default_factory=dict)
    # Of the layers' names in the checkpoint, what stands in front of the number.
    layers: str = "model.layers"
    # What names may begin with, and what stands in its place here.
    prefixes: dict = field(default_factory=dict)
    # Whether models without a head of their own are usual, and whether files have to have one anyway.
    tied: bool = False
    head_required: bool = False
    # Other sizes than `sizes` gives, from the configuration: by role.
    sizes: Callable = lambda config: {}
    # The same of a checkpoint, where they are other ones.
    source_sizes: Callable = lambda config: {}
    # Other ways to reorder, from the configuration: by role.
    reorders: Callable = lambda config: {}
    # Matrices that are always F32; routers are, too.
    exact: tuple = ()
    # How many experts there are, where models may have them.
    experts: Callable = lambda config: 0
    # Further keys, and those in place of usual ones.
    keys: Callable = lambda config, keys: None
    # Refuses what is not computed.
    check: Callable = lambda config: None
    # Tensors of checkpoints that are left out: what names begin and end with.
    left_out: tuple = ()
    ignored: tuple = (".rotary_emb.inv_freq",)

    def layers_of(self, config):
        """What there is in each layer: roles, and where they are in the checkpoint."""
        if self.kinds:
            of_kind = self.of_kind(config)
            return [of_kind[kind] for kind in self.kinds(config)]
        return [self.layer(config)] * config["n_layer"]


def interleave(n_head):
    """Reorders each head's rows from halves to rotated pairs side by side."""

    def reorder(bits):
        shape = bits.shape
        return bits.reshape(n_head, 2, shape[0] // n_head // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)

    return reorder


def with_experts(router, gate, up, down):
    """A layer's tensors, with experts for its FFN, which are there in the checkpoint."""
    exps = {"ffn_gate_exps": gate, "ffn_up_exps": up, "ffn_down_exps": down}
    return {role: source for role, source in LAYER.items() if role not in DENSE_FFN} | {"ffn_gate_inp": router} | exps


def write_keys(family, config, keys):
    """The keys of the architecture. Gives the activation."""
    keys.u32("{}.vocab_size", config["n_vocab"])
    keys.u32("{}.context_length", config["n_ctx"])
    keys.u32("{}.embedding_length", config["n_embd"])
    keys.u32("{}.block_count", config["n_layer"])
    keys.u32("{}.feed_forward_length", config["n_ff"])
    keys.u32("{}.attention.head_count", config["n_head"])
    keys.u32("{}.attention.head_count_kv", config.n_head_kv)
    if config.head_dim * config["n_head"] != config["n_embd"]:
        keys.u32("{}.attention.key_length", config.head_dim)
        keys.u32("{}.attention.value_length", config.head_dim)
    name = "layer_norm_rms_epsilon" if family.norm == "rms" else "layer_norm_epsilon"
    keys.f32(f"{{}}.attention.{name}", config["eps"])
    if family.rotates:
        rope.write(keys, config, family.log_multiplier)
    window.write(keys, config, family)
    if family.experts(config):
        keys.u32("{}.expert_count", config["n_expert"])
        keys.u32("{}.expert_used_count", config["n_expert_used"])
    activation, threshold = config.activation(family.activation)
    activation = family.activations.get(activation, activation)
    keys.string("{}.hidden_activation", activation)
    if threshold is not None:
        keys.f32("{}.activation_threshold", threshold)
    family.keys(config, keys)
    return activation


def check(family, config):
    """Refuses what no command here computes."""
    n_head, n_head_kv = config["n_head"], config.n_head_kv
    if n_head % n_head_kv:
        fail(f"{config.path}: {n_head} heads are not a multiple of {n_head_kv} key/value heads")
    if not config.get("head_dim") and config["n_embd"] % n_head:
        fail(f"{config.path}: hidden_size: {config['n_embd']} is not a multiple of {n_head} heads")
    if config["n_layer"] > 1024:
        fail(f"{config.path}: {config['n_layer']} layers; at most 1024 are accepted")
    quantization = config.raw.get("quantization_config")
    if quantization:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization
        fail(f"{config.path}: quantization_config: weights by {str(method)[:60]} are not read; take the model that they were made of")
    n_expert, n_used = family.experts(config), config.count("n_expert_used")
    if not n_expert:
        # Where layers have kinds, none of them is one with experts.
        for key in () if family.kinds else SIZES["n_expert"]:
            config.refuse(key, (0, 1), "a mixture of experts is")
    elif not 1 <= n_used <= n_expert <= MOST_EXPERTS:
        fail(f"{config.path}: {n_used} of {n_expert} experts cannot be chosen; at least 1 of at most {MOST_EXPERTS} can")
    if family.interleaved and family.rotates and config.n_rot != config.head_dim:
        fail(f"{config.path}: rotation of a part of each head is not supported by architecture {family.arch}")
    family.check(config)


def is_tied(family, config, checkpoint):
    said = config.truth("tie_word_embeddings", None)
    return said if said is not None else family.tied and f"{family.around['output']}.weight" not in checkpoint


def plan(family, config, checkpoint):
    """The tensors of the file by name, in its order."""
    shapes = {**sizes(config), **family.sizes(config)}
    source_shapes = {**shapes, **family.source_sizes(config)}
    reorders = {}
    if family.interleaved and family.rotates:
        reorders = {"attn_q": interleave(config["n_head"]), "attn_k": interleave(config.n_head_kv)}
    reorders |= family.reorders(config)
    parts = {}

    def add(prefix, role, source):
        plus, shape, its_own = family.norm_plus if "norm" in role else 0.0, shapes[role], source_shapes[role]
        reorder, exact = reorders.get(role), role in family.exact or "norm" in role or role == "ffn_gate_inp"
        if ROW in source:
            rows = tuple(f"{source.replace(ROW, str(row))}.weight" for row in range(shape[0]))
            parts[f"{prefix}{role}.weight"] = Part(rows, shape[1:], shape, None, plus, exact=exact)
            return
        if EXPERT in source:
            experts = tuple(f"{source.replace(EXPERT, str(i))}.weight" for i in range(shape[0]))
            parts[f"{prefix}{role}.weight"] = Part(experts, shape[1:], shape, experts=True)
            return
        its_weight = "" if role in family.bare else ".weight"
        values = family.values.get(role)
        parts[f"{prefix}{role}{its_weight}"] = Part((f"{source}{its_weight}",), its_own, shape, reorder, plus, values, exact)
        if f"{source}.bias" in checkpoint or ("norm" in role and family.norm == "layer"):
            parts[f"{prefix}{role}.bias"] = Part((f"{source}.bias",), its_own[:1], shape[:1], reorder)

    tied = is_tied(family, config, checkpoint)
    for role, source in family.around.items():
        if role == "output" and tied:
            if family.head_required:
                add("", role, family.around["token_embd"])
            continue
        add("", role, source)
        if role == "token_embd":
            for i, layer in enumerate(family.layers_of(config)):
                for of_layer, its_source in layer.items():
                    add(f"blk.{i}.", of_layer, f"{family.layers}.{i}.{its_source}")
    check_plan(family, config, checkpoint, parts)
    return parts


def check_plan(family, config, checkpoint, parts):
    folder = checkpoint.folder
    sources = {source: part.source_shape for part in parts.values() for source in part.sources}
    for source, shape in sources.items():
        if source not in checkpoint:
            fail(f"{folder}: no tensor {source}")
        entry = checkpoint.entries[source]
        if entry.shape != shape:
            fail(f"{entry.path}: {source} is {list(entry.shape)}, not {list(shape)} as {config.path.name} has it")
        checkpoint.kind(source)
    used = {*sources, f"{family.around['output']}.weight"}
    left = sorted(set(checkpoint.entries) - used)
    left = [name for name in left if not name.startswith(family.left_out) and not name.endswith(family.ignored)]
    if left:
        fail(f"{folder}: architecture {family.arch} has no place for tensor {left[0]} ({len(left)} such)")


def bits(part, checkpoint):
    """Of a tensor, as its file has them, and their type; of experts one by one."""
    if part.experts:
        yield from ((checkpoint.read(source), checkpoint.kind(source)) for source in part.sources)
        return
    kind = checkpoint.kind(part.sources[0])
    if len(part.sources) > 1:
        # They are few and short.
        array, kind = np.stack([floats.values(checkpoint.read(s), checkpoint.kind(s)).view("<u4") for s in part.sources]), "f32"
    else:
        array = checkpoint.read(part.sources[0])
    if part.plus:
        kind, array = "f32", (floats.values(array, kind) + np.float32(part.plus)).view("<u4")
    if part.values:
        kind, array = "f32", part.values(floats.values(array, kind)).view("<u4")
    yield (part.reorder(array) if part.reorder else array), kind
