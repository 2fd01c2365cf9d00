"""Nemotron-H as the hub has it, with and without experts: for make_hf_checkpoint.py."""

import numpy as np

NAMES = {
    "attn_norm": "norm",
    "ssm_in": "mixer.in_proj",
    "ssm_conv1d": "mixer.conv1d",
    "ssm_norm": "mixer.norm",
    "ssm_out": "mixer.out_proj",
    "attn_q": "mixer.q_proj",
    "attn_k": "mixer.k_proj",
    "attn_v": "mixer.v_proj",
    "attn_output": "mixer.o_proj",
    "ffn_up": "mixer.up_proj",
    "ffn_down": "mixer.down_proj",
    "ffn_gate_inp": "mixer.gate",
    "ffn_up_shexp": "mixer.shared_experts.up_proj",
    "ffn_down_shexp": "mixer.shared_experts.down_proj",
    "ffn_latent_down": "mixer.fc1_latent_proj",
    "ffn_latent_up": "mixer.fc2_latent_proj",
}
WHOLE = {
    "token_embd.weight": "backbone.embeddings.weight",
    "output_norm.weight": "backbone.norm_f.weight",
    "output.weight": "lm_head.weight",
    "ssm_dt.bias": "mixer.dt_bias",
    "ssm_d": "mixer.D",
    "exp_probs_b.bias": "mixer.gate.e_score_correction_bias",
}


def tensors_of(source):
    out = {}
    for name, values in source.tensors.items():
        if name in WHOLE:
            out[WHOLE[name]] = values
            continue
        _, block, rest = name.split(".", 2)
        role, _, suffix = rest.partition(".")
        at = f"backbone.layers.{block}."
        if rest == "ssm_a":
            out[f"{at}mixer.A_log"] = np.log(-values[:, 0])
        elif role.endswith("_exps"):
            kind = role.split("_")[1]
            out |= {f"{at}mixer.experts.{expert}.{kind}_proj.weight": matrix for expert, matrix in enumerate(values)}
        elif rest in WHOLE:
            out[at + WHOLE[rest]] = values.reshape(-1)
        elif rest == "ssm_conv1d.weight":
            out[f"{at}{NAMES[role]}.weight"] = values[:, None]
        else:
            out[f"{at}{NAMES[role]}.{suffix}"] = values.reshape(-1) if role == "ssm_norm" else values
    return out


def letter(source, block):
    roles = (("ssm_in", "M"), ("attn_q", "*"), ("ffn_gate_inp", "E"), ("ffn_up", "-"))
    return next(kind for role, kind in roles if f"blk.{block}.{role}.weight" in source.tensors)


def nemotron_h(source):
    n_layer, n_heads = source.key("block_count"), source.key("ssm.time_step_rank")
    head_dim = source.key("attention.key_length")
    config = {
        "architectures": ["NemotronHForCausalLM"],
        "model_type": "nemotron_h",
        "vocab_size": source.key("vocab_size"),
        "max_position_embeddings": source.key("context_length"),
        "hidden_size": source.key("embedding_length"),
        "num_hidden_layers": n_layer,
        "hybrid_override_pattern": "".join(letter(source, i) for i in range(n_layer)),
        "intermediate_size": max(source.key("feed_forward_length")),
        "num_attention_heads": source.key("attention.head_count"),
        "num_key_value_heads": max(source.key("attention.head_count_kv")),
        "head_dim": head_dim,
        "layer_norm_epsilon": source.key("attention.layer_norm_rms_epsilon"),
        "mlp_hidden_act": "relu2",
        "mamba_hidden_act": "silu",
        "mamba_num_heads": n_heads,
        "mamba_head_dim": source.key("ssm.inner_size") // n_heads,
        "ssm_state_size": source.key("ssm.state_size"),
        "n_groups": source.key("ssm.group_count"),
        "conv_kernel": source.key("ssm.conv_kernel"),
        "use_conv_bias": True,
        "use_bias": False,
        "time_step_limit": [0.0, float("inf")],
        # Its class has it, whether or not a layer has experts.
        "n_routed_experts": 8,
        "tie_word_embeddings": "output.weight" not in source.tensors,
    }
    return config, tensors_of(source)


def nemotron_h_moe(source):
    config, tensors = nemotron_h(source)
    config |= {
        "n_routed_experts": source.key("expert_count"),
        "num_experts_per_tok": source.key("expert_used_count"),
        "moe_intermediate_size": source.key("expert_feed_forward_length"),
        "moe_shared_expert_intermediate_size": source.key("expert_shared_feed_forward_length"),
        "n_shared_experts": 1,
        "norm_topk_prob": source.key("expert_weights_norm"),
        "routed_scaling_factor": source.key("expert_weights_scale"),
        "n_group": 1,
        "topk_group": 1,
    }
    if source.key("moe_latent_size"):
        config["moe_latent_size"] = source.key("moe_latent_size")
    tensors["mtp.layers.0.enorm.weight"] = np.ones(config["hidden_size"], np.float32)
    return config, tensors
