#!/usr/bin/env python3
"""Write docs/models.md: what is read, and how right it is, from the tests and from models.toml.

    pip install -r scripts/requirements.txt llama-cpp-python
    python scripts/models_doc.py [--facts FACTS.json]

`cargo test` measures the golden models (tests/library/models_doc.rs); --facts takes what it has measured. llama.cpp is asked for
its logits where it is installed (`scripts/compare_logits.py`); where it is not, what the document says of it stays.
"""

import argparse
import json
import math
import os
import re
import subprocess
import tempfile
import tomllib
from fractions import Fraction
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GOLDEN, DOC = ROOT / "tests/golden/arch", ROOT / "docs/models.md"
# Activations with zeros.
SPARSE = ("relu", "relu2", "drelu", "fatrelu")
# What the tokenizers of their models are: SPM is SentencePiece's, others are `tokenizer.ggml.pre`.
TOKENIZERS = {
    "llama": "SPM, `llama-bpe`, `tekken`, `smollm`, `deepseek-llm`, `deepseek-coder`",
    "bamboo": "SPM",
    "arcee": "`llama-bpe`",
    "qwen2": "`qwen2`",
    "qwen3": "`qwen2`",
    "granite": "`refact`",
    "minicpm": "SPM",
    "smollm3": "`smollm3` as `llama-bpe`",
    "nemotron": "SPM",
    "nemotron_h": "`pixtral`",
    "nemotron_h_moe": "`pixtral`",
    "olmo2": "`dbrx`",
    "mistral3": "`tekken`",
    "stablelm": "`gpt-2`, `stablelm2`",
    "starcoder2": "`starcoder`",
    "exaone": "`exaone`",
    "opt": "`gpt-2`",
    "falcon": "`falcon`",
    "jais2": "`jais-2`",
    "phi3": "SPM, `gpt-4o`, `dbrx`",
    "gemma2": "SPM",
    "gemma3": "SPM",
    "plm": "`qwen2`",
    "smallthinker": "`qwen2`",
    "qwen3moe": "`qwen2`",
    "granitemoe": "`refact`",
    "gpt-oss": "`gpt-4o`",
}
# Golden models whose weights are not floats: activations are rounded, too.
ROUNDED = ("-q8", "-mxfp4")
# Architectures whose FFN has no gate, whether they are read or not.
UNGATED = ("nemotron_h", "nemotron_h_moe", "rwkv7", "opt", "falcon", "jais2", "plm")
# Why llama.cpp's logits are others.
OTHERWISE = {
    "minicpm-old": "without the key it divides logits by the inverse",
    "gelu": "its GELU is a table of half precision",
    "gelu_erf": "it takes another activation",
    "gelu_quick": "it takes another activation",
    "fatrelu": "it takes another activation",
    "drelu": "it takes another activation",
    "llama-window": "it has no windows there",
    "qwen3-window": "it has no windows there",
    "qwen3moe-q8": "it rounds activations to 8 bits, and so do we",
    "gpt-oss-mxfp4": "it rounds activations to 8 bits, and so do we",
}
HEAD = """# Models

Written by `scripts/models_doc.py` from the tests and models.toml; `cargo test` holds it against what it measures.

## Architectures

What exact mode can skip of the FFN's bytes is bounded by its form: a gate is computed in full, and rows of up and columns of down
are skipped where it rests, two thirds of the bytes; without a gate, up is computed in full and down is skipped, half of them. What
is skipped is that share times the share of neurons that rest. A predictor lifts the bound. Activations that are never zero
leave nothing to skip; files say theirs by a key, by their name in models.toml, or by `--activation`.

All are judged by an implementation of their formulas in NumPy with 64-bit floats (`scripts/reference.py`), on tiny random models;
those that llama.cpp knows, by its logits, too; the converter by transformers' own logits (`scripts/compare_transformers.py`)
where transformers has the architecture. "To" is the largest difference of all logits, relative to the largest. Perplexities
and greedy text of the same forms are in [correctness.md](correctness.md#forms).
"""
PUBLISHED = """
## Published models whose activation has zeros

From models.toml: what is zero was measured here where we have the weights, and is cited from their authors where not. "Saves" is of
the FFN's bytes in exact mode: the bound above times what is zero (of dReLU less: rows of up are
read wherever the gate is above zero); of mixtures of experts, of the chosen experts' bytes.
"""
MEASURED = """
## Measured

Tiny random models of tests/golden/arch (`scripts/make_arch_gguf.py` says what each is). The error is that of all logits against the
reference: dense and exact, token by token and as a prompt, F32, relative to the largest logit. Exact mode is compared with dense
bit for bit, with ReLU where the model's own activation has no zeros. On a card the same models, eight times as wide, give what the
CPU gives (`tests/gpu/architectures.rs`, under the emulator); what a card does not compute, it names and leaves to the CPU.
"""


