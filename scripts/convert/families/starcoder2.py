"""StarCoder 2."""

from ..family import UNGATED, Family

FAMILY = Family(
    arch="starcoder2",
    classes=("Starcoder2ForCausalLM",),
    types=("starcoder2",),
    defaults={"norm_epsilon": 1e-5},
    activation="gelu_pytorch_tanh",
    norm="layer",
    tied=True,
    layer=lambda config: UNGATED | {"ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj"},
)
