"""The pieces of docs/python.md run, one after another."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from fake_model import speech
from fake_sounddevice import fake_sounddevice

from speech_reallm.errors import UserError
from speech_reallm.modelfolder import find_model

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


def test_the_pieces_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        find_model(None)
    except UserError as err:
        pytest.skip(str(err))
    monkeypatch.chdir(ROOT)
    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice(speech(4, rate=48000)))
    pieces = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert len(pieces) == 6
    names: dict = {}
    for piece in pieces:
        exec(compile(piece, "docs/python.md", "exec"), names)
    out = capsys.readouterr().out
    assert "00:00:0" in out and "missing.wav: no such file" in out and "1 Built-in Microphone" in out


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)", PAGE):
        assert target.startswith("https://") or (ROOT / "docs" / target).exists(), target
