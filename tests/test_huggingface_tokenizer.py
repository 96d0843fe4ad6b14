"""Tokenizers of published language models: text there and back, piece by piece; files that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_reallm.errors import UserError
from speech_reallm.tokenizer import HuggingFaceTokenizer, Tokenizer, open_tokenizer

tokenizers: Any = pytest.importorskip("tokenizers")
TEXT = [
    "the cat sat on the mat. The dog, too!",
    "naïve cafés in Zürich: 12 coins",
    "a stitch in time saves nine",
] * 5


def write(path: Path, kind: str) -> Path:
    """byte: as GPT-2, Llama 3 and SmolLM2 spell; metaspace: as Llama 2 does, bytes where a character has no piece."""
    special = ["<|endoftext|>"] if kind == "byte" else ["<unk>", *(f"<0x{n:02X}>" for n in range(256))]
    made = tokenizers.Tokenizer(tokenizers.models.BPE(byte_fallback=kind != "byte"))
    if kind == "byte":
        made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = tokenizers.decoders.ByteLevel()
    else:
        made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet() if kind == "byte" else []
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=600, special_tokens=special, show_progress=False, initial_alphabet=alphabet
    )
    made.train_from_iterator(TEXT, trainer)
    made.save(str(path))
    if kind != "byte":
        # bytes are pieces of text there, and no special tokens
        data = json.loads(path.read_text())
        data["added_tokens"] = data["added_tokens"][:1]
        path.write_text(json.dumps(data))
    return path


@pytest.fixture(scope="module", params=["byte", "metaspace"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return open_tokenizer(write(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json", request.param))


@settings(max_examples=25, deadline=None)
@given(
    words=st.lists(
        st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1), max_size=6
    )
)
def test_text_there_and_back(tokenizer: Tokenizer, words: list[str]) -> None:
    text = " ".join(words)
    ids = tokenizer.encode(text)
    if tokenizer._byte_level or text.replace("\u2581", "") == text:  # type: ignore[attr-defined]
        assert tokenizer.decode(ids) == text
    assert all(0 <= i < tokenizer.vocab_size - 1 for i in ids)


def test_words_begin_with_a_space_and_are_found(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("the cat sat")
    assert [tokenizer.starts_word(i) for i in ids].count(True) == 3
    assert b"".join(tokenizer.text_bytes(i) for i in ids) == b" the cat sat"
    assert tokenizer.encode("") == [] and tokenizer.decode([]) == ""
    assert [tokenizer.id(p) for p in tokenizer.encode_pieces("the cat")] == tokenizer.encode("the cat")


def test_blank_and_special_tokens_stand_for_nothing(tokenizer: Tokenizer) -> None:
    blank = tokenizer.vocab_size - 1
    assert len(tokenizer) == tokenizer.vocab_size
    assert tokenizer.piece(blank) == "<blank>"
    for index in (0, blank, blank + 1, -1):
        assert tokenizer.text_bytes(index) == b"" and not tokenizer.starts_word(index)
    with pytest.raises(IndexError):
        tokenizer.piece(blank + 1)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"model": 7}', '{"version": "1.0", "model": null}', "\x80"]
)
def test_files_that_are_no_tokenizer(content: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match="is not a tokenizer of Hugging Face's"):
        open_tokenizer(path)


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read the tokenizer"):
        HuggingFaceTokenizer(tmp_path / "tokenizer.json")
