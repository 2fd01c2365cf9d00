#!/usr/bin/env python3
"""Write GGUF models of scripts/make_arch_gguf.py as folders that the Hugging Face hub would have, for tests of the converter.

    pip install -r scripts/requirements.txt
    python scripts/make_hf_checkpoint.py --out DIR [--type f32|f16|bf16] [--shards N] tests/golden/arch/*.gguf

Each becomes DIR/NAME with config.json, *.safetensors and tokenizer.json, named and laid out as transformers' code for the
architecture has them. It shares no code with scripts/convert, so that what both ways give must be what there was. Models
without a vocabulary get a made-up one of SentencePiece's kind.
"""

import argparse
import json
import struct
from pathlib import Path

import gguf
import numpy as np

BITS = {"f32": ("F32", "<f4"), "f16": ("F16", "<f2"), "bf16": ("BF16", "<u2")}


class Source:
    """Keys and tensors of a GGUF file."""

    def __init__(self, path):
        self.reader = gguf.GGUFReader(path)
        self.arch = self.reader.get_field("general.architecture").contents()
        self.tensors = {t.name: np.array(gguf.quants.dequantize(t.data, t.tensor_type)) for t in self.reader.tensors}
        # The reader gives shapes in the file's order.
        for t in self.reader.tensors:
            self.tensors[t.name] = self.tensors[t.name].reshape([int(n) for n in reversed(t.shape)])

    def key(self, name, default=None):
        field = self.reader.get_field(f"{self.arch}.{name}")
        return default if field is None else field.contents()

    def tokenizer(self, name, default=None):
        field = self.reader.get_field(f"tokenizer.{name}")
        return default if field is None else field.contents()


# Layouts.


def halves(rows, n_head):
    """Rows of each head from pairs side by side to halves: 0 2 4 .. and 1 3 5 .."""
    head = len(rows) // n_head
    return np.concatenate([rows[h * head + half : (h + 1) * head : 2] for h in range(n_head) for half in (0, 1)])


LLAMA = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "model.layers.{}.input_layernorm",
    "attn_q": "model.layers.{}.self_attn.q_proj",
    "attn_k": "model.layers.{}.self_attn.k_proj",
    "attn_v": "model.layers.{}.self_attn.v_proj",
    "attn_output": "model.layers.{}.self_attn.o_proj",
    "attn_q_norm": "model.layers.{}.self_attn.q_norm",
    "attn_k_norm": "model.layers.{}.self_attn.k_norm",
    "ffn_norm": "model.layers.{}.post_attention_layernorm",
    "ffn_gate": "model.layers.{}.mlp.gate_proj",
    "ffn_up": "model.layers.{}.mlp.up_proj",
    "ffn_down": "model.layers.{}.mlp.down_proj",
}


def place(name, names):
    """Where a tensor is in a checkpoint."""
    *block, role, suffix = name.split(".")
    return names[role].format(*block[1:]) + f".{suffix}"


def rope_settings(source):
    scaling, n_rot = {}, source.key("rope.dimension_count")
    kind = source.key("rope.scaling.type")
    if kind == "linear":
        scaling = {"rope_type": "linear", "factor": source.key("rope.scaling.factor")}
    elif kind == "yarn":
        scaling = {
            "rope_type": "yarn",
            "factor": source.key("rope.scaling.factor"),
            "original_max_position_embeddings": source.key("rope.scaling.original_context_length"),
        }
    settings = {"rope_theta": source.key("rope.freq_base")}
    if scaling:
        settings["rope_scaling"] = scaling
    return settings, n_rot


