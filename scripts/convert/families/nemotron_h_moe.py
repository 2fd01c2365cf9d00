"""Nemotron 3 Nano 30B-A3B, Super and Puzzle: Nemotron-H with experts."""

from . import nemotron_h
from .nemotron_h import EXPERTS, MIXER, NORM, OF_KIND, kinds, settings

EXPERT = MIXER + "experts.{expert}"
ROUTED = NORM | {
    "ffn_gate_inp": MIXER + "gate",
    "exp_probs_b.bias": MIXER + "gate.e_score_correction_bias",
    "ffn_up_exps": f"{EXPERT}.up_proj",
    "ffn_down_exps": f"{EXPERT}.down_proj",
    "ffn_up_shexp": MIXER + "shared_experts.up_proj",
    "ffn_down_shexp": MIXER + "shared_experts.down_proj",
}
# Experts of another width than what a layer adds to.
NARROW = {"ffn_latent_down": MIXER + "fc1_latent_proj", "ffn_latent_up": MIXER + "fc2_latent_proj"}


def width(config):
    """Of what experts read, and whether it is another one than all layers'."""
    latent = config.get("moe_latent_size")
    return (config["n_embd"], False) if latent is None else (nemotron_h.count(config, "moe_latent_size"), True)


def of_kind(config):
    return OF_KIND | {EXPERTS: ROUTED | (NARROW if width(config)[1] else {})}


def sizes(config):
    n_expert, n_ff, (n, _) = config["n_expert"], config.n_ff_expert, width(config)
    return nemotron_h.sizes(config) | {
        "exp_probs_b.bias": (n_expert,),
        "ffn_up_exps": (n_expert, n_ff, n),
        "ffn_down_exps": (n_expert, n, n_ff),
        "ffn_latent_down": (n, config["n_embd"]),
        "ffn_latent_up": (config["n_embd"], n),
    }


def keys(config, keys):
    nemotron_h.keys(config, keys)
    keys.u32("{}.expert_feed_forward_length", config.n_ff_expert)
    keys.u32("{}.expert_shared_feed_forward_length", config["n_ff_shared"])
    keys.u32("{}.expert_shared_count", 1)
    keys.bool("{}.expert_weights_norm", config.truth("norm_topk_prob", True))
    keys.f32("{}.expert_weights_scale", config.get("routed_scaling_factor", 1.0))
    keys.u32("{}.expert_group_count", 1)
    n, narrow = width(config)
    if narrow:
        keys.u32("{}.moe_latent_size", n)


def check(config):
    nemotron_h.check(config)
    for key in ("n_group", "topk_group"):
        config.refuse(key, (1,), "a choice among groups of experts is")
    config.refuse("n_shared_experts", (1,), "another number of experts for all tokens than one is")


FAMILY = settings(
    arch="nemotron_h_moe",
    of_kind=of_kind,
    meant=lambda config: EXPERTS in kinds(config),
    experts=lambda config: config["n_expert"],
    sizes=sizes,
    keys=keys,
    check=check,
)
