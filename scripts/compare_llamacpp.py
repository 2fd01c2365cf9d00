#!/usr/bin/env python3
"""Compare the speed of powerinfer-bench with that of llama.cpp, on the same weights with the same threads.

    pip install llama-cpp-python (or xllamacpp, whose wheels are built for AVX2)
    python scripts/compare_llamacpp.py --bench target/release/powerinfer-bench --plain M.gguf --variant V.gguf -t 2

llama.cpp runs the plain file; ours the plain file, and in exact mode the variant that powerinfer-split made of it (give
both the same type of weights: a note says when their sizes differ). The rows, chosen with --rows (decode behind
-d tokens, which are computed before and not measured):

    decode-dense      tg, --mode dense on the plain file
    decode-exact      tg, --mode exact on the variant, tokens of --text: what fires depends on them
    decode-predicted  tg, --mode predicted on the variant, which must have a predictor; only where asked for
    prefill-plain     pp of each -p, the plain file
    prefill-variant   pp of each -p, the variant
    busy              tg dense, quiet and beside a busy loop pinned to one core

Absolute speeds drift on shared machines, so runs alternate (ours, llama.cpp, ours, ...) and only pairs are compared: a
ratio is the median of the pairs' ratios, with the smallest and largest. Every run is a process of its own that does the
whole test once unmeasured and then once measured, as powerinfer-bench -r 1 does. llama.cpp has its defaults (memory
mapping, weights repacked, flash attention where it can) with batches of 512, ours its defaults.

Start-up and memory are measured too: seconds to load from the page cache and decode two tokens; peak RSS; and own
memory, the part of it that is no mapped file, for llama.cpp less what Python holds before.
"""

import argparse
import ctypes
import json
import os
import platform
import random
import re
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path

import llama_library

ROWS = ("decode-dense", "decode-exact", "decode-predicted", "prefill-plain", "prefill-variant", "busy")
SIDES = ("ours", "llama.cpp")
N_BATCH = 512
# The two tokens that start-up decodes: powerinfer-bench runs a test of one once unmeasured and once measured.
START = {"n_prompt": 0, "n_gen": 1, "n_depth": 0}
SAMPLE_SECONDS = 0.1
# Load average from which on the machine was not quiet.
BUSY_BEFORE = 0.5
MIB = 1 << 20
ILLEGAL_INSTRUCTION = (
    "llama.cpp was built for instructions this machine lacks (in VMs often AMX); build it without: "
    'CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_AVX512=ON -DGGML_AVX512_VNNI=ON -DGGML_AVX512_VBMI=ON -DGGML_AVX512_BF16=ON" '
    "pip install --force-reinstall --no-cache-dir --no-binary llama-cpp-python llama-cpp-python"
)
BUSY_LOOP = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
parent = os.getppid()
print(flush=True)
while os.getppid() == parent:
    for _ in range(1_000_000):
        pass