def usual_config(source, classes, model_type, eps="rms_norm_eps"):
    n_embd, n_head = source.key("embedding_length"), source.key("attention.head_count")
    head_dim = source.key("attention.key_length", n_embd // n_head)
    rope, n_rot = rope_settings(source)
    config = {
        "architectures": [classes],
        "model_type": model_type,
        "vocab_size": source.key("vocab_size"),
        "max_position_embeddings": source.key("context_length"),
        "hidden_size": n_embd,
        "num_hidden_layers": source.key("block_count"),
        "intermediate_size": source.key("feed_forward_length"),
        "num_attention_heads": n_head,
        "num_key_value_heads": source.key("attention.head_count_kv"),
        "head_dim": head_dim,
        eps: source.key("attention.layer_norm_rms_epsilon", source.key("attention.layer_norm_epsilon")),
        "tie_word_embeddings": "output.weight" not in source.tensors,
        **rope,
    }
    if n_rot != head_dim:
        config["partial_rotary_factor"] = n_rot / head_dim
    return config


def llama(source):
    tensors = {}
    for name, values in source.tensors.items():
        n_head = {"attn_q": source.key("attention.head_count"), "attn_k": source.key("attention.head_count_kv")}
        role = name.split(".")[-2]
        tensors[place(name, LLAMA)] = halves(values, n_head[role]) if role in n_head else values
    return {**usual_config(source, "LlamaForCausalLM", "llama"), "hidden_act": "silu"}, tensors


def nemotron(source):
    tensors = {place(name, LLAMA): values for name, values in source.tensors.items()}
    for name in tensors:
        if name.endswith("norm.weight"):
            tensors[name] = tensors[name] - np.float32(1)
    config = usual_config(source, "NemotronForCausalLM", "nemotron", "norm_eps")
    return {**config, "hidden_act": "relu2", "attention_bias": True, "mlp_bias": True}, tensors


ARCHITECTURES = {"llama": llama, "nemotron": nemotron}


# Files.


def bits_of(values, kind):
    if kind == "bf16":
        # Of what is half-way, as of other values, the upper half: what it is rounded to does not matter here.
        return (values.astype("<f4").view("<u4") >> 16).astype("<u2")
    return values.astype(BITS[kind][1])


def write_safetensors(path, tensors, kind):
    head, data, at = {"__metadata__": {"format": "pt"}}, [], 0
    for name, values in tensors.items():
        raw = bits_of(values, kind).tobytes()
        head[name] = {"dtype": BITS[kind][0], "shape": list(values.shape), "data_offsets": [at, at + len(raw)]}
        data.append(raw)
        at += len(raw)
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data))


def write_weights(folder, tensors, kind, n_shards):
    if n_shards == 1:
        write_safetensors(folder / "model.safetensors", tensors, kind)
        return
    names, places = list(tensors), {}
    for i in range(n_shards):
        name = f"model-{i + 1:05}-of-{n_shards:05}.safetensors"
        share = names[i::n_shards]
        write_safetensors(folder / name, {key: tensors[key] for key in share}, kind)
        places |= dict.fromkeys(share, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}, indent=1))


def tokenizer_json(source, n_vocab):
    """(tokenizer.json, tokenizer_config.json)"""
    model, tokens = source.tokenizer("ggml.model"), source.tokenizer("ggml.tokens")
    if model == "gpt2":
        kinds = source.tokenizer("ggml.token_type")
        special = [i for i, kind in enumerate(kinds) if kind == gguf.TokenType.CONTROL]
        splits = {
            "llama-bpe": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        }
        split = {"type": "Split", "pattern": {"Regex": splits[source.tokenizer("ggml.pre")]}, "behavior": "Isolated", "invert": False}
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
        tokenizer = {
            "added_tokens": [{"id": i, "content": tokens[i], "special": True} for i in special],
            "normalizer": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
            "model": {
                "type": "BPE",
                "vocab": {token: i for i, token in enumerate(tokens) if i not in special},
                "merges": source.tokenizer("ggml.merges"),
            },
        }
    else:
        if not tokens:
            tokens = ["<unk>", "<s>", "</s>", *(chr(ord("!") + i) for i in range(n_vocab - 3))]
        pairs = [["t", "h"], ["▁", "th"], ["▁th", "e"]]
        tokenizer = {
            "added_tokens": [{"id": i, "content": tokens[i], "special": True} for i in range(3)],
            "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}]},
            "pre_tokenizer": None,
            "model": {
                "type": "BPE",
                "byte_fallback": True,
                "unk_token": "<unk>",
                "vocab": {token: i for i, token in enumerate(tokens)},
                "merges": [pair for pair in pairs if "".join(pair) in tokens],
            },
        }
    settings = {"chat_template": source.tokenizer("chat_template")}
    for kind in ("bos", "eos", "unknown"):
        i = source.tokenizer(f"ggml.{kind}_token_id", {"bos": 1, "eos": 2, "unknown": 0}[kind] if model != "gpt2" else None)
        settings[f"{kind[:3]}_token"] = None if i is None else tokens[i]
    return tokenizer, {key: value for key, value in settings.items() if value is not None}


def write(path, folder, kind="f32", n_shards=1):
    """The model at `path` as a folder."""
    source = Source(path)
    if source.arch not in ARCHITECTURES:
        raise SystemExit(f"{path}: architecture {source.arch} is not known; {', '.join(ARCHITECTURES)} are")
    config, tensors = ARCHITECTURES[source.arch](source)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    write_weights(folder, tensors, kind, n_shards)
    tokenizer, settings = tokenizer_json(source, len(source.tensors["token_embd.weight"]))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("models", type=Path, nargs="+", metavar="MODEL.gguf")
    ap.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the folders")
    ap.add_argument("--type", choices=BITS, default="f32", help="type of all tensors (default: f32)")
    ap.add_argument("--shards", type=int, default=1, help="files of weights (default: 1)")
    args = ap.parse_args()
    for path in args.models:
        write(path, args.out / path.stem, args.type, args.shards)
        print(args.out / path.stem)


if __name__ == "__main__":
    main()
