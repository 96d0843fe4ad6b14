"""SentencePiece, wrapped: the only place where pieces become text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import sentencepiece

from .errors import UserError

# SentencePiece writes a space as this character (U+2581)
SPACE = "\u2581"
# <s>: what a reading decoder takes for its last piece before it has written any
START, END = 1, 2


class Tokenizer:
    """Word pieces and their ids.

    Ids 0 to 3 are `<unk>`, `<s>`, `</s>` and `<blank>`; they stand for no text.
    """

    def __init__(self, path: str | Path) -> None:
        """Read a `tokenizer.model`. Raises UserError for a missing or malformed file."""
        self.path = Path(path)
        self._model = sentencepiece.SentencePieceProcessor()
        try:
            self._model.LoadFromSerializedProto(self.path.read_bytes())
        except OSError as err:
            raise UserError(f"cannot read the tokenizer {path}: {err.strerror}") from None
        except (RuntimeError, TypeError, ValueError):
            raise UserError(f"{path} is not a SentencePiece model") from None
        self._size = self._model.GetPieceSize()
        if not self._size:
            raise UserError(f"{path} is not a SentencePiece model")

    def __len__(self) -> int:
        return self._size

    @property
    def vocab_size(self) -> int:
        return self._size

    def encode(self, text: str) -> list[int]:
        """Ids of `text`."""
        ids: list[int] = self._model.EncodeAsIds(text)
        return ids

    def encode_pieces(self, text: str) -> list[str]:
        """Pieces of `text`, as strings; a leading U+2581 marks the start of a word."""
        pieces: list[str] = self._model.EncodeAsPieces(text)
        return pieces

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`; control symbols stand for nothing, so does `<unk>`."""
        data = b"".join(self.text_bytes(int(i)) for i in ids)
        return data.decode("utf-8", errors="replace").strip(" ")

    def piece(self, index: int) -> str:
        """The piece with this id, as SentencePiece spells it."""
        if not 0 <= index < self._size:
            raise IndexError(f"id {index} is outside the vocabulary of {self._size}")
        return self._model.IdToPiece(index)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        return [self.piece(i) for i in ids]

    def id(self, piece: str) -> int:
        """Id of a piece; that of `<unk>` where there is none."""
        return self._model.PieceToId(piece)

    @cached_property
    def ids_by_text(self) -> dict[str, int]:
        """Ids of the pieces that stand for characters, by these, with U+2581 for a space."""
        model = self._model
        special = (model.IsControl, model.IsUnknown, model.IsUnused, model.IsByte)
        return {
            model.IdToPiece(index): index
            for index in range(self._size)
            if not any(is_special(index) for is_special in special)
        }

    def starts_word(self, index: int) -> bool:
        """Does this piece begin a new word?"""
        return index < self._size and self._model.IdToPiece(index).startswith(SPACE)

    def text_bytes(self, index: int) -> bytes:
        """What a piece adds to the text, in UTF-8: a space where a word starts, nothing for control symbols.

        Bytes rather than characters, for a piece of a byte-fallback vocabulary may be part of a character.
        An id beyond the vocabulary (a padded output layer) adds nothing.
        """
        if not 0 <= index < self._size:
            return b""
        model = self._model
        if model.IsControl(index) or model.IsUnknown(index) or model.IsUnused(index):
            return b""
        piece = model.IdToPiece(index)
        if model.IsByte(index):
            return bytes([int(piece[3:5], 16)])
        return piece.replace(SPACE, " ").encode("utf-8")
