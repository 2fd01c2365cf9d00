#!/usr/bin/env python3
"""Train small story models: the one that powerinfer-rs embeds, and one of each other sparse form.

    reglu   the embedded one: a LLaMA-shaped decoder (RMSNorm, RoPE, grouped-query attention, ReGLU FFN,
            tied embeddings) of 6.4 M parameters
    relu2   Nemotron's shape: LayerNorm, biases, half of each head rotated, ungated FFN with squared ReLU;
            1.8 M parameters
    drelu   Bamboo's shape: LLaMA with relu(gate) * relu(up); 1.8 M parameters

They are trained from scratch on plain text files. Documents are separated by `<|endoftext|>` alone on a
line. The schedule follows wall time, so that a run fits the time one has:

    0 .. 3 %      warm-up
    3 .. 55 %     constant learning rate
   33 .. 100 %    L1 penalty on what the activation gives, steered per layer towards --density
   55 .. 100 %    linear decay to zero

Neurons that stop firing are pulled back all along (an auxiliary loss on their pre-activation), because a
dead neuron is capacity lost and would flatter the sparsity figures.

    pip install torch numpy tokenizers safetensors
    python scripts/train_tiny.py --corpus DIR --eval FILE --out OUT --minutes 100
    python scripts/train_tiny.py --form drelu --corpus DIR --eval FILE --out OUT --minutes 30 --threads 1

Writes OUT/ckpt.pt (resumed from when present) and OUT/hf/ (config.json, model.safetensors with weights
rounded to F16, tokenizer.json, report.json), which scripts/convert_hf_to_gguf.py turns into GGUF.
"""

import argparse
import json
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

EOT = "<|endoftext|>"


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


FORMS = {c.form: c for c in (Config, Relu2, Drelu)}


def rope_tables(cfg, device):
    inv = cfg.rope_base ** (-torch.arange(0, cfg.n_rot, 2, dtype=torch.float32) / cfg.n_rot)
    angle = torch.arange(cfg.n_ctx, dtype=torch.float32)[:, None] * inv[None]
    angle = torch.cat([angle, angle], dim=-1)  # half-split ("NeoX") layout, as in Hugging Face's LLaMA
    return angle.cos().to(device), angle.sin().to(device)


def rotate(x, cos, sin):
    n_rot = cos.shape[-1]
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


class ReGLU(nn.Module):
    """relu(gate x) * up x, and what the training needs to know of which neurons fired."""

    def __init__(self, cfg):
        super().__init__()
        self.gate_proj = nn.Linear(cfg.n_embd, cfg.n_ff, bias=False)
        self.up_proj = nn.Linear(cfg.n_embd, cfg.n_ff, bias=False)
        self.down_proj = nn.Linear(cfg.n_ff, cfg.n_embd, bias=False)

    def forward(self, x, dead):
        g = self.gate_proj(x)
        h = F.relu(g)
        rate = (h > 0).float().mean((0, 1))
        l1 = h.float().mean()
        revive = (F.relu(-g).float() * dead).mean()
        return self.down_proj(h * self.up_proj(x)), rate, l1, revive


class Relu2Ffn(nn.Module):
    """relu(up x)^2, with biases."""

    def __init__(self, cfg):
        super().__init__()
        self.up_proj = nn.Linear(cfg.n_embd, cfg.n_ff, bias=True)
        self.down_proj = nn.Linear(cfg.n_ff, cfg.n_embd, bias=True)

    def forward(self, x, dead):
        u = self.up_proj(x)
        h = F.relu(u)
        rate = (h > 0).float().mean((0, 1))
        revive = (F.relu(-u).float() * dead).mean()
        return self.down_proj(h * h), rate, h.float().mean(), revive


class DreluFfn(nn.Module):
    """relu(gate x) * relu(up x): a neuron fires where both are above zero."""

    def __init__(self, cfg):
        super().__init__()
        self.gate_proj = nn.Linear(cfg.n_embd, cfg.n_ff, bias=False)
        self.up_proj = nn.Linear(cfg.n_embd, cfg.n_ff, bias=False)
        self.down_proj = nn.Linear(cfg.n_ff, cfg.n_embd, bias=False)

    def forward(self, x, dead):
        g, u = self.gate_proj(x), self.up_proj(x)
        fired = (g > 0) & (u > 0)
        l1 = (F.relu(g) + F.relu(u)).float().mean()
        revive = ((F.relu(-g) + F.relu(-u)).float() * dead).mean()
        return self.down_proj(F.relu(g) * F.relu(u)), fired.float().mean((0, 1)), l1, revive


FFNS = {"reglu": ReGLU, "relu2": Relu2Ffn, "drelu": DreluFfn}


