"""A tokenizer of the pieces of Moonshine's decoder: the part of Llama's vocabulary that English needs.

Ids in the published `tokenizer.json` ("old" ids): 0 `<unk>`, 1 `<s>`, 2 `</s>`, 3 to 258 single bytes, then
merged pieces in the order in which BPE merges them, then single characters; from 32000 on special tokens.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from ...errors import UserError
from ...text import clean_cased
from ...tokenizer import SPACE, Tokenizer
from .texts import lines_of

# protobuf makes its classes when the module is imported: no type checker can see them
proto: Any = sentencepiece_model_pb2

_FIRST_PIECE = 259
_FIRST_SPECIAL = 32000
# `<unk>`, `<s>`, `</s>`, `<blank>`; blank is not in the old vocabulary, the end of the text is nearest
_SPECIAL = (("<unk>", 0), ("<s>", 1), ("</s>", 2), ("<blank>", 2))
_CHARACTERS = SPACE + "".join(map(chr, range(0x21, 0x7F)))


def read_tokenizer(folder: str | Path) -> list[bytes]:
    """The pieces of `folder`/tokenizer.json, UTF-8, by published id. Raises UserError."""
    path = Path(folder) / "tokenizer.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        known = dict(data["model"]["vocab"]) | {t["content"]: t["id"] for t in data["added_tokens"]}
        # an id that no piece has stands for nothing
        pieces = [b""] * (max(known.values()) + 1)
        for piece, index in known.items():
            pieces[index] = _bytes_of(piece)
    except OSError as err:
        raise UserError(f"cannot read {path}: {err.strerror}{_advice(path.parent)}") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise UserError(f"{path} is not a tokenizer of Moonshine's") from None
    if len(pieces) <= _FIRST_PIECE or pieces[1:3] != [b"<s>", b"</s>"]:
        raise UserError(f"{path} is not a tokenizer of Moonshine's")
    return pieces


def _bytes_of(piece: str) -> bytes:
    """A piece of tokenizer.json; single bytes are spelled <0x00> to <0xFF>."""
    match = re.fullmatch(r"<0x([0-9A-F]{2})>", piece)
    return bytes([int(match[1], 16)]) if match else piece.encode()


def _advice(folder: Path) -> str:
    packed = (folder / "tokenizer.bin").is_file()
    return "; convert the folder with recipes/tools/convert_moonshine.py" if packed else ""


def old_ids(tokenizer: Tokenizer, folder: str | Path) -> list[int]:
    """The old id of each piece of a tokenizer that make_tokenizer() has made from `folder`. Raises UserError."""
    known = _pieces(folder)
    ids = [old for _, old in _SPECIAL]
    for index in range(len(ids), len(tokenizer)):
        piece = tokenizer.piece(index)
        if piece not in known:
            raise UserError(f"{tokenizer.path}: Moonshine's vocabulary in {folder} has no piece {piece!r}")
        ids.append(known[piece])
    return ids


def whole_tokenizer(folder: str | Path, out: str | Path) -> int:
    """All pieces of the vocabulary in `folder` that are text. Returns how many, special ones included.

    Raises UserError.
    """
    known = _pieces(folder)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    Path(out).write_bytes(_model(known).SerializeToString())
    return len(known) + len(_SPECIAL)


def make_tokenizer(folder: str | Path, texts: Sequence[str], vocab: int, out: str | Path) -> float:
    """Keep `vocab` pieces of the vocabulary in `folder`: the most frequent of the texts, and all ASCII characters.

    The texts are text files or .jsonl manifests; they are cleaned (text.clean_cased()). Words are cut as
    Llama cuts them wherever all its pieces are kept. Returns the share, 0 to 1, of the texts' pieces that are.
    Raises UserError.
    """
    known = _pieces(folder)
    words = Counter(word for line in lines_of(texts) for word in clean_cased(line).split())
    if not words:
        raise UserError("the texts hold no words")
    whole = _processor(known)
    counts: Counter[str] = Counter()
    for (_, count), pieces in zip(words.items(), whole.EncodeAsPieces(list(words)), strict=True):
        for piece in pieces:
            counts[piece] += count
    kept = _choose(known, counts, vocab - len(_SPECIAL))
    _check(known, kept)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    Path(out).write_bytes(_model({p: old for p, old in known.items() if p in kept}).SerializeToString())
    return sum(n for p, n in counts.items() if p in kept) / counts.total()


def merges(word: str, known: dict[str, int]) -> list[str]:
    """The pieces that BPE makes on its way from the characters of `word`; the last one is `word` if it is a piece."""
    parts = list(word)
    made: list[str] = []
    while True:
        pairs = [(known[a + b], i) for i, (a, b) in enumerate(itertools.pairwise(parts)) if a + b in known]
        if not pairs:
            return made
        _, i = min(pairs)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
        made.append(parts[i])


def _pieces(folder: str | Path) -> dict[str, int]:
    """Old ids of the pieces, bytes and special tokens left out."""
    known: dict[str, int] = {}
    for old, piece in enumerate(read_tokenizer(folder)[_FIRST_PIECE:_FIRST_SPECIAL], _FIRST_PIECE):
        # nothing is ever cut into control characters, which SentencePiece takes for spaces or refuses
        if (text := piece.decode("utf-8", errors="replace")) and text.replace(SPACE, "a").isprintable():
            known.setdefault(text, old)
    return known


def _choose(known: dict[str, int], counts: Counter[str], size: int) -> set[str]:
    """`size` pieces: the characters, then the most frequent ones with all that is merged on the way to them."""
    kept = {c for c in _CHARACTERS if c in known}
    if len(kept) > size:
        raise UserError(f"--vocab must be at least {len(kept) + len(_SPECIAL)}: all characters are kept")
    usual = [p for p, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if p in known]
    # where the texts do not fill the vocabulary, Llama's own order does
    for piece in [*usual, *known]:
        made = merges(piece, known)
        if not piece.isascii() and not piece.replace(SPACE, "").isascii():
            continue
        if not made or made[-1] != piece:
            continue
        added = set(made) - kept
        if len(kept) + len(added) <= size:
            kept |= added
        if len(kept) == size:
            return kept
    raise UserError(f"there are only {len(kept) + len(_SPECIAL)} pieces to choose from, --vocab wants more")


def _model(known: dict[str, int], prefix: bool = True) -> Any:
    """A SentencePiece BPE model that merges in the order of old ids; `prefix`: a word begins with U+2581."""
    model = proto.ModelProto()
    types = proto.ModelProto.SentencePiece
    for piece, _ in _SPECIAL:
        model.pieces.add(piece=piece, score=0.0, type=types.UNKNOWN if piece == "<unk>" else types.CONTROL)
    for piece, old in known.items():
        model.pieces.add(piece=piece, score=-float(old), type=types.NORMAL)
    trainer = model.trainer_spec
    trainer.model_type = proto.TrainerSpec.BPE
    trainer.vocab_size = len(model.pieces)
    trainer.unk_id, trainer.bos_id, trainer.eos_id, trainer.pad_id = 0, 1, 2, -1
    trainer.control_symbols.append("<blank>")
    trainer.byte_fallback = False
    normalizer = model.normalizer_spec
    normalizer.name = "identity"
    normalizer.add_dummy_prefix = prefix
    normalizer.remove_extra_whitespaces = prefix
    normalizer.escape_whitespaces = True
    return model


def _processor(known: dict[str, int], prefix: bool = True) -> sentencepiece.SentencePieceProcessor:
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(_model(known, prefix).SerializeToString())
    return processor


def _check(known: dict[str, int], kept: set[str]) -> None:
    """Every kept piece is what its own text is cut into, with the kept pieces alone. Raises ValueError."""
    processor = _processor({p: known[p] for p in kept}, prefix=False)
    lost = [p for p in sorted(kept) if processor.EncodeAsPieces(p) != [p]]
    if lost:
        raise ValueError(f"pieces that are never made: {lost[:10]}")
