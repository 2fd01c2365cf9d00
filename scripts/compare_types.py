#!/usr/bin/env python3
"""Compare the speed of powerinfer-bench with that of llama.cpp for each type of weights, on the same files.

    pip install llama-cpp-python (or xllamacpp, whose wheels are built for AVX2)
    python scripts/compare_types.py --bench target/release/powerinfer-bench -t 2
    python scripts/compare_types.py --bench target/release/powerinfer-bench --types Q4_K_M,Q6_K --llama-quantize llama-quantize

A synthetic model of --shape with random weights in F16 (or the file that --source names) is quantized into each type, by
llama-quantize where one is given and else by the powerinfer-split that lies beside powerinfer-bench, and both sides decode
-n tokens (tg) and compute prompts of each -p (pp) on it, dense, in turns. A ratio, ours over llama.cpp's, is the median of the
pairs' ratios, with the smallest and largest. See compare_llamacpp.py for what a measurement is; short prompts are run often
enough to take some --tokens. A type's file is deleted when its measurements are done.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import compare_llamacpp as pairs_of
from compare_llamacpp import check_exit, fail, figure, shown, spread, table

TYPES = "F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q4_K_M Q5_K_M Q6_K Q3_K_M Q2_K IQ4_NL IQ4_XS".split()


def run(command, who):
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    except OSError as e:
        fail(f"{command[0]}: {e.strerror}")
    check_exit(done.returncode, done.stderr, who)


def source(args, folder):
    """The file that everything is quantized from."""
    if args.source:
        return args.source
    print(f"making {args.shape}", file=sys.stderr, flush=True)
    command = [args.bench, "--cache-dir", folder, "--synthetic", f"{args.shape}:f16", "--synthetic-plain"]
    run([*map(str, command), "-p", "0", "-n", "1", "-r", "1", "-t", str(args.threads), "--device", "cpu"], "powerinfer-bench")
    made = list(Path(folder).rglob("*.gguf"))
    if len(made) != 1:
        fail(f"powerinfer-bench left {len(made)} files in {folder} where the model should be")
    return made[0]


def quantized(args, of, to, name):
    tool = args.llama_quantize or args.bench.parent / "powerinfer-split"
    command = [str(tool.resolve())] + ([] if args.llama_quantize else ["--quantize-only"])
    run([*command, str(of), str(to), name, str(args.threads)], tool.name)


def tests_of(args):
    yield f"tg{args.n_gen}", {"n_prompt": 0, "n_gen": args.n_gen}
    for n in args.n_prompt:
        yield f"pp{n}", {"n_prompt": n, "n_gen": 0}


def measure_type(args, name, of):
    """For each test the speeds of both sides, pair by pair."""
    args.plain = of
    pairs_of.read_once(of)
    speeds = {}
    # All tests in turns, so that one of them does not get all of a bad minute.
    for n in range(args.pairs):
        for test, lengths in tests_of(args):
            n_tokens = lengths["n_prompt"] + lengths["n_gen"]
            lengths |= {"n_depth": 0, "n_runs": max(round(args.tokens / n_tokens), 1)}
            pair = {
                "ours": pairs_of.ours(args, file="plain", mode="dense", text="random", **lengths),
                "llama.cpp": pairs_of.theirs(args, **lengths),
            }
            args.about = pair
            figures = " and ".join(figure(pair[side], test) for side in pairs_of.SIDES)
            print(f"{name} {test}, pair {n + 1} of {args.pairs}: {figures}", file=sys.stderr, flush=True)
            of_test = speeds.setdefault(test, {side: [] for side in pairs_of.SIDES})
            for side in pairs_of.SIDES:
                of_test[side].append(pair[side]["tokens_per_second"])
    return speeds


def row_of(name, speeds):
    tests = {
        test: {**{side: spread(sides[side]) for side in sides}, "ratio": spread([a / b for a, b in zip(*sides.values())])}
        for test, sides in speeds.items()
    }
    return {"type": name, "tests": tests, "samples": speeds}


def markdown(args, rows):
    tests = [test for test, _ in tests_of(args)]
    about = args.about
    lines = [
        f"`{shlex.join(['python', *sys.argv])}`",
        "",
        f"{pairs_of.cpu_name()}, {args.threads} threads; powerinfer-bench {about['ours']['version']}, llama.cpp of "
        f"{about['llama.cpp']['version']} ({about['llama.cpp']['system_info']}). Tokens per second, medians of {args.pairs} "
        "pairs: ours, llama.cpp's, and the median of the pairs' ratios (smallest to largest).",
        "",
    ]
    header = ["type"] + [f"{test}{what}" for test in tests for what in ("", ", llama.cpp", ", ratio")]
    return "\n".join(lines + table(header, [cells(row, tests) for row in rows])).rstrip()


def cells(row, tests):
    of = [row["tests"][test] for test in tests]
    medians = lambda test: [f"{test[side]['median']:.1f}" for side in pairs_of.SIDES]
    return [row["type"], *(cell for test in of for cell in [*medians(test), shown(test["ratio"], "{:.2f}".format)])]


def parse_args():
    description, epilog = __doc__.split("\n\n", 1)
    ap = argparse.ArgumentParser(
        description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ap.error = lambda message: fail(f"{message} (--help says more)")
    ap.add_argument("--bench", type=Path, required=True, metavar="PATH", help="powerinfer-bench")
    ap.add_argument("--llama-quantize", type=Path, metavar="PATH", help="default: powerinfer-split beside powerinfer-bench")
    ap.add_argument("--shape", default="1b", metavar="NAME", help="synthetic model, 1b-4 for four of its layers (default: 1b)")
    ap.add_argument("--source", type=Path, metavar="F16.gguf", help="quantize this in place of a synthetic model")
    ap.add_argument("--types", default=",".join(TYPES), metavar="A,B", help="of weights (default: %(default)s)")
    ap.add_argument("-t", "--threads", type=int, default=2, metavar="N", help="threads of both sides (default: 2)")
    ap.add_argument("-n", "--n-gen", type=int, default=24, metavar="N", help="tokens decoded (default: 24)")
    ap.add_argument("-p", "--n-prompt", type=pairs_of.counts, default=[4, 128], metavar="N,N", help="default: 4,128")
    ap.add_argument("--tokens", type=int, default=48, metavar="N", help="tokens of a measurement, about (default: 48)")
    ap.add_argument("--pairs", type=int, default=3, metavar="N", help="pairs of runs per test (default: 3)")
    ap.add_argument("--work-dir", type=Path, metavar="DIR", help="where files are made (default: the system's folder for such)")
    ap.add_argument("--json", type=Path, metavar="FILE", help="write everything measured there")
    args = ap.parse_args()
    args.types = args.types.upper().split(",")
    for flag, n in (
        ("-t", args.threads),
        ("-n", args.n_gen),
        ("-p", min(args.n_prompt)),
        ("--tokens", args.tokens),
        ("--pairs", args.pairs),
    ):
        if n < 1:
            fail(f"{flag} {n}: has to be at least 1")
    for path in filter(None, (args.bench, args.llama_quantize, args.source)):
        if not path.is_file():
            fail(f"{path}: no such file")
    if args.work_dir and not args.work_dir.is_dir():
        fail(f"--work-dir {args.work_dir}: no such folder")
    if args.json and not args.json.resolve().parent.is_dir():
        fail(f"--json {args.json}: no such folder")
    return args


def main():
    args = parse_args()
    load_average, rows = os.getloadavg()[0], []
    if load_average > pairs_of.BUSY_BEFORE:
        print(f"load average {load_average:.2f}: a quiet machine gives other figures", file=sys.stderr)
    try:
        with tempfile.TemporaryDirectory(dir=args.work_dir, prefix="types-") as folder:
            of = source(args, folder)
            for name in args.types:
                file = Path(folder) / f"{name}.gguf"
                quantized(args, of, file, name)
                rows.append(row_of(name, measure_type(args, name, file)))
                file.unlink()
    except KeyboardInterrupt:
        fail("stopped")
    finally:
        if rows:
            print(markdown(args, rows))
            if args.json:
                about = {"load_average_before": load_average, "about": args.about, "rows": rows}
                pairs_of.write_json(args.json, about)


if __name__ == "__main__":
    main()
