#!/usr/bin/env python3
"""Convert a Hugging Face LLaMA-family model directory to a GGUF file.

    pip install -r scripts/requirements.txt
    python scripts/convert_hf_to_gguf.py DIR -o OUT.gguf [--type f32|f16|bf16] [--name NAME] [--pre NAME]

DIR holds config.json, *.safetensors (one file, or shards with model.safetensors.index.json) and
tokenizer.model (SentencePiece) or tokenizer.json (BPE). What comes out has architecture `llama`: the rows of
Q and K are reordered from Hugging Face's half-split rotary layout to the interleaved one that the architecture
stands for, one-dimensional tensors are F32, matrices have --type. Tensors are read and written one at a time.

The FFN's activation (`hidden_act` in config.json) is written as `llama.hidden_activation`. Tools that do not
know the key, llama.cpp among them, take every `llama` file for SiLU.
"""

import argparse
import json
import math
import os
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, LlamaFileType, TokenType
from safetensors import SafetensorError, safe_open

ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM", "SparseLlamaForCausalLM")
MODEL_TYPES = ("llama", "mistral", "sparsellama")
ACTIVATIONS = {"swish": "silu", "relu_squared": "relu2"}  # other names for the same function
TYPES = {
    "f32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "bf16": (GGMLQuantizationType.BF16, LlamaFileType.MOSTLY_BF16),
}

