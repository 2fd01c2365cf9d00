#!/usr/bin/env python3
"""Check scripts/convert_hf_to_gguf.py: models that scripts/make_hf_checkpoint.py took apart must come out as they were.

    pip install -r scripts/requirements.txt
    python scripts/check_converter.py tests/golden/arch/*.gguf [--keep DIR]

Each model is written as the hub has it, in F32 and in shards of BF16, converted to F32 and with `--outtype auto`, and read by the
`gguf` package: keys are compared one by one, tensors byte by byte. Golden logits (MODEL.json) are compared with those of the
converted file by scripts/reference.py. What the hub's form does not hold is left out: divisors of frequencies that no scaling
gives, and vocabularies that there are none of.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np

import make_hf_checkpoint
import reference

TOLERANCE = 1e-6
# Keys that say something of the file, not of the model; and what files of old converters lack or have otherwise.
OF_THE_FILE = ("GGUF.", "general.name", "general.file_type", "general.alignment")
ADDED = ("hidden_activation", "attention.scale", "embedding_scale", "residual_scale", "logit_scale", "attn_logit_softcapping",
         "final_logit_softcapping", "rope.freq_base_swa", "attention.sliding_window", "rope.scaling.type")  # fmt: skip
# Matrices that are always F32.
EXACT = ("position_embd.weight", "_norm.weight", "ffn_gate_inp.weight", "ssm_conv1d.weight", "ssm_a", "ssm_d")
# Architectures whose checkpoints have queries, keys and values in one tensor.
FUSED = ("falcon", "phi3")
NOT_COMPARED = {"stablelm.use_parallel_residual", "smallthinker.attention.sliding_window"}
# Which rotate nothing, whatever files say.
STILL = ("nemotron_h", "nemotron_h_moe")


def convert(folder, path, kind):
    script = Path(__file__).with_name("convert_hf_to_gguf.py")
    done = subprocess.run([sys.executable, script, folder, "--outfile", path, "--outtype", kind], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{folder}: {done.stderr.strip()}")


def keys(reader):
    return {name: field.contents() for name, field in reader.fields.items() if not name.startswith(OF_THE_FILE)}


def compared_keys(path, before, after):
    before, after = keys(before), keys(after)
    arch = before["general.architecture"]
    for name in sorted(before.keys() | after.keys()):
        if name in NOT_COMPARED or (before["tokenizer.ggml.model"] == "no_vocab" and name.startswith("tokenizer.")):
            continue
        if arch in STILL and name.startswith(f"{arch}.rope."):
            continue
        old, new = before.get(name), after.get(name)
        if name.endswith("sliding_window_pattern") and isinstance(old, int):
            old = [(i + 1) % old != 0 for i in range(before[f"{arch}.block_count"])]
        # Two names of one way to cut text.
        if name == "tokenizer.ggml.pre" and (old, new) == ("pixtral", "llama-bpe"):
            continue
        # Where there are scores, it says nothing.
        if name == "tokenizer.ggml.pre" and old == "default":
            continue
        if old is None and (name.removeprefix(f"{arch}.") in ADDED or name == "tokenizer.ggml.add_space_prefix"):
            continue
        near = isinstance(old, float) and isinstance(new, float) and abs(old - new) <= 1e-6 * abs(old)
        if old != new and not near:
            raise SystemExit(f"{path}: {name}: {str(old)[:80]} became {str(new)[:80]}")


def rounded(values, kind):
    """32-bit floats as bytes of a type that all of them fit, as they do that have been of that type."""
    if kind == gguf.GGMLQuantizationType.BF16:
        return (values.view(np.uint32) >> 16).astype(np.uint16)
    return values


def compared_tensors(path, expected, after, kind):
    """`expected` by name, 32-bit floats; matrices of the file have `kind`."""
    found = {tensor.name: tensor for tensor in after.tensors}
    if set(expected) != set(found):
        raise SystemExit(f"{path}: other tensors: {sorted(set(expected) ^ set(found))[:3]}")
    for name, values in expected.items():
        its_kind = kind if values.ndim > 1 and not name.endswith(EXACT) else gguf.GGMLQuantizationType.F32
        tensor = found[name]
        if tensor.tensor_type != its_kind or [int(n) for n in reversed(tensor.shape)] != list(values.shape):
            raise SystemExit(f"{path}: {name}: {tensor.tensor_type.name} {list(tensor.shape)}, not {its_kind.name} {list(values.shape)}")
        if tensor.data.tobytes() != rounded(values, its_kind).tobytes():
            raise SystemExit(f"{path}: {name}: other bytes")


def expected_tensors(source, cut):
    """What the tensors of a file are after having been those of a checkpoint, whose floats were `cut`."""
    plus_one = source.arch in ("nemotron", "gemma2", "gemma3")
    expected = {}
    for name, values in source.tensors.items():
        if name == "rope_freqs.weight":
            continue
        if name in make_hf_checkpoint.FOLLOW or name == "position_embd.weight":
            expected[name] = cut(values) if name == "position_embd.weight" else values
            continue
        if name.endswith("ssm_a"):
            expected[name] = -np.exp(cut(np.log(-values)))
            continue
        one = np.float32(1) if plus_one and name.endswith("norm.weight") else np.float32(0)
        expected[name] = cut(values - one) + one
    return expected


def upper_halves(values):
    return (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def check(path, folder):
    source = make_hf_checkpoint.Source(path)
    fused = "blk.0.attn_qkv.weight" in source.tensors and source.arch not in FUSED
    positions = source.tensors.get("position_embd.weight", ())
    unheard_of = source.key("rope.scaling.finetuned") is False
    # Files may have experts in ways that the hub does not.
    unheard_of |= any(name in source.tensors for name in ("blk.0.ffn_gate_up_exps.weight", "blk.0.ffn_up.0.weight"))
    unheard_of |= source.arch != "nemotron_h_moe" and source.key("expert_weights_scale") is not None
    # Nor do its files of old, Ollama's, and those with as many experts as each layer says.
    unheard_of |= source.arch == "nemotron_h_moe" and (
        source.key("expert_feed_forward_length") is None
        or "blk.0.ffn_latent_in.weight" in source.tensors or "blk.1.ffn_latent_in.weight" in source.tensors
        or isinstance(source.key("expert_used_count"), list)
    )
    unheard_of |= source.arch == "smallthinker" and source.key("rope.freq_base_swa") is not None
    unheard_of |= source.arch == "gemma2" and source.key("rope.freq_base_swa") is not None
    if source.arch not in make_hf_checkpoint.ARCHITECTURES or fused or unheard_of or len(positions) > source.key("context_length"):
        return "no form of the hub is known"
    plain, shards = folder / path.stem, folder / f"{path.stem}-bf16"
    make_hf_checkpoint.write(path, plain)
    make_hf_checkpoint.write(path, shards, "bf16", 3)
    converted, halved = folder / path.name, folder / f"{path.stem}-bf16.gguf"
    convert(plain, converted, "f32")
    convert(shards, halved, "auto")
    before, after = gguf.GGUFReader(path), gguf.GGUFReader(converted)
    compared_keys(path, before, after)
    compared_tensors(path, expected_tensors(source, lambda values: values), after, gguf.GGMLQuantizationType.F32)
    compared_tensors(path, expected_tensors(source, upper_halves), gguf.GGUFReader(halved), gguf.GGMLQuantizationType.BF16)
    golden = path.with_suffix(".json")
    if not golden.exists() or "rope_freqs.weight" in source.tensors:
        return "keys and bytes are the same"
    golden = json.loads(golden.read_text())
    logits = reference.logits(converted, golden["tokens"], golden["activation"])
    apart = np.abs(logits - golden["logits"]).max() / np.abs(golden["logits"]).max()
    if not apart <= TOLERANCE:
        raise SystemExit(f"{path}: logits are {apart:.1e} apart")
    return f"keys and bytes are the same, logits {apart:.0e} apart"


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("models", type=Path, nargs="+", metavar="MODEL.gguf")
    ap.add_argument("--keep", type=Path, metavar="DIR", help="folder in which what is written stays")
    args = ap.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for path in args.models:
            print(f"{path.stem:20} {check(path, folder)}", flush=True)


if __name__ == "__main__":
    main()
