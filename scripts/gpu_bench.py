#!/usr/bin/env python3
"""Speed with a card: a synthetic model with 10 % of the neurons firing, under budgets of device memory, beside llama.cpp.

Called by gpu_check.sh for its second part. For each budget (a share of the model's bytes) all modes are measured with
`powerinfer-bench --vram-total`; llama.cpp gets the same bytes of device memory, the driver's own included on both sides, in its
two ways: whole layers (-ngl), and attention on the card with the FFN of as many layers as fit (-ot). As many layers as stay
within the bytes are found by bisection, and the faster way counts.

Each measurement is a line of OUT/PART.jsonl as soon as it is made, ours before llama.cpp's; what fails costs only itself. Mode
predicted is measured with --samples, which fits a predictor to so many tokens first (minutes, on the CPU).
"""
import argparse
import json
import os
import subprocess
import sys
import time

PARTS = {"7b": ("7b:q4_0:0.1", 32), "mistral": ("mistral-7b:f16:0.1", 32), "tiny": ("test-2:q4_0:0.1", 2)}
# What a tiny model takes beside its weights, the driver's own as described in --hardware included.
BESIDE = {"tiny": 424 << 20}
SHARES = [1.10, 0.7, 0.25, 1.0, 0.5]


def run(args, check=True, **kwargs):
    print("+", " ".join(args), flush=True)
    done = subprocess.run(args, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs)
    if check and done.returncode != 0:
        sys.exit(f"{args[0]}: exit {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done


def device_memory_used():
    """Bytes of the card that are taken, by all programs."""
    text = run(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]).stdout
    return int(text.split()[0]) << 20


