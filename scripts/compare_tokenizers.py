#!/usr/bin/env python3
"""Hold the token ids of powerinfer-run against llama.cpp's: random vocabularies with ties, gaps and special tokens, random text.

    pip install -r scripts/requirements.txt llama-cpp-python
    python scripts/compare_tokenizers.py --bin target/release [--texts 200] [--vocabularies 40] [VOCABULARY.gguf...]

Writes tiny models with random vocabularies: SentencePiece pieces that share scores, whose characters are no tokens, or that are
user-defined; byte-level ones of each pre-tokenizer below, with bytes that have no token; names that llama.cpp treats specially;
special tokens of infilling and of ends of turns, of all types. Texts are tokenized as text or with special tokens parsed. Prints a
line for each kind, and what differs; exits with 1 when something does. Files that are named are compared as well. Without
llama-cpp-python, cyllama does, but for files without weights.
"""

import argparse
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
from make_arch_gguf import Shape, Weights

KIND = gguf.TokenType
PRE = ["default", "gpt-2", "llama-bpe", "qwen2", "falcon", "starcoder", "deepseek-coder", "tekken", "gpt-4o", "smollm", "jais-2", "smaug-bpe",
       "command-r", "pixtral", "stablelm2", "exaone", "dbrx", "olmo", "phi-2", "refact"]  # fmt: skip
# One of each, since of two that do the same llama.cpp takes whichever its hash table has first.
SPECIAL = [["<|eot_id|>"], ["<|im_end|>"], ["<|end|>"], ["<|return|>"], ["<|call|>"], ["<end_of_turn>"], ["<|eom_id|>"], ["<EOT>"],
           ["[EOS]"], ["<|fim_pad|>", "<PAD>", "[PAD]"], ["<|repo_name|>", "<reponame>"], ["<|file_sep|>"],
           ["<|fim_prefix|>", "<PRE>"], ["<fim_suffix>", "<｜fim▁hole｜>"], ["<fim_middle>", "<|middle|>"], ["<|channel|>"],
           ["<|tool_response>"], ["<|user|>"], ["<|endoftext|>"]]  # fmt: skip
KEYS = ["eot_token_id", "eom_token_id", "fim_pad_token_id", "fim_rep_token_id", "fim_sep_token_id"]
ALPHABET = ["a", "b", "c", "d", " ", "é", "中", "国", "🦙", "\n", "7", "'s"]


def oracle(path):
    """llama.cpp's ids of a text, through either of two bindings."""
    try:
        import llama_cpp

        model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
        return lambda text, special: model.tokenize(text.encode(), add_bos=False, special=special)
    except ImportError:
        from cyllama.llama import llama_cpp as binding

        model = binding.LlamaModel(str(path), binding.LlamaModelParams())
        vocab = model.get_vocab()
        return lambda text, special, _model=model: vocab.tokenize(text, False, special)


def spm(rng):
    """Pieces joined of pieces, with few different scores; some characters are no token."""
    letters = [c for c in ["▁", *ALPHABET] if c not in (" ", "'s") and rng.random() < 0.8]
    pieces = dict.fromkeys(letters, 0)
    for _ in range(rng.randrange(60)):
        parts = [rng.choice([*pieces, *"abc▁é中"]) for _ in range(2)]
        pieces["".join(parts)] = 0
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    types = [KIND.UNKNOWN, KIND.CONTROL, KIND.CONTROL, *[KIND.BYTE] * 256, *[KIND.NORMAL] * len(pieces)]
    scores = [0.0] * 259 + [-float(rng.randrange(5)) for _ in pieces]
    # Where all are alike ids decide, which llama.cpp does not do.
    scores[259:261] = [-1.0, -2.0]
    return {"model": "llama", "tokens": tokens, "types": types, "scores": scores}


