#!/usr/bin/env python3
"""Compare perplexity and greedy tokens of tiny random models of every architecture with the reference's and with llama.cpp's.

    pip install -r scripts/requirements.txt llama-cpp-python
    python scripts/compare_forms.py --bin target/release [--seed N] [NAME...]

The models are those of scripts/make_arch_gguf.py, made anew with --seed (1: those of tests/golden/arch), with a vocabulary of
letters, as most have none. Of each, with its own activation and, where that is never zero, with ReLU:

    perplexity     powerinfer-bench over random letters, dense (a prompt at a time) and exact (token by token), against scripts/reference.py
                   and, where it knows the form, llama.cpp over the same windows: within 0.02 %
    greedy tokens  powerinfer-run, dense and exact, against those that the reference prefers, and llama.cpp where it knows the
                   form; equal, up to where the reference itself has two tokens that are as likely

Quantized weights are given twenty times as much: the program rounds activations, too, as llama.cpp does, and the reference does not.
So is GELU beside llama.cpp, which has a table of half precision for it.

Prints a table, and why llama.cpp does not open a form; exits with 1 where something is apart. Without llama-cpp-python it goes
without llama.cpp.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import gguf
import numpy as np

import make_arch_gguf
import reference

try:
    import compare_logits
except ImportError:
    compare_logits = None

# llama.cpp insists on it in phi3.
END = "<|endoftext|>"
LETTERS = ["<unk>", "<s>", "</s>", "▁", *map(chr, range(ord("a"), ord("z") + 1)), END]
BOS, EOS, N_CTX, N_WINDOWS, N_GREEDY = 1, 2, 64, 4, 12
PROMPT = "once upon a time"
TOLERANCE = 2e-4
# How much more than usual may be apart where somebody rounds.
ROUNDED = 20
# Forms that llama.cpp opens and takes for others: it has windows in few architectures, and scales logits by another default.
TAKEN_FOR_OTHERS = ("llama-window", "qwen3-window", "minicpm-old")
# Of the logits' spread: two that are nearer may come out in either order.
TIE = 1e-4
# The same where somebody rounds.
ROUNDED_TIE = 1e-2
# Why llama.cpp does not open a form, by the form's name.
unknown = {}


def with_letters(source, target):
    """The model at `source` with a vocabulary of letters, and whatever fills it, in place of its own."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.get_field("general.architecture").contents())
    for name, field in reader.fields.items():
        if name.startswith(("GGUF.", "tokenizer.")) or name == "general.architecture":
            continue
        kind, of = field.types[0], field.types[-1]
        writer.add_key_value(name, field.contents(), kind, sub_type=of if kind == gguf.GGUFValueType.ARRAY else None)
    n_vocab = next(int(tensor.shape[1]) for tensor in reader.tensors if tensor.name == "token_embd.weight")
    tokens = [*LETTERS, *(f"[{i}]" for i in range(len(LETTERS), n_vocab))]
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(i) for i in range(n_vocab)])
    writer.add_token_types([*kinds, *[gguf.TokenType.NORMAL] * (n_vocab - len(kinds))])
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tokens_of(text):
    return [BOS, *(LETTERS.index("▁" if letter == " " else letter) for letter in text)]


def window_of(path):
    """Tokens that are scored together: fewer where the model has no positions for more."""
    return min(N_CTX, reference.Model(path).key("context_length"))


