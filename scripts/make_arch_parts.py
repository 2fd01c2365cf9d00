"""What the functions of make_arch_gguf.py are made of: shapes, random tensors, tokenizers, keys, attention."""

from dataclasses import dataclass

import gguf
import numpy as np

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Shape:
    n_embd: int
    n_ff: int
    n_head: int
    n_head_kv: int
    # Elements of a head, where they are not n_embd / n_head.
    key_length: int | None = None
    n_layer: int = 5
    # Entries of the vocabulary, where the tokenizer does not say.
    n_vocab: int = 40
    n_ctx: int = 512

    @property
    def head_dim(self):
        return self.key_length or self.n_embd // self.n_head


class Weights:
    """Random tensors by name, in the order in which they are asked for."""

    def __init__(self, rng):
        self.rng = rng
        self.tensors = {}
        # Of those that are not as numbers but as bytes.
        self.types = {}

    def matrix(self, name, rows, columns, gain=1.0):
        self.add(name, self.rng.standard_normal((rows, columns)) * gain / np.sqrt(columns))

    def norm(self, name, n):
        self.add(name, 1 + 0.3 * self.rng.standard_normal(n))

    def bias(self, name, n):
        self.add(name, 0.5 * self.rng.standard_normal(n))

    def add(self, name, values):
        self.tensors[name] = values.astype(np.float32)

    def quantize(self, name, kind):
        self.types[name] = kind
        self.tensors[name] = gguf.quants.quantize(self.tensors[name], kind)


# Tokenizers. Each writes its keys and gives the number of tokens.


def no_vocab(writer, shape):
    writer.add_tokenizer_model("no_vocab")
    return shape.n_vocab


def spm_bytes(writer, _shape):
    """A SentencePiece vocabulary of all bytes and a few pieces."""
    pieces = {"▁": -2.0, "t": -3.0, "h": -4.0, "e": -5.0, "th": -6.0, "▁th": -7.0, "▁the": -8.0}
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    kind = gguf.TokenType
    types = [kind.UNKNOWN, kind.CONTROL, kind.CONTROL, *[kind.BYTE] * 256, *[kind.NORMAL] * len(pieces)]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * 259 + list(pieces.values()))
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template(CHAT_TEMPLATE)
    return len(tokens)


def gemma_pieces(writer, _shape):
    """As Gemma has them: padding and end first, bytes behind markup, no space put before a text, runs of spaces as pieces."""
    markup = ["<start_of_turn>", "<end_of_turn>", "\n", "\n\n", "▁▁", "▁▁▁"]
    pieces = {"▁": -2.0, "t": -3.0, "h": -4.0, "e": -5.0, "th": -6.0, "▁th": -7.0, "▁the": -8.0}
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", *markup, *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    kind = gguf.TokenType
    types = [*[kind.CONTROL] * 3, kind.UNKNOWN, *[kind.CONTROL] * 2, *[kind.USER_DEFINED] * 4, *[kind.BYTE] * 256]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([-1000.0] * 266 + list(pieces.values()))
    writer.add_token_types([*types, *[kind.NORMAL] * len(pieces)])
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(3)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    return len(tokens)


def gpt2_bytes(writer, _shape, pre="llama-bpe"):
    """A byte-level BPE vocabulary of all bytes, two merges, and special tokens."""
    # GPT-2 writes bytes that do not print as characters from U+0100 on.
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (chr(0x100 + i) for i in range(256))
    letters = [chr(byte) if byte in printable else next(others) for byte in range(256)]
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|im_start|>", "<|im_end|>"]
    tokens = [*letters, "th", "Ġth", *special]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * 258 + [gguf.TokenType.CONTROL] * len(special))
    writer.add_token_merges(["t h", "Ġ th"])
    writer.add_bos_token_id(258)
    writer.add_eos_token_id(261)
    writer.add_chat_template(CHAT_TEMPLATE)
    return len(tokens)


def qwen_bytes(writer, shape):
    return gpt2_bytes(writer, shape, "qwen2")


def opt_bytes(writer, shape):
    n_tokens = gpt2_bytes(writer, shape, "gpt-2")
    writer.add_add_bos_token(True)
    return n_tokens


def falcon_bytes(writer, shape):
    return gpt2_bytes(writer, shape, "falcon")


def jais_bytes(writer, shape):
    return gpt2_bytes(writer, shape, "jais-2")


# What architectures share.

QKV = ("attn_q", "attn_k", "attn_v")


def write_sizes(writer, shape, n_vocab, n_value=None):
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_vocab_size(n_vocab)
    writer.add_context_length(shape.n_ctx)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(shape.n_layer)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_head)
    writer.add_head_count_kv(shape.n_head_kv)
    if shape.key_length:
        writer.add_key_length(shape.key_length)
        writer.add_value_length(n_value or shape.key_length)


def write_rope(writer, shape, base, n_rot=None, linear=None, yarn=None):
    """`n_rot` elements of a head are rotated, or all; `linear` is a factor, `yarn` a factor and the context before scaling."""
    writer.add_rope_dimension_count(n_rot or shape.head_dim)
    writer.add_rope_freq_base(base)
    if linear:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(linear)
    if yarn:
        factor, n_ctx = yarn
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(factor)
        writer.add_rope_scaling_orig_ctx_len(n_ctx)


