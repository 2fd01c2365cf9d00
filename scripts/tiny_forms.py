"""The small models that scripts/train_tiny.py trains: one class of sizes for each form, and the layers they are made of.

Every FFN returns what it adds and, as `Fired`, what the training must know of its neurons.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

MAMBA, ATTENTION, FFN = "mamba", "attention", "ffn"


class Config:
    form = "reglu"
    n_vocab = 2048
    n_ctx = 512
    n_embd = 256
    n_ff = 1024
    n_layer = 6
    n_head = 4
    n_head_kv = 2
    head_dim = 64
    n_rot = 64
    rope_base = 10000.0
    norm_eps = 1e-5
    bias = False
    tied = True
    n_expert = 1
    n_expert_used = 1

    @property
    def n_neuron(self):
        """Neurons of an FFN, of all its experts."""
        return self.n_ff * self.n_expert

    @property
    def n_ffn(self):
        """Layers that have an FFN."""
        return self.n_layer

    @property
    def share_used(self):
        """Of an FFN's neurons, those of the experts that a token chooses."""
        return self.n_expert_used / self.n_expert


class Relu2(Config):
    form = "relu2"
    n_embd = 128
    n_ff = 768
    n_layer = 5
    head_dim = 32
    n_rot = 16
    bias = True
    tied = False


class Drelu(Config):
    form = "drelu"
    n_embd = 128
    n_ff = 512
    n_layer = 5
    head_dim = 32
    n_rot = 32
    tied = False


class Moe(Config):
    form = "moe"
    n_embd = 128
    n_ff = 160
    n_layer = 5
    head_dim = 32
    n_rot = 32
    n_expert = 8
    n_expert_used = 2
    norm_eps = 1e-6


class Hybrid(Config):
    form = "hybrid"
    n_embd = 128
    n_ff = 768
    mixers = (MAMBA, FFN, MAMBA, FFN, ATTENTION, FFN, MAMBA, FFN, MAMBA, FFN, ATTENTION, FFN)
    n_layer = len(mixers)
    head_dim = 32
    n_rot = 0
    tied = False
    ssm_conv = 4
    ssm_inner = 256
    ssm_heads = 8
    ssm_state = 32
    ssm_groups = 2
    ssm_chunk = 64

    @property
    def n_ffn(self):
        return self.mixers.count(FFN)


FORMS = {c.form: c for c in (Config, Relu2, Drelu, Moe, Hybrid)}


class Fired(NamedTuple):
    """Of one FFN and a batch: `rate` is the share of tokens for which each neuron fired; `l1` what is penalised for sparsity;
    `revive` what pulls dead neurons back; `balance` is least (1) where all experts are chosen alike; `chosen` the share of choices
    that fell on each expert."""

    rate: torch.Tensor
    l1: torch.Tensor
    revive: torch.Tensor
    balance: torch.Tensor
    chosen: torch.Tensor


def dense(fired, l1, revive):
    """`Fired` of an FFN without experts. `fired` has a row of zeros and ones for each token."""
    one = torch.ones((), device=l1.device)
    return Fired(fired.float().mean((0, 1)), l1, revive, one, one[None])


def rope_tables(cfg, device):
    inv = cfg.rope_base ** (-torch.arange(0, cfg.n_rot, 2, dtype=torch.float32) / max(cfg.n_rot, 1))
    angle = torch.arange(cfg.n_ctx, dtype=torch.float32)[:, None] * inv[None]
    angle = torch.cat([angle, angle], dim=-1)  # half-split ("NeoX") layout, as in Hugging Face's LLaMA
    return angle.cos().to(device), angle.sin().to(device)


def rotate(x, cos, sin):
    n_rot = cos.shape[-1]
    if n_rot == 0:
        return x
    kept, x, half = x[..., n_rot:], x[..., :n_rot], n_rot // 2
    turned = torch.cat([-x[..., half:], x[..., :half]], dim=-1)
    return torch.cat([x * cos + turned * sin, kept], dim=-1)


class RMSNorm(nn.Module):
    def __init__(self, dim, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x):
        x = x.float()
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


