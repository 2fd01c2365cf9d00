"""PLM, whose keys and values come from a narrow vector."""

from ..family import UNGATED, Family


def sizes(config):
    n_head, n_embd, rank = config["n_head"], config["n_embd"], config["kv_lora_rank"]
    still, turned, value = (config[key] for key in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
    return {
        "attn_q": (n_head * (still + turned), n_embd),
        "attn_kv_a_mqa": (rank + turned, n_embd),
        "attn_kv_a_norm": (rank,),
        "attn_kv_b": (n_head * (still + value), rank),
        "attn_output": (n_embd, n_head * value),
    }


def layer(config):
    latent = {"attn_kv_a_mqa": "kv_a_proj_with_mqa", "attn_kv_a_norm": "kv_a_layernorm", "attn_kv_b": "kv_b_proj"}
    parts = {role: source for role, source in UNGATED.items() if role not in ("attn_k", "attn_v")}
    return parts | {role: f"self_attn.{source}" for role, source in latent.items()}


def keys(config, keys):
    keys.u32("{}.attention.kv_lora_rank", config["kv_lora_rank"])
    keys.u32("{}.attention.key_length", config["qk_nope_head_dim"] + config["qk_rope_head_dim"])
    keys.u32("{}.attention.value_length", config["v_head_dim"])
    keys.u32("{}.rope.dimension_count", config["qk_rope_head_dim"])


def check(config):
    config.refuse("q_lora_rank", (0,), "queries from a narrow vector are")
    for key in ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"):
        if type(config[key]) is not int or config[key] < 1:
            config.wrong(key, config[key])


FAMILY = Family(
    arch="plm",
    classes=("PLMForCausalLM",),
    types=("plm",),
    activation="relu2",
    tied=True,
    layer=layer,
    sizes=sizes,
    keys=keys,
    check=check,
)
