"""A miniature corpus of tones, and training runs on it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
import torch
from tones import Corpus, write_corpus, write_tokenizer


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Such small matrices gain nothing from more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """24 utterances; not to be changed."""
    folder = tmp_path_factory.mktemp("corpus")
    return write_corpus(folder / "speech", 24, *write_tokenizer(folder))


@pytest.fixture(scope="session")
def four_clips(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("four")
    return write_corpus(folder, 4, corpus.text, corpus.tokenizer, seed=3)


@pytest.fixture(scope="session")
def processes() -> ForkServerContext:
    """Starts processes that have imported what takes long: torch is read once, not in every one of them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["children"])
    return context


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "run"
