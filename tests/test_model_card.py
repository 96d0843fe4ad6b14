"""The card of the built-in model has the head that model hubs read, and is still read as before."""

from __future__ import annotations

from pathlib import Path

import pytest

from speech_reallm.cli.models import figures_of, licence_of, read_card

CARD = Path(__file__).parents[1] / "src/speech_reallm/models/default/README.md"


def test_front_matter() -> None:
    yaml = pytest.importorskip("yaml")
    start, head, body = CARD.read_text(encoding="utf-8").split("---\n", 2)
    fields = yaml.safe_load(head)
    assert start == ""
    assert (fields["language"], fields["license"]) == ("en", "apache-2.0")
    assert fields["pipeline_tag"] == "automatic-speech-recognition"
    assert body.lstrip().startswith("# reallm-default-en")


def test_figures_and_licence_are_still_found() -> None:
    card = read_card(CARD)
    assert licence_of(card).startswith("Apache-2.0")
    assert any("WER" in name for name in figures_of(card))
