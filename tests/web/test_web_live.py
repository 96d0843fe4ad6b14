"""Click, speak, read, download: the page and `reallm serve` with the model that ships, real speech as microphone."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from browser import DEMO, Page

from speech_reallm.errors import UserError
from speech_reallm.modelfolder import find_model

SPOKEN = {
    "good",
    "morning",
    "i",
    "am",
    "speaking",
    "and",
    "you",
    "can",
    "read",
    "my",
    "words",
    "while",
    "say",
}


@contextmanager
def serving(port: int = 0) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`reallm serve`: its address, and the process."""
    command = [sys.executable, "-m", "speech_reallm", "serve", "--port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            log = ""
            while not (found := re.search(r'"?port"?\W+(\d+)', log)):
                line = server.stderr.readline()
                assert line, f"the server ended: {log}"
                log += line
            yield f"http://localhost:{found[1]}/", server
        finally:
            server.terminate()
            server.communicate(timeout=180)
    assert server.returncode == 0


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    pytest.importorskip("uvicorn")
    pytest.importorskip("starlette")
    try:
        find_model(None)
    except UserError as err:
        pytest.skip(str(err))
    with serving() as (url, _):
        yield url


WATCH = """
window.seen = [];
new MutationObserver(() => window.seen.push(document.getElementById("transcript").innerText))
  .observe(document.getElementById("transcript"), { childList: true, subtree: true, characterData: true });
"""


def test_from_click_to_subtitle(page: Page, url: str) -> None:
    page.open(url)
    page.js(WATCH)
    page.click("listen")
    # the recording of five seconds is over; after it the microphone is silent
    page.until(lambda: "Is it muted?" in page.status)
    page.click("listen")
    page.until(page.idle)
    assert page.status == "Done." and not page.notice

    words = page.words
    assert len(set(words) & SPOKEN) >= 5, words
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
    transcript = json.loads(page.download("json").read_text())
    assert [w["word"] for w in transcript["words"]] == words
    assert all(0 <= w["start"] <= w["end"] <= transcript["duration"] for w in transcript["words"])
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


def test_the_example_for_programs_works(page: Page, url: str, spoken: Path, tmp_path: Path) -> None:
    """As it stands on the page, with the address of this server."""
    pytest.importorskip("websockets")
    page.open(url)
    page.driver.find_element("link text", "For programs").click()
    page.until(lambda: url.removeprefix("http://") in page.text("example") + "/")
    program = tmp_path / "client.py"
    program.write_text(page.text("example"))
    run = subprocess.run([sys.executable, program, spoken], capture_output=True, text=True, timeout=180)
    assert run.returncode == 0, run.stderr
    assert len({w.strip(".,").lower() for w in run.stdout.split()} & SPOKEN) >= 5
    assert not page.complaints()
    # what it links to is there
    links = page.js("return [...document.querySelectorAll('main a')].map((a) => a.href)")
    assert len(links) >= 4
    assert page.module(
        "return (await Promise.all(given[0].map((a) => fetch(a)))).map((r) => r.status)", links
    ) == [200] * len(links)


def test_a_restarted_server_is_found_again(page: Page, tmp_path: Path) -> None:
    """The page and `reallm serve`, which is stopped in the middle of a file and comes back at the same address."""
    pytest.importorskip("uvicorn")
    audio, rate = soundfile.read(DEMO, dtype="int16")
    # longer than what is under way when the first words come, so that something is left for the second server
    soundfile.write(tmp_path / "talk.wav", np.tile(audio, 2), rate, subtype="PCM_16")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with serving(port) as (address, _):
        page.open(address)
        page.choose(tmp_path / "talk.wav")
        page.until(lambda: len(page.words) > 1)
    page.until(lambda: "connection to the server is lost" in page.status)
    before = page.words
    with serving(port):
        page.until(page.idle, seconds=600)
    assert page.words[: len(before)] == before
    assert {w.strip(".,").lower() for w in page.words[-12:]} & {"now", "turn", "give", "something", "listen"}
    assert page.status.startswith("Done: 55 s of sound in") and not page.notice
