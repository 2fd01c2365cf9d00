#!/usr/bin/env python3
"""Speed with a card: synthetic models with 10 % of the neurons firing, under budgets of device memory, beside llama.cpp.

Called by gpu_check.sh. One model is on the disk at a time. For each budget (a share of the model's bytes) all modes are
measured with `powerinfer-bench --vram-total`; llama.cpp gets the same bytes of device memory, the driver's own included on both
sides, in its two ways: whole layers (-ngl), and attention on the card with the FFN of as many layers as fit (-ot). As many
layers as stay within the bytes are found by bisection, and the faster way counts.
"""
import argparse
import json
import os
import subprocess
import sys
import time

PARTS = {"7b": ("7b:q4_0:0.1", 32), "mistral": ("mistral-7b:f16:0.1", 32)}
SHARES = [1.10, 1.0, 0.7, 0.5, 0.25]
MODES = ["dense", "exact", "predicted"]


def run(args, check=True, **kwargs):
    print("+", " ".join(args), file=sys.stderr, flush=True)
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
        self.rows = []

    def tool(self, name):
        return os.path.join(self.args.bin, f"powerinfer-{name}")

    def make(self):
        """The variant with a predictor, and the plain file for llama.cpp. Returns their paths."""
        bench, t = self.tool("bench"), str(self.args.threads)
        env = dict(os.environ, XDG_CACHE_HOME=os.path.abspath(os.path.join(self.args.out, "models")))
        self.env = env
        made = lambda *more: run([bench, "--synthetic", self.spec, *more, "-p", "0", "-n", "1", "-r", "1", "-o", "json",
                                  "--device", "cpu", "-t", t], env=env)
        variant = json.loads(made().stdout)[0]["model_filename"]
        plain = json.loads(made("--synthetic-plain").stdout)[0]["model_filename"] if self.args.llama else None
        profile, predictor = (os.path.join(self.args.out, n) for n in ("synthetic.profile", "synthetic.predictor"))
        n = str(self.args.samples)
        run([self.tool("profile"), "-m", variant, "--random-tokens", n, "--samples", n, "-o", profile, "-t", t], env=env)
        run([self.tool("profile"), "-m", variant, "--predictor", "lowrank", "--samples-from", profile, "-o", predictor, "-t", t],
            env=env)
        packed = os.path.join(self.args.out, f"{self.args.part}.gguf")
        run([self.tool("split"), "-m", variant, "--predictor", predictor, "-o", packed], env=env)
        os.remove(variant)
        return packed, plain

    def ours(self, model, budget):
        rows = []
        for mode in MODES:
            done = run([self.tool("bench"), "-m", model, "-p", "0", "-n", str(self.args.n_gen), "-r", str(self.args.repetitions),
                        "--text", "random", "--mode", mode, "--device", "cuda", "--vram-total", f"{budget}B",
                        "-t", str(self.args.threads), "-o", "json"], check=False, env=self.env)
            if done.returncode != 0:
                print(f"{mode} within {budget}: exit {done.returncode}: {done.stderr.strip()[-300:]}")
                continue
            rows.append(json.loads(done.stdout)[0])
        return rows

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

    def table(self):
        model, plain = self.make()
        size = os.path.getsize(model)
        head = "| bytes | mode | tokens/s | llama.cpp | ratio | hot | CPU busy | card waits | jobs/token | of both limits | accounted | allocated | gone |"
        rule = "|---" * (head.count("|") - 1) + "|"
        print(f"\n{self.spec}, {size} bytes, {self.args.threads} threads\n\n{head}\n{rule}")
        for share in SHARES:
            budget = int(size * share) // (2 << 20) * (2 << 20)
            peer = self.llama(plain, budget) if plain else (0.0, "not run", 0)
            for row in self.ours(model, budget):
                ratio = f"{row['avg_ts'] / peer[0]:.2f}" if peer[0] else "-"
                theirs = f"{peer[0]:.2f} ({peer[1]})" if peer[0] else "-"
                if "hot_share" in row:
                    card = [f"{100 * row['hot_share']:.1f} %", f"{100 * row['cpu_busy']:.0f} %",
                            f"{100 * row['card_waits']:.0f} %", f"{row['tasks_per_token']:.1f}",
                            f"{100 * row['avg_ts'] / row['limit_ts']:.0f} %"]
                    card += [str(row[k] >> 20) for k in ("vram_accounted", "vram_allocated", "vram_used")]
                else:
                    card = ["-"] * 8
                print("| " + " | ".join([f"{100 * share:.0f} %", row["mode"], f"{row['avg_ts']:.2f}", theirs, ratio, *card]) + " |",
                      flush=True)
                self.rows.append({"share": share, "llama": peer[0], "llama_flags": peer[1], "llama_bytes": peer[2], **row})
        with open(os.path.join(self.args.out, f"{self.args.part}.json"), "w") as file:
            json.dump(self.rows, file, indent=1)
        for path in (model, plain):
            if path:
                os.remove(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--part", choices=PARTS, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--llama")
    parser.add_argument("--n-gen", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--samples", type=int, default=2048, help="tokens that the predictor is fitted to")
    Part(parser.parse_args()).table()


if __name__ == "__main__":
    main()
