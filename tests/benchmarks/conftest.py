"""What the tests of the benchmarks share."""

from pathlib import Path

import pytest

from speech_reallm.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """That of the default model."""
    return Tokenizer(Path(__file__).parents[2] / "src/speech_reallm/models/default/tokenizer.model")
