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


def pytest_configure(config: pytest.Config) -> None:
    # what the recogniser says about damaged recordings is no fault of the code; tests read it where it is shown. It is
    # named here, since its name in pyproject.toml would import the package before the environment is set
    config.addinivalue_line("filterwarnings", "default::speech_reallm.audio.AudioWarning")


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model; not to be changed."""
    from fake_model import write_model

    return write_model(tmp_path_factory.mktemp("models") / "fake")


@pytest.fixture(scope="session")
def recognizer(model_folder: Path) -> Recognizer:
    from speech_reallm import Recognizer

    return Recognizer.load(model_folder)