class Part:
    def __init__(self, args):
        self.args = args
        self.spec, self.n_layer = PARTS[args.part]
        self.modes = ["exact", "dense"] + (["predicted"] if args.samples else [])
        self.n_rows = self.n_failed = 0

    def tool(self, name):
        return os.path.join(self.args.bin, f"powerinfer-{name}")

    def work(self, name):
        return os.path.join(self.args.work, name)

    def model(self, *more):
        """Path of the synthetic model, written now."""
        made = run([self.tool("bench"), "--synthetic", self.spec, *more, "--cache-dir", self.args.work, "-p", "0", "-n", "1",
                    "-r", "1", "-o", "jsonl", "--device", "cpu", "-t", str(self.args.threads)])
        return json.loads(made.stdout.splitlines()[0])["model_filename"]

    def with_predictor(self, variant):
        """The variant with a predictor, in its place."""
        profile, predictor, packed = (self.work(n) for n in ("synthetic.profile", "synthetic.predictor", f"{self.args.part}.gguf"))
        n, t = str(self.args.samples), str(self.args.threads)
        run([self.tool("profile"), "-m", variant, "--random-tokens", n, "--samples", n, "-o", profile, "-t", t])
        run([self.tool("profile"), "-m", variant, "--predictor", "lowrank", "--samples-from", profile, "-o", predictor, "-t", t])
        run([self.tool("split"), "-m", variant, "--predictor", predictor, "-o", packed])
        os.remove(variant)
        return packed

    def ours(self, model, budget, mode):
        """The row of one mode, or nothing where it fails, which is said."""
        done = run([self.tool("bench"), "-m", model, "-p", "0", "-n", str(self.args.n_gen), "-r", str(self.args.repetitions),
                    "--text", "random", "--mode", mode, "--device", "cuda", "--vram-total", f"{budget}B",
                    "-t", str(self.args.threads), "-o", "jsonl", *(["--hardware", self.args.hardware] if self.args.hardware else [])],
                   check=False)
        if done.returncode != 0:
            print(f"{mode} within {budget}: exit {done.returncode}: {done.stderr.strip()[-300:]}", flush=True)
            return None
        return json.loads(done.stdout.splitlines()[0])

    def llama(self, model, budget):
        """Best tokens/s of llama.cpp in as many bytes, how, and with how many bytes."""
        program = os.path.join(self.args.llama, "llama-bench")
        base = device_memory_used()

        def measure(flags, n_gen, repetitions):
            child = subprocess.Popen([program, "-m", model, "-p", "0", "-n", str(n_gen), "-r", str(repetitions),
                                      "-t", str(self.args.threads), "-o", "json", *flags],
                                     stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            peak = 0
            while child.poll() is None:
                peak = max(peak, device_memory_used() - base)
                time.sleep(0.1)
            out = child.stdout.read()
            return (json.loads(out)[0]["avg_ts"], peak) if child.returncode == 0 else (0.0, peak)

        best = (0.0, "nothing fits", 0)
        ways = {"-ngl": lambda n: ["-ngl", str(n)],
                "-ot": lambda n: ["-ngl", "99", *(["-ot", self.ffn_on_cpu(n)] if n < self.n_layer else [])]}
        for name, flags in ways.items():
            fits, too_many = -1, self.n_layer + 2
            while too_many - fits > 1:
                n = (fits + too_many) // 2
                speed, peak = measure(flags(n), 1, 1)
                if speed > 0 and peak <= budget:
                    fits = n
                else:
                    too_many = n
            if fits >= 0:
                speed, peak = measure(flags(fits), self.args.n_gen, self.args.repetitions)
                if speed > best[0]:
                    best = (speed, f"{name} {fits}", peak)
        return best

    def ffn_on_cpu(self, n):
        """A pattern for the FFN of all but the first n layers."""
        layers = "|".join(str(i) for i in range(n, self.n_layer))
        return rf"blk\.({layers})\.ffn_.*=CPU"

    def keep(self, row):
        """Writes a row where it stays, whatever comes next."""
        with open(os.path.join(self.args.out, f"{self.args.part}.jsonl"), "a") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.n_rows += 1

    def measure(self):
        model, plain = self.model(), None
        if self.args.samples:
            model = self.with_predictor(model)
        size = os.path.getsize(model)
        print(f"\n{self.spec}, {size} bytes, {self.args.threads} threads", flush=True)
        beside = BESIDE.get(self.args.part, 0)
        budgets = [(share, int(size * share + beside) // (2 << 20) * (2 << 20)) for share in SHARES]
        best = {}
        for share, budget in budgets:
            for mode in self.modes:
                row = self.ours(model, budget, mode)
                if row is None or row["backend"] == "CPU":
                    self.n_failed += 1
                    continue
                self.keep({"share": share, "budget": budget, **row})
                best[share] = max(best.get(share, 0.0), row["avg_ts"])
                print(self.line(share, row), flush=True)
        if self.args.llama:
            plain = self.model("--synthetic-plain")
            for share, budget in budgets:
                speed, flags, taken = self.llama(plain, budget)
                self.keep({"share": share, "budget": budget, "llama": speed, "llama_flags": flags, "llama_bytes": taken})
                ratio = f", ours {best[share] / speed:.2f} times as fast" if speed and share in best else ""
                print(f"{100 * share:.0f} %: llama.cpp {speed:.2f} tokens/s ({flags}, {taken >> 20} MiB){ratio}", flush=True)
        for path in filter(None, (model, plain)):
            os.remove(path)
        speeds = ", ".join(f"{100 * share:.0f} %: {speed:.1f}" for share, speed in sorted(best.items(), reverse=True))
        if self.n_failed:
            sys.exit(f"{self.n_failed} measurements failed, {self.n_rows} rows; tokens/s at {speeds}")
        print(f"figure: tokens/s at {speeds}")

    @staticmethod
    def line(share, row):
        text = f"{100 * share:.0f} %: {row['mode']} {row['avg_ts']:.2f} tokens/s"
        if row.get("hot_share") is None:
            return text
        mib = "/".join(str(int(row[k]) >> 20) for k in ("vram_accounted", "vram_allocated", "vram_used"))
        return (f"{text}, {100 * row['hot_share']:.1f} % hot, CPU busy {100 * row['cpu_busy']:.0f} %, card waits "
                f"{100 * row['card_waits']:.0f} %, {row['tasks_per_token']:.1f} jobs a token, {100 * row['avg_ts'] / row['limit_ts']:.0f} % "
                f"of both limits, {mib} MiB accounted/allocated/gone")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--part", choices=PARTS, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--work", required=True, help="folder for models: one at a time, two with --llama")
    parser.add_argument("--llama", help="folder of llama-bench")
    parser.add_argument("--hardware", help="description to plan with [measured]")
    parser.add_argument("--n-gen", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--samples", type=int, default=0, help="tokens that a predictor is fitted to [none]")
    Part(parser.parse_args()).measure()


if __name__ == "__main__":
    main()