def attention(weights, block, shape, biases=(), fused=False):
    """`biases` names the matrices that have one; `fused` puts those of q, k and v into one tensor."""
    q, kv = shape.n_head * shape.head_dim, shape.n_head_kv * shape.head_dim
    # Gains above 1 make attention uneven.
    for name, rows, columns, gain in (
        ("attn_q", q, shape.n_embd, 1.6),
        ("attn_k", kv, shape.n_embd, 1.6),
        ("attn_v", kv, shape.n_embd, 1.0),
        ("attn_output", shape.n_embd, q, 1.0),
    ):
        weights.matrix(f"{block}.{name}.weight", rows, columns, gain)
        if name in biases:
            weights.bias(f"{block}.{name}.bias", rows)
    for end in ("weight", "bias") if fused else ():
        parts = [weights.tensors.pop(f"{block}.{name}.{end}", None) for name in QKV]
        if parts[0] is not None:
            weights.add(f"{block}.attn_qkv.{end}", np.concatenate(parts))


def rope_freqs(weights, n_rot):
    weights.add("rope_freqs.weight", weights.rng.uniform(0.6, 3.0, n_rot // 2))


def llama_like(
    writer, weights, shape, n_vocab, *, gated, biases=(), factors=False, tied=False, head_bias=False, head_norms=None,
    layer_norms=False, behind=False, both=False, parallel=False, two_norms=False, fused=False, fused_ffn=False, long=None,
    positions=None, base=20.0, window=None, period=None, activation=None, threshold=None, feed=None, **rotation,
):  # fmt: skip
    """Serial blocks with norms in front of them, or `behind`, or `both`: RMS ones, or layer norms with biases. `biases` names the
    matrices with one; `head_norms` gives the sizes of norms of queries and keys; `fused` puts q, k and v into one tensor,
    `fused_ffn` gate and up; `long` gives the context for which short factors of rotations are, and what rotated values are scaled by;
    `window` is how many tokens a token looks back on, in all layers or, with `period`, in all but the last of so many;
    `positions` gives the rows of their learned embeddings before that of position 0, and nothing rotates; `activation` and
    `threshold` are keys of our own; `feed` makes the tensors of a block's FFN, where that is not dense."""

    def norm(name):
        weights.norm(f"{name}.weight", shape.n_embd)
        if layer_norms:
            weights.bias(f"{name}.bias", shape.n_embd)

    def matrix(name, rows, columns, gain=1.0):
        weights.matrix(f"{name}.weight", rows, columns, gain)
        if name.split(".")[-1] in biases:
            weights.bias(f"{name}.bias", rows)

    write_sizes(writer, shape, n_vocab)
    # So large that another one shows.
    (writer.add_layer_norm_eps if layer_norms else writer.add_layer_norm_rms_eps)(0.02)
    if positions is None:
        write_rope(writer, shape, base, **rotation)
    if window:
        writer.add_sliding_window(window)
    if period:
        writer.add_uint32(f"{writer.arch}.attention.sliding_window_pattern", period)
    if activation:
        writer.add_string(f"{writer.arch}.hidden_activation", activation)
    if threshold is not None:
        writer.add_float32(f"{writer.arch}.activation_threshold", threshold)
    weights.matrix("token_embd.weight", n_vocab, shape.n_embd, np.sqrt(shape.n_embd))
    if positions is not None:
        weights.matrix("position_embd.weight", positions + shape.n_ctx, shape.n_embd, np.sqrt(shape.n_embd))
    if factors:
        rope_freqs(weights, rotation.get("n_rot") or shape.head_dim)
    if long:
        n_ctx, scale = long
        writer.add_rope_scaling_orig_ctx_len(n_ctx)
        writer.add_rope_scaling_attn_factors(scale)
        for length in ("long", "short"):
            weights.add(f"rope_factors_{length}.weight", weights.rng.uniform(0.6, 3.0, (rotation.get("n_rot") or shape.head_dim) // 2))
    for i in range(shape.n_layer):
        block = f"blk.{i}"
        if not behind:
            norm(f"{block}.attn_norm")
        if two_norms:
            norm(f"{block}.attn_norm_2")
        attention(weights, block, shape, biases, fused)
        if head_norms:
            weights.norm(f"{block}.attn_q_norm.weight", head_norms[0])
            weights.norm(f"{block}.attn_k_norm.weight", head_norms[1])
        if behind or both:
            norm(f"{block}.post_attention_norm")
        if not behind and not parallel:
            norm(f"{block}.ffn_norm")
        if feed:
            feed(block)
        else:
            if gated and not fused_ffn:
                matrix(f"{block}.ffn_gate", shape.n_ff, shape.n_embd, 1.5)
            matrix(f"{block}.ffn_up", shape.n_ff * (2 if fused_ffn else 1), shape.n_embd)
            matrix(f"{block}.ffn_down", shape.n_embd, shape.n_ff)
        if behind or both:
            norm(f"{block}.post_ffw_norm")
    norm("output_norm")
    if not tied:
        weights.matrix("output.weight", n_vocab, shape.n_embd, 1.5)
        if head_bias:
            weights.bias("output.bias", n_vocab)
