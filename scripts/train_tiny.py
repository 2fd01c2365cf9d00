#!/usr/bin/env python3
"""Train small story models: the one that powerinfer-rs embeds, and one of each other sparse form.

    reglu   the embedded one: a LLaMA-shaped decoder (RMSNorm, RoPE, grouped-query attention, ReGLU FFN,
            tied embeddings) of 6.4 M parameters
    relu2   Nemotron's shape: LayerNorm, biases, half of each head rotated, ungated FFN with squared ReLU;
            1.8 M parameters
    drelu   Bamboo's shape: LLaMA with relu(gate) * relu(up); 1.8 M parameters
    moe     SmallThinker's shape: eight ReGLU experts of which two are chosen, by the layer's raw input; 2.9 M parameters
    hybrid  Nemotron-H's shape: each layer is one of Mamba-2, attention without rotation, and an ungated FFN with squared
            ReLU; 2.3 M parameters

They are trained from scratch on plain text files. Documents are separated by `<|endoftext|>` alone on a
line. The schedule follows wall time, so that a run fits the time one has, or with --cpu-time the time that it computed:

    0 .. 3 %      warm-up
    3 .. 55 %     constant learning rate
   33 .. 100 %    L1 penalty on what the activation gives, steered per layer towards --density
   55 .. 100 %    linear decay to zero

Neurons that stop firing are pulled back all along (an auxiliary loss on their pre-activation), because a
dead neuron is capacity lost and would flatter the sparsity figures. Experts are kept in use by a loss that is least where all are
chosen alike (--balance is its weight), weak enough that they need not be.

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
from tiny_forms import ATTENTION, FFN, FORMS, MAMBA, Model, rope_tables
from torch import nn

EOT = "<|endoftext|>"


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
    the first window), the firing rate of each neuron, and the share of choices that fell on each expert."""
    model.eval()
    cfg = model.cfg
    stride = cfg.n_ctx // 2
    starts = list(range(0, len(stream) - 1, stride))
    if max_windows:
        starts = starts[:max_windows]
    nats, count, n_rate = 0.0, 0, 0
    rates, chosen = torch.zeros(cfg.n_ffn, cfg.n_neuron), torch.zeros(cfg.n_ffn, cfg.n_expert)
    dead = torch.zeros(cfg.n_ffn, cfg.n_neuron, device=device)
    for s in starts:
        window = stream[s : s + cfg.n_ctx + 1].to(device)
        if len(window) < 2:
            continue
        with torch.autocast(device.type, torch.bfloat16, enabled=amp):
            logits, fired = model(window[None, :-1], *tables, dead)
        nll = F.cross_entropy(logits[0], window[1:], reduction="none")
        skip = 0 if s == 0 else stride
        nats += nll[skip:].sum().item()
        count += len(nll[skip:])
        rates += fired.rate.cpu() * (len(window) - 1)
        chosen += fired.chosen.cpu() * (len(window) - 1)
        n_rate += len(window) - 1
        if s + cfg.n_ctx + 1 >= len(stream):
            break
    model.train()
    share = count / (len(stream) - 1)
    return nats / count, nats / math.log(2) / (n_bytes * share), rates / n_rate, chosen / n_rate


@torch.no_grad()
def sample(model, tok, prompt, tables, device, n=120, temp=0.7, seed=1):
    model.eval()
    rng = torch.Generator().manual_seed(seed)
    ids = [0] + tok.encode(prompt, add_special_tokens=False).ids
    dead = torch.zeros(model.cfg.n_ffn, model.cfg.n_neuron, device=device)
    for _ in range(n):
        x = torch.tensor([ids[-model.cfg.n_ctx :]], device=device)
        logits = model(x, *tables, dead)[0][0, -1].cpu()
        nxt = torch.multinomial(F.softmax(logits / temp, -1), 1, generator=rng).item()
        if nxt == 0:
            break
        ids.append(nxt)
    model.train()
    return tok.decode(ids[1:])


