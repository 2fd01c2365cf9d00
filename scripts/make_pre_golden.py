#!/usr/bin/env python3
"""Write the ids that llama.cpp gives to hard texts with each pre-tokenizer that models of known architectures name.

    pip install -r scripts/requirements.txt llama-cpp-python
    python scripts/make_pre_golden.py --out tests/golden/pre_tokenizers.json

The vocabulary is made up: all bytes, a few characters of several bytes, and tokens for any two of the characters that the texts
are made of, merged in random order. So where a text is cut shows in its ids. A JSON file holds the merges, the texts, and the ids
of each text with the pre-tokenizers that give them. `cargo test --test library pre_tokenizers` compares. Without
llama-cpp-python, cyllama gives them.
"""

import argparse
import json
import random
import tempfile
from pathlib import Path

from compare_tokenizers import KIND, oracle, write

PRE = ["command-r", "dbrx", "default", "exaone", "falcon", "gpt-2", "jais-2", "llama-bpe", "olmo", "phi-2", "pixtral", "qwen2", "refact",
       "smaug-bpe", "smollm", "stablelm2", "starcoder", "tekken"]  # fmt: skip
# Letters of either case and of none, digits, marks, punctuation, symbols, white space: what the patterns tell apart.
ALPHABET = [*"abZsS17'_.+$`/ \n\r\t", "é", "É", "ǅ", "ß", "中", "ا", "٣", "²", "ा", "’", "。", "€", "\u00a0", "\u3000", "\u0085", "\u200b"]
SPACES = [" ", " ", " ", "\t", "\u00a0", "\u3000"]
TEXTS = [
    "I'll  go 1234", "DON'T don't Don'T we'RE", "a+b=c", "12345678 1,234.56", "  leading", "trailing  ", "\n\n\nx\n \n", "\r\n\r\n x",
    "a\t\tb", "x  \n  y", "camelCase HTTPServer", "e\u0301 \u0939\u093f\u0928\u094d\u0926\u0940", "مرحبا ١٢٣٤", "中文。字 123", "'s's''ll 'tis",
    "\u00a0 \u00a0a", " \u3000中", "🦙🦙 1", "a\u200bb", "$100+€20", "`code` ~x~ ^y^ |z|", "____", "?!?!...", "path/to/file.txt", "² ³ ½",
]  # fmt: skip


def letters():
    """Characters of GPT-2's byte alphabet, by byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (chr(0x100 + i) for i in range(256))
    return [chr(byte) if byte in printable else next(others) for byte in range(256)]


def vocabulary(rng):
    alphabet = letters()

    def encoded(text):
        return "".join(alphabet[byte] for byte in text.encode())

    merges, tokens = [], list(alphabet)

    def merge(left, right):
        if left + right not in tokens:
            merges.append(f"{left} {right}")
            tokens.append(left + right)

    for character in map(encoded, ALPHABET):
        for end in range(1, len(character)):
            merge(character[:end], character[end])
    pairs = [(a, b) for a in ALPHABET for b in ALPHABET]
    for left, right in rng.sample(pairs, len(pairs)):
        merge(encoded(left), encoded(right))
    return {"model": "gpt2", "tokens": tokens, "types": [KIND.NORMAL] * len(tokens), "merges": merges, "ids": {}, "name": "tiny"}


def texts(rng):
    """Those above, random ones, and runs of white space of many lengths with and without something behind."""
    made = ["".join(rng.choice(ALPHABET) for _ in range(rng.randrange(1, 24))) for _ in range(32)]
    for n in (2, 3, 4, 5, 7, 8, 9, 16, 17, 31, 64, 65, 100, 130, 257, 300, 515, 1100):
        run = "".join(rng.choice(SPACES) for _ in range(n))
        made.append(rng.choice(["", "a", "."]) + run + rng.choice(["", "a", "1", "\n", ".b"]))
    return TEXTS + made


def compact(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON file to write")
    ap.add_argument("--seed", type=int, default=1, help="of the merges and texts (default: 1)")
    args = ap.parse_args()
    rng = random.Random(args.seed)
    vocab = vocabulary(rng)
    cases, groups = texts(rng), {}
    with tempfile.TemporaryDirectory() as folder:
        for pre in PRE:
            path = Path(folder) / f"{pre}.gguf"
            write(path, {**vocab, "pre": pre})
            tokenize = oracle(path)
            ids = ",\n".join(compact(list(tokenize(text, False))) for text in cases)
            groups.setdefault(ids, []).append(pre)
    head = f'{{"merges": {compact(vocab["merges"])},\n"texts": {compact(cases)},\n"groups": [\n'
    lines = [f'{{"names": {compact(names)}, "ids": [\n{ids}]}}' for ids, names in groups.items()]
    args.out.write_text(head + ",\n".join(lines) + "]}\n")
    print(f"{args.out}: {len(PRE)} pre-tokenizers, {len(cases)} texts, {args.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
