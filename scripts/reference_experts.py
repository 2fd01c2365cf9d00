"""Architectures whose FFNs are mixtures of experts, by the book: for reference.py."""

import numpy as np

from reference_parts import (
    attention, fail, frequencies, gated, head, rms_norm, relu, sigmoid, silu, softmax, swiglu_oai, window,
)  # fmt: skip


def chosen(model, scores, block, gating, normalised=True):
    """What each expert counts for each token, `[token, expert]`; 0 for those that are not chosen."""
    n_used = model.key("expert_used_count")
    if isinstance(n_used, list):
        n_used = n_used[int(block.split(".")[1])]
    bias = model.get(f"{block}.exp_probs_b.bias")
    # The last one is softmax, too, but of the chosen only.
    weights = {1: softmax, 2: sigmoid, 3: lambda scores: scores}.get(gating) or fail(f"gating {gating} is not known")
    weights = weights(scores)
    # The bias has a say in who is chosen, and none in what they count.
    order = np.argsort(-(weights if bias is None else weights + bias), axis=-1, kind="stable")
    used = np.zeros(scores.shape, bool)
    np.put_along_axis(used, order[:, :n_used], True, axis=-1)
    if gating == 3:
        weights = softmax(np.where(used, weights, -np.inf))
    weights = np.where(used, weights, 0)
    if normalised and gating != 3:
        weights = weights / np.maximum(weights.sum(-1, keepdims=True), 2.0**-14)
    return weights * (model.key("expert_weights_scale", 0.0) or 1)


def matrices(model, block, name):
    """A matrix of each expert `[expert, row, column]`, and their biases `[expert, row]` or 0."""
    stacked = f"{block}.{name}_exps"
    if f"{stacked}.weight" in model.tensors:
        bias = model.get(f"{stacked}.bias")
        return model[f"{stacked}.weight"], 0 if bias is None else bias
    # Files from before 2024-04 have a tensor for each.
    return np.stack([model[f"{block}.{name}.{i}.weight"] for i in range(model.key("expert_count"))]), 0


def experts(model, x, block, activation, weights, with_gate=True):
    """The sum of what experts make of each row of `x`, each times its `weights`."""

    def product(of, x):
        matrix, bias = of
        return np.einsum("...xi,xoi->...xo", x, matrix) + bias

    # Each expert has the same input.
    x = np.repeat(x[:, None], model.key("expert_count"), axis=1)
    if f"{block}.ffn_gate_up_exps.weight" in model.tensors:
        hidden = gated(activation, *np.split(product(matrices(model, block, "ffn_gate_up"), x), 2, axis=-1))
    elif with_gate:
        gate, up = (product(matrices(model, block, name), x) for name in ("ffn_gate", "ffn_up"))
        hidden = gated(activation, gate, up)
    else:
        hidden = activation(product(matrices(model, block, "ffn_up"), x))
    return np.einsum("txo,tx->to", product(matrices(model, block, "ffn_down"), hidden), weights)


def shared_expert(model, x, block, activation, with_gate=True):
    """The one that each token goes through; nothing where there is none."""
    if f"{block}.ffn_up_shexp.weight" not in model.tensors:
        return 0
    up = model.linear(x, f"{block}.ffn_up_shexp")
    hidden = gated(activation, model.linear(x, f"{block}.ffn_gate_shexp"), up) if with_gate else activation(up)
    return model.linear(hidden, f"{block}.ffn_down_shexp")


def routed_ffn(model, x, block, activation, gating=1):
    """Experts whose router sees what they see."""
    weights = chosen(model, model.linear(x, f"{block}.ffn_gate_inp"), block, gating)
    return experts(model, x, block, activation, weights)


# Architectures.


def mixtral(model, x, activation=silu):
    """llama with experts."""
    for i in range(model.n_layer):
        block = f"blk.{i}"
        x = x + attention(model, rms_norm(model, x, f"{block}.attn_norm"), block)
        x = x + routed_ffn(model, rms_norm(model, x, f"{block}.ffn_norm"), block, activation)
    return head(model, rms_norm(model, x, "output_norm"))


def smallthinker(model, x, activation=relu):
    # Whatever the key says beside whether there is a window.
    limited = model.key("attention.sliding_window", 0) > 0
    period = model.key("attention.sliding_window_pattern", 4)
    near = frequencies(model, model.key("rope.freq_base_swa", 0.0))
    far = frequencies(model)
    for i in range(model.n_layer):
        block = f"blk.{i}"
        # The router looks at what comes into the layer, before any norm: it knows early who is needed.
        weights = chosen(model, model.linear(x, f"{block}.ffn_gate_inp"), block, model.key("expert_gating_func"))
        # Of the pattern's layers the first sees all.
        slides = limited and (period[i] if isinstance(period, list) else period == 0 or i % period != 0)
        h = rms_norm(model, x, f"{block}.attn_norm")
        rotated = not limited or i % 4 != 0
        turns = near if slides else far
        x = x + attention(model, h, block, halves=True, rotated=rotated, seen=4096 if slides else 0, turns=turns)
        x = x + experts(model, rms_norm(model, x, f"{block}.ffn_norm"), block, activation, weights)
    return head(model, rms_norm(model, x, "output_norm"))


def qwen3moe(model, x, activation=silu):
    for i in range(model.n_layer):
        block = f"blk.{i}"
        h = rms_norm(model, x, f"{block}.attn_norm")
        x = x + attention(model, h, block, halves=True, head_norm=rms_norm)
        x = x + routed_ffn(model, rms_norm(model, x, f"{block}.ffn_norm"), block, activation)
    return head(model, rms_norm(model, x, "output_norm"))


def granitemoe(model, x, activation=silu):
    x = x * (model.key("embedding_scale", 0.0) or 1)
    residual_scale = model.key("residual_scale", 0.0) or 1
    for i in range(model.n_layer):
        block = f"blk.{i}"
        h = rms_norm(model, x, f"{block}.attn_norm")
        x = x + residual_scale * attention(model, h, block, scale=model.key("attention.scale", 0.0))
        h = rms_norm(model, x, f"{block}.ffn_norm")
        x = x + residual_scale * (routed_ffn(model, h, block, activation) + shared_expert(model, h, block, activation))
    return head(model, rms_norm(model, x, "output_norm")) / (model.key("logit_scale", 0.0) or 1)


def gpt_oss(model, x, activation=swiglu_oai):
    near = frequencies(model, model.key("rope.freq_base_swa", 0.0))
    far = frequencies(model)
    for i in range(model.n_layer):
        block = f"blk.{i}"
        seen = window(model, i, 0, 2)
        h = rms_norm(model, x, f"{block}.attn_norm")
        sinks = model[f"{block}.attn_sinks.weight"]
        x = x + attention(model, h, block, halves=True, seen=seen, turns=near if seen else far, sinks=sinks)
        x = x + routed_ffn(model, rms_norm(model, x, f"{block}.post_attention_norm"), block, activation, gating=3)
    return head(model, rms_norm(model, x, "output_norm"))
