"""EXAONE 3 and 3.5."""

from ..family import Family

LAYER = {
    "attn_norm": "ln_1",
    "attn_q": "attn.attention.q_proj",
    "attn_k": "attn.attention.k_proj",
    "attn_v": "attn.attention.v_proj",
    "attn_output": "attn.attention.out_proj",
    "ffn_norm": "ln_2",
    "ffn_gate": "mlp.c_fc_0",
    "ffn_up": "mlp.c_fc_1",
    "ffn_down": "mlp.c_proj",
}

FAMILY = Family(
    arch="exaone",
    classes=("ExaoneForCausalLM",),
    types=("exaone",),
    around={"token_embd": "transformer.wte", "output_norm": "transformer.ln_f", "output": "lm_head"},
    layers="transformer.h",
    layer=lambda config: LAYER,
)