def perplexity(path, tokens, logits_of):
    """By llama.cpp's protocol, with these logits."""
    nats, n_ctx = [], window_of(path)
    for start in range(0, len(tokens) - n_ctx + 1, n_ctx):
        window = [BOS, *tokens[start + 1 : start + n_ctx]]
        rows = logits_of(window)
        top = rows.max(-1)
        of_all = np.log(np.exp(rows - top[:, None]).sum(-1)) + top
        nats += [of_all[i] - rows[i, window[i + 1]] for i in range(n_ctx // 2, n_ctx - 1)]
    return np.exp(np.mean(nats))


def follow(logits_of, tokens, greedy, tie):
    """Whether each of `greedy` is what is likeliest after those before, or as likely; ends of the text are not asked for."""
    for i, token in enumerate(greedy):
        row = logits_of([*tokens, *greedy[:i]])[-1]
        nearly = tie * (row.max() - row.min())
        row[[EOS, LETTERS.index(END)]] = -np.inf
        if row[token] < row.max() - nearly:
            return f"other from token {i + 1} on"
    return "same"


def tool(command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command[0]}: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout)


def llama_cpp(path, name, activation):
    """Logits of llama.cpp as a function of tokens; `None` where it cannot be asked."""
    if not compare_logits or activation or name in TAKEN_FOR_OTHERS or own_activation(path) != usual_activation(path):
        return None
    n_vocab = len(reference.Model(path)["token_embd.weight"])

    def logits_of(tokens):
        return compare_logits.llama_cpp_logits(path, tokens, n_vocab)

    try:
        logits_of([BOS])
    except SystemExit as error:
        unknown[name] = str(error).removeprefix(f"{path}: ")
        return None
    return logits_of


def rows_of(path, name, args, activation, text):
    """Lines of the table for one model with one activation: mode, perplexity, how far apart, greedy tokens."""
    own = ["--activation", activation] if activation else []
    usual = ["-m", path, "-t", "2", "--cache-type", "f32", *args.device, *own]
    by_llama_cpp = llama_cpp(path, name, activation)
    judges = [lambda tokens: reference.logits(path, tokens, activation), *([by_llama_cpp] if by_llama_cpp else [])]
    expected = [perplexity(path, tokens_of(text.read_text()), judge) for judge in judges]
    ties = [TIE if more == 1 else ROUNDED_TIE for more in slack(path)]
    command = [args.bin / "powerinfer-bench", *usual, "--perplexity", text, "-c", window_of(path), "--mode", "dense,exact", "-o", "json"]
    for row in tool(command):
        prompt = tokens_of(PROMPT)
        command = [args.bin / "powerinfer-run", *usual, "-p", PROMPT, "-n", N_GREEDY, "--temp", "0", "--ignore-eos", "--json"]
        greedy = tool([*command, "--mode", row["mode"]])["tokens"]
        followed = [follow(judge, prompt, greedy, tie) for judge, tie in zip(judges, ties)]
        yield row["mode"], row["perplexity"], [row["perplexity"] / value - 1 for value in expected], followed


def slack(path):
    """How much more than usual the model may be apart: of the reference, and of llama.cpp."""
    quantized = any(tensor.tensor_type != gguf.GGMLQuantizationType.F32 for tensor in gguf.GGUFReader(path).tensors)
    return [ROUNDED if rounded else 1 for rounded in (quantized, quantized or own_activation(path) == "gelu")]


def usual_activation(path):
    """The name of the function that the reference takes where nothing is said, as llama.cpp does."""
    return reference.ARCHITECTURES[reference.Model(path).arch].__defaults__[0].__name__


def own_activation(path):
    """The name of the file's function."""
    return reference.Model(path).key("hidden_activation", usual_activation(path))


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(make_arch_gguf.MODELS)} (default: all)")
    ap.add_argument("--bin", type=Path, required=True, metavar="DIR", help="folder of the commands")
    ap.add_argument("--seed", type=int, default=1, help="of the weights and the text (default: 1)")
    ap.add_argument("--device", default="cpu", help="--device of the commands (default: cpu)")
    args = ap.parse_args()
    args.device, args.bin = ["--device", args.device], args.bin.resolve()
    apart = []
    columns = "model", "activation", "mode", "perplexity", "from the reference", "from llama.cpp", "greedy, reference", "greedy, llama.cpp"
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    if compare_logits:
        compare_logits.begin()
    with tempfile.TemporaryDirectory() as folder:
        text, made, path = (Path(folder) / name for name in ("letters.txt", "made.gguf", "model.gguf"))
        rng = np.random.default_rng([26, args.seed])
        text.write_text("".join(chr(c) if c < 123 else " " for c in rng.integers(97, 124, N_CTX * N_WINDOWS)))
        for name in args.names or make_arch_gguf.MODELS:
            make_arch_gguf.write(made, name, args.seed)
            with_letters(made, path)
            own = own_activation(path)
            for activation in (None,) if "relu" in own else (None, "relu"):
                for mode, value, ratios, followed in rows_of(path, name, args, activation, text):
                    shown = [f"{ratio:+.1e}" for ratio in ratios] + ["-"] * (2 - len(ratios))
                    cells = [name, activation or own, mode, f"{value:.4f}", *shown, *followed, *["-"] * (2 - len(followed))]
                    print("| " + " | ".join(cells) + " |", flush=True)
                    within = all(abs(ratio) <= TOLERANCE * more for ratio, more in zip(ratios, slack(path)))
                    if not within or set(followed) != {"same"}:
                        apart.append(f"{name}, {activation or own}, {mode}")
    for name, why in unknown.items():
        print(f"\n{name}: llama.cpp: {why}")
    if apart:
        raise SystemExit(f"apart: {'; '.join(apart)}")


if __name__ == "__main__":
    main()