def hub_name(form, name):
    """What the hub's folders of this shape call a parameter."""
    if name.startswith("lm_head"):
        return name
    if form == "hybrid":
        name = name.replace("embed_tokens", "embeddings")
        return f"backbone.{'norm_f.weight' if name == 'norm.weight' else name}"
    if form == "moe":
        name = name.replace("mlp.router", "block_sparse_moe.primary_router")
        if "mlp.experts" in name:
            name = name.replace("mlp.experts", "block_sparse_moe.experts").replace("_proj.", ".")
    return f"model.{name}"


def hub_config(cfg):
    """config.json, except for what all forms have."""
    if cfg.form == "hybrid":
        marks = {MAMBA: "M", ATTENTION: "*", FFN: "-"}
        return "NemotronH", {
            "model_type": "nemotron_h",
            "hybrid_override_pattern": "".join(marks[kind] for kind in cfg.mixers),
            "mlp_hidden_act": "relu2",
            "intermediate_size": cfg.n_ff,
            "layer_norm_epsilon": cfg.norm_eps,
            "conv_kernel": cfg.ssm_conv,
            "mamba_num_heads": cfg.ssm_heads,
            "mamba_head_dim": cfg.ssm_inner // cfg.ssm_heads,
            "ssm_state_size": cfg.ssm_state,
            "n_groups": cfg.ssm_groups,
            "chunk_size": cfg.ssm_chunk,
            "use_conv_bias": True,
            "mamba_proj_bias": False,
        }
    rope = {"rope_theta": cfg.rope_base}
    if cfg.form == "moe":
        return "SmallThinker", {
            "model_type": "smallthinker",
            "moe_ffn_hidden_size": cfg.n_ff,
            "moe_num_primary_experts": cfg.n_expert,
            "moe_num_active_primary_experts": cfg.n_expert_used,
            "moe_primary_router_apply_softmax": False,
            "rms_norm_eps": cfg.norm_eps,
            **rope,
        }
    name, act = {"reglu": ("Llama", "relu"), "relu2": ("Nemotron", "relu2"), "drelu": ("Bamboo", "drelu")}[cfg.form]
    eps = {"norm_eps": cfg.norm_eps, "partial_rotary_factor": cfg.n_rot / cfg.head_dim}
    return name, {
        "model_type": name.lower(),
        "hidden_act": act,
        "intermediate_size": cfg.n_ff,
        **(eps if cfg.form == "relu2" else {"rms_norm_eps": cfg.norm_eps}),
        **rope,
    }


def export(model, cfg, tok_path, out, report):
    from safetensors.torch import save_file

    out.mkdir(parents=True, exist_ok=True)
    full = {hub_name(cfg.form, name): value for name, value in model.state_dict().items()}
    state = {k: v.detach().cpu().half().contiguous() for k, v in full.items()}
    save_file(state, str(out / "model.safetensors"), metadata={"format": "pt"})
    name, particular = hub_config(cfg)
    config = {
        "architectures": [f"{name}ForCausalLM"],
        "hidden_size": cfg.n_embd,
        "num_hidden_layers": cfg.n_layer,
        "num_attention_heads": cfg.n_head,
        "num_key_value_heads": cfg.n_head_kv,
        "head_dim": cfg.head_dim,
        "max_position_embeddings": cfg.n_ctx,
        "vocab_size": cfg.n_vocab,
        "tie_word_embeddings": cfg.tied,
        "attention_bias": cfg.bias,
        "mlp_bias": cfg.bias,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "torch_dtype": "float16",
        **particular,
    }
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (out / "tokenizer_config.json").write_text(
        json.dumps({"add_bos_token": True, "bos_token": EOT, "eos_token": EOT}, indent=2) + "\n"
    )
    (out / "tokenizer.json").write_text(tok_path.read_text())
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")


