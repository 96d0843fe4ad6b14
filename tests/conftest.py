"""Fixtures shared by the tests."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

# before torch is imported: the models of the tests are so small that a second thread costs more than it gives
os.environ.setdefault("OMP_NUM_THREADS", "1")
# tests that import onnxruntime before the package send nothing either; nor does Selenium's manager
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["SE_AVOID_STATS"] = "true"

import pytest

if TYPE_CHECKING:
    from speech_reallm import Recognizer


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model; not to be changed."""
    from fake_model import write_model

    return write_model(tmp_path_factory.mktemp("models") / "fake")


@pytest.fixture(scope="session")
def recognizer(model_folder: Path) -> Recognizer:
    from speech_reallm import Recognizer

    return Recognizer.load(model_folder)
