"""Model folders that are broken in every way: one line that says what is wrong, and nothing else."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from random import Random

import pytest
from fake_model import speech
from fuzzing import LENGTHS, altered, damaged, odd_value, rounds, shown

from speech_reallm import Recognizer, UserError


def check(folder: Path) -> None:
    """It is refused in a line, or recognises something."""
    try:
        recognizer = Recognizer.load(folder)
        stream = recognizer.stream()
        stream.accept(speech(1.0))
        stream.finish()
    except UserError as err:
        assert str(err) and "\n" not in str(err)


@pytest.mark.parametrize("seconds", LENGTHS)
def test_broken_configurations(seconds: float | None, model_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_folder, folder)
    good = (model_folder / "config.json").read_bytes()
    for chance in rounds(seconds, 120):
        text = broken(good, chance)
        (folder / "config.json").write_bytes(text)
        shown(text, lambda: check(folder))


@pytest.mark.parametrize("seconds", LENGTHS)
def test_damaged_tokenizers(seconds: float | None, model_folder: Path, tmp_path: Path) -> None:
    """With the right checksums: the folder was made like that."""
    folder = tmp_path / "model"
    shutil.copytree(model_folder, folder)
    good = (model_folder / "tokenizer.model").read_bytes()
    config = json.loads((model_folder / "config.json").read_text())
    for chance in rounds(seconds, 40):
        data = damaged(good, chance)
        (folder / "tokenizer.model").write_bytes(data)
        config["sha256"]["tokenizer.model"] = hashlib.sha256(data).hexdigest()
        (folder / "config.json").write_text(json.dumps(config))
        shown(data[:500], lambda: check(folder))


def broken(text: bytes, chance: Random) -> bytes:
    if chance.random() < 0.3:
        return damaged(text, chance)
    config = json.loads(text)
    if chance.random() < 0.5:
        # one that the checksums do not stand in the way of
        config[chance.choice([key for key in config if key != "sha256"])] = odd_value(chance)
    else:
        config = altered(config, chance)
    return json.dumps(config).encode()
