#!/usr/bin/env python3
"""Hold what powerinfer-bench makes of metadata keys against llama.cpp: the same perplexity, or a refusal that names the key.

    pip install -r scripts/requirements.txt llama-cpp-python
    python scripts/compare_keys.py --bin target/release

Writes a tiny random model (SiLU, F32) once for each case, with some of its keys set to something, and asks both for the perplexity
of a text. A case is

    equal      both compute it, and agree
    refused    powerinfer-bench refuses it, and the line names the key
    alone      powerinfer-bench computes it, and llama.cpp does not read the key for this architecture (UNREAD below), or refuses it
               (WIDER)
    FAULT      anything else

The counts come last; exits with 1 when there is a fault.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import gguf
import numpy as np
from make_arch_gguf import Shape, Weights, llama, spm_bytes

ARCH = "llama"
N_CTX = 64
TEXT = "the hen that lost a shoe near the inn sang and then sat down. " * 4
SHAPE = Shape(n_embd=24, n_ff=40, n_head=4, n_head_kv=2, n_layer=3, n_ctx=256)
TOLERANCE = 1e-5
# What llama.cpp has keys for and does not read in files of this architecture.
UNREAD = {"attention.scale", "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow", "rope.scaling.yarn_ext_factor",
          "rope.scaling.yarn_log_multiplier"}  # fmt: skip
# What llama.cpp refuses in files of this architecture and is computed for others.
WIDER = {"rope.dimension_count"}

YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 64}
CASES = [
    {},
    {"rope.freq_base": 500.0},
    {"rope.dimension_count": 4},
    {"rope.scaling.factor": 2.5},
    {"rope.scale_linear": 2.0},
    {"rope.scaling.type": "none", "rope.scaling.factor": 2.0},
    {"rope.scaling.type": "linear", "rope.scaling.factor": 0.0},
    {"rope.scaling.type": "longrope"},
    {"rope.scaling.attn_factor": 1.5},
    {"rope.scaling.attn_factor": 0.6, "rope.scaling.factor": 2.0},
    {"rope.scaling.finetuned": True},
    {"rope.scaling.yarn_attn_factor": 1.5},
    {"rope.scaling.yarn_ext_factor": 1.0, "rope.scaling.factor": 4.0},
    YARN,
    YARN | {"rope.scaling.original_context_length": 16},
    YARN | {"rope.scaling.original_context_length": 100_000},
    YARN | {"rope.scaling.factor": 1.0},
    YARN | {"rope.scaling.factor": 0.5},
    YARN | {"rope.scaling.factor": 40.0},
    YARN | {"rope.scaling.attn_factor": 0.8},
    YARN | {"rope.freq_base": 2.0},
    YARN | {"rope.dimension_count": 4},
    {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0},
    {"rope.scaling.type": "yarn"},
    YARN | {"rope.scaling.yarn_beta_fast": 4.0},
    YARN | {"rope.scaling.yarn_beta_slow": 0.25},
    YARN | {"rope.scaling.yarn_ext_factor": 0.5},
    YARN | {"rope.scaling.yarn_log_multiplier": 1.0},
    YARN | {"rope.scaling.yarn_attn_factor": 1.0},
    {"rope.dimension_sections": [2, 1, 0, 0]},
    {"rope.dimension_sections": [0, 0, 0, 0]},
    {"rope.freq_base_swa": 500.0},
    {"attention.causal": False},
    {"attention.causal": True},
    {"attention.scale": 0.25},
    {"attention.scale": 0.0},
    {"attention.sliding_window": 0},
    {"attention.sliding_window": 8},
    {"attention.sliding_window": 256},
    {"attention.clamp_kqv": 0.0},
    {"attention.clamp_kqv": 0.5},
    {"attention.max_alibi_bias": 0.0},
    {"attention.max_alibi_bias": 8.0},
    {"attention.temperature_scale": 0.1, "attention.temperature_length": 16},
    {"attention.layer_norm_epsilon": 0.5},
    {"attention.layer_norm_epsilon": 0.0},
    {"attention.layer_norm_rms_epsilon": 0.3},
    {"attention.head_count": [4, 4, 4]},
    {"attention.head_count": [4, 4, 2]},
    {"attention.head_count_kv": [2, 2, 2]},
    {"attention.head_count_kv": [2, 4, 2]},
    {"attention.head_count_kv": [2, 2]},
    {"attention.key_length": 6, "attention.value_length": 6},
    {"attention.value_length": 4},
    {"feed_forward_length": [40, 40, 40]},
    {"attn_logit_softcapping": 0.0, "final_logit_softcapping": 0.0},
    {"attn_logit_softcapping": 5.0},
    {"final_logit_softcapping": 5.0},
    {"logit_scale": 1.0, "embedding_scale": 1.0, "residual_scale": 0.0},
    {"logit_scale": 0.5},
    {"embedding_scale": 2.0},
    {"residual_scale": 0.5},
    {"use_parallel_residual": False},
    {"use_parallel_residual": True},
    {"tensor_data_layout": "Meta AI original pth"},
    {"tensor_data_layout": "jploski"},
    {"expert_count": 0, "expert_used_count": 0},
    {"expert_count": 8, "expert_used_count": 2},
    {"expert_used_count": 2},
    {"vocab_size": 265},
    {"nextn_predict_layers": 0},
    {"nextn_predict_layers": 1},
    {"pooling_type": 0},
    {"colour": "blue"},
]


def write(path, keys):
    """The model with `keys`, in place of those that it has."""
    writer = gguf.GGUFWriter(path, ARCH)
    n_vocab = spm_bytes(writer, SHAPE)
    weights = Weights(np.random.default_rng(7))
    llama(writer, weights, SHAPE, n_vocab)
    kinds = gguf.GGUFValueType
    kind_of = {bool: kinds.BOOL, int: kinds.UINT32, float: kinds.FLOAT32, str: kinds.STRING, list: kinds.ARRAY}
    for key, value in keys.items():
        name = f"{ARCH}.{key}"
        writer.kv_data[0].pop(name, None)
        writer.add_key_value(name, value, kind_of[type(value)])
    for name, values in weights.tensors.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return n_vocab


def run(tool, *args):
    """Exit status, output and the last line on standard error."""
    done = subprocess.run([tool, *map(str, args)], capture_output=True, text=True)
    return done.returncode, done.stdout, (done.stderr.strip().splitlines() or [""])[-1]


def ours(bench, model, text):
    args = ("-c", N_CTX, "--cache-type", "f32", "--mode", "dense", "--activation", "silu", "--device", "cpu", "-o", "json")
    status, out, line = run(bench, "-m", model, "--perplexity", text, *args)
    return (json.loads(out)[0]["perplexity"], "") if status == 0 else (None, line)


def theirs(model, windows, n_vocab):
    """llama.cpp's over the same windows, in a process of its own, as it aborts on some files; None where it refuses."""
    question = json.dumps([str(model), windows, n_vocab])
    done = subprocess.run([sys.executable, __file__, "--bin", ".", "--oracle"], input=question, capture_output=True, text=True)
    if done.returncode:
        return None, (done.stderr.strip().splitlines() or [""])[-1]
    return float(done.stdout), ""