"""


def fail(message):
    raise SystemExit(message)


# llama.cpp: a child process per measurement.


def llama_child(model, n_threads, n_prompt, n_gen, n_depth, n_runs=1):
    """One measurement, printed as JSON: the mean speed of some runs."""
    try:
        L = llama_library.load()
    except ImportError as e:
        fail(f"{e} (pip install llama-cpp-python)")
    own_before = rss_anon(os.getpid())
    log = []
    callback = L.llama_log_callback(lambda _level, text, _data: log.append(text.decode(errors="replace")))
    L.llama_log_set(callback, ctypes.c_void_p(0))

    start = time.perf_counter()
    L.llama_backend_init()
    llm = L.llama_model_load_from_file(model.encode(), L.llama_model_default_params())
    if not llm:
        reasons = [line.strip() for line in "".join(log).splitlines() if "error" in line]
        fail(f"{model}: {(reasons or ['llama.cpp cannot load it'])[0]}")
    params = L.llama_context_default_params()
    params.n_ctx = n_depth + n_prompt + n_gen
    params.n_batch = params.n_ubatch = N_BATCH
    ctx = L.llama_init_from_model(llm, params)
    if not ctx:
        fail(f"{model}: llama.cpp cannot make a context of {params.n_ctx}")
    L.llama_set_n_threads(ctx, n_threads, n_threads)
    load_s = time.perf_counter() - start

    n_vocab = L.llama_vocab_n_tokens(L.llama_model_get_vocab(llm))
    rng = random.Random(1)
    tokens = [rng.randrange(n_vocab) for _ in range(n_depth + n_prompt + n_gen)]
    before, tokens = tokens[:n_depth], tokens[n_depth:]
    prompt, generated = tokens[:n_prompt], tokens[n_prompt:]

    def in_parts(prompt, generated):
        """The same batches as llama-bench: the prompt in parts, then tokens one by one, each waited for."""
        parts = [prompt[i : i + N_BATCH] for i in range(0, len(prompt), N_BATCH)] + [[token] for token in generated]
        return [((L.llama_token * len(part))(*part), len(part)) for part in parts]

    def decode(parts):
        for part, n in parts:
            status = L.llama_decode(ctx, L.llama_batch_get_one(part, n))
            if status:
                fail(f"{model}: llama_decode: status {status}")
            L.llama_synchronize(ctx)

    decode(in_parts(before, []))
    parts = in_parts(prompt, generated)

    def run():
        L.llama_memory_seq_rm(L.llama_get_memory(ctx), 0, n_depth, -1)
        begin = time.perf_counter()
        decode(parts)
        return len(tokens) / (time.perf_counter() - begin)

    run()
    speed = statistics.mean(run() for _ in range(n_runs))
    start_s = time.perf_counter() - start
    result = {
        "tokens_per_second": speed,
        "load_s": load_s,
        "start_s": start_s,
        "own_before": own_before or 0,
        "model_size": L.llama_model_size(llm),
        "version": f"{getattr(L, 'package', 'llama-cpp-python')} {L.__version__}",
        "system_info": L.llama_print_system_info().decode().strip(),
        "buffers": sorted({line.strip() for line in "".join(log).splitlines() if "buffer size" in line}),
    }
    print(json.dumps(result), flush=True)
    # Nothing is left to write: freeing gigabytes would only take time.
    os._exit(0)


# Processes.


def rss_anon(pid):
    """Bytes of a process that are no mapped file; None once it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    found = re.search(r"^RssAnon:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def run_measured(command, who):
    """Runs a command; gives the JSON it printed, its seconds and its peak memory in bytes.

    The peak RSS is never below this script's own (some 20 MiB): Linux counts from before the exec.
    """
    own = []
    ended = threading.Event()

    def watch(pid):
        while True:
            own.append(rss_anon(pid) or 0)
            if ended.wait(SAMPLE_SECONDS):
                return

    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        begin = time.perf_counter()
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        except OSError as e:
            fail(f"{command[0]}: {e.strerror}")
        watcher = threading.Thread(target=watch, args=(process.pid,))
        watcher.start()
        try:
            # Not process.wait(), which does not tell the peak memory.
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - begin
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            ended.set()
            watcher.join()
            if process.returncode is None:
                process.kill()
        out.seek(0)
        err.seek(0)
        check_exit(process.returncode, err.read().decode(errors="replace"), who)
        try:
            printed = json.loads(out.read())
        except ValueError as e:
            fail(f"{who}: not JSON: {e}")
    return printed, {"start_s": seconds, "own_peak": max(own), "rss_peak": usage.ru_maxrss * 1024}


def check_exit(code, stderr, who):
    if code == -signal.SIGILL and who == "llama.cpp":
        fail(f"{who} died of SIGILL: {ILLEGAL_INSTRUCTION}")
    if code < 0:
        why = " (out of memory?)" if code == -signal.SIGKILL else ""
        fail(f"{who} died of {signal.Signals(-code).name}{why}")
    if code:
        lines = stderr.strip().splitlines() or [f"exit status {code}"]
        # Of wrong usage, what helps stands behind.
        said = [line for line in lines if line.startswith("error: ")] or lines
        fail(f"{who}: {said[-1].removeprefix('error: ')}")


@contextmanager
def busy_neighbour(cpu):
    command = [sys.executable, "-c", BUSY_LOOP, str(cpu)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        if not process.stdout.readline():
            fail(f"--cpu {cpu}: the busy loop did not start: {process.stderr.read().decode().strip().splitlines()[-1]}")
        yield
    finally:
        process.kill()
        process.communicate()


# Measurements.


def ours(args, file, mode, text, n_prompt, n_gen, n_depth, n_runs=1):
    command = [str(args.bench.resolve()), "-m", str(getattr(args, file)), "-p", str(n_prompt), "-n", str(n_gen)]
    command += ["-d", str(n_depth), "-r", str(n_runs), "-t", str(args.threads), "--mode", mode, "--text", text, "-o", "json"]
    printed, used = run_measured(command, "powerinfer-bench")
    try:
        (row,) = printed
        result = {"tokens_per_second": row["avg_ts"], "version": row["build"]}
        result |= {key: row[key] for key in ("model_size", "ffn_density")}
    except (ValueError, TypeError, KeyError) as e:
        fail(f"powerinfer-bench: its JSON is not the one row expected: {e!r}")
    return {**result, **used}


def theirs(args, n_prompt, n_gen, n_depth, n_runs=1):
    asked = {"model": str(args.plain), "n_threads": args.threads, "n_prompt": n_prompt, "n_gen": n_gen}
    asked |= {"n_depth": n_depth, "n_runs": n_runs}
    printed, used = run_measured([sys.executable, __file__, "--child", json.dumps(asked)], "llama.cpp")
    used["own_peak"] = max(used["own_peak"] - printed.pop("own_before"), 0)
    return {**used, **printed}


def tests_of(args):
    """What is run, in order: name, states, and what ours is given beside it."""
    decode = {"n_prompt": 0, "n_gen": args.n_gen, "n_depth": args.n_depth}
    depth = f" at {args.n_depth}" if args.n_depth else ""
    prefills = [{"n_prompt": n, "n_gen": 0, "n_depth": 0} for n in args.n_prompt]
    plain = {"file": "plain", "mode": "dense", "text": "random"}
    variant = {"file": "variant", "mode": "exact", "text": "random"}
    quiet = ("quiet",)

    yield "start plain", quiet, {**plain, "text": args.text, **START}
    if args.variant:
        yield "start variant", quiet, {**variant, "text": args.text, **START}
    # The quiet runs of the busy row are the dense row.
    if "busy" in args.rows or "decode-dense" in args.rows:
        states = ("quiet", "busy") if "busy" in args.rows else quiet
        yield f"tg{args.n_gen}{depth} dense, plain", states, {**plain, **decode}
    if "decode-exact" in args.rows:
        yield f"tg{args.n_gen}{depth} exact, variant", quiet, {**variant, "text": args.text, **decode}
    if "decode-predicted" in args.rows:
        predicted = {**variant, "mode": "predicted", "text": args.text}
        yield f"tg{args.n_gen}{depth} predicted, variant", quiet, {**predicted, **decode}
    for file in (plain, variant):
        if f"prefill-{file['file']}" in args.rows:
            for prefill in prefills:
                yield f"pp{prefill['n_prompt']}, {file['file']}", quiet, {**file, **prefill}


def measure(args, pairs):
    """Adds pairs as they are measured, so that they are not lost when something goes wrong later."""
    for path in filter(None, (args.plain, args.variant)):
        read_once(path)
    for test, states, given in tests_of(args):
        lengths = {key: given[key] for key in ("n_prompt", "n_gen", "n_depth")}
        for n in range(args.pairs):
            for state in states:
                with busy_neighbour(args.cpu) if state == "busy" else nullcontext():
                    pair = {"ours": ours(args, **given), "llama.cpp": theirs(args, **lengths)}
                pairs.append({"test": test, "state": state, "file": given["file"], "mode": given["mode"], **pair})
                figures = " and ".join(figure(pair[side], test) for side in SIDES)
                print(f"{test}, {state}, pair {n + 1} of {args.pairs}: {figures}", file=sys.stderr, flush=True)


def read_once(path):
    """Brings a file into the page cache, or whoever came first would pay for the disk."""
    try:
        with path.open("rb", buffering=0) as file:
            while file.read(16 * MIB):
                pass
    except OSError as e:
        fail(f"{path}: {e.strerror}")


def figure(run, test):
    return f"{run['start_s']:.2f} s" if test.startswith("start") else f"{run['tokens_per_second']:.2f} tokens/s"


# Report.


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def speed_rows(pairs):
    rows = []
    # Dictionaries keep the order of measurement.
    for test, state in {(p["test"], p["state"]): None for p in pairs if not p["test"].startswith("start")}:
        chosen = [p for p in pairs if (p["test"], p["state"]) == (test, state)]
        speeds = {side: [p[side]["tokens_per_second"] for p in chosen] for side in SIDES}
        rows.append(
            {
                "test": test,
                "state": state,
                "n_pairs": len(chosen),
                **{side: spread(speeds[side]) for side in SIDES},
                "ratio": spread([a / b for a, b in zip(*speeds.values())]),
                "ffn_density": chosen[0]["ours"]["ffn_density"],
                "samples": speeds,
            }
        )
    return rows


def kept_rows(pairs):
    """Share of its own quiet speed that each side keeps beside the busy loop."""
    quiet, busy = ([p for p in pairs if p["state"] == state] for state in ("quiet", "busy"))
    if not busy:
        return None
    quiet = [p for p in quiet if p["test"] == busy[0]["test"]]
    speed = lambda pair, side: pair[side]["tokens_per_second"]
    return {side: spread([speed(b, side) / speed(q, side) for q, b in zip(quiet, busy)]) for side in SIDES}


def start_rows(pairs):
    rows = []
    for side, file in (("ours", "plain"), ("ours", "variant"), ("llama.cpp", "plain")):
        # llama.cpp ran the plain file whatever ours ran.
        runs = [p for p in pairs if side == "llama.cpp" or p["file"] == file]
        starts = [p[side] for p in runs if p["test"].startswith("start")]
        if not starts:
            continue
        row = {"side": side, "file": file, "start_s": spread([run["start_s"] for run in starts])}
        row["load_s"] = spread([run["load_s"] for run in starts]) if "load_s" in starts[0] else None
        # Where a peak is reached depends on the test: that of all tests counts.
        row |= {key: max(p[side][key] for p in runs) for key in ("own_peak", "rss_peak")}
        rows.append(row | {"model_size": starts[0]["model_size"]})
    return rows


def report_of(args, pairs, load_average):
    last = pairs[-1]
    describe = ("version", "system_info", "buffers", "model_size")
    return {
        "command": shlex.join(["python", *sys.argv]),
        "cpu": cpu_name(),
        "n_cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "load_average_before": load_average,
        "n_threads": args.threads,
        "busy_cpu": args.cpu,
        "plain": str(args.plain),
        "variant": str(args.variant) if args.variant else None,
        "ours": {"version": last["ours"]["version"]},
        "llama.cpp": {**{key: last["llama.cpp"][key] for key in describe}, "n_batch": N_BATCH, "n_ubatch": N_BATCH},
        "rows": speed_rows(pairs),
        "kept_when_busy": kept_rows(pairs),
        "start": start_rows(pairs),
    }


def cpu_name():
    found = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def markdown(report):
    load = report["load_average_before"]
    lines = [
        f"`{report['command']}`",
        "",
        f"{report['cpu']}, {report['n_cores']} cores, load average {load:.2f} before; {report['n_threads']} threads; "
        f"powerinfer-bench {report['ours']['version']}, llama.cpp of {report['llama.cpp']['version']}. "
        "Tokens per second, medians; ratios ours / llama.cpp: median of the pairs (smallest to largest).",
        "",
    ]
    if report["rows"]:
        lines += table(["test", "ours", "llama.cpp", "ratio", "pairs", "FFN density"], map(speed_cells, report["rows"]))
    if kept := report["kept_when_busy"]:
        cells = [[side, shown(kept[side], lambda x: f"{x:.0%}")] for side in SIDES]
        lines += table([f"beside a busy loop on core {report['busy_cpu']}", "share of quiet speed kept"], cells)
    header = ["start-up and memory", "load and two tokens, s", "of it load, s", "own memory, MiB", "peak RSS, MiB"]
    lines += table(header, map(start_cells, report["start"]))
    return "\n".join(lines + notes(report)).rstrip()


def notes(report):
    lines = []
    theirs_size = report["llama.cpp"]["model_size"]
    for row in report["start"]:
        if abs(row["model_size"] / theirs_size - 1) > 0.02:
            sizes = [f"{n / MIB:.0f} MiB" for n in (row["model_size"], theirs_size)]
            where = f"{sizes[0]} of tensors in the {row['file']}, {sizes[1]} in the plain file"
            lines.append(f"Not the same weights: {where}.")
    if report["load_average_before"] > BUSY_BEFORE:
        lines.append("Other programs were running: a quiet machine gives other figures.")
    return lines


def speed_cells(row):
    state = ", busy neighbour" if row["state"] == "busy" else ""
    density = "" if row["ffn_density"] is None else f"{row['ffn_density']:.1%}"
    medians = [f"{row[side]['median']:.2f}" for side in SIDES]
    return [row["test"] + state, *medians, shown(row["ratio"], "{:.2f}".format), str(row["n_pairs"]), density]


def start_cells(row):
    load = f"{row['load_s']['median']:.2f}" if row["load_s"] else ""
    memory = [f"{row[key] / MIB:.0f}" for key in ("own_peak", "rss_peak")]
    return [f"{row['side']}, {row['file']}", f"{row['start_s']['median']:.2f}", load, *memory]


def shown(values, form):
    return f"{form(values['median'])} ({form(values['min'])} to {form(values['max'])})"


def table(header, rows):
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines] + [""]


# Command line.


def counts(text):
    return [int(n) for n in text.split(",")]


def parse_args():
    description, epilog = __doc__.split("\n\n", 1)
    ap = argparse.ArgumentParser(
        description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ap.error = lambda message: fail(f"{message} (--help says more)")
    ap.add_argument("--bench", type=Path, required=True, metavar="PATH", help="powerinfer-bench")
    ap.add_argument("--plain", type=Path, required=True, metavar="M.gguf", help="plain file, for both sides")
    ap.add_argument("--variant", type=Path, metavar="V.gguf", help="variant of the same weights, for ours")
    ap.add_argument("-t", "--threads", type=int, default=2, metavar="N", help="threads of both sides (default: 2)")
    ap.add_argument("-n", "--n-gen", type=int, default=64, metavar="N", help="tokens decoded (default: 64)")
    ap.add_argument("-d", "--n-depth", type=int, default=0, metavar="N", help="tokens before those (default: none)")
    ap.add_argument("-p", "--n-prompt", type=counts, default=[128, 512], metavar="N,N", help="default: 128,512")
    ap.add_argument("--pairs", type=int, default=5, metavar="N", help="pairs of runs per row (default: 5)")
    ap.add_argument("--rows", metavar="ROW,ROW", help="default: all that the files allow")
    ap.add_argument("--text", default="real", help="for decode-exact, as of powerinfer-bench (default: real)")
    ap.add_argument("--cpu", type=int, metavar="N", help="core of the busy loop (default: the last)")
    ap.add_argument("--json", type=Path, metavar="FILE", help="write everything measured there")
    args = ap.parse_args()

    of_variant = ("decode-exact", "decode-predicted", "prefill-variant")
    cores = os.sched_getaffinity(0)
    args.cpu = max(cores) if args.cpu is None else args.cpu
    given = args.rows is not None
    args.rows = args.rows.split(",") if given else [
        row for row in ROWS if row != "decode-predicted" and (args.variant or row not in of_variant)
    ]
    for row in args.rows:
        if row not in ROWS:
            fail(f"--rows {row}: unknown; known are {', '.join(ROWS)}")
        if row in of_variant and not args.variant:
            fail(f"--rows {row}: needs --variant")
    for flag, n in (("-t", args.threads), ("-n", args.n_gen), ("-p", min(args.n_prompt)), ("--pairs", args.pairs)):
        if n < 1:
            fail(f"{flag} {n}: has to be at least 1")
    if args.n_depth < 0:
        fail(f"-d {args.n_depth}: has to be at least 0")
    if args.cpu not in cores:
        fail(f"--cpu {args.cpu}: not one of {sorted(cores)}")
    for path in (args.bench, args.plain, *([args.variant] if args.variant else [])):
        if not path.is_file():
            fail(f"{path}: no such file")
    if args.json and not args.json.resolve().parent.is_dir():
        fail(f"--json {args.json}: no such folder")
    return args


def main():
    if sys.argv[1:2] == ["--child"]:
        llama_child(**json.loads(sys.argv[2]))
    args = parse_args()
    load_average = os.getloadavg()[0]
    pairs = []
    try:
        measure(args, pairs)
    except KeyboardInterrupt:
        fail("stopped")
    finally:
        if pairs:
            report = report_of(args, pairs, load_average)
            print(markdown(report))
            if args.json:
                write_json(args.json, report)


def write_json(path, report):
    try:
        path.write_text(json.dumps(report, indent=2) + "\n")
    except OSError as e:
        fail(f"{path}: {e.strerror}")


if __name__ == "__main__":
    main()
