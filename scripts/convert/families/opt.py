"""OPT, which learned its positions."""

from ..fail import fail
from ..family import Family

# Rows of the table of positions that stand before the first one.
OFFSET = 2
LAYER = {
    "attn_norm": "self_attn_layer_norm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.out_proj",
    "ffn_norm": "final_layer_norm",
    "ffn_up": "fc1",
    "ffn_down": "fc2",
}


def check(config):
    """OPT 350M is another model."""
    config.refuse("do_layer_norm_before", (True,), "norms behind the blocks are")
    config.refuse("_remove_final_layer_norm", (False,), "a model without a last norm is")
    config.refuse("layer_norm_elementwise_affine", (True,), "norms without weights are")
    config.refuse("enable_bias", (True,), "a model without biases is")
    width = config.raw.get("word_embed_proj_dim")
    if width not in (None, config["n_embd"]):
        fail(f"{config.path}: word_embed_proj_dim: {str(width)[:60]}: embeddings of another width than hidden_size are not supported")


FAMILY = Family(
    arch="opt",
    classes=("OPTForCausalLM",),
    types=("opt",),
    # Its code has no other.
    defaults={"layer_norm_eps": 1e-5},
    activation="relu",
    norm="layer",
    rotates=False,
    tied=True,
    around={
        "token_embd": "model.decoder.embed_tokens",
        "position_embd": "model.decoder.embed_positions",
        "output_norm": "model.decoder.final_layer_norm",
        "output": "lm_head",
    },
    layers="model.decoder.layers",
    layer=lambda config: LAYER,
    prefixes={"decoder.": "model.decoder."},
    sizes=lambda config: {"position_embd": (config["n_ctx"], config["n_embd"])},
    source_sizes=lambda config: {"position_embd": (config["n_ctx"] + OFFSET, config["n_embd"])},
    reorders=lambda config: {"position_embd": lambda bits: bits[OFFSET:]},
    exact=("position_embd",),
    check=check,
)