# `tokenizer.ggml.pre` by the shape of the pre-tokenizer in tokenizer.json, as pre_tokenizer_shape() gives it.
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN_SPLIT = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK_CJK = "[一-龥ࠀ-一가-퟿]+"
PRE_TOKENIZERS = {
    ("ByteLevel+regex",): "gpt-2",
    (LLAMA3_SPLIT, "ByteLevel"): "llama-bpe",
    (LLAMA3_SPLIT.replace("{1,3}", ""), "ByteLevel"): "qwen2",
    (TEKKEN_SPLIT, "ByteLevel"): "tekken",
    ("Digits", "ByteLevel+regex"): "smollm",
    ("[\r\n]", "LATIN", r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$", DEEPSEEK_CJK, "Digits", "ByteLevel"): "deepseek-llm",
    ("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", DEEPSEEK_CJK, "Digits", "ByteLevel"): "deepseek-coder",
}
# Split's (behavior, invert) that make each match of the regex a word; the regexes above match all text.
KEEPS_MATCHES = (("Isolated", False), ("Removed", True))


def read_json(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise SystemExit(f"{path}: {getattr(e, 'strerror', None) or e}")


def read_json_if_there(path):
    return read_json(path) if path.exists() else {}


# ---------------------------------------------------------------------------------------- hyperparameters


class Config:
    """What the converter needs of config.json, checked."""

    def __init__(self, path):
        raw = read_json(path)
        self.path, self.raw = path, raw
        architectures = raw.get("architectures") or []
        if not set(architectures) & set(ARCHITECTURES) and (architectures or raw.get("model_type") not in MODEL_TYPES):
            found = ", ".join(architectures) or raw.get("model_type")
            raise SystemExit(f"{path}: not a LLaMA-family model: {found}")
        self.n_embd = self.need("hidden_size")
        self.n_ff = self.need("intermediate_size")
        self.n_layer = self.need("num_hidden_layers")
        self.n_head = self.need("num_attention_heads")
        self.n_head_kv = raw.get("num_key_value_heads") or self.n_head
        self.head_dim = raw.get("head_dim") or self.n_embd // self.n_head
        self.n_vocab = self.need("vocab_size")
        self.n_ctx = self.need("max_position_embeddings")
        self.norm_eps = self.need("rms_norm_eps")
        self.tied = raw.get("tie_word_embeddings", False)
        rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
        self.rope_base = rope.get("rope_theta") or raw.get("rope_theta") or 10000.0
        self.rope_type = rope.get("rope_type") or rope.get("type") or "default"
        self.rope = rope
        self.activation = self.read_activation()
        self.check()

    def need(self, key):
        value = self.raw.get(key)
        if value is None:
            raise SystemExit(f"{self.path}: no {key}")
        return value

    def read_activation(self):
        name = self.raw.get("hidden_act", "silu")
        if self.raw.get("hidden_act_param"):
            raise SystemExit(f"{self.path}: activation {name} with parameter {self.raw['hidden_act_param']} is not supported")
        return ACTIVATIONS.get(name, name)

    def check(self):
        if self.n_head % self.n_head_kv:
            raise SystemExit(f"{self.path}: {self.n_head} heads do not divide into {self.n_head_kv} groups")
        if self.head_dim % 2:
            raise SystemExit(f"{self.path}: head size {self.head_dim} is odd")
        if self.rope_type not in ("default", "linear", "llama3"):
            raise SystemExit(f"{self.path}: rope scaling {self.rope_type} is not supported")
        if self.rope_type != "default" and "factor" not in self.rope:
            raise SystemExit(f"{self.path}: rope scaling without a factor")
        if self.rope.get("partial_rotary_factor", 1.0) != 1.0:
            raise SystemExit(f"{self.path}: partial rotary embedding is not supported")
        if self.raw.get("mlp_bias"):
            raise SystemExit(f"{self.path}: mlp_bias is not supported")
        if (self.raw.get("sliding_window") or self.n_ctx) < self.n_ctx:
            print(f"{self.path}: sliding window of {self.raw['sliding_window']} is dropped, attention is full")

    def rope_freqs(self):
        """LLaMA 3's frequency divisors, one per rotated pair."""
        for key in ("low_freq_factor", "high_freq_factor", "original_max_position_embeddings"):
            if key not in self.rope:
                raise SystemExit(f"{self.path}: rope scaling without {key}")
        low, high = self.rope["low_freq_factor"], self.rope["high_freq_factor"]
        factor, original = self.rope["factor"], self.rope["original_max_position_embeddings"]
        divisors = []
        for i in range(0, self.head_dim, 2):
            wavelength = 2 * math.pi * self.rope_base ** (i / self.head_dim)
            if wavelength < original / high:
                divisors.append(1.0)
            elif wavelength > original / low:
                divisors.append(factor)
            else:
                smooth = (original / wavelength - low) / (high - low)
                divisors.append(1 / ((1 - smooth) / factor + smooth))
        return np.array(divisors, dtype=np.float32)


def write_hyperparameters(writer, cfg, name, file_type):
    writer.add_name(name)
    writer.add_file_type(file_type)
    writer.add_vocab_size(cfg.n_vocab)
    writer.add_context_length(cfg.n_ctx)
    writer.add_embedding_length(cfg.n_embd)
    writer.add_block_count(cfg.n_layer)
    writer.add_feed_forward_length(cfg.n_ff)
    writer.add_head_count(cfg.n_head)
    writer.add_head_count_kv(cfg.n_head_kv)
    if cfg.head_dim * cfg.n_head != cfg.n_embd:
        writer.add_key_length(cfg.head_dim)
        writer.add_value_length(cfg.head_dim)
    writer.add_layer_norm_rms_eps(cfg.norm_eps)
    writer.add_rope_dimension_count(cfg.head_dim)
    writer.add_rope_freq_base(cfg.rope_base)
    if cfg.rope_type == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(cfg.rope["factor"])
    writer.add_string("llama.hidden_activation", cfg.activation)


# ---------------------------------------------------------------------------------------------- tokenizer


class Vocab:
    """Tokens with their types, padded to the model's size; scores for "llama", merges for "gpt2"."""

    def __init__(self, model, n_vocab):
        self.model = model
        self.tokens = [f"[PAD{i}]" for i in range(n_vocab)]
        self.types = [TokenType.UNUSED] * n_vocab
        self.scores = [-10000.0] * n_vocab
        self.merges = []
        self.pre = None
        self.add_space_prefix = None

    def set(self, i, text, kind, score=0.0):
        self.tokens[i], self.types[i], self.scores[i] = text, kind, score

    def set_added(self, entries, path):
        """`added_tokens` of tokenizer.json: special ones are control tokens, the others the user's own."""
        for entry in entries:
            i, text = entry["id"], entry["content"]
            if i >= len(self.tokens):
                print(f"{path}: token {i} {text!r} has no embedding and is left out")
            elif self.types[i] not in (TokenType.UNKNOWN, TokenType.BYTE):
                kind = TokenType.CONTROL if entry.get("special") else TokenType.USER_DEFINED
                self.set(i, text, kind, self.scores[i] if self.types[i] != TokenType.UNUSED else -1000.0)

    def write(self, writer):
        writer.add_tokenizer_model(self.model)
        if self.pre:
            writer.add_tokenizer_pre(self.pre)
        writer.add_token_list([t.encode() for t in self.tokens])
        if self.model == "llama":
            writer.add_token_scores(self.scores)
        writer.add_token_types([int(t) for t in self.types])
        if self.merges:
            writer.add_token_merges(self.merges)
        if self.add_space_prefix is not None:
            writer.add_add_space_prefix(self.add_space_prefix)


def pre_tokenizer_shape(node):
    """The pre-tokenizer of tokenizer.json as a tuple of steps, or None where a step is none that we know."""
    if node is None:
        return None
    if node["type"] == "Sequence":
        shapes = [pre_tokenizer_shape(n) for n in node["pretokenizers"]]
        return None if None in shapes else sum(shapes, ())
    if node["type"] == "ByteLevel" and not node.get("add_prefix_space"):
        return ("ByteLevel+regex" if node.get("use_regex", True) else "ByteLevel",)
    if node["type"] == "Digits" and node.get("individual_digits"):
        return ("Digits",)
    if node["type"] == "Split" and (node.get("behavior"), node.get("invert", False)) in KEEPS_MATCHES:
        regex = node["pattern"].get("Regex")
        return ("LATIN" if regex and regex.startswith(r"\s?[A-Za-zµÀ-Ö") else regex,)
    return None


def detect_pre_tokenizer(path, tokenizer):
    name = PRE_TOKENIZERS.get(pre_tokenizer_shape(tokenizer.get("pre_tokenizer")))
    normalizer = tokenizer.get("normalizer") or {}
    plain = normalizer.get("type") in (None, "NFC") or normalizer.get("normalizers") == []
    if name is None or not plain:
        part = "pre_tokenizer" if name is None else "normalizer"
        raise SystemExit(f"{path}: unknown {part}; --pre NAME forces one, such as gpt-2 or llama-bpe")
    return name


def merge_pairs(tokenizer):
    return [tuple(m) if isinstance(m, list) else tuple(m.split(" ", 1)) for m in tokenizer["model"].get("merges", [])]


def fill_tokens(path, tokenizer, vocab, kind_and_score):
    for text, i in tokenizer["model"]["vocab"].items():
        if i >= len(vocab.tokens):
            raise SystemExit(f"{path}: token {i} is beyond the model's vocabulary of {len(vocab.tokens)}")
        vocab.set(i, text, *kind_and_score(text))


def byte_level_vocab(path, tokenizer, n_vocab, pre):
    vocab = Vocab("gpt2", n_vocab)
    vocab.pre = pre or detect_pre_tokenizer(path, tokenizer)
    fill_tokens(path, tokenizer, vocab, lambda text: (TokenType.NORMAL,))
    vocab.merges = [" ".join(pair) for pair in merge_pairs(tokenizer)]
    vocab.set_added(tokenizer.get("added_tokens", []), path)
    return vocab


def is_byte_token(text):
    return len(text) == 6 and text.startswith("<0x") and text.endswith(">")


def adds_space_prefix(tokenizer):
    """Whether the LLaMA tokenizer puts a space before the text: by a Prepend normalizer or by Metaspace."""
    normalizer = tokenizer.get("normalizer") or {}
    steps = normalizer.get("normalizers", [normalizer])
    pre = tokenizer.get("pre_tokenizer") or {}
    if pre.get("type") == "Metaspace":
        return pre.get("prepend_scheme", "always") != "never" and pre.get("add_prefix_space", True)
    return any(s.get("type") == "Prepend" for s in steps)


def byte_fallback_vocab(path, tokenizer, n_vocab):
    """SentencePiece's BPE as tokenizer.json has it. A token's score is the rank of the first merge that makes it."""
    ranks = {}
    for rank, pair in enumerate(merge_pairs(tokenizer)):
        ranks.setdefault("".join(pair), rank)
    never = -float(len(ranks) + n_vocab)
    unknown = tokenizer["model"].get("unk_token")

    def kind_and_score(text):
        if text == unknown:
            return TokenType.UNKNOWN, 0.0
        if is_byte_token(text):
            return TokenType.BYTE, 0.0
        return TokenType.NORMAL, -float(ranks[text]) if text in ranks else never

    vocab = Vocab("llama", n_vocab)
    fill_tokens(path, tokenizer, vocab, kind_and_score)
    vocab.set_added(tokenizer.get("added_tokens", []), path)
    vocab.add_space_prefix = adds_space_prefix(tokenizer)
    return vocab


def sentencepiece_vocab(path, n_vocab):
    from sentencepiece import sentencepiece_model_pb2 as pb

    proto = pb.ModelProto()
    try:
        proto.ParseFromString(path.read_bytes())
    except Exception as e:  # protobuf's DecodeError, whose module moved between versions
        raise SystemExit(f"{path}: {e}")
    if proto.trainer_spec.model_type != pb.TrainerSpec.BPE:
        raise SystemExit(f"{path}: only SentencePiece models of type BPE are supported")
    if len(proto.pieces) > n_vocab:
        raise SystemExit(f"{path}: {len(proto.pieces)} tokens, but the model has {n_vocab}")
    vocab = Vocab("llama", n_vocab)
    for i, piece in enumerate(proto.pieces):
        vocab.set(i, piece.piece, TokenType(piece.type), piece.score)  # the two enumerations agree
    vocab.add_space_prefix = proto.normalizer_spec.add_dummy_prefix
    folder = path.parent
    decoder = read_json_if_there(folder / "tokenizer_config.json").get("added_tokens_decoder", {})
    entries = [{"id": int(i), **entry} for i, entry in decoder.items()]
    added = read_json_if_there(folder / "added_tokens.json")
    known = {entry["id"] for entry in entries}
    entries += [{"id": i, "content": text} for text, i in added.items() if i not in known]
    vocab.set_added(entries, path)
    return vocab


def load_vocab(folder, n_vocab, pre):
    model, path = folder / "tokenizer.model", folder / "tokenizer.json"
    if model.exists():
        return sentencepiece_vocab(model, n_vocab)
    tokenizer = read_json(path)
    if tokenizer.get("model", {}).get("type") != "BPE":
        raise SystemExit(f"{path}: only BPE tokenizers are supported")
    if tokenizer["model"].get("byte_fallback"):
        return byte_fallback_vocab(path, tokenizer, n_vocab)
    return byte_level_vocab(path, tokenizer, n_vocab, pre)


def content(token):
    return token.get("content") if isinstance(token, dict) else token


def special_ids(tokens, settings, config):
    """Ids of the special tokens: by name from tokenizer_config.json, else by number from config.json."""
    index = {text: i for i, text in enumerate(tokens)}
    ids = {}
    for kind in ("bos", "eos", "unk", "pad"):
        i = index.get(content(settings.get(f"{kind}_token")))
        if i is None:
            i = config.get(f"{kind}_token_id")
            i = i[0] if isinstance(i, list) and i else i
        if isinstance(i, int) and 0 <= i < len(tokens):
            ids[kind] = i
    return ids


def template_adds(tokenizer, kind, text):
    """Whether the post-processor puts this special token first (bos) or last (eos)."""
    processor = tokenizer.get("post_processor") or {}
    for p in processor.get("processors", [processor]):
        if p.get("type") == "TemplateProcessing" and p.get("single"):
            step = p["single"][0 if kind == "bos" else -1]
            return step.get("SpecialToken", {}).get("id") == text
    return None


def chat_template(folder, settings):
    path = folder / "chat_template.jinja"
    if path.exists():
        return path.read_text(encoding="utf-8")
    return settings.get("chat_template") or read_json_if_there(folder / "chat_template.json").get("chat_template")


def write_tokenizer(writer, folder, n_vocab, config, pre=None):
    vocab = load_vocab(folder, n_vocab, pre)
    vocab.write(writer)
    settings = read_json_if_there(folder / "tokenizer_config.json")
    tokenizer = read_json_if_there(folder / "tokenizer.json")
    ids = special_ids(vocab.tokens, settings, config)
    for kind, i in ids.items():
        writer.add_uint32(f"tokenizer.ggml.{gguf_name(kind)}_token_id", i)
    for kind in ("bos", "eos"):
        add = settings.get(f"add_{kind}_token")
        if add is None and kind in ids:
            add = template_adds(tokenizer, kind, vocab.tokens[ids[kind]])
        if add is not None:
            writer.add_bool(f"tokenizer.ggml.add_{kind}_token", add)
    template = chat_template(folder, settings)
    if template:
        writer.add_chat_template(template)


def gguf_name(kind):
    return {"unk": "unknown", "pad": "padding"}.get(kind, kind)


# ------------------------------------------------------------------------------------------------ tensors


class Checkpoint:
    """The tensors of a directory by name, each read when asked for."""

    def __init__(self, folder):
        index = folder / "model.safetensors.index.json"
        names = set(read_json(index)["weight_map"].values()) if index.exists() else {p.name for p in folder.glob("*.safetensors")}
        if not names:
            raise SystemExit(f"{folder}: no *.safetensors")
        self.files = {}
        for name in sorted(names):
            path = folder / name
            try:
                file = safe_open(path, framework="pt")
            except (OSError, SafetensorError) as e:
                raise SystemExit(f"{path}: {getattr(e, 'strerror', None) or e}")
            self.files |= {key: file for key in file.keys()}

    def shape(self, name):
        return tuple(self.files[name].get_slice(name).get_shape())

    def read(self, name):
        tensor = self.files[name].get_tensor(name)
        if not tensor.is_floating_point():
            raise SystemExit(f"{name}: {tensor.dtype} weights are not supported")
        return tensor.to(torch.float32).numpy()


def interleave(array, n_head):
    """Reorder each head's rows from (first halves, second halves) to rotated pairs side by side."""
    shape = array.shape
    return array.reshape(n_head, 2, shape[0] // n_head // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def tensor_plan(cfg, present):
    """(name in GGUF, name in the checkpoint, shape, heads to interleave or 0) in the order of the file."""
    q, kv = cfg.n_head * cfg.head_dim, cfg.n_head_kv * cfg.head_dim
    plan = [("token_embd.weight", "model.embed_tokens.weight", (cfg.n_vocab, cfg.n_embd), 0)]
    for i in range(cfg.n_layer):
        attention = [("q", q, cfg.n_embd, cfg.n_head), ("k", kv, cfg.n_embd, cfg.n_head_kv), ("v", kv, cfg.n_embd, 0)]
        attention += [("output", cfg.n_embd, q, 0)]
        ours, theirs = f"blk.{i}", f"model.layers.{i}"
        plan += [(f"{ours}.attn_norm.weight", f"{theirs}.input_layernorm.weight", (cfg.n_embd,), 0)]
        for name, rows, cols, heads in attention:
            source = f"{theirs}.self_attn.{name[0]}_proj"
            plan += [(f"{ours}.attn_{name}.weight", f"{source}.weight", (rows, cols), heads)]
            if f"{source}.bias" in present:
                plan += [(f"{ours}.attn_{name}.bias", f"{source}.bias", (rows,), heads)]
        plan += [(f"{ours}.ffn_norm.weight", f"{theirs}.post_attention_layernorm.weight", (cfg.n_embd,), 0)]
        for name, rows, cols in (("gate", cfg.n_ff, cfg.n_embd), ("up", cfg.n_ff, cfg.n_embd), ("down", cfg.n_embd, cfg.n_ff)):
            plan += [(f"{ours}.ffn_{name}.weight", f"{theirs}.mlp.{name}_proj.weight", (rows, cols), 0)]
    plan += [("output_norm.weight", "model.norm.weight", (cfg.n_embd,), 0)]
    if not cfg.tied:
        plan += [("output.weight", "lm_head.weight", (cfg.n_vocab, cfg.n_embd), 0)]
    return plan


def check_plan(folder, plan, checkpoint):
    for _, source, shape, _ in plan:
        if source not in checkpoint.files:
            raise SystemExit(f"{folder}: no tensor {source}")
        if checkpoint.shape(source) != shape:
            raise SystemExit(f"{folder}: {source} is {checkpoint.shape(source)}, not {shape}")
    left = set(checkpoint.files) - {source for _, source, _, _ in plan} - {"lm_head.weight"}
    left = sorted(name for name in left if not name.endswith("rotary_emb.inv_freq"))
    if left:
        raise SystemExit(f"{folder}: no place for tensor {left[0]} ({len(left)} such)")


def encode(name, array, kind):
    if kind == GGMLQuantizationType.F16:
        with np.errstate(over="ignore"):
            half = array.astype(np.float16)
        if np.isinf(half).any() and np.isfinite(array).all():
            raise SystemExit(f"{name}: too large for f16; use --type bf16 or f32")
        return half
    return gguf.quants.quantize(array, kind)


def stored_type(shape, matrix_type):
    return matrix_type if len(shape) > 1 else GGMLQuantizationType.F32


def write_tensors(writer, cfg, plan, checkpoint, matrix_type):
    extra = {"rope_freqs.weight": cfg.rope_freqs()} if cfg.rope_type == "llama3" else {}
    for name, array in extra.items():
        writer.add_tensor_info(name, array.shape, array.dtype, array.nbytes)
    for name, _, shape, _ in plan:
        kind = stored_type(shape, matrix_type)
        size = math.prod(shape) * (4 if kind == GGMLQuantizationType.F32 else 2)
        writer.add_tensor_info(name, shape, np.dtype(np.float32), size, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for array in extra.values():
        writer.write_tensor_data(array)
    for name, source, shape, heads in plan:
        array = checkpoint.read(source)
        if heads:
            array = interleave(array, heads)
        writer.write_tensor_data(np.ascontiguousarray(encode(name, array, stored_type(shape, matrix_type))))
    writer.close()


def convert(folder, out, matrix_type, file_type, name, pre):
    cfg = Config(folder / "config.json")
    checkpoint = Checkpoint(folder)
    plan = tensor_plan(cfg, checkpoint.files)
    check_plan(folder, plan, checkpoint)
    temporary = out.with_name(out.name + ".tmp")
    writer = gguf.GGUFWriter(temporary, "llama")
    write_hyperparameters(writer, cfg, name or folder.resolve().name, file_type)
    write_tokenizer(writer, folder, cfg.n_vocab, cfg.raw, pre)
    try:
        write_tensors(writer, cfg, plan, checkpoint, matrix_type)
        os.replace(temporary, out)
    except OSError as e:
        raise SystemExit(f"{out}: {e.strerror}")
    finally:
        writer.close()
        temporary.unlink(missing_ok=True)
    print(f"{out}: {len(plan)} tensors, {out.stat().st_size} bytes, activation {cfg.activation}")


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("dir", type=Path, metavar="DIR", help="Hugging Face model directory")
    ap.add_argument("-o", "--out", type=Path, required=True, metavar="OUT.gguf", help="file to write")
    ap.add_argument("--type", choices=TYPES, default="f16", help="type of the matrices (default: f16)")
    ap.add_argument("--name", help="general.name (default: the directory's name)")
    ap.add_argument("--pre", metavar="NAME", help="tokenizer.ggml.pre of a byte-level BPE, instead of detecting it")
    args = ap.parse_args()
    if not args.dir.is_dir():
        raise SystemExit(f"{args.dir}: not a directory")
    convert(args.dir, args.out, *TYPES[args.type], args.name, args.pre)


if __name__ == "__main__":
    main()
