"""A folder to a file."""

import math
import signal

from . import family as families_of
from . import floats, rope, tokenizer
from .checkpoint import Checkpoint
from .config import Config
from .fail import fail
from .families import ALL
from .gguf_file import GgufFile, Keys


def find(config):
    """The family that config.json names: by `model_type`, or by `architectures`."""
    classes, kind = config.raw.get("architectures"), config.raw.get("model_type")
    classes = [name for name in classes if isinstance(name, str)] if isinstance(classes, list) else []
    for family in ALL:
        if (set(family.classes) & set(classes) or (not classes and kind in family.types)) and family.meant(config):
            return family
    known = ", ".join(name for family in ALL for name in family.types)
    fail(f"{config.path}: model_type {str(kind)[:60]} ({', '.join(classes) or 'no architectures'}) is not supported; {known} are")


def stored(part, kind):
    """The type of a tensor in a file of `kind`."""
    return kind if len(part.shape) > 1 and not part.exact else "f32"


def convert(folder, out, kind, name, pre):
    """Writes `out`; `kind` is a type of matrices, or `auto`. Gives the tensors and the activation."""
    config = Config(folder / "config.json")
    family = find(config)
    config = config.of(family)
    families_of.check(family, config)
    checkpoint = Checkpoint(folder, family.prefixes)
    if kind == "auto":
        kind = checkpoint.usual_kind()
    parts = families_of.plan(family, config, checkpoint)
    extra = rope.tensors(config) if family.rotates else {}
    keys = Keys(family.arch)
    keys.string("general.name", name or folder.resolve().name)
    keys.u32("general.file_type", floats.TYPES[kind][1])
    activation = families_of.write_keys(family, config, keys)
    tokenizer.write_keys(keys, folder, config["n_vocab"], config.raw, pre)

    tensors = [(tensor, array.shape, 0, array.nbytes) for tensor, array in extra.items()]
    for tensor, part in parts.items():
        target = stored(part, kind)
        tensors.append((tensor, part.shape, floats.TYPES[target][0], math.prod(part.shape) * floats.size(target)))
    if out.exists() and any(out.samefile(file) for file in folder.iterdir() if file.exists()):
        fail(f"{out}: is an input and would be overwritten; give another name to --outfile")
    # A signal to end leaves no file behind, either.
    signal.signal(signal.SIGTERM, lambda *_: fail(f"{out}: ended by a signal"))
    with GgufFile(out, keys, tensors) as file:
        for array in extra.values():
            file.append([array.tobytes()])
        for tensor, part in parts.items():
            file.append(pieces(tensor, part, checkpoint, stored(part, kind)))
    return tensors, activation


def pieces(tensor, part, checkpoint, target):
    for bits, source in families_of.bits(part, checkpoint):
        for piece in floats.converted(bits, source, target):
            if piece is None:
                fail(f"{part.sources[0]}: a value is too large for f16, as which {tensor} is to be written; --outtype bf16 or f32 takes it")
            yield piece