def gpt2(rng):
    """Bytes, of which some are missing, and random merges."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (chr(0x100 + i) for i in range(256))
    letters = [chr(byte) if byte in printable else next(others) for byte in range(256)]
    tokens = [c for c in letters if rng.random() < 0.97 or c in "abcdĠ"]
    merges = []
    for _ in range(rng.randrange(40)):
        left, right = (rng.choice([t for t in tokens if t[0] in "abcdĠ7Ãä"] or tokens) for _ in range(2))
        if left + right not in tokens:
            merges.append(f"{left} {right}")
            tokens.append(left + right)
    if not merges:
        merges, tokens = ["a b"], [*tokens, "ab"]
    return {"model": "gpt2", "pre": rng.choice(PRE), "tokens": tokens, "types": [KIND.NORMAL] * len(tokens), "merges": merges}


def with_special(vocab, rng):
    for text in map(rng.choice, rng.sample(SPECIAL, rng.randrange(8))):
        vocab["tokens"].append(text)
        vocab["types"].append(rng.choice([KIND.CONTROL, KIND.CONTROL, KIND.USER_DEFINED, KIND.NORMAL]))
        if "scores" in vocab:
            vocab["scores"].append(-3.0)
    n = len(vocab["tokens"])
    vocab["ids"] = {key: rng.randrange(n) for key in KEYS if rng.random() < 0.1}
    # llama.cpp opens files with this name only where these tokens are there.
    phi = {"<|endoftext|>", "<s>", "</s>", "<unk>"} <= set(vocab["tokens"])
    vocab["name"] = "A Phi-3 of mine" if phi else "tiny"
    return vocab


def write(path, vocab):
    """A model of one layer with this vocabulary."""
    shape = Shape(n_embd=8, n_ff=8, n_head=1, n_head_kv=1, n_layer=1, n_ctx=64)
    n = len(vocab["tokens"])
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(vocab["name"])
    writer.add_tokenizer_model(vocab["model"])
    writer.add_token_list(vocab["tokens"])
    writer.add_token_types(vocab["types"])
    if vocab["model"] == "llama":
        writer.add_token_scores(vocab["scores"])
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(0)
    else:
        writer.add_tokenizer_pre(vocab["pre"])
        writer.add_token_merges(vocab["merges"])
        writer.add_bos_token_id(0)
        writer.add_eos_token_id(0)
    for key, token in vocab["ids"].items():
        writer.add_uint32(f"tokenizer.ggml.{key}", token)
    writer.add_vocab_size(n)
    writer.add_context_length(shape.n_ctx)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(1)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(8)
    weights = Weights(np.random.default_rng(1))
    weights.matrix("token_embd.weight", n, 8)
    weights.norm("output_norm.weight", 8)
    for norm in ("attn_norm", "ffn_norm"):
        weights.norm(f"blk.0.{norm}.weight", 8)
    for matrix in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        weights.matrix(f"blk.0.{matrix}.weight", 8, 8)
    for name, values in weights.tensors.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def random_text(tokens, rng):
    special = [t for t in tokens if t.startswith(("<", "[")) and not t.startswith("<0x")]
    pick = [*ALPHABET, " ", "ab", "  ", *rng.sample(special, min(3, len(special)))]
    return "".join(rng.choice(pick) for _ in range(rng.randrange(1, 30)))


def ours(run, path, text, special):
    flags = ["--parse-special"] if special else []
    command = [run, "-m", path, "--tokenize", "--no-bos", *flags, "-p", text]
    done = subprocess.run(command, capture_output=True, text=True)
    return [int(token) for token in done.stdout.split()] if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


def compare(run, path, tokens, n_texts, rng):
    """How many texts were compared, and how many differ."""
    theirs = oracle(path)
    wrong = 0
    for _ in range(n_texts):
        text, special = random_text(tokens, rng), rng.random() < 0.5
        want, got = list(theirs(text, special)), ours(run, path, text, special)
        if want != got:
            wrong += 1
            if wrong <= 3:
                print(f"  {path.name}: {text!r} {'parsed' if special else 'as text'}\n    ours      {got}\n    llama.cpp {want}")
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bin", required=True, type=Path, help="folder of powerinfer-run")
    parser.add_argument("--texts", type=int, default=200, help="texts for each vocabulary [200]")
    parser.add_argument("--vocabularies", type=int, default=40, help="random vocabularies of each kind [40]")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("files", nargs="*", type=Path)
    args = parser.parse_args()
    run = args.bin / "powerinfer-run"
    faults = 0
    with tempfile.TemporaryDirectory() as folder:
        for kind in (spm, gpt2):
            wrong = 0
            for i in range(args.vocabularies):
                rng = random.Random(f"{args.seed} {kind.__name__} {i}")
                vocab = with_special(kind(rng), rng)
                path = Path(folder) / f"{kind.__name__}-{i}.gguf"
                write(path, vocab)
                wrong += compare(run, path, vocab["tokens"], args.texts, rng)
            print(f"{kind.__name__}: {args.vocabularies} vocabularies, {args.vocabularies * args.texts} texts, {wrong} differ", flush=True)
            faults += wrong
    for path in args.files:
        field = gguf.GGUFReader(path).fields["tokenizer.ggml.tokens"]
        tokens = [bytes(field.parts[i]).decode(errors="replace") for i in field.data]
        wrong = compare(run, path, tokens, args.texts, random.Random(args.seed))
        print(f"{path.name}: {args.texts} texts, {wrong} differ", flush=True)
        faults += wrong
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
