"""Granite with experts, and with one for all tokens beside them."""

from ..family import Family, with_experts
from .granite import keys as scales

# Gate above up, of all experts.
INPUT, OUTPUT = "block_sparse_moe.input_linear", "block_sparse_moe.output_linear"
EXPERTS = with_experts("block_sparse_moe.router.layer", INPUT, INPUT, OUTPUT)
SHARED = {"ffn_gate_shexp": "shared_mlp.input_linear", "ffn_up_shexp": "shared_mlp.input_linear", "ffn_down_shexp": "shared_mlp.output_linear"}


def keys(config, keys):
    scales(config, keys)
    if config.count("n_ff_shared"):
        keys.u32("{}.expert_shared_feed_forward_length", config["n_ff_shared"])


def source_sizes(config):
    """Two in one."""
    of_all = (config["n_expert"], 2 * config["n_ff"], config["n_embd"])
    of_one = (2 * config.count("n_ff_shared"), config["n_embd"])
    return {"ffn_gate_exps": of_all, "ffn_up_exps": of_all, "ffn_gate_shexp": of_one, "ffn_up_shexp": of_one}


def reorders(config):
    n_ff, n_shared = config["n_ff"], config.count("n_ff_shared")
    return {
        "ffn_gate_exps": lambda bits: bits[:, :n_ff],
        "ffn_up_exps": lambda bits: bits[:, n_ff:],
        "ffn_gate_shexp": lambda bits: bits[:n_shared],
        "ffn_up_shexp": lambda bits: bits[n_shared:],
    }


FAMILY = Family(
    arch="granitemoe",
    classes=("GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM"),
    types=("granitemoe", "granitemoeshared"),
    interleaved=True,
    defaults={"num_local_experts": 8, "num_experts_per_tok": 2},
    layer=lambda config: EXPERTS | (SHARED if config.count("n_ff_shared") else {}),
    experts=lambda config: config["n_expert"],
    source_sizes=source_sizes,
    reorders=reorders,
    keys=keys,
)