def measured():
    """What the test measures of each golden model."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "facts.json"
        command = ["cargo", "test", "--locked", "--test", "library", "--", "models_doc"]
        subprocess.run(command, cwd=ROOT, env=os.environ | {"POWERINFER_FACTS": str(path)}, check=True)
        return json.loads(path.read_text())


def rounded_up(x):
    """Two digits would promise more than another processor keeps."""
    if x == 0:
        return "0"
    power = math.floor(math.log10(x))
    digit = math.ceil(x / 10**power - 1e-9)
    return f"{digit}e{power}" if digit < 10 else f"1e{power + 1}"


def llama_cpp(facts):
    """Of each golden model, how far llama.cpp's logits are from the reference's."""
    try:
        from compare_logits import llama_cpp_logits
    except ImportError:
        text = DOC.read_text() if DOC.exists() else ""
        rows = [row.strip("|").split("|") for row in text.split("## Measured")[-1].splitlines() if row.startswith("| `")]
        return {row[0].strip(" `"): row[3].strip() for row in rows}
    import numpy as np

    found = {}
    for name, fact in facts.items():
        golden = json.loads((GOLDEN / f"{name}.json").read_text())
        expected = np.array(golden["logits"])
        try:
            if golden["activation"]:
                raise SystemExit("not with that activation")
            got = llama_cpp_logits(GOLDEN / f"{name}.gguf", golden["tokens"], expected.shape[1])
        except SystemExit as e:
            found[name] = str(e) if golden["activation"] else "does not know it"
            continue
        apart = np.abs(got - expected).max() / np.abs(expected).max()
        reason = OTHERWISE.get(name) or OTHERWISE.get(fact["activation"].split(":")[0]) if apart > 1e-5 else None
        found[name] = f"to {rounded_up(apart)}" + (f": {reason}" if reason else "")
    return found


def table(columns, rows):
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def bound(gated):
    return Fraction(2, 3) if gated else Fraction(1, 2)


def known():
    """The architectures, in the order of the library's list: names, and what is said of their models."""
    folder = ROOT / "src/model/arch"
    listed = (folder / "mod.rs").read_text().split("KNOWN: &[&dyn Architecture] = &[")[1].split("];")[0]
    modules = re.findall(r"&(?:(\w+)::)?\w+,", listed)
    texts = [(folder / f"{module or 'llama'}.rs").read_text() for module in modules]
    names = [re.search(r'fn name\(&self\) -> &\'static str \{\s*"([^"]+)"', text)[1] for text in texts]
    return {name: text.splitlines()[0].removeprefix("//! ").rstrip(".") for name, text in zip(names, texts)}


def lacking():
    """What a card lacks of golden models, as the list in the tests of cards has it; None where there is none."""
    path = ROOT / "tests/gpu/architectures.rs"
    if not path.exists():
        return None
    listed = path.read_text().split("const LACKING")[1].split("];")[0]
    return dict(re.findall(r'\("([^"]+)",\s*"([^"]+)"\)', listed))


def of_arch(facts, arch):
    return {name: fact for name, fact in facts.items() if fact["architecture"] == arch}


