"""SmallThinker, whose router looks at what comes into a layer."""

from ..fail import fail
from ..family import Family, with_experts

EXPERT = "block_sparse_moe.experts.{expert}"
EXPERTS = with_experts("block_sparse_moe.primary_router", f"{EXPERT}.gate", f"{EXPERT}.up", f"{EXPERT}.down")
SOFTMAX, SIGMOID = 1, 2
# Of so many layers, the first one sees everything and does not rotate; the window of the others, which files need not say.
PERIOD, WINDOW = 4, 4096


def keys(config, keys):
    keys.u32("{}.expert_feed_forward_length", config.n_ff_expert)
    keys.u32("{}.expert_gating_func", SOFTMAX if config.truth("moe_primary_router_apply_softmax") else SIGMOID)
    if any(config.raw.get("sliding_window_layout") or ()):
        keys.u32("{}.attention.sliding_window", WINDOW)


def check(config):
    """What llama.cpp takes for granted in files."""
    n_layer = config["n_layer"]
    windows, rotated = (config.raw.get(f"{name}_layout") for name in ("sliding_window", "rope"))
    usual = [int(i % PERIOD != 0) for i in range(n_layer)]
    alike = {"sliding_window_layout": ([0] * n_layer, usual), "rope_layout": ([1] * n_layer, usual)}
    for key, known in alike.items():
        if config.raw.get(key) not in (None, *known):
            fail(f"{config.path}: {key}: another order of layers than one in {PERIOD} that sees everything is not supported")
    if (windows == usual) != (rotated == usual):
        fail(f"{config.path}: rope_layout: layers rotate where they have a window, or all do; others are not supported")
    if windows == usual:
        config.refuse("sliding_window_size", (WINDOW,), "another window than 4096 is")
    config.refuse("norm_topk_prob", (True,), "experts whose weights do not add up to 1 are")
    config.refuse("moe_enable_secondary_experts", (False,), "a second set of experts is")


def defaults(raw):
    """config.json may have no other width than that of experts."""
    return {"intermediate_size": raw.get("moe_ffn_hidden_size")}


FAMILY = Family(
    arch="smallthinker",
    classes=("SmallThinkerForCausalLM", "SmallthinkerForCausalLM"),
    types=("smallthinker",),
    defaults=defaults,
    activation="relu",
    layer=lambda config: EXPERTS,
    experts=lambda config: config["n_expert"],
    keys=keys,
    check=check,
)
