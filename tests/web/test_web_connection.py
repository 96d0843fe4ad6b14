"""What the page does when the connection breaks, the server falls silent, or it takes its time."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
from browser import Page
from fake_server import PATIENCE, Client, FakeServer, word

LOST, LATE = "The connection to the server is lost", "No answer from the server"


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer(lambda client: None) as server:
        yield server


def write(client: Client, text: str, start: float, end: float) -> None:
    """One word, written when a little more than it has been received."""
    space = " " if client.words else ""
    client.words += 1
    client.send("partial", text=space + text, time=end + 0.1, words=[word(text, start, end)])


def answer_all(client: Client, text: str) -> None:
    client.receive_all()
    write(client, text, 0.1, 0.3)
    client.socket.close(1000)


def test_the_microphone_goes_on_over_a_new_connection(page: Page, fake: FakeServer) -> None:
    """What was recognised stays; what comes while there is no connection is kept and sent later; no click is needed."""
    back = threading.Event()

    def script(client: Client) -> None:
        if len(fake.clients) == 1:
            client.ready()
            client.receive(1)
            write(client, "still", 0.2, 0.6)
            client.vanish()
        elif not back.is_set():
            client.refuse("draining", 1012)
        else:
            client.ready()
            answer_all(client, "here")

    fake.script = script
    page.open(fake.url)
    page.click("listen")
    page.until(lambda: page.status.startswith(LOST))
    # it goes on trying, and says so
    page.until(lambda: len(fake.clients) > 2)
    assert page.status.startswith(LOST) and page.words == ["still"] and not page.notice
    assert page.text("listen-label") == "Stop"
    back.set()
    page.until(lambda: page.status.startswith("Listening"))
    # more than what was missing has come by now
    page.until(lambda: fake.clients[-1].samples > 2 * fake.clients[-1].rate)
    page.click("listen")
    page.until(page.idle)
    assert page.words == ["still", "here"] and page.status == "Done." and not page.notice
    starts = page.module(
        """
        const { Storage } = await load("storage.js");
        const storage = await Storage.open();
        for (;;) {
          const [{ id }] = await storage.list();
          const { segments } = await storage.get(id);
          if (segments.length === 2) return segments.map(({ words }) => words[0][1]);
          await new Promise((resolve) => setTimeout(resolve, 50));
        }
        """
    )
    # the second connection began where the first word ended, give or take the quietest moment there
    assert starts[0] == 0.2 and 0.6 + 0.1 <= starts[1] <= 0.9 + 0.1
    assert not [c for c in page.complaints() if "WebSocket" not in c]


def test_a_file_goes_on_where_it_was(page: Page, fake: FakeServer, spoken: Path) -> None:
    duration = soundfile.info(spoken).duration

    def script(client: Client) -> None:
        client.ready()
        if len(fake.clients) == 1:
            client.receive_all()
            write(client, "one", 0.2, 0.6)
            write(client, "two", 1.4, 2.0)
            client.vanish()
        else:
            answer_all(client, "three")

    fake.script = script
    page.open(fake.url)
    page.choose(spoken)
    page.until(lambda: len(fake.clients) == 2)
    page.until(page.idle)
    assert page.words == ["one", "two", "three"]
    assert page.status.startswith("Done: 5 s of sound in") and not page.notice
    first, second = fake.clients
    assert first.samples / first.rate == pytest.approx(duration, abs=0.01)
    assert duration - 2.3 <= second.samples / second.rate <= duration - 2


def test_a_server_that_falls_silent(page: Page, fake: FakeServer) -> None:
    """As when the network is gone, of which a browser is told nothing."""
    silent = threading.Event()

    def script(client: Client) -> None:
        client.ready()
        client.receive(0.5)
        client.progress(0.4)
        if len(fake.clients) == 1:
            silent.wait(PATIENCE)
        while client.receive(client.samples / client.rate + 0.2):
            client.progress(client.samples / client.rate)
        client.socket.close(1000)

    fake.script = script
    page.open(fake.url)
    page.click("listen")
    page.until(lambda: page.status.startswith(LATE))
    page.until(lambda: len(fake.clients) == 2)
    silent.set()
    page.until(lambda: page.status.startswith("Listening"))
    page.click("listen")
    page.until(page.idle)
    assert not page.notice


def test_the_last_words_may_be_given_up(page: Page, fake: FakeServer) -> None:
    def script(client: Client) -> None:
        if len(fake.clients) > 1:
            client.vanish()
            return
        client.ready()
        client.receive(1)
        write(client, "kept", 0.2, 0.6)
        client.receive_all()
        client.vanish()

    fake.script = script
    page.open(fake.url)
    page.click("listen")
    page.until(lambda: page.words)
    # more than a second of sound comes after the words
    time.sleep(2)
    page.click("listen")
    page.until(lambda: page.status.startswith(LOST) and "last words" in page.status)
    assert page.text("listen-label") == "Give up"
    page.click("listen")
    page.until(page.idle)
    assert page.words == ["kept"]
    # what is missing is told, and not counted as recognised
    assert re.search(r"What was recognised is on the page\. [\d.:]+( s)? of sound were not", page.notice)
    assert page.text("clock") == "0:00.7"
    assert page.text("listen-label") == "Go on listening"


@pytest.mark.parametrize("code", ["internal", "unauthorized"])
def test_what_will_not_get_better_is_not_tried_for_ever(page: Page, fake: FakeServer, code: str) -> None:
    def script(client: Client) -> None:
        client.ready()
        client.receive(0.5)
        client.refuse(code, 1011)

    fake.script = script
    page.open(fake.url)
    page.click("listen")
    page.until(lambda: page.notice)
    page.until(page.idle)
    assert len(fake.clients) == (3 if code == "internal" else 1)
    assert page.status == "" and page.find("listen").is_enabled()


def test_a_file_shows_what_is_recognised_and_the_time_left(
    page: Page, fake: FakeServer, spoken: Path
) -> None:
    """However much has been sent already."""
    gates = [threading.Event(), threading.Event()]

    def script(client: Client) -> None:
        client.ready()
        client.receive_all()
        for seconds, gate in zip((1.5, 4.0), gates, strict=True):
            client.progress(seconds)
            assert gate.wait(PATIENCE)
        client.socket.close(1000)

    fake.script = script
    page.open(fake.url)
    page.choose(spoken)
    for clock, gate in zip(("0:01.5", "0:04.0"), gates, strict=True):
        page.until(lambda clock=clock: page.text("clock") == clock)
        page.until(lambda: page.text("left").endswith("left"))
        assert page.text("total") == "of 0:05" and page.status == "Recognising"
        share = page.js("return document.getElementById('progress').value")
        assert share == pytest.approx(float(clock[-3:]) / 5, abs=0.01)
        gate.set()
    page.until(page.idle)
    assert page.text("clock") == "0:05.0" and not page.find("progress").is_displayed()


def test_a_long_file_is_sent_no_faster_than_it_is_recognised(
    page: Page, fake: FakeServer, tmp_path: Path
) -> None:
    """So that a stop comes soon, and a lost connection costs little."""
    soundfile.write(tmp_path / "long.wav", [0.0] * (120 * 8000), 8000)
    received: list[float] = []

    def script(client: Client) -> None:
        client.ready()
        client.progress(0)
        while not client.finished:
            try:
                message = client.socket.recv(timeout=2)
            except TimeoutError:
                received.append(client.samples / client.rate)
                # as far as this has been recognised now; there is no more to wait for
                client.progress(received[-1])
                if len(received) == 3:
                    break
                continue
            client.samples += len(message) // 2
        client.receive_all()
        client.socket.close(1000)

    fake.script = script
    page.open(fake.url)
    page.choose(tmp_path / "long.wav")
    page.until(lambda: len(received) == 3)
    page.click("listen")
    page.until(page.idle)
    # the first seconds may be under way before the server has said that it reports
    assert received[0] <= 31 and received[1] - received[0] <= 21 and received[2] - received[1] <= 21
    assert fake.clients[-1].samples < 100 * fake.clients[-1].rate


def test_the_newest_sound_is_kept_while_there_is_no_connection(page: Page, fake: FakeServer) -> None:
    """Two minutes of it; what is read again is what was recorded."""
    page.open(fake.url)
    result = page.module(
        """
        const { Tape, quietest } = await load("tape.js");
        const tape = new Tape(100, 2);
        let next = 0;
        const block = (n) => Int16Array.from({ length: n }, () => next++);
        let lost = 0;
        for (let i = 0; i < 10; i++) lost += tape.push(block(30));
        const middle = [...tape.read(150, 45)];
        const last = [...tape.read(290, 50)];
        tape.release(250);
        const loud = new Int16Array(1000).fill(1000).fill(3, 440, 460);
        const quiet = quietest({ read: (from, n) => loud.subarray(from, from + n) }, 300, 700, 1000);
        return { lost, end: tape.end, middle, last, first: tape.first, quiet };
        """
    )
    assert result["end"] == 300 and result["lost"] == 120
    assert result["middle"] == list(range(150, 195)) and result["last"] == list(range(290, 300))
    assert result["first"] == 240 and 440 <= result["quiet"] < 460