def architectures(facts, judged, lacks):
    rows = []
    # These say of themselves, in code, that transformers has no code of them.
    text = Path(__file__).with_name("compare_transformers.py").read_text().split("not here:")[1].split("\n\"\"\"")[0]
    without = set(re.findall(r"[\w-]+", text))
    for arch, models in known().items():
        its = of_arch(facts, arch)
        own = its.get(arch) or next(iter(its.values()))
        gated, stem = own["gated"], own["activation"].split(":")[0]
        others = sorted({fact["activation"].split(":")[0] for fact in its.values()} - {stem})
        most = str(bound(gated)) if stem in SPARSE else f"nothing; {bound(gated)} with ReLU"
        worst = max(fact["error"] for name, fact in its.items() if not name.endswith(ROUNDED))
        # Where llama.cpp computes another model, for a reason that the other table states, it judges nothing.
        said = [judged[name] for name in its if judged.get(name, "").startswith("to ") and not name.endswith(ROUNDED)]
        figures = [float(text.split()[1].rstrip(":")) for text in said if ":" not in text or "GELU is a table" in text]
        judges = [f"NumPy to {rounded_up(worst)}"]
        if figures:
            judges.append(f"llama.cpp to {rounded_up(max(figures))}")
        if arch not in without:
            judges.append("transformers")
        same = "yes" if all(fact["same_bits"] for fact in its.values()) else "no"
        without_card = sum(name in (lacks or {}) for name in its)
        card = f"{len(its) - without_card} of {len(its)} forms" if without_card else "yes"
        if lacks is None or without_card == len(its):
            card = "not tested" if lacks is None else "no"
        form = f"{'gated' if gated else 'ungated'}, {stem}" + (f"; tested with {', '.join(others)}, too" if others else "")
        rows.append([f"`{arch}`", models, form, most, TOKENIZERS[arch], "; ".join(judges), same, card])
    columns = ["architecture", "models", "FFN", "exact skips at most", "tokenizers", "judged by", "exact is dense, bit for bit", "card, emulated"]
    return table(columns, rows)


def published(facts):
    rows = []
    for model in tomllib.loads((ROOT / "models.toml").read_text())["model"]:
        activation, arch = model["activation"], model["architecture"]
        if activation.split(":")[0] not in SPARSE and arch != "gemma3n":
            continue
        its = of_arch(facts, arch)
        gated = next(iter(its.values()))["gated"] if its else arch not in UNGATED
        zeros = model.get("sparsity")
        said = f"{zeros:.0%} ({model['sparsity_is']})" if zeros else "not known"
        saves = f"{float(bound(gated)) * (zeros or 1):.0%}"
        # Of dReLU, rows of up are read where the gate is above zero: for more neurons than fire.
        saves = saves if zeros and activation != "drelu" else f"at most {saves}"
        state = "run here" if model["verified"] else "not run here" if its else "not read yet"
        rows.append([model["name"], f"`{arch}`", activation, said, saves, state])
    return table(["model", "architecture", "activation", "zero", "saves", "state"], rows)


def golden(facts, judged, lacks):
    rows = []
    for name, fact in facts.items():
        same = "yes" if fact["same_bits"] else "no"
        card = "not tested" if lacks is None else lacks.get(name, "yes")
        rows.append([f"`{name}`", fact["activation"], rounded_up(fact["error"]), judged.get(name, ""), same, card])
    return table(["model", "activation", "error", "llama.cpp", "exact is dense", "card"], rows)


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--facts", type=Path, metavar="FACTS.json", help="what the test has measured, instead of running it")
    args = ap.parse_args()
    facts = dict(sorted((json.loads(args.facts.read_text()) if args.facts else measured()).items()))
    judged = llama_cpp(facts)
    lacks = lacking()
    parts = [HEAD, architectures(facts, judged, lacks), PUBLISHED, published(facts), MEASURED, golden(facts, judged, lacks)]
    DOC.write_text("\n".join(part.strip() + "\n" for part in parts))
    print(f"{DOC}: {len(facts)} golden models of {len(known())} architectures")


if __name__ == "__main__":
    main()
