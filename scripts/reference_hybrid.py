"""Architectures whose layers are one mixer or one FFN each, some of them recurrent, by the book: for reference.py."""

import numpy as np

from reference_experts import chosen, experts, shared_expert
from reference_parts import attention, head, relu2, rms_norm, silu, ungated_ffn

# What narrows for experts, and what widens again: names of most files, and of Ollama's.
LATENT = (("ffn_latent_down", "ffn_latent_up"), ("ffn_latent_in", "ffn_latent_out"))


def softplus(x):
    return np.logaddexp(0, x)


def mamba2(model, x, block):
    """A state space model with a scalar decay for each head (arXiv 2405.21060), token by token, behind a short convolution."""
    n_inner, n_state, n_heads, n_groups, n_conv = (
        model.key(f"ssm.{name}") for name in ("inner_size", "state_size", "time_step_rank", "group_count", "conv_kernel")
    )
    n_channels = n_inner + 2 * n_groups * n_state
    z, u, dt = np.split(model.linear(x, f"{block}.ssm_in"), [n_inner, n_inner + n_channels], -1)
    # Each channel by itself, over the last tokens, the oldest first.
    taps, bias = model[f"{block}.ssm_conv1d.weight"], model[f"{block}.ssm_conv1d.bias"]
    before = np.concatenate([np.zeros((n_conv - 1, n_channels)), u])
    u = silu(bias + sum(taps[:, k] * before[k : k + len(x)] for k in range(n_conv)))
    u, b, c = np.split(u, [n_inner, n_inner + n_groups * n_state], -1)
    u = u.reshape(len(x), n_heads, -1)
    # Neighbouring heads share what goes into the state and what is read out of it.
    b, c = (np.repeat(y.reshape(len(x), n_groups, n_state), n_heads // n_groups, axis=1) for y in (b, c))
    delta = softplus(dt + model[f"{block}.ssm_dt.bias"])
    a, d = model[f"{block}.ssm_a"].reshape(-1), model[f"{block}.ssm_d"].reshape(-1)
    state, y = np.zeros((n_heads, n_inner // n_heads, n_state)), np.empty_like(u)
    for t in range(len(x)):
        decay = np.exp(delta[t] * a)[:, None, None]
        state = decay * state + np.einsum("h,hp,hn->hpn", delta[t], u[t], b[t])
        y[t] = np.einsum("hpn,hn->hp", state, c[t]) + d[:, None] * u[t]
    # The gate comes before the norm, which each group has for itself.
    y = (y.reshape(len(x), -1) * silu(z)).reshape(len(x), n_groups, -1)
    eps = model.key("attention.layer_norm_rms_epsilon")
    y = y / np.sqrt(np.mean(y * y, -1, keepdims=True) + eps) * model[f"{block}.ssm_norm.weight"].reshape(n_groups, -1)
    return model.linear(y.reshape(len(x), -1), f"{block}.ssm_out")


def mixture(model, x, block, activation):
    """A router that sees what the FFN sees; experts may be narrower, and one is for all tokens."""
    weights = chosen(model, model.linear(x, f"{block}.ffn_gate_inp"), block, 2, model.key("expert_weights_norm", False))
    into, out_of = next((p for p in LATENT if f"{block}.{p[0]}.weight" in model.tensors), (None, None))
    inner = model.linear(x, f"{block}.{into}") if into else x
    y = experts(model, inner, block, activation, weights, with_gate=False)
    y = model.linear(y, f"{block}.{out_of}") if out_of else y
    return y + shared_expert(model, x, block, activation, with_gate=False)



def nemotron_h(model, x, activation=relu2):
    n_ff, heads = model.key("feed_forward_length"), model.key("attention.head_count_kv")
    model.n_head_kv = max(heads)
    n_layer = model.n_layer - model.key("nextn_predict_layers", 0)
    for i in range(n_layer):
        block = f"blk.{i}"
        h = rms_norm(model, x, f"{block}.attn_norm")
        if n_ff[i] and model.key("expert_count", 0):
            x = x + mixture(model, h, block, activation)
        elif n_ff[i]:
            x = x + ungated_ffn(model, h, block, activation)
        elif heads[i]:
            x = x + attention(model, h, block, rotated=False, scale=model.key("attention.scale", 0.0))
        else:
            x = x + mamba2(model, h, block)
    # What predicts further tokens is no part of this.
    model.used |= {name for name in model.tensors if name.startswith((*(f"blk.{i}." for i in range(n_layer, model.n_layer)), "mtp."))}
    return head(model, rms_norm(model, x, "output_norm"))
