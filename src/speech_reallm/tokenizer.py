"""SentencePiece and Hugging Face's tokenizers, wrapped: the only place that knows how pieces become text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import sentencepiece

from .errors import UserError
from .extras import install_command

# SentencePiece writes a space as this character (U+2581)
SPACE = "\u2581"
# <s>: what a reading decoder takes for its last piece before it has written any
START, END = 1, 2
# generous: a vocabulary of 256,000 pieces takes 35 MB
MAX_JSON_BYTES = 1 << 27


def open_tokenizer(path: str | Path) -> Tokenizer:
    """SentencePiece's `tokenizer.model`, or `tokenizer.json` of a published language model. Raises UserError."""
    return HuggingFaceTokenizer(path) if Path(path).suffix == ".json" else Tokenizer(path)


class Tokenizer:
    """Word pieces and their ids.

    Ids 0 to 3 are `<unk>`, `<s>`, `</s>` and `<blank>`; they stand for no text.
    """

    # in a model folder
    file_name = "tokenizer.model"

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


class HuggingFaceTokenizer(Tokenizer):
    """The pieces of a published language model, from its `tokenizer.json`, and BLANK, which is added as the last id.

    Byte-level BPE (GPT-2's way of spelling bytes) and SentencePiece's spelling are understood. Special tokens stand for
    no text.
    """

    file_name = "tokenizer.json"

    def __init__(self, path: str | Path) -> None:
        """Raises UserError for a missing or malformed file, and where the library `tokenizers` is missing."""
        self.path = Path(path)
        try:
            import tokenizers
        except ImportError:
            raise UserError(
                f"{path} is of a published language model, which needs: {install_command('tokenizers')}"
            ) from None
        try:
            if self.path.stat().st_size > MAX_JSON_BYTES:
                raise UserError(f"{path} is too large to be a tokenizer")
            text = self.path.read_text(encoding="utf-8")
            described = json.loads(text)
            self._tokenizer: Any = tokenizers.Tokenizer.from_str(text)
            self._special = {int(t["id"]) for t in described.get("added_tokens") or []}
            self._byte_level = "ByteLevel" in json.dumps(
                [described.get("decoder"), described.get("pre_tokenizer")]
            )
        except OSError as err:
            raise UserError(f"cannot read the tokenizer {path}: {err.strerror}") from None
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:
            # the library raises plain Exception, and what its Rust code panics with is not even that
            raise UserError(f"{path} is not a tokenizer of Hugging Face's") from None
        # nothing is padded or cut, whatever the file asks for
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._size = self._tokenizer.get_vocab_size(with_added_tokens=True) + 1

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; the first word begins with a space, as those within a text do."""
        ids: list[int] = self._tokenizer.encode(self._spaced(text), add_special_tokens=False).ids
        return ids

    def encode_pieces(self, text: str) -> list[str]:
        pieces: list[str] = self._tokenizer.encode(self._spaced(text), add_special_tokens=False).tokens
        return pieces

    def _spaced(self, text: str) -> str:
        # SentencePiece's spelling brings its own
        return f" {text}" if self._byte_level and text else text

    def piece(self, index: int) -> str:
        if not 0 <= index < self._size:
            raise IndexError(f"id {index} is outside the vocabulary of {self._size}")
        return self._tokenizer.id_to_token(index) or "<blank>"

    def id(self, piece: str) -> int:
        index = self._tokenizer.token_to_id(piece)
        return 0 if index is None else index

    @cached_property
    def ids_by_text(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for index in range(self._size - 1):
            text = self.text_bytes(index).decode("utf-8", errors="replace").replace(" ", SPACE)
            # of a piece that is part of a character there is no text
            if text and "\ufffd" not in text:
                found.setdefault(text, index)
        return found

    def starts_word(self, index: int) -> bool:
        return self.text_bytes(index).startswith(b" ")

    def text_bytes(self, index: int) -> bytes:
        if not 0 <= index < self._size - 1 or index in self._special:
            return b""
        piece = self._tokenizer.id_to_token(index) or ""
        if self._byte_level:
            return bytes(_bytes_by_character()[c] for c in piece if c in _bytes_by_character())
        if match := re.fullmatch(r"<0x([0-9A-Fa-f]{2})>", piece):
            return bytes([int(match[1], 16)])
        return piece.replace(SPACE, " ").encode("utf-8", errors="replace")


@cache
def _bytes_by_character() -> dict[str, int]:
    """GPT-2's spelling of bytes: those that can be seen as they are, the others as U+0100 and what follows."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (byte for byte in range(256) if byte not in seen)
    return {chr(byte): byte for byte in seen} | {chr(0x100 + n): byte for n, byte in enumerate(others)}