def oracle():
    """Prints llama.cpp's perplexity for the question on standard input."""
    import ctypes

    import llama_cpp
    from compare_logits import keep_log, llama_cpp_logits

    model, windows, n_vocab = json.load(sys.stdin)
    llama_cpp.llama_log_set(keep_log, ctypes.c_void_p(0))
    total, first = 0.0, N_CTX // 2
    for window in windows:
        rows = llama_cpp_logits(model, window, n_vocab)[first:-1]
        log_sum = np.log(np.exp(rows - rows.max(-1, keepdims=True)).sum(-1)) + rows.max(-1)
        total += (log_sum - rows[np.arange(len(rows)), window[first + 1 :]]).sum()
    print(np.exp(total / (len(windows) * (N_CTX - first - 1))))


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--bin", type=Path, required=True, metavar="DIR", help="folder of powerinfer-bench and powerinfer-run")
    ap.add_argument("--oracle", action="store_true", help=argparse.SUPPRESS)
    args = ap.parse_args()
    if args.oracle:
        oracle()
        return
    counts = Counter()
    with tempfile.TemporaryDirectory() as folder:
        model, text = Path(folder, "model.gguf"), Path(folder, "text.txt")
        text.write_text(TEXT)
        for keys in CASES:
            model.unlink(missing_ok=True)
            n_vocab = write(model, keys)
            we, why = ours(args.bin / "powerinfer-bench", model, text)
            if not keys:
                ids = [int(n) for n in run(args.bin / "powerinfer-run", "-m", model, "--tokenize", "-f", text)[1].split()]
                windows = [[1] + ids[at + 1 : at + N_CTX] for at in range(0, len(ids) - N_CTX + 1, N_CTX)]
            they, refusal = theirs(model, windows, n_vocab)
            if we is None:
                kind = "refused" if any(f"{ARCH}.{key}:" in why for key in keys) else "FAULT"
            elif they is not None and abs(we / they - 1) <= TOLERANCE:
                kind = "equal"
            else:
                kind = "alone" if (WIDER if they is None else UNREAD) & set(keys) else "FAULT"
            counts[kind] += 1
            shown = " ".join(f"{key}={value}" for key, value in keys.items()) or "(as it is)"
            figures = [f"{x:.3f}" if x is not None else "refused" for x in (we, they)]
            print(f"{kind:8} {figures[0]:>10} {figures[1]:>10}  {shown}", flush=True)
            if kind == "FAULT":
                print(f"         {why or refusal}")
    print(", ".join(f"{n} {kind}" for kind, n in sorted(counts.items())))
    if counts["FAULT"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
