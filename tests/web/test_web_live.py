"""Click, speak, read, download: the page and `reallm serve` with the model that ships, real speech as microphone."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from browser import Page

from speech_reallm.errors import UserError
from speech_reallm.modelfolder import find_model

SAID = {"good", "morning", "i", "am", "speaking", "and", "you", "can", "read", "my", "words", "while", "say"}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    pytest.importorskip("uvicorn")
    pytest.importorskip("starlette")
    try:
        find_model(None)
    except UserError as err:
        pytest.skip(str(err))
    command = [sys.executable, "-m", "speech_reallm", "serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            log = ""
            while not (port := re.search(r'"?port"?\W+(\d+)', log)):
                line = server.stderr.readline()
                assert line, f"the server ended: {log}"
                log += line
            yield f"http://localhost:{port[1]}/"
        finally:
            server.terminate()
            server.communicate(timeout=60)
    assert server.returncode == 0


WATCH = """
window.seen = [];
new MutationObserver(() => window.seen.push(document.getElementById("transcript").innerText))
  .observe(document.getElementById("transcript"), { childList: true, subtree: true, characterData: true });
"""


def test_from_click_to_subtitle(page: Page, url: str) -> None:
    page.open(url)
    page.js(WATCH)
    page.click("listen")
    # the recording of five seconds has been heard; after it the microphone is silent
    page.until(lambda: "Is it muted?" in page.status)
    page.click("listen")
    page.until(page.idle)
    assert page.status == "Done." and not page.notice

    words = page.words
    assert len(set(words) & SAID) >= 5, words
    # what was shown was never taken back
    states = [" ".join(state.split()) for state in page.js("return window.seen")]
    written = [state for state in states if "drop a recording" not in state]
    assert len(written) > 5
    for before, after in pairwise(written):
        assert after.startswith(before)
    assert float(page.text("latency-value").split()[0]) > 0

    cues = re.findall(r"^(\S+) --> (\S+)\n((?:.+\n)+)", page.download("srt").read_text(), re.MULTILINE)
    assert " ".join(text for *_, text in cues).split() == words
    assert all(start < end for start, end, _ in cues)
    heard = json.loads(page.download("json").read_text())
    assert [w["word"] for w in heard["words"]] == words
    assert all(0 <= w["start"] <= w["end"] <= heard["duration"] for w in heard["words"])
    assert not page.complaints()


def test_a_file_at_full_speed(page: Page, url: str, spoken: Path) -> None:
    """The same words as in Python, at the rate that the page decodes to."""
    from speech_reallm import Recognizer

    page.open(url)
    page.choose(spoken)
    page.until(page.idle)
    assert not page.notice
    theirs = [w.word for w in Recognizer.load().transcribe(spoken).words]
    # browsers resample a little differently
    assert len(set(page.words) & set(theirs)) >= 0.7 * len(set(theirs))
    assert page.download("vtt").read_text().startswith("WEBVTT\n")
    assert page.download("txt").name == f"{spoken.stem}.txt"