class Layer(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.input_layernorm = norm(cfg)
        self.self_attn = Attention(cfg)
        self.post_attention_layernorm = norm(cfg)
        self.mlp = FFNS[cfg.form](cfg)

    def forward(self, x, cos, sin, dead):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        y, rate, l1, revive = self.mlp(self.post_attention_layernorm(x), dead)
        return x + y, rate, l1, revive


class Model(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        self.embed_tokens = nn.Embedding(cfg.n_vocab, cfg.n_embd)
        self.layers = nn.ModuleList(Layer(cfg) for _ in range(cfg.n_layer))
        self.norm = norm(cfg)
        self.lm_head = None if cfg.tied else nn.Linear(cfg.n_embd, cfg.n_vocab, bias=False)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                std = 0.02 if "embed" in name or "lm_head" in name else cfg.n_embd**-0.5
                if "o_proj" in name or "down_proj" in name:
                    std = 0.02 / math.sqrt(2 * cfg.n_layer)
                nn.init.normal_(p, std=std)
            elif name.endswith("proj.bias"):
                nn.init.zeros_(p)

    def forward(self, tokens, cos, sin, dead):
        x = self.embed_tokens(tokens)
        rates, l1s, revives = [], [], []
        for i, layer in enumerate(self.layers):
            x, rate, l1, revive = layer(x, cos, sin, dead[i])
            rates.append(rate)
            l1s.append(l1)
            revives.append(revive)
        head = self.embed_tokens if self.lm_head is None else self.lm_head
        logits = F.linear(self.norm(x), head.weight).float()
        return logits, torch.stack(rates), torch.stack(l1s), torch.stack(revives).sum()


def documents(path):
    text = path.read_text(encoding="utf-8")
    return [d.strip("\n") for d in text.split(f"{EOT}\n") if d.strip()]


def build_tokenizer(files, n_vocab, path):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    if not path.exists():
        tok = Tokenizer(models.BPE())
        tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        tok.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=n_vocab,
            special_tokens=[EOT],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tok.train_from_iterator((d for f in files for d in documents(f)), trainer)
        tok.save(str(path))
    return Tokenizer.from_file(str(path))


def encode(tok, files):
    """One stream: every document is preceded by <|endoftext|> (the BOS of this model)."""
    ids = []
    for f in files:
        for e in tok.encode_batch(documents(f), add_special_tokens=False):
            ids.append(0)
            ids.extend(e.ids)
    ids.append(0)
    return torch.from_numpy(np.array(ids, dtype=np.uint16).astype(np.int64))


def batch(stream, n, length, rng):
    at = torch.randint(0, len(stream) - length - 1, (n,), generator=rng)
    return torch.stack([stream[a : a + length + 1] for a in at])


@torch.no_grad()
def evaluate(model, stream, n_bytes, tables, device, amp, max_windows=None):
    """Bits per byte over the stream (every token scored once, with at least 256 tokens of context after
    the first window), and the firing rate of each neuron."""
    model.eval()
    cfg = model.cfg
    stride = cfg.n_ctx // 2
    starts = list(range(0, len(stream) - 1, stride))
    if max_windows:
        starts = starts[:max_windows]
    nats, count, rates, n_rate = 0.0, 0, torch.zeros(cfg.n_layer, cfg.n_ff), 0
    dead = torch.zeros(cfg.n_layer, cfg.n_ff, device=device)
    for s in starts:
        window = stream[s : s + cfg.n_ctx + 1].to(device)
        if len(window) < 2:
            continue
        with torch.autocast(device.type, torch.bfloat16, enabled=amp):
            logits, rate, _, _ = model(window[None, :-1], *tables, dead)
        nll = F.cross_entropy(logits[0], window[1:], reduction="none")
        skip = 0 if s == 0 else stride
        nats += nll[skip:].sum().item()
        count += len(nll[skip:])
        rates += rate.cpu() * (len(window) - 1)
        n_rate += len(window) - 1
        if s + cfg.n_ctx + 1 >= len(stream):
            break
    model.train()
    share = count / (len(stream) - 1)
    return nats / count, nats / math.log(2) / (n_bytes * share), rates / n_rate


@torch.no_grad()
def sample(model, tok, prompt, tables, device, n=120, temp=0.7, seed=1):
    model.eval()
    rng = torch.Generator().manual_seed(seed)
    ids = [0] + tok.encode(prompt, add_special_tokens=False).ids
    dead = torch.zeros(model.cfg.n_layer, model.cfg.n_ff, device=device)
    for _ in range(n):
        x = torch.tensor([ids[-model.cfg.n_ctx :]], device=device)
        logits = model(x, *tables, dead)[0][0, -1].cpu()
        nxt = torch.multinomial(F.softmax(logits / temp, -1), 1, generator=rng).item()
        if nxt == 0:
            break
        ids.append(nxt)
    model.train()
    return tok.decode(ids[1:])


def export(model, cfg, tok_path, out, report):
    from safetensors.torch import save_file

    out.mkdir(parents=True, exist_ok=True)
    full = {k if k.startswith("lm_head") else f"model.{k}": v for k, v in model.state_dict().items()}
    state = {k: v.detach().cpu().half().contiguous() for k, v in full.items()}
    save_file(state, str(out / "model.safetensors"), metadata={"format": "pt"})
    kind = {"reglu": ("Llama", "relu"), "relu2": ("Nemotron", "relu2"), "drelu": ("Bamboo", "drelu")}[cfg.form]
    eps = {"norm_eps": cfg.norm_eps, "partial_rotary_factor": cfg.n_rot / cfg.head_dim}
    config = {
        "architectures": [f"{kind[0]}ForCausalLM"],
        "model_type": kind[0].lower(),
        "hidden_act": kind[1],
        "hidden_size": cfg.n_embd,
        "intermediate_size": cfg.n_ff,
        "num_hidden_layers": cfg.n_layer,
        "num_attention_heads": cfg.n_head,
        "num_key_value_heads": cfg.n_head_kv,
        "head_dim": cfg.head_dim,
        "max_position_embeddings": cfg.n_ctx,
        **(eps if cfg.form == "relu2" else {"rms_norm_eps": cfg.norm_eps}),
        "rope_theta": cfg.rope_base,
        "vocab_size": cfg.n_vocab,
        "tie_word_embeddings": cfg.tied,
        "attention_bias": cfg.bias,
        "mlp_bias": cfg.bias,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "torch_dtype": "float16",
    }
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (out / "tokenizer_config.json").write_text(
        json.dumps({"add_bos_token": True, "bos_token": EOT, "eos_token": EOT}, indent=2) + "\n"
    )
    (out / "tokenizer.json").write_text(tok_path.read_text())
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")


def is_matrix(name, p):
    return p.dim() == 2 and "embed" not in name and "lm_head" not in name


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--form", choices=FORMS, default="reglu")
    ap.add_argument("--corpus", type=Path, required=True, help="folder of *.txt; names with 'stories' count as stories")
    ap.add_argument("--eval", type=Path, required=True, help="held-out text")
    ap.add_argument("--out", type=Path, required=True)
    ap.add_argument("--minutes", type=float, default=100, help="training time, over all resumes")
    ap.add_argument("--batch", type=int, default=16, help="windows per step")
    ap.add_argument("--lr", type=float, default=3e-3)
    ap.add_argument("--density", type=float, default=0.10, help="share of neurons that L1 lets fire, per layer")
    ap.add_argument("--books", type=float, default=0.25, help="share of windows from files that are not stories")
    ap.add_argument("--threads", type=int, default=os.cpu_count())
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--compile", action="store_true", help="torch.compile the model (needs a C++ compiler)")
    args = ap.parse_args()

    os.nice(19)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    args.out.mkdir(parents=True, exist_ok=True)
    cfg = FORMS[args.form]()

    files = sorted(args.corpus.glob("*.txt"))
    if not files:
        raise SystemExit(f"{args.corpus}: no *.txt files")
    tok_path = args.out / "tokenizer.json"
    tok = build_tokenizer(files, cfg.n_vocab, tok_path)
    stories = encode(tok, [f for f in files if "stories" in f.name])
    books = encode(tok, [f for f in files if "stories" not in f.name])
    eval_docs = "".join(documents(args.eval))
    eval_stream, eval_bytes = encode(tok, [args.eval]), len(eval_docs.encode())
    print(f"stories {len(stories)} tokens, books {len(books)}, eval {len(eval_stream)} tokens, {eval_bytes} bytes", flush=True)

    model = Model(cfg).to(device)
    n_params = sum(p.numel() for p in model.parameters())
    print(f"{n_params} parameters on {device}", flush=True)
    tables = rope_tables(cfg, device)
    matrices = [p for n, p in model.named_parameters() if is_matrix(n, p)]
    others = [p for n, p in model.named_parameters() if not is_matrix(n, p)]
    muon = torch.optim.Muon(matrices, lr=args.lr, weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW(others, lr=args.lr, betas=(0.9, 0.98), weight_decay=0.01)
    rng = torch.Generator().manual_seed(args.seed)
    step, spent = 0, 0.0
    ema = torch.full((cfg.n_layer, cfg.n_ff), 0.1, device=device)
    weight = torch.full((cfg.n_layer,), 1e-3, device=device)  # of L1, steered per layer

    ckpt = args.out / "ckpt.pt"
    if ckpt.exists():
        state = torch.load(ckpt, map_location=device)
        model.load_state_dict(state["model"])
        muon.load_state_dict(state["muon"])
        adam.load_state_dict(state["adam"])
        rng.set_state(state["rng"].cpu())
        step, spent, ema, weight = state["step"], state["spent"], state["ema"], state["weight"]
        print(f"resumed at step {step}, {spent / 60:.1f} min", flush=True)

    def save():
        state = {"model": model.state_dict(), "muon": muon.state_dict(), "adam": adam.state_dict()}
        state |= {"rng": rng.get_state(), "step": step, "spent": spent, "ema": ema, "weight": weight}
        torch.save(state, ckpt.with_suffix(".tmp"))
        os.replace(ckpt.with_suffix(".tmp"), ckpt)

    def report(max_windows=None):
        loss, bpb, rates = evaluate(model, eval_stream, eval_bytes, tables, device, amp=False, max_windows=max_windows)
        dead = (rates == 0).float().mean(1)
        return {
            "minutes": round(spent / 60, 1),
            "step": step,
            "eval_nats_per_token": round(loss, 4),
            "eval_bits_per_byte": round(bpb, 4),
            "sparsity": round(1 - rates.mean().item(), 4),
            "sparsity_per_layer": [round(1 - r, 4) for r in rates.mean(1).tolist()],
            "dead_share_per_layer": [round(d, 4) for d in dead.tolist()],
        }

    forward = torch.compile(model) if args.compile else model
    budget, mark, last_eval, running = args.minutes * 60, time.time(), spent, None
    tokens_at, time_at = step, time.time()
    while spent < budget:
        done = spent / budget
        scale = min(1.0, done / 0.03 + 0.02, (1 - done) / 0.45)
        for group in (*muon.param_groups, *adam.param_groups):
            group["lr"] = args.lr * max(scale, 0.0)
        n_books = sum(torch.rand(args.batch, generator=rng).tolist()[i] < args.books * min(1.0, 2 * (1 - done)) for i in range(args.batch))
        rows = [batch(stories, args.batch - n_books, cfg.n_ctx, rng)]
        if n_books:
            rows.append(batch(books, n_books, cfg.n_ctx, rng))
        tokens = torch.cat(rows).to(device)
        dead = (ema < 2e-4).float()
        with torch.autocast(device.type, torch.bfloat16):
            logits, rate, l1, revive = forward(tokens[:, :-1], *tables, dead)
        loss = F.cross_entropy(logits.view(-1, cfg.n_vocab), tokens[:, 1:].reshape(-1))
        total = loss + 10.0 * revive
        if done > 1 / 3:
            error = (rate.detach().mean(1) / args.density - 1).clamp(-1, 1)
            weight = (weight * torch.exp(0.05 * error)).clamp(1e-4, 30.0)
            total = total + (weight * l1).sum()
        total.backward()
        nn.utils.clip_grad_norm_(others, 1.0)
        muon.step()
        adam.step()
        muon.zero_grad(set_to_none=True)
        adam.zero_grad(set_to_none=True)
        ema.mul_(0.99).add_(rate.detach(), alpha=0.01)
        step += 1
        running = loss.item() if running is None else 0.98 * running + 0.02 * loss.item()
        now = time.time()
        spent, mark = spent + now - mark, now
        if step % 50 == 0:
            speed = (step - tokens_at) * args.batch * cfg.n_ctx / (now - time_at)
            tokens_at, time_at = step, now
            density = " ".join(f"{d:.3f}" for d in rate.mean(1).tolist())
            print(f"step {step} {spent / 60:.1f} min loss {running:.4f} lr {args.lr * scale:.5f} {speed:.0f} tok/s density {density} dead {int(dead.sum())}", flush=True)
        if spent - last_eval > 600:
            last_eval = spent
            save()
            r = report(max_windows=60)
            export(model, cfg, tok_path, args.out / "hf-partial", r)
            print(json.dumps(r), flush=True)
            mark = time.time()
    save()
    with torch.no_grad():  # figures are those of the rounded weights that are shipped
        for p in model.parameters():
            p.copy_(p.half().float())
    r = report()
    r["parameters"] = n_params
    r["tokens_seen"] = step * args.batch * cfg.n_ctx
    r["samples"] = [sample(model, tok, p, tables, device) for p in ("Once upon a time", "Tom and his dog", "The little girl was sad because")]
    export(model, cfg, tok_path, args.out / "hf", r)
    print(json.dumps(r, indent=2), flush=True)


if __name__ == "__main__":
    main()
