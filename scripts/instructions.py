#!/usr/bin/env python3
"""Instructions that the kernels for AArch64 execute per 32 weights and vector, counted under QEMU; with a checkout of ggml,
those of its kernels beside them.

    scripts/instructions.py [--ggml FOLDER] [--types q4_0,q8_0] [--program PATH]

Needs qemu-aarch64 with plugins of version 1 (QEMU 4.2 to 8.2), gcc for the host and for aarch64-linux-gnu, and Rust's target of that name. Both are compiled as they
are released: ours by `cargo build --release`, ggml's with -O3 for the instruction set of the column (repacked weights, too, which
llama.cpp uses where the processor allows it; nrc = 2 where it has that). Every count is the difference between two runs of one
process with more and with fewer rows of 4,096 columns, so that what comes before and after does not count.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = "aarch64-unknown-linux-gnu"
TYPES = "f32 f16 bf16 q8_0 q4_0 q4_1 q5_0 q5_1 iq4_nl mxfp4 q2_k q3_k q4_k q5_k q6_k iq4_xs".split()
ISAS = {"neon": "armv8-a", "dotprod": "armv8.2-a+dotprod", "i8mm": "armv8.6-a+dotprod+i8mm"}
COLUMNS, FEW, MANY = 4096, 32, 96
# What is counted: its name, and the number of vectors.
OURS = [("dot", 1), ("dot", 2), ("dot", 4), ("add", 1), ("prompt", 48)]
THEIRS = [("dot", 1), ("pairs", 2), ("gemv", 1), ("gemm", 48)]


def run(command, **options):
    try:
        return subprocess.run(command, check=True, **options)
    except FileNotFoundError:
        sys.exit(f"error: {command[0]} is needed and not there")
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: {' '.join(map(str, command))}: exit status {error.returncode}")


def executed(plugin, command):
    """Instructions of one run, or None where the program says (3) that it has no such kernel."""
    environment = dict(os.environ, QEMU_LD_PREFIX="/usr/aarch64-linux-gnu", QEMU_CPU="max")
    line = ["qemu-aarch64", "-plugin", plugin, *map(str, command)]
    try:
        done = subprocess.run(line, capture_output=True, text=True, env=environment)
    except FileNotFoundError:
        sys.exit("error: qemu-aarch64 is needed and not there")
    if done.returncode == 3:
        return None
    _, told, count = done.stderr.rpartition("instructions: ")
    if done.returncode != 0 or not told:
        sys.exit(f"error: {' '.join(map(str, command))}: {done.stderr.strip() or 'the plugin counts nothing'}")
    return int(count)


def per_block(plugin, program, what, vectors):
    counts = [executed(plugin, [*program, *what, vectors, rows, COLUMNS]) for rows in (FEW, MANY)]
    if None in counts:
        return "-"
    return f"{(counts[1] - counts[0]) / ((MANY - FEW) * COLUMNS / 32 * vectors):.1f}"


def compiled_ggml(folder, march, work):
    source = Path(folder) / "src"
    options = ["-O3", f"-march={march}", "-ffunction-sections", "-DNDEBUG", "-w", "-D_GNU_SOURCE", f"-I{source}/../include", f"-I{source}", f"-I{source}/ggml-cpu"]
    objects = []
    files = ["ggml-cpu/arch/arm/quants.c", "ggml-cpu/quants.c", "ggml-cpu/arch/arm/repack.cpp", "ggml-cpu/vec.cpp"]
    for file in [source / file for file in files] + [ROOT / "scripts/instructions/ggml.cpp"]:
        compiler, standard = ("g++", "gnu++17") if file.suffix == ".cpp" else ("gcc", "gnu11")
        objects.append(work / f"{march}-{len(objects)}.o")
        run([f"aarch64-linux-gnu-{compiler}", f"-std={standard}", *options, "-c", file, "-o", objects[-1]])
    program = work / f"ggml-{march}"
    # What these kernels do not reach is left out, with what it would need.
    run(["aarch64-linux-gnu-g++", "-static", "-Wl,--gc-sections,--unresolved-symbols=ignore-all", *objects, "-lm", "-o", program])
    return program


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ggml", metavar="FOLDER", help="a checkout of ggml, or the folder ggml of llama.cpp")
    parser.add_argument("--types", default=",".join(TYPES), help="which ones, separated by commas")
    parser.add_argument("--program", help="examples/row_products for AArch64, where it has been built")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        plugin = work / "count.so"
        run(["cc", "-O2", "-fPIC", "-shared", "-o", plugin, ROOT / "scripts/instructions/count.c"])
        ours = arguments.program
        if not ours:
            os.environ.setdefault("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc")
            os.environ.setdefault("CC_aarch64_unknown_linux_gnu", "aarch64-linux-gnu-gcc")
            run(["cargo", "build", "--release", "--locked", "--example", "row_products", "--target", TARGET], cwd=ROOT)
            ours = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / TARGET / "release/examples/row_products"
        theirs = {isa: compiled_ggml(arguments.ggml, march, work) for isa, march in ISAS.items()} if arguments.ggml else {}
        columns = [f"{what} {n}" for what, n in OURS] + ([f"ggml {what} {n}" for what, n in THEIRS] if theirs else [])
        print("| type | isa |", " | ".join(columns), "|")
        print("|---|---|" + "---:|" * len(columns))
        for dtype in arguments.types.split(","):
            for isa in ISAS:
                cells = [per_block(plugin, [ours, dtype, isa], [what], n) for what, n in OURS]
                for what, n in THEIRS if theirs else []:
                    pairs = isa == "i8mm" and dtype in ("q4_0", "q4_1", "q8_0", "q4_k", "q6_k")
                    known = what != "pairs" or pairs
                    cells.append(per_block(plugin, [theirs[isa], dtype], [what], n) if known else "-")
                print("|", dtype, "|", isa, "|", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
