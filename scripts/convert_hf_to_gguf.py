#!/usr/bin/env python3
"""Convert a model's folder as the Hugging Face hub has it to a GGUF file.

    pip install numpy
    python scripts/convert_hf_to_gguf.py DIR --outfile OUT.gguf [--outtype f32|f16|bf16|auto] [--name NAME] [--pre NAME]

DIR holds config.json, *.safetensors (one file, or shards with model.safetensors.index.json) and tokenizer.model
(SentencePiece) or tokenizer.json (BPE). scripts/convert/families has a file for each architecture that is known. Vectors are
F32, matrices have --outtype; rows of Q and K are reordered where an architecture has rotated pairs side by side. Tensors are
read and written one at a time. What no command here computes is refused before anything is written.

The FFN's activation (`hidden_act` in config.json) is written as `ARCHITECTURE.hidden_activation`. Tools that do not know the
key, llama.cpp among them, take every `llama` file for SiLU.
"""

import argparse
from pathlib import Path

from convert import floats, pre_tokenizers
from convert.conversion import convert
from convert.fail import fail


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("dir", type=Path, metavar="DIR", help="model's folder")
    ap.add_argument("-o", "--outfile", "--out", dest="out", type=Path, required=True, metavar="OUT.gguf", help="file to write")
    ap.add_argument("--outtype", "--type", dest="type", choices=[*floats.TYPES, "auto"], default="f16",
                    help="type of the matrices; auto: the one that most have (default: f16)")  # fmt: skip
    ap.add_argument("--name", help="general.name (default: the folder's name)")
    ap.add_argument("--pre", metavar="NAME", help="tokenizer.ggml.pre of a byte-level BPE, instead of detecting it")
    args = ap.parse_args()
    if args.pre not in (None, *pre_tokenizers.KNOWN):
        ap.error(f'--pre "{args.pre}" is not known; {", ".join(pre_tokenizers.KNOWN)} are')
    if not args.dir.is_dir():
        fail(f"{args.dir}: not a folder")
    try:
        tensors, activation = convert(args.dir, args.out, args.type, args.name, args.pre)
    except KeyboardInterrupt:
        raise SystemExit(130)
    print(f"{args.out}: {len(tensors)} tensors, {args.out.stat().st_size} bytes, activation {activation}")


if __name__ == "__main__":
    main()