class LayerNorm1P(nn.Module):
    """Layer norm whose weight is stored without its 1, as in Nemotron."""

    def __init__(self, dim, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.eps = eps

    def forward(self, x):
        return F.layer_norm(x.float(), self.weight.shape, self.weight + 1, self.bias, self.eps)


def norm(cfg):
    return (LayerNorm1P if cfg.form == "relu2" else RMSNorm)(cfg.n_embd, cfg.norm_eps)


class Attention(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        q_dim, kv_dim = cfg.n_head * cfg.head_dim, cfg.n_head_kv * cfg.head_dim
        self.q_proj = nn.Linear(cfg.n_embd, q_dim, bias=cfg.bias)
        self.k_proj = nn.Linear(cfg.n_embd, kv_dim, bias=cfg.bias)
        self.v_proj = nn.Linear(cfg.n_embd, kv_dim, bias=cfg.bias)
        self.o_proj = nn.Linear(q_dim, cfg.n_embd, bias=cfg.bias)

    def forward(self, x, cos, sin):
        b, t, _ = x.shape
        c = self.cfg
        q = self.q_proj(x).view(b, t, c.n_head, c.head_dim).transpose(1, 2)
        k = self.k_proj(x).view(b, t, c.n_head_kv, c.head_dim).transpose(1, 2)
        v = self.v_proj(x).view(b, t, c.n_head_kv, c.head_dim).transpose(1, 2)
        q, k = rotate(q, cos[:t], sin[:t]).to(v.dtype), rotate(k, cos[:t], sin[:t]).to(v.dtype)
        groups = c.n_head // c.n_head_kv
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(y.transpose(1, 2).reshape(b, t, -1))


def inverse_softplus(x):
    return x + torch.log(-torch.expm1(-x))


def scan(x, a, b, c, chunk):
    """Mamba-2's recurrence `state = exp(a) state + x b^T`, `y = state c`, chunk by chunk.

    x [batch, time, heads, width]; a [batch, time, heads], at most 0; b, c [batch, time, groups, state], where a group serves
    neighbouring heads. Within a chunk the recurrence is a product with a triangular matrix of decays; between chunks it goes on
    chunk after chunk. The result is as x."""
    n, t, heads, width = x.shape
    groups, state = b.shape[2:]
    rest = -t % chunk
    if rest:
        x, a, b, c = (F.pad(v, (0, 0) * (v.dim() - 2) + (0, rest)) for v in (x, a, b, c))
    chunks = (t + rest) // chunk
    x = x.view(n, chunks, chunk, heads, width).permute(0, 1, 3, 2, 4)
    total = a.view(n, chunks, chunk, heads).permute(0, 1, 3, 2).cumsum(-1)  # logarithm of the decay since the chunk began
    b, c = (v.view(n, chunks, chunk, groups, state).permute(0, 1, 3, 2, 4) for v in (b, c))
    later = torch.ones(chunk, chunk, dtype=torch.bool, device=x.device).tril()
    decay = (total[..., :, None] - total[..., None, :]).masked_fill(~later, float("-inf")).exp()
    b_heads, c_heads = (v.repeat_interleave(heads // groups, 2) for v in (b, c))
    near = (c @ b.transpose(-1, -2)).repeat_interleave(heads // groups, 2)
    y = (near * decay).to(x.dtype) @ x
    left = (b_heads * (total[..., -1:] - total).exp()[..., None]).to(x.dtype).transpose(-1, -2) @ x
    kept = total[..., -1].exp()
    carried, states = torch.zeros_like(left[:, 0], dtype=torch.float32), []
    for i in range(chunks):
        states.append(carried)
        carried = carried * kept[:, i, :, None, None] + left[:, i]
    far = (c_heads * total.exp()[..., None]).to(x.dtype) @ torch.stack(states, 1).to(x.dtype)
    return (y + far).permute(0, 1, 3, 2, 4).reshape(n, t + rest, heads, width)[:, :t]


class Mamba2(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        mixed = cfg.ssm_inner + 2 * cfg.ssm_groups * cfg.ssm_state
        self.in_proj = nn.Linear(cfg.n_embd, cfg.ssm_inner + mixed + cfg.ssm_heads, bias=False)
        self.conv1d = nn.Conv1d(mixed, mixed, cfg.ssm_conv, groups=mixed)
        dt = torch.exp(torch.empty(cfg.ssm_heads).uniform_(math.log(1e-3), math.log(1e-1)))
        self.dt_bias = nn.Parameter(inverse_softplus(dt))
        self.A_log = nn.Parameter(torch.empty(cfg.ssm_heads).uniform_(1, 16).log())
        self.D = nn.Parameter(torch.ones(cfg.ssm_heads))
        self.norm = RMSNorm(cfg.ssm_inner, cfg.norm_eps)
        self.out_proj = nn.Linear(cfg.ssm_inner, cfg.n_embd, bias=False)

    def forward(self, x):
        c = self.cfg
        n, t, _ = x.shape
        bc = c.ssm_groups * c.ssm_state
        z, mixed, dt = self.in_proj(x).split([c.ssm_inner, c.ssm_inner + 2 * bc, c.ssm_heads], -1)
        # Four shifted products: a processor's grouped convolution is many times slower.
        padded = F.pad(mixed, (0, 0, c.ssm_conv - 1, 0))
        taps = self.conv1d.weight[:, 0].to(mixed.dtype)
        mixed = sum(padded[:, i : i + t] * taps[:, i] for i in range(c.ssm_conv)) + self.conv1d.bias.to(mixed.dtype)
        v, b, k = F.silu(mixed).split([c.ssm_inner, bc, bc], -1)
        v = v.view(n, t, c.ssm_heads, -1)
        b, k = b.view(n, t, c.ssm_groups, -1), k.view(n, t, c.ssm_groups, -1)
        delta = F.softplus(dt.float() + self.dt_bias)
        y = scan(v * delta[..., None].to(v.dtype), delta * -self.A_log.exp(), b, k, c.ssm_chunk)
        y = (y + v * self.D[:, None].to(v.dtype)).reshape(n, t, -1).float() * F.silu(z.float())
        grouped = y.view(n, t, c.ssm_groups, -1)
        grouped = grouped * torch.rsqrt(grouped.pow(2).mean(-1, keepdim=True) + c.norm_eps)
        return self.out_proj(grouped.view(n, t, -1) * self.norm.weight)


class ReGLU(nn.Module):
    """relu(gate x) * up x."""

    def __init__(self, cfg):
        super().__init__()
        self.gate_proj = nn.Linear(cfg.n_embd, cfg.n_ff, bias=False)
        self.up_proj = nn.Linear(cfg.n_embd, cfg.n_ff, bias=False)
        self.down_proj = nn.Linear(cfg.n_ff, cfg.n_embd, bias=False)

    def forward(self, x, _, dead):
        g = self.gate_proj(x)
        h = F.relu(g)
        revive = (F.relu(-g).float() * dead).mean()
        return self.down_proj(h * self.up_proj(x)), dense(h > 0, h.float().mean(), revive)


class Relu2Ffn(nn.Module):
    """relu(up x)^2."""

    def __init__(self, cfg):
        super().__init__()
        self.up_proj = nn.Linear(cfg.n_embd, cfg.n_ff, bias=cfg.bias)
        self.down_proj = nn.Linear(cfg.n_ff, cfg.n_embd, bias=cfg.bias)

    def forward(self, x, _, dead):
        u = self.up_proj(x)
        h = F.relu(u)
        revive = (F.relu(-u).float() * dead).mean()
        return self.down_proj(h * h), dense(h > 0, h.float().mean(), revive)


class DreluFfn(nn.Module):
    """relu(gate x) * relu(up x): a neuron fires where both are above zero."""

    def __init__(self, cfg):
        super().__init__()
        self.gate_proj = nn.Linear(cfg.n_embd, cfg.n_ff, bias=False)
        self.up_proj = nn.Linear(cfg.n_embd, cfg.n_ff, bias=False)
        self.down_proj = nn.Linear(cfg.n_ff, cfg.n_embd, bias=False)

    def forward(self, x, _, dead):
        g, u = self.gate_proj(x), self.up_proj(x)
        l1 = (F.relu(g) + F.relu(u)).float().mean()
        revive = ((F.relu(-g) + F.relu(-u)).float() * dead).mean()
        return self.down_proj(F.relu(g) * F.relu(u)), dense((g > 0) & (u > 0), l1, revive)


class Experts(nn.Module):
    """ReGLU experts, of which each token takes a few. `raw` is the layer's input, which the router reads before attention."""

    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        self.router = nn.Linear(cfg.n_embd, cfg.n_expert, bias=False)
        self.experts = nn.ModuleList(ReGLU(cfg) for _ in range(cfg.n_expert))

    def forward(self, x, raw, dead):
        c = self.cfg
        shape, x = x.shape, x.reshape(-1, c.n_embd)
        with torch.autocast(x.device.type, enabled=False):
            scores = torch.sigmoid(self.router(raw.float().reshape(-1, c.n_embd)))
        best, which = scores.topk(c.n_expert_used, -1)
        weights = best / best.sum(-1, keepdim=True)
        out, counts, sizes, l1, revive = torch.zeros_like(x), [], [], 0.0, 0.0
        for e, expert in enumerate(self.experts):
            token, place = (which == e).nonzero(as_tuple=True)
            h = x[token]
            g = expert.gate_proj(h)
            a = F.relu(g)
            y = expert.down_proj(a * expert.up_proj(h)).float() * weights[token, place, None]
            out = out.index_add(0, token, y)
            counts.append((a > 0).float().sum(0))
            sizes.append(len(token))
            l1 = l1 + a.float().sum()
            revive = revive + (F.relu(-g).float() * dead[e * c.n_ff : (e + 1) * c.n_ff]).sum()
        n, n_chosen = len(x), len(x) * c.n_expert_used
        chosen = torch.tensor(sizes, device=x.device) / n_chosen
        balance = c.n_expert * (chosen * (scores / scores.sum(-1, keepdim=True)).mean(0)).sum()
        fired = Fired(torch.cat(counts) / n, l1 / (n_chosen * c.n_ff), revive / (n_chosen * c.n_ff), balance, chosen)
        return out.view(shape), fired


FFNS = {"reglu": ReGLU, "relu2": Relu2Ffn, "drelu": DreluFfn, "moe": Experts, "hybrid": Relu2Ffn}


class Layer(nn.Module):
    """Attention, then an FFN."""

    def __init__(self, cfg, _):
        super().__init__()
        self.input_layernorm = norm(cfg)
        self.self_attn = Attention(cfg)
        self.post_attention_layernorm = norm(cfg)
        self.mlp = FFNS[cfg.form](cfg)

    def forward(self, x, cos, sin, dead):
        raw = x
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        y, fired = self.mlp(self.post_attention_layernorm(x), raw, dead)
        return x + y, fired


class HybridLayer(nn.Module):
    """One of Mamba-2, attention and an FFN."""

    def __init__(self, cfg, i):
        super().__init__()
        self.kind = cfg.mixers[i]
        self.norm = norm(cfg)
        self.mixer = {MAMBA: Mamba2, ATTENTION: Attention, FFN: FFNS[cfg.form]}[self.kind](cfg)

    def forward(self, x, cos, sin, dead):
        h = self.norm(x)
        if self.kind == FFN:
            y, fired = self.mixer(h, None, dead)
            return x + y, fired
        return x + (self.mixer(h, cos, sin) if self.kind == ATTENTION else self.mixer(h)), None


class Model(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        self.embed_tokens = nn.Embedding(cfg.n_vocab, cfg.n_embd)
        layer = HybridLayer if cfg.form == "hybrid" else Layer
        self.layers = nn.ModuleList(layer(cfg, i) for i in range(cfg.n_layer))
        self.norm = norm(cfg)
        self.lm_head = None if cfg.tied else nn.Linear(cfg.n_embd, cfg.n_vocab, bias=False)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                std = 0.02 if "embed" in name or "lm_head" in name else cfg.n_embd**-0.5
                if "o_proj" in name or "down_proj" in name or "out_proj" in name:
                    std = 0.02 / math.sqrt(2 * cfg.n_layer)
                nn.init.normal_(p, std=std)
            elif name.endswith("proj.bias"):
                nn.init.zeros_(p)

    def forward(self, tokens, cos, sin, dead):
        """Logits, and `Fired` of all FFNs: a row of rates and of choices for each, and of the rest the values or sums."""
        x = self.embed_tokens(tokens)
        found = []
        for layer in self.layers:
            x, fired = layer(x, cos, sin, dead[min(len(found), len(dead) - 1)])
            if fired is not None:
                found.append(fired)
        head = self.embed_tokens if self.lm_head is None else self.lm_head
        logits = F.linear(self.norm(x), head.weight).float()
        rate, l1, revive, balance, chosen = (torch.stack(values) for values in zip(*found))
        return logits, Fired(rate, l1, revive.sum(), balance.sum(), chosen)
