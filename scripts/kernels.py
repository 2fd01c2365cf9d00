#!/usr/bin/env python3
"""Compiles kernels/*.cu to the PTX that is committed, and checks it. No GPU and no CUDA installation needed: the
compilers come from PyPI, in fixed versions, into a cache folder.

    scripts/kernels.py build                      writes kernels/ptx/*.ptx and kernels/ptx/MANIFEST.toml
    scripts/kernels.py check [--report FILE]      rebuilds, compares bytes, assembles for every target; fails on spills
    scripts/kernels.py try kernels/x.cu ...       compiles these only, prints registers and spills; writes nothing

A source is compiled for compute_75. A first line `// targets: 75 80` in a .cu asks for more.
"""
import argparse
import concurrent.futures
import ctypes
import hashlib
import importlib.metadata
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
# The oldest NVRTC of CUDA 12: its PTX (ISA 8.0) loads with every driver from R525 on.
NVRTC, HEADERS, PTXAS = "12.0.140", "12.0.146", "12.9.86"
OPTIONS = ["--std=c++17", "-default-device"]
DEFAULT_TARGETS = [75]
ARCHITECTURES = [75, 80, 86, 89, 90, 100, 120]
TRY_ARCHITECTURES = [75, 90, 120]


def package(cache, name, version):
    """The folder into which a PyPI package of this version is installed; downloads it once."""
    folder = cache / f"{name}-{version}"
    if not folder.exists():
        print(f"kernels.py: fetching {name} {version}", file=sys.stderr)
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as work:
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]
            subprocess.run([*command, "--disable-pip-version-check", "--target", work, f"{name}=={version}"], check=True)
            try:
                os.rename(work, folder)
            except OSError:  # another run was faster
                if not folder.exists():
                    raise
            os.makedirs(work, exist_ok=True)  # so that it can be removed
    installed = [d.version for d in importlib.metadata.distributions(path=[str(folder)])]
    if installed != [version]:
        sys.exit(f"kernels.py: {folder}: holds {installed}, not {version}: remove it")
    return folder / "nvidia"


class Compiler:
    """NVRTC, loaded from its wheel."""

    def __init__(self, cache):
        home = package(cache, "nvidia-cuda-nvrtc-cu12", NVRTC) / "cuda_nvrtc" / "lib"
        self.headers = package(cache, "nvidia-cuda-runtime-cu12", HEADERS) / "cuda_runtime" / "include"
        for builtins in home.glob("libnvrtc-builtins.so*"):
            ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
        self.lib = ctypes.CDLL(str(next(home.glob("libnvrtc.so.*"))))

    def ptx(self, source, target):
        """The PTX of one file for `compute_<target>`. Exits with the compiler's log where it does not compile."""
        lib, program, size = self.lib, ctypes.c_void_p(), ctypes.c_size_t()
        text, name = source.read_bytes(), source.name.encode()
        if lib.nvrtcCreateProgram(ctypes.byref(program), text, name, 0, None, None) != 0:
            sys.exit(f"kernels.py: {source}: NVRTC refuses the source")
        options = [f"--gpu-architecture=compute_{target}", *OPTIONS, f"-I{source.parent}", f"-I{self.headers}"]
        words = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
        code = lib.nvrtcCompileProgram(program, len(options), words)
        lib.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        lib.nvrtcGetProgramLog(program, log)
        if log.value.strip():
            print(log.value.decode(errors="replace"), file=sys.stderr)
        if code != 0:
            sys.exit(f"kernels.py: {source}: does not compile for compute_{target}")
        lib.nvrtcGetPTXSize(program, ctypes.byref(size))
        out = ctypes.create_string_buffer(size.value)
        lib.nvrtcGetPTX(program, out)
        lib.nvrtcDestroyProgram(ctypes.byref(program))
        return out.value


def targets(source):
    first = source.read_text().split("\n", 1)[0]
    asked = re.fullmatch(r"//\s*targets:((?:\s+\d+)+)\s*", first)
    return [int(t) for t in asked[1].split()] if asked else DEFAULT_TARGETS


def compile_all(compiler, sources):
    """[(source, target, ptx bytes)], in the order of names."""
    return [(s, t, compiler.ptx(s, t)) for s in sources for t in targets(s)]


def kernel_names(ptx):
    return re.findall(rb"\.visible \.entry (\w+)\(", ptx)


def ptx_name(source, target):
    return f"{source.stem}.sm{target}.ptx"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def manifest(folder, built):
    """The text of MANIFEST.toml."""
    lines = [
        "# Written by scripts/kernels.py build. tests/house/kernel_manifest.rs compares it with the files.",
        f'nvrtc = "{NVRTC}"',
        f'headers = "{HEADERS}"',
        "options = [" + ", ".join(f'"{o}"' for o in OPTIONS) + "]",
        "",
        "[sources]",
    ]
    for source in sorted([*folder.glob("*.cu"), *folder.glob("*.cuh")]):
        lines.append(f'"{source.name}" = "{sha256(source.read_bytes())}"')
    for source, target, ptx in built:
        names = ",\n".join(f'    "{n.decode()}"' for n in kernel_names(ptx))
        lines += [
            "",
            "[[ptx]]",
            f'file = "{ptx_name(source, target)}"',
            f'source = "{source.name}"',
            f"target = {target}",
            f'sha256 = "{sha256(ptx)}"',
            f"kernels = [\n{names},\n]",
        ]
    return "\n".join(lines) + "\n"


