"""SmolLM 3."""

from ..fail import fail
from ..family import Family


def check(config):
    """Files do not say which layers rotate: of four the first three do."""
    n_layer = config["n_layer"]
    rotated = config.raw.get("no_rope_layers")
    every = config.get("no_rope_layer_interval", 4)
    if rotated is None and type(every) is int and every > 0:
        rotated = [int((i + 1) % every != 0) for i in range(n_layer)]
    if rotated != [int((i + 1) % 4 != 0) for i in range(n_layer)]:
        fail(f"{config.path}: no_rope_layers: only models whose every fourth layer does not rotate are supported")


FAMILY = Family(
    arch="smollm3",
    classes=("SmolLM3ForCausalLM",),
    types=("smollm3",),
    defaults={"rope_theta": 2000000.0, "use_sliding_window": False},
    interleaved=True,
    tied=True,
    check=check,
)
