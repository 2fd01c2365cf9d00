#!/usr/bin/env python3
"""Compare the speed of several sequences at once with that of llama.cpp, on the same plain file.

    pip install llama-cpp-python (or xllamacpp, whose wheels are built for AVX2)
    python scripts/compare_batched.py --bench target/release/powerinfer-bench --plain model.gguf -t 2 -np 1,2,4,8

Both sides decode -n tokens of each of -np sequences, one of each in every pass: ours by `powerinfer-bench -np`, in each of
--modes, llama.cpp as its llama-batched-bench does without prompts. They take turns; a ratio, ours over llama.cpp's, is the
median of the pairs' ratios, with the smallest and largest. --variant names another file for ours in mode exact.
"""

import argparse
import ctypes
import json
import random
import sys
import time
from pathlib import Path

import llama_library
from compare_llamacpp import counts, fail, read_once, run_measured, shown, spread, table


def batch_of(L, n):
    """A batch for a token of each of n sequences, whose logits are all wanted."""
    init = L.llama_batch_init if hasattr(L, "llama_batch_init") else getattr(L.lib, "llama_batch_init")
    if not hasattr(L, "llama_batch_init"):
        init.restype, init.argtypes = llama_library.Batch, [ctypes.c_int32] * 3
    return init(n, 0, 1)


def child(model, n_threads, n_parallel, n_gen):
    """One measurement, printed as JSON: tokens per second of all sequences."""
    L = llama_library.load()
    callback = L.llama_log_callback(lambda *_: None)
    L.llama_log_set(callback, ctypes.c_void_p(0))
    L.llama_backend_init()
    llm = L.llama_model_load_from_file(model.encode(), L.llama_model_default_params())
    params = L.llama_context_default_params()
    params.n_ctx = n_parallel * (n_gen + 1)
    params.n_batch = params.n_ubatch = 512
    if hasattr(params, "n_seq_max"):
        params.n_seq_max = n_parallel
    else:
        params.rest[0] = n_parallel
    ctx = llm and L.llama_init_from_model(llm, params)
    if not ctx:
        fail(f"{model}: llama.cpp cannot compute it")
    L.llama_set_n_threads(ctx, n_threads, n_threads)
    n_vocab = L.llama_vocab_n_tokens(L.llama_model_get_vocab(llm))
    rng, batch = random.Random(1), batch_of(L, n_parallel)
    token = ctypes.cast(batch.token, ctypes.POINTER(ctypes.c_int32))
    pos = ctypes.cast(batch.pos, ctypes.POINTER(ctypes.c_int32))
    n_seq = ctypes.cast(getattr(batch, "n_seq_id", getattr(batch, "n_seq", None)), ctypes.POINTER(ctypes.c_int32))
    seq = ctypes.cast(batch.seq_id, ctypes.POINTER(ctypes.POINTER(ctypes.c_int32)))
    logits = ctypes.cast(batch.logits, ctypes.POINTER(ctypes.c_int8))

    def decode(position):
        for i in range(n_parallel):
            token[i], pos[i], n_seq[i], logits[i] = rng.randrange(n_vocab), position, 1, 1
            seq[i][0] = i
        batch.n_tokens = n_parallel
        status = L.llama_decode(ctx, batch)
        if status:
            fail(f"{model}: llama_decode: status {status}")
        L.llama_synchronize(ctx)

    decode(0)
    start = time.perf_counter()
    for position in range(1, n_gen + 1):
        decode(position)
    print(json.dumps({"tokens_per_second": n_parallel * n_gen / (time.perf_counter() - start)}), flush=True)


def ours(args, file, mode, n):
    command = [str(args.bench.resolve()), "-m", str(file), "-p", "0", "-n", str(args.n_gen), "-np", str(n), "-r", "1"]
    command += ["-t", str(args.threads), "--mode", mode, "--text", "random", "--device", "cpu", "-o", "json"]
    (row,), _ = run_measured(command, "powerinfer-bench")
    return row["avg_ts"], row.get("union_density")


def theirs(args, n):
    asked = json.dumps({"model": str(args.plain), "n_threads": args.threads, "n_parallel": n, "n_gen": args.n_gen})
    printed, _ = run_measured([sys.executable, __file__, "--child", asked], "llama.cpp")
    return printed["tokens_per_second"]


def measure(args):
    """Lines of the table."""
    files = [(mode, args.variant if mode == "exact" and args.variant else args.plain) for mode in args.modes.split(",")]
    for n in args.n_parallel:
        pairs = []
        for i in range(args.pairs):
            pair = [ours(args, file, mode, n)[0] for mode, file in files], theirs(args, n)
            pairs.append(pair)
            figures = ", ".join(f"{ts:.2f}" for ts in pair[0])
            print(f"x{n}, pair {i + 1} of {args.pairs}: {figures} and {pair[1]:.2f} tokens/s", file=sys.stderr, flush=True)
        for at, (mode, _) in enumerate(files):
            ratios = spread([of[at] / other for of, other in pairs])
            own, other = spread([of[at] for of, _ in pairs]), spread([other for _, other in pairs])
            yield [f"x{n}, {mode}", f"{own['median']:.2f}", f"{other['median']:.2f}", shown(ratios, "{:.2f}".format)]


def main():
    if sys.argv[1:2] == ["--child"]:
        return child(**json.loads(sys.argv[2]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", type=Path, required=True, help="powerinfer-bench")
    parser.add_argument("--plain", type=Path, required=True, help="the file, as llama.cpp opens it")
    parser.add_argument("--variant", type=Path, help="ours in mode exact instead")
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("-n", "--n-gen", type=int, default=24, help="tokens of each sequence")
    parser.add_argument("-np", "--n-parallel", type=counts, default=[1, 2, 4, 8], help="sequences at once")
    parser.add_argument("--modes", default="dense,exact")
    parser.add_argument("--pairs", type=int, default=3)
    args = parser.parse_args()
    for path in filter(None, (args.plain, args.variant)):
        read_once(path)
    rows = list(measure(args))
    print("\n".join(table(["sequences", "ours, tokens/s", "llama.cpp", "ratio"], rows)), end="")


if __name__ == "__main__":
    main()