def assemble(ptxas, ptx_file, arch):
    """[(kernel, registers, shared bytes, stack bytes, spill bytes)] of one PTX on one architecture."""
    done = subprocess.run(
        [str(ptxas), "-v", f"-arch=sm_{arch}", str(ptx_file), "-o", os.devnull], capture_output=True, text=True
    )
    if done.returncode != 0:
        sys.exit(f"kernels.py: {ptx_file.name} for sm_{arch}:\n{done.stderr}")
    rows = []
    for part in done.stderr.split("Compiling entry function '")[1:]:
        number = lambda pattern: sum(int(n) for n in re.findall(pattern, part))
        rows.append(
            (
                part.split("'", 1)[0],
                number(r"Used (\d+) registers"),
                number(r"(\d+) bytes smem"),
                number(r"(\d+) bytes stack frame"),
                number(r"(\d+) bytes spill"),
            )
        )
    return rows


def assemble_all(cache, built, archs):
    """{(source name, kernel): {(target, architecture): row}}; a PTX is only given to architectures that can load it."""
    ptxas = package(cache, "nvidia-cuda-nvcc-cu12", PTXAS) / "cuda_nvcc" / "bin" / "ptxas"
    ptxas.chmod(0o755)
    table = {}
    with tempfile.TemporaryDirectory() as work, concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = []
        for source, target, ptx in built:
            file = pathlib.Path(work) / ptx_name(source, target)
            file.write_bytes(ptx)
            jobs += [(source, target, a, pool.submit(assemble, ptxas, file, a)) for a in archs if a >= target]
        for source, target, arch, job in jobs:
            for kernel, *row in job.result():
                table.setdefault((source.name, target, kernel), {})[arch] = row
    return table


def problems(table):
    for (source, target, kernel), rows in table.items():
        for arch, (_, _, _, spilled) in rows.items():
            if spilled:
                yield f"{source}: {kernel} (compute_{target}) spills {spilled} bytes on sm_{arch}"


def unresolved(built):
    for source, target, ptx in built:
        for name in re.findall(rb"\.extern \.func[^;]*?(\w+)\s*\(", ptx):
            yield f"{source.name} (compute_{target}): `{name.decode()}` is not resolved"


def report(table):
    lines = [
        "# Registers of the GPU kernels",
        "",
        f"Written by `scripts/kernels.py check --report docs/ptxas.md`: PTX of NVRTC {NVRTC}, assembled by ptxas {PTXAS}.",
        "Registers per thread for each architecture, static shared memory and stack in bytes (the largest of all).",
        "No kernel spills; the check fails where one does.",
        "",
        "| kernel | PTX | " + " | ".join(f"sm_{a}" for a in ARCHITECTURES) + " | shared | stack |",
        "|---|---|" + "---:|" * (len(ARCHITECTURES) + 2),
    ]
    for (source, target, kernel), rows in sorted(table.items()):
        cells = [str(rows[a][0]) if a in rows else "" for a in ARCHITECTURES]
        shared, stack = (max(r[i] for r in rows.values()) for i in (1, 2))
        stem = pathlib.Path(source).stem
        lines.append(f"| `{kernel}` | {stem}.sm{target} | " + " | ".join(cells) + f" | {shared} | {stack} |")
    return "\n".join(lines) + "\n"


def fail(errors):
    for error in errors:
        print(f"kernels.py: {error}", file=sys.stderr)
    sys.exit(1 if errors else 0)


def build(cache, sources, folder):
    built = compile_all(Compiler(cache), sources)
    errors = list(unresolved(built))
    if errors:
        fail(errors)
    out = folder / "ptx"
    out.mkdir(exist_ok=True)
    wanted = {ptx_name(s, t) for s, t, _ in built}
    for old in out.glob("*.ptx"):
        if old.name not in wanted:
            old.unlink()
    for source, target, ptx in built:
        (out / ptx_name(source, target)).write_bytes(ptx)
    (out / "MANIFEST.toml").write_text(manifest(folder, built))
    print(f"{len(built)} files, {sum(len(kernel_names(p)) for *_, p in built)} kernels")


def check(cache, sources, folder, report_to):
    built = compile_all(Compiler(cache), sources)
    errors = list(unresolved(built))
    out = folder / "ptx"
    same = lambda file, data: file.exists() and file.read_bytes() == data
    files = [(ptx_name(s, t), ptx) for s, t, ptx in built]
    for name, data in [*files, ("MANIFEST.toml", manifest(folder, built).encode())]:
        if not same(out / name, data):
            errors.append(f"kernels/ptx/{name}: not what the sources give: run scripts/kernels.py build and commit")
    table = assemble_all(cache, built, ARCHITECTURES)
    errors += problems(table)
    if report_to and not errors:
        report_to.write_text(report(table))
    print(f"{len(built)} files, {len(table)} kernels, {sum(len(r) for r in table.values())} assemblies")
    fail(errors)


def try_some(cache, sources):
    built = compile_all(Compiler(cache), sources)
    table = assemble_all(cache, built, TRY_ARCHITECTURES)
    for (source, target, kernel), rows in sorted(table.items()):
        for arch, (registers, shared, stack, spilled) in rows.items():
            print(
                f"{source} compute_{target} sm_{arch}  {registers:3} registers {shared:6} shared {stack:4} stack"
                f" {spilled:4} spilled  {kernel}"
            )
    fail([*unresolved(built), *problems(table)])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=pathlib.Path, default=ROOT / "target" / "nvrtc", help="[target/nvrtc]")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build")
    checking = commands.add_parser("check")
    checking.add_argument("--report", type=pathlib.Path, help="write the table of registers here")
    trying = commands.add_parser("try")
    trying.add_argument("source", type=pathlib.Path, nargs="+")
    args = parser.parse_args()
    folder = ROOT / "kernels"
    sources = sorted(folder.glob("*.cu"))
    if args.command == "build":
        build(args.cache, sources, folder)
    elif args.command == "check":
        check(args.cache, sources, folder, args.report)
    else:
        try_some(args.cache, args.source)


if __name__ == "__main__":
    main()
