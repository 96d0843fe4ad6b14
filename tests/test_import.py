"""The runtime stands on its own: importing it brings in nothing of the training side."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import speech_reallm

HEAVY = ("torch", "lhotse", "transformers", "scipy", "yaml", "jiwer", "matplotlib", "av", "sounddevice")


def modules_after(code: str) -> set[str]:
    """Top-level modules that are loaded after `code` has run in a new interpreter."""
    code += "\nimport sys; print(' '.join(sorted({m.split('.')[0] for m in sys.modules})))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_import_is_light() -> None:
    loaded = modules_after("import speech_reallm")
    assert not loaded & {*HEAVY, "numpy", "onnxruntime"}


def test_the_recogniser_needs_no_training_library() -> None:
    assert not modules_after("from speech_reallm import Recognizer") & set(HEAVY)


def test_listing_the_verbs_imports_nothing_heavy() -> None:
    code = "from speech_reallm.cli.main import verbs; assert any(v.NAME == 'transcribe' for v in verbs())"
    assert not modules_after(code) & {*HEAVY, "onnxruntime"}


def test_everything_promised_is_there() -> None:
    for name in speech_reallm.__all__:
        assert getattr(speech_reallm, name) is not None
        assert name in dir(speech_reallm)
    with pytest.raises(AttributeError):
        _ = speech_reallm.Nothing


def test_one_version() -> None:
    project = Path(__file__).parents[1] / "pyproject.toml"
    assert re.search(r'^version = "(.*)"', project.read_text(), re.MULTILINE)[1] == speech_reallm.__version__
