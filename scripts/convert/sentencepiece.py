"""tokenizer.model: a SentencePiece model of type BPE, with what other files add to it."""

from . import protobuf
from .checkpoint import read_json_if_there
from .fail import fail, reason
from .vocabulary import NORMAL, Vocabulary

# Numbers of fields: of the model, of a piece, of the trainer's and the normalizer's settings.
PIECES, TRAINER, NORMALIZER = 1, 2, 3
TEXT, SCORE, KIND = 1, 2, 3
MODEL_TYPE, ADD_DUMMY_PREFIX = 3, 3
# Of the trainer's model types.
UNIGRAM, BPE = 1, 2


def read(path):
    """(pieces as (text, score, kind), model type, whether a space is put before the text)"""
    pieces, model_type, prefix = [], UNIGRAM, True
    try:
        for number, value in protobuf.fields(path.read_bytes()):
            if number == PIECES:
                piece = dict(protobuf.fields(value))
                pieces.append((piece.get(TEXT, b"").decode(), float(piece.get(SCORE, 0.0)), int(piece.get(KIND, NORMAL))))
            elif number == TRAINER:
                model_type = dict(protobuf.fields(value)).get(MODEL_TYPE, UNIGRAM)
            elif number == NORMALIZER:
                prefix = bool(dict(protobuf.fields(value)).get(ADD_DUMMY_PREFIX, 1))
    except OSError as e:
        fail(f"{path}: {reason(e)}")
    except (ValueError, TypeError) as e:
        fail(f"{path}: not a SentencePiece model: {e}")
    return pieces, model_type, prefix


def vocabulary(path, n_vocab):
    pieces, model_type, prefix = read(path)
    if model_type != BPE:
        fail(f"{path}: only SentencePiece models of type BPE are read")
    if len(pieces) > n_vocab:
        fail(f"{path}: {len(pieces)} tokens, but the model has {n_vocab}")
    if not pieces or not all(1 <= kind <= 6 for _, _, kind in pieces):
        fail(f"{path}: not a SentencePiece model")
    vocab = Vocabulary("llama", n_vocab)
    for i, (text, score, kind) in enumerate(pieces):
        vocab.set(i, text, kind, score)  # the two enumerations agree
    vocab.add_space_prefix = prefix
    folder = path.parent
    decoder = read_json_if_there(folder / "tokenizer_config.json").get("added_tokens_decoder", {})
    entries = [{"id": int(i), **entry} for i, entry in decoder.items()]
    added = read_json_if_there(folder / "added_tokens.json")
    known = {entry["id"] for entry in entries}
    entries += [{"id": i, "content": text} for text, i in added.items() if i not in known]
    vocab.set_added(entries, path)
    return vocab
