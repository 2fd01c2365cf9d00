"""Nemotron-H, Nemotron Nano 2 and Nemotron 3 Nano 4B: each layer is one of three things, or with experts one of four."""

import numpy as np

from ..fail import fail
from ..family import Family
from ..gguf_file import INT32

RECURRENT, ATTENTION, FFN, EXPERTS = "M*-E"
# What newer configurations call them.
NAMES = {"mamba": RECURRENT, "attention": ATTENTION, "mlp": FFN, "moe": EXPERTS}
MIXER = "mixer."
NORM = {"attn_norm": "norm"}
OF_KIND = {
    RECURRENT: NORM
    | {
        "ssm_in": MIXER + "in_proj",
        "ssm_conv1d": MIXER + "conv1d",
        "ssm_dt.bias": MIXER + "dt_bias",
        "ssm_a": MIXER + "A_log",
        "ssm_d": MIXER + "D",
        "ssm_norm": MIXER + "norm",
        "ssm_out": MIXER + "out_proj",
    },
    ATTENTION: NORM | {f"attn_{ours}": f"{MIXER}{theirs}_proj" for ours, theirs in zip(("q", "k", "v", "output"), "qkvo")},
    FFN: NORM | {"ffn_up": MIXER + "up_proj", "ffn_down": MIXER + "down_proj"},
}
# Numbers of recurrent layers: as config.json calls them, and as files do.
STATE_SPACE = {
    "conv_kernel": "ssm.conv_kernel",
    "ssm_state_size": "ssm.state_size",
    "mamba_num_heads": "ssm.time_step_rank",
    "n_groups": "ssm.group_count",
}


def kinds(config):
    """A letter for each layer."""
    pattern, named = config.raw.get("hybrid_override_pattern"), config.raw.get("layers_block_type")
    if pattern is None and isinstance(named, list):
        pattern = "".join(NAMES.get(name, "?") if isinstance(name, str) else "?" for name in named)
    if not isinstance(pattern, str) or not pattern or set(pattern) - set(NAMES.values()):
        fail(f"{config.path}: hybrid_override_pattern: {str(pattern)[:60]!r} does not say of each layer whether it is M, *, - or E")
    if EXPERTS in pattern and FFN in pattern:
        fail(f"{config.path}: hybrid_override_pattern: layers with experts beside others without are not supported")
    n_layer = config.get("n_layer", len(pattern))
    if n_layer != len(pattern):
        fail(f"{config.path}: hybrid_override_pattern: {len(pattern)} layers, but num_hidden_layers says {n_layer}")
    return pattern


def defaults(raw):
    """The number of layers follows from what they are."""
    pattern = raw.get("hybrid_override_pattern") or raw.get("layers_block_type") or ()
    numbers = {"layer_norm_epsilon": 1e-5, "conv_kernel": 4, "n_groups": 8, "ssm_state_size": 128}
    # With experts only, layers have no other width.
    return numbers | {"num_hidden_layers": len(pattern), "intermediate_size": raw.get("moe_intermediate_size")}


def count(config, name):
    value = config.get(name)
    if type(value) is not int or value < 1:
        config.wrong(name, value)
    return value


def n_inner(config):
    return count(config, "mamba_num_heads") * count(config, "mamba_head_dim")


def n_channels(config):
    return n_inner(config) + 2 * count(config, "n_groups") * count(config, "ssm_state_size")


def sizes(config):
    n_heads, inner, n_groups = count(config, "mamba_num_heads"), n_inner(config), count(config, "n_groups")
    if inner % n_groups:
        fail(f"{config.path}: n_groups: {inner} values are not a multiple of {n_groups} groups")
    return {
        "ssm_in": (inner + n_channels(config) + n_heads, config["n_embd"]),
        "ssm_conv1d": (n_channels(config), count(config, "conv_kernel")),
        "ssm_dt.bias": (n_heads,),
        "ssm_a": (n_heads, 1),
        "ssm_d": (n_heads, 1),
        "ssm_norm": (n_groups, inner // n_groups),
        "ssm_out": (config["n_embd"], inner),
    }


def source_sizes(config):
    n_heads = count(config, "mamba_num_heads")
    taps = (n_channels(config), 1, count(config, "conv_kernel"))
    return {"ssm_conv1d": taps, "ssm_a": (n_heads,), "ssm_d": (n_heads,), "ssm_norm": (n_inner(config),)}


def reorders(config):
    """Nothing moves; dimensions come and go."""
    shapes = sizes(config)
    one = {role: lambda bits: bits.reshape(len(bits), -1) for role in ("ssm_a", "ssm_d")}
    # Its bias has no taps.
    taps = {"ssm_conv1d": lambda bits: bits.reshape(len(bits), -1) if bits.ndim > 1 else bits}
    return one | taps | {"ssm_norm": lambda bits: bits.reshape(shapes["ssm_norm"])}


def keys(config, keys):
    """Each layer has heads of keys, or neurons, or neither."""
    pattern = kinds(config)
    n_ff = config.n_ff_expert if EXPERTS in pattern else config["n_ff"]
    keys.array("{}.attention.head_count_kv", INT32, [config.n_head_kv * (kind == ATTENTION) for kind in pattern])
    keys.array("{}.feed_forward_length", INT32, [n_ff * (kind in (FFN, EXPERTS)) for kind in pattern])
    keys.u32("{}.attention.key_length", config.head_dim)
    keys.u32("{}.attention.value_length", config.head_dim)
    keys.f32("{}.attention.layer_norm_epsilon", config["eps"])
    for name, key in STATE_SPACE.items():
        keys.u32(f"{{}}.{key}", count(config, name))
    keys.u32("{}.ssm.inner_size", n_inner(config))


def check(config):
    """What files have no key for."""
    kinds(config)
    config.refuse("use_conv_bias", (True,), "a convolution without a bias is")
    for key in ("use_bias", "mamba_proj_bias"):
        config.refuse(key, (False,), "a bias of recurrent layers' matrices is")
    config.refuse("mamba_hidden_act", ("silu", "swish"), "another activation of recurrent layers than SiLU is")
    config.refuse("time_step_limit", ([0.0, float("inf")], [0, float("inf")]), "a limit of time steps is")


def settings(arch, **own):
    """Of both families that have such layers."""
    return Family(
        arch=arch,
        classes=("NemotronHForCausalLM",),
        types=("nemotron_h",),
        defaults=defaults,
        activation="relu2",
        rotates=False,
        around={"token_embd": "backbone.embeddings", "output_norm": "backbone.norm_f", "output": "lm_head"},
        layers="backbone.layers",
        kinds=kinds,
        source_sizes=source_sizes,
        reorders=reorders,
        bare=("ssm_dt.bias", "ssm_a", "ssm_d", "exp_probs_b.bias"),
        values={"ssm_a": lambda logarithms: -np.exp(logarithms)},
        exact=("ssm_conv1d", "ssm_a", "ssm_d"),
        # What predicts further tokens.
        left_out=("mtp.",),
        **own,
    )


FAMILY = settings(
    arch="nemotron_h",
    of_kind=lambda config: OF_KIND,
    meant=lambda config: EXPERTS not in kinds(config),
    sizes=sizes,
    keys=keys,
    check=check,
)
