"""Mixtures of experts as the hub has them, and Granite, which has models of both kinds: for make_hf_checkpoint.py."""

import numpy as np

from make_hf_parts import LLAMA, Source, in_halves, place, usual_config, with_names


def granite(source):
    scales = {
        "embedding_multiplier": source.key("embedding_scale", 1.0),
        "residual_multiplier": source.key("residual_scale", 1.0),
        "logits_scaling": source.key("logit_scale", 1.0),
    }
    head_dim = source.key("attention.key_length", source.key("embedding_length") // source.key("attention.head_count"))
    scales["attention_multiplier"] = source.key("attention.scale", head_dim**-0.5)
    return usual_config(source, "GraniteForCausalLM", "granite", **scales), in_halves(source, with_names(source))


def with_experts(source, expert_at, router):
    """The tensors where LLaMA's code has them, but for the router and experts; `expert_at` gives the place of one's gate, up or down."""
    tensors = {}
    for name, values in source.tensors.items():
        _, block, role, *_ = [*name.split("."), "", ""]
        if role == "ffn_gate_inp":
            tensors[f"model.layers.{block}.{router}.weight"] = values
        elif role.endswith("_exps"):
            kind = role.split("_")[1]
            for expert, matrix in enumerate(values):
                tensors[f"model.layers.{block}.{expert_at(expert, kind)}.weight"] = matrix
        else:
            tensors[place(name, LLAMA)] = values
    return tensors


def experts_config(source, classes, model_type, **settings):
    config = usual_config(source, classes, model_type, **settings)
    return config | {"num_experts_per_tok": source.key("expert_used_count")}


def mixtral(source):
    numbers = {"gate": 1, "down": 2, "up": 3}
    config = experts_config(source, "MixtralForCausalLM", "mixtral", hidden_act="silu")
    config["num_local_experts"] = source.key("expert_count")
    moe = "block_sparse_moe"
    return config, in_halves(source, with_experts(source, lambda i, kind: f"{moe}.experts.{i}.w{numbers[kind]}", f"{moe}.gate"))


def qwen3moe(source):
    settings = {"num_experts": source.key("expert_count"), "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []}
    config = experts_config(source, "Qwen3MoeForCausalLM", "qwen3_moe", hidden_act="silu", **settings)
    config["moe_intermediate_size"] = source.key("expert_feed_forward_length")
    return config, with_experts(source, lambda i, kind: f"mlp.experts.{i}.{kind}_proj", "mlp.gate")


def granitemoe(source):
    """Gate above up, of all experts in a tensor."""
    config, _ = granite(Source.of(source, lambda name: "ffn_" not in name or "ffn_norm" in name))
    shared = source.key("expert_shared_feed_forward_length")
    classes = ("GraniteMoeSharedForCausalLM", "granitemoeshared") if shared else ("GraniteMoeForCausalLM", "granitemoe")
    config |= {"architectures": [classes[0]], "model_type": classes[1], "num_local_experts": source.key("expert_count")}
    config["num_experts_per_tok"] = source.key("expert_used_count")
    if shared:
        config["shared_intermediate_size"] = shared
    moe = "model.layers.{}.block_sparse_moe."
    names = {"ffn_gate_inp": moe + "router.layer", "ffn_down_exps": moe + "output_linear"}
    names |= {"ffn_down_shexp": "model.layers.{}.shared_mlp.output_linear"}
    plain = Source.of(source, lambda name: not any(part in name for part in ("gate_exps", "up_exps", "gate_shexp", "up_shexp")))
    tensors = in_halves(plain, with_names(plain, **names))
    for i in range(source.key("block_count")):
        for end, place, axis in (("exps", "block_sparse_moe", 1), ("shexp", "shared_mlp", 0)):
            two = [source.tensors.get(f"blk.{i}.ffn_{kind}_{end}.weight") for kind in ("gate", "up")]
            if two[0] is not None:
                tensors[f"model.layers.{i}.{place}.input_linear.weight"] = np.concatenate(two, axis)
    return config, tensors


def smallthinker(source):
    window = source.key("attention.sliding_window")
    layout = [int(bool(window) and i % 4 != 0) for i in range(source.key("block_count"))]
    settings = {
        "moe_num_primary_experts": source.key("expert_count"),
        "moe_num_active_primary_experts": source.key("expert_used_count"),
        "moe_ffn_hidden_size": source.key("expert_feed_forward_length"),
        "moe_primary_router_apply_softmax": source.key("expert_gating_func") == 1,
        "sliding_window_layout": layout,
        "rope_layout": layout if window else [1] * len(layout),
        "norm_topk_prob": True,
    }
    config = usual_config(source, "SmallThinkerForCausalLM", "smallthinker")
    for name in ("sliding_window", "use_sliding_window", "layer_types", "intermediate_size"):
        config.pop(name, None)
    if window:
        config["sliding_window_size"] = 4096
    moe = "block_sparse_moe"
    return config | settings, with_experts(source, lambda i, kind: f"{moe}.experts.{i}.{kind}", f"{moe}.primary_router")
