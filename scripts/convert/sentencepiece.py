"""tokenizer.model: a SentencePiece model of type BPE, with what other files add to it."""

from . import protobuf
from .checkpoint import read_json_if_there
from .fail import fail, reason
from .tokenizer_json import added_tokens
from .vocabulary import BYTE, NORMAL, Vocabulary

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


def vocabulary(path, settings, n_vocab):
    """`settings` is tokenizer_config.json."""
    pieces, model_type, prefix = read(path)
    if not pieces or not all(NORMAL <= kind <= BYTE for _, _, kind in pieces):
        fail(f"{path}: not a SentencePiece model")
    if model_type != BPE:
        fail(f"{path}: only SentencePiece models of type BPE are read")
    if len(pieces) > n_vocab:
        fail(f"{path}: {len(pieces)} tokens, but the model has {n_vocab}")
    vocab = Vocabulary("llama", n_vocab)
    for i, (text, score, kind) in enumerate(pieces):
        vocab.set(i, text, kind, score)  # the two enumerations agree
    vocab.add_space_prefix = prefix
    vocab.set_added(added(path.parent, settings), path)
    return vocab


def added(folder, settings):
    """Tokens that came later: those of tokenizer_config.json, and of added_tokens.json what these are not."""
    decoder = settings.get("added_tokens_decoder") or {}
    if not isinstance(decoder, dict) or not all(i.isdecimal() and isinstance(entry, dict) for i, entry in decoder.items()):
        fail(f"{folder / 'tokenizer_config.json'}: added_tokens_decoder makes no sense")
    entries = [{**entry, "id": int(i)} for i, entry in decoder.items()]
    known = {entry["id"] for entry in entries}
    path = folder / "added_tokens.json"
    more = read_json_if_there(path)
    entries += [{"id": i, "content": text} for text, i in more.items() if i not in known]
    return added_tokens(path, entries)