def is_matrix(name, p):
    return p.dim() == 2 and "embed" not in name and "lm_head" not in name and "router" not in name


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
    ap.add_argument("--balance", type=float, default=0.01, help="weight of the loss that keeps experts in use")
    ap.add_argument("--cpu-time", action="store_true", help="--minutes are of computing: what other programs take does not count")
    ap.add_argument("--nice", type=int, default=19)
    ap.add_argument("--threads", type=int, default=os.cpu_count())
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--compile", action="store_true", help="torch.compile the model (needs a C++ compiler)")
    args = ap.parse_args()

    os.nice(args.nice)
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
    ema = torch.full((cfg.n_ffn, cfg.n_neuron), 0.1, device=device)
    weight = torch.full((cfg.n_ffn,), 1e-3, device=device)  # of L1, steered per layer

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
        loss, bpb, rates, chosen = evaluate(model, eval_stream, eval_bytes, tables, device, amp=False, max_windows=max_windows)
        dead = (rates == 0).float().mean(1)
        rates = rates / cfg.share_used
        experts = {"expert_shares_per_layer": [[round(c, 4) for c in row] for row in chosen.tolist()]} if cfg.n_expert > 1 else {}
        return {
            "minutes": round(spent / 60, 1),
            "step": step,
            "eval_nats_per_token": round(loss, 4),
            "eval_bits_per_byte": round(bpb, 4),
            "sparsity": round(1 - rates.mean().item(), 4),
            "sparsity_per_layer": [round(1 - r, 4) for r in rates.mean(1).tolist()],
            "dead_share_per_layer": [round(d, 4) for d in dead.tolist()],
            **experts,
        }

    forward = torch.compile(model) if args.compile else model
    clock = time.process_time if args.cpu_time else time.time
    budget, mark, last_eval, running = args.minutes * 60, clock(), spent, None
    tokens_at, time_at = step, clock()
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
        dead = (ema < 2e-4 * cfg.share_used).float()
        with torch.autocast(device.type, torch.bfloat16):
            logits, fired = forward(tokens[:, :-1], *tables, dead)
        loss = F.cross_entropy(logits.view(-1, cfg.n_vocab), tokens[:, 1:].reshape(-1))
        total = loss + 10.0 * fired.revive + args.balance * fired.balance
        density = fired.rate.detach().mean(1) / cfg.share_used
        if done > 1 / 3:
            error = (density / args.density - 1).clamp(-1, 1)
            weight = (weight * torch.exp(0.05 * error)).clamp(1e-4, 30.0)
            total = total + (weight * fired.l1).sum()
        total.backward()
        nn.utils.clip_grad_norm_(others, 1.0)
        muon.step()
        adam.step()
        muon.zero_grad(set_to_none=True)
        adam.zero_grad(set_to_none=True)
        ema.mul_(0.99).add_(fired.rate.detach(), alpha=0.01)
        step += 1
        running = loss.item() if running is None else 0.98 * running + 0.02 * loss.item()
        now = clock()
        spent, mark = spent + now - mark, now
        if step % 50 == 0:
            speed = (step - tokens_at) * args.batch * cfg.n_ctx / (now - time_at)
            tokens_at, time_at = step, now
            shares = f" experts {fired.chosen.min():.3f} to {fired.chosen.max():.3f}" if cfg.n_expert > 1 else ""
            density = " ".join(f"{d:.3f}" for d in density.tolist())
            print(f"step {step} {spent / 60:.1f} min loss {running:.4f} lr {args.lr * scale:.5f} {speed:.0f} tok/s density {density} dead {int(dead.sum())}{shares}", flush=True)
        if spent - last_eval > 600:
            last_eval = spent
            save()
            r = report(max_windows=60)
            export(model, cfg, tok_path, args.out / "hf-partial", r)
            print(json.dumps(r), flush=True)
            mark = clock()
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
