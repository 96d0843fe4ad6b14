"""One browser for all tests of the page, and a few seconds of speech as its microphone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
from browser import DEMO, Page, chromium

SECONDS = 5


@pytest.fixture(scope="session")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first seconds of the demo as WAV: "good morning i am speaking and you can read my words while ..."."""
    file = tmp_path_factory.mktemp("sound") / "spoken.wav"
    with soundfile.SoundFile(DEMO) as source:
        soundfile.write(file, source.read(SECONDS * source.samplerate), source.samplerate, subtype="PCM_16")
    return file


@pytest.fixture(scope="session")
def page(spoken: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("browser"), spoken) as page:
        yield page
