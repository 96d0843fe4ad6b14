"""The page in a real browser, beside a server that does what the test wants."""

from __future__ import annotations

import json
import random
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import soundfile
from browser import INSECURE_HOST, Page
from fake_server import PATIENCE, Client, FakeServer, word

from speech_reallm.events import Final, Transcript, Word
from speech_reallm.formats import FORMATS, SUFFIXES

SEGMENTS = (
    (word("hello", 0.1, 0.4, 0.5), word("world's", 0.5, 0.9, 1.0)),
    (word("a<b&c", 1.2, 1.5), word("end", 1.6, 1.9, 0.2)),
)


def talk(client: Client) -> None:
    """Two segments; the second word of the first grows."""
    client.ready()
    client.receive(0.4)
    hello, world = SEGMENTS[0]
    client.send("partial", text="hello wor", time=0.4, words=[hello, word("wor", 0.5, 0.6, 0.3)])
    client.receive(0.5)
    client.send("partial", text="ld's", time=0.5, words=[world])
    client.send("final", text="hello world's", start=0.1, end=0.9, words=[hello, world])
    client.send("endpoint", time=1.0)
    client.receive_all()
    client.send("partial", text="a<b&c end", time=2, words=list(SEGMENTS[1]))
    client.send("final", text="a<b&c end", start=1.2, end=1.9, words=list(SEGMENTS[1]))
    client.socket.close(1000)


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeServer]:
    with FakeServer(talk) as server:
        yield server


def start(page: Page, fake: FakeServer, script=talk) -> None:
    fake.script = script
    page.open(fake.url)
    page.click("listen")


def test_words_come_are_kept_and_downloaded(page: Page, fake: FakeServer, spoken: Path) -> None:
    fake.script = talk
    page.open(fake.url)
    page.choose(spoken)
    page.until(page.idle)
    assert page.words == ["hello", "world's", "a<b&c", "end"]
    assert page.status.startswith("Done: 5 s of sound in") and not page.notice
    assert page.text("log") == "hello world's a<b&c end"
    # everything was sent, at the rate that was announced
    client = fake.clients[-1]
    duration = soundfile.info(spoken).duration
    assert client.samples == pytest.approx(duration * client.rate, abs=client.rate / 100)

    finals = [
        Final(
            " ".join(w["word"] for w in words),
            tuple(Word(**w, emitted=0) for w in words),
            words[0]["start"],
            words[-1]["end"],
        )
        for words in SEGMENTS
    ]
    transcript = Transcript.of(finals, duration=client.samples / client.rate, seconds=0, file=spoken.name)
    for name in ("text", "srt", "vtt", "json"):
        file = page.download(SUFFIXES[name][1:])
        assert file.stem == spoken.stem
        written = file.read_text(encoding="utf-8")
        if name == "json":
            ours, theirs = json.loads(written), json.loads(FORMATS[name](transcript))
            assert ours == {key: theirs[key] for key in ours}
            assert set(theirs) == set(ours)
        else:
            assert written == FORMATS[name](transcript)
    assert not page.complaints()


def test_a_word_grows_and_tells_its_time(page: Page, fake: FakeServer) -> None:
    start(page, fake)
    page.until(lambda: page.words == ["hello", "world's"])
    page.click("listen")
    page.until(page.idle)
    shades = page.js("return [...document.querySelectorAll('.word')].map((w) => getComputedStyle(w).color)")
    assert shades[0] != shades[1] != shades[3]
    # one stop for Tab, arrows within
    assert page.js("return document.querySelectorAll('.word[tabindex=\"0\"]').length") == 1
    first = page.driver.find_element("css selector", ".word")
    page.js("arguments[0].focus()", first)
    assert re.match(r"0:00\.1–0:00\.4 · 50 % sure · shown \d+\.\d s later", page.find("tip").text)
    first.send_keys("\ue014")  # right arrow
    assert page.js("return document.activeElement.textContent") == "world's"
    assert page.find("tip").text.startswith("0:00.5–0:00.9 · 100 % sure")
    assert page.js("return document.activeElement.getAttribute('aria-describedby')") == "tip"
    page.driver.switch_to.active_element.send_keys("\ue00c")  # escape
    assert not page.find("tip").is_displayed()
    assert re.fullmatch(r"\d+\.\d\d s", page.text("latency-value"))


def test_punctuation_joins_its_word_and_does_not_delay_it(page: Page, fake: FakeServer) -> None:
    gate = threading.Event()

    def script(client: Client) -> None:
        client.ready()
        client.receive(0.4)
        it, seems, late = (word(text, i, i + 0.3) for i, text in enumerate(("It", "seems,", "late.")))
        client.send("partial", text="It seems", time=0.4, words=[it, seems | {"word": "seems"}])
        assert gate.wait(PATIENCE)
        client.receive(client.samples / client.rate + 0.5)
        client.send("partial", text=",", time=1, words=[seems])
        client.send("partial", text=" late.", time=1, words=[late])
        client.send("final", text="It seems, late.", start=0, end=2.3, words=[it, seems, late])
        client.receive_all()
        client.socket.close(1000)

    def tip() -> str:
        page.js("document.activeElement.blur()")
        page.js("document.querySelectorAll('.word')[1].focus()")
        return page.find("tip").text

    start(page, fake, script)
    page.until(lambda: page.words == ["It", "seems"])
    before = tip()
    gate.set()
    page.until(lambda: page.words == ["It", "seems,", "late."])
    assert "shown" in before and tip() == before
    page.click("listen")
    page.until(page.idle)
    assert page.text("log") == "It seems, late."
    assert not page.complaints()


def test_listening_goes_on_where_it_was(page: Page, fake: FakeServer) -> None:
    start(page, fake)
    for count in (4, 8):
        page.until(lambda count=count: len(page.words) >= count - 2)
        page.click("listen")
        page.until(page.idle)
        assert len(page.words) == count
        if count == 4:
            assert page.text("listen-label") == "Go on listening"
            page.click("listen")
    words = json.loads(page.download("json").read_text())["words"]
    starts = [w["start"] for w in words]
    before = fake.clients[-2].samples / fake.clients[-2].rate
    assert starts[4] == pytest.approx(before + starts[0], abs=0.01)


def test_stopped_before_the_server_is_ready(page: Page, fake: FakeServer) -> None:
    gate = threading.Event()

    def slow(client: Client) -> None:
        gate.wait(PATIENCE)
        client.ready()
        client.receive_all()
        client.socket.close(1000)

    start(page, fake, slow)
    page.until(lambda: page.status.startswith("Connecting"))
    page.click("listen")
    gate.set()
    page.until(page.idle)
    assert fake.clients[-1].samples == 0 and not page.notice


def refused(code: str, close: int):
    return lambda client: client.refuse(code, close)


@pytest.mark.parametrize(
    ("code", "close", "says"),
    [
        ("busy", 1013, "The server is full"),
        ("draining", 1012, "restarting"),
        ("bad_request", 1008, "The server refused: no: bad_request"),
    ],
)
def test_a_server_that_refuses(page: Page, fake: FakeServer, code: str, close: int, says: str) -> None:
    start(page, fake, refused(code, close))
    assert says in page.until(lambda: page.notice)
    page.until(page.idle)
    assert page.find("listen").is_enabled()


def test_nonsense_from_the_server_does_no_harm(page: Page, fake: FakeServer) -> None:
    def babble(client: Client) -> None:
        for text in ("", "{", "null", "[]", '"ready"', "7"):
            client.socket.send(text)
        client.socket.send(b"\x00\xff")
        client.ready()
        client.send("novelty", text="from the future")
        client.send("final", text="never opened", words=[], start=0, end=0)
        client.send("partial", text="<b>sane</b>", time=0, words=[word("<b>sane</b>", 0, 0.1)])
        client.receive_all()
        client.socket.close(1000)

    start(page, fake, babble)
    page.until(lambda: page.words == ["<b>sane</b>"])
    page.click("listen")
    page.until(page.idle)
    assert not page.notice and not page.complaints()


def test_a_key_is_asked_for(page: Page, fake: FakeServer) -> None:
    def guarded(client: Client) -> None:
        talk(client) if client.query.get("key") == "open sesame" else client.refuse("unauthorized", 1008)

    start(page, fake, guarded)
    assert "did not accept the key" in page.until(lambda: page.notice)
    page.until(page.idle)
    page.find("key").send_keys("open sesame\n")
    assert not page.find("key-form").is_displayed()
    page.click("listen")
    page.until(lambda: len(page.words) >= 2)
    page.click("listen")
    page.until(page.idle)
    page.js("sessionStorage.clear()")


def test_the_microphone_is_refused(page: Page, fake: FakeServer) -> None:
    fake.script = talk
    page.open(fake.url)
    page.permit("denied")
    page.click("listen")
    assert "microphone was refused" in page.until(lambda: page.notice)
    page.until(page.idle)
    assert page.js("return document.getElementById('notice').getAttribute('role')") == "alert"


def test_a_page_that_browsers_do_not_trust(page: Page, fake: FakeServer, spoken: Path) -> None:
    """No microphone without https, but files and copying work."""
    fake.script = talk
    page.open(fake.url.replace("localhost", INSECURE_HOST))
    page.click("listen")
    assert "https" in page.until(lambda: page.notice)
    page.choose(spoken)
    page.until(page.idle)
    page.until(lambda: len(page.words) == 4)
    page.click("copy")
    page.until(lambda: page.status == "Copied.")


def test_a_file_is_played_at_the_pace_of_speech(
    page: Page, fake: FakeServer, spoken: Path, tmp_path: Path
) -> None:
    short = tmp_path / "short.wav"
    samples, rate = soundfile.read(spoken)
    soundfile.write(short, samples[:rate], rate)
    took: list[float] = []

    def clocked(client: Client) -> None:
        started = time.monotonic()
        client.ready()
        client.receive_all()
        took.append(time.monotonic() - started)
        client.send("partial", text="end", time=1, words=[word("end", 0.5, 0.9)])
        client.socket.close(1000)

    fake.script = clocked
    page.open(fake.url)
    page.choose(short, aloud=True)
    page.until(lambda: page.words and page.idle())
    assert took[0] >= 0.99
    assert fake.clients[-1].samples == pytest.approx(fake.clients[-1].rate, abs=2)
    assert float(page.text("latency-value").split()[0]) > 0


def test_a_file_that_is_no_sound(page: Page, fake: FakeServer, tmp_path: Path) -> None:
    fake.script = talk
    page.open(fake.url)
    for name, data, says in (("notes.wav", b"not a sound", "cannot decode"), ("none.wav", b"", "is empty")):
        (tmp_path / name).write_bytes(data)
        page.choose(tmp_path / name)
        page.until(lambda name=name: page.notice.startswith(name))
        assert says.split()[-1] in page.notice
        page.until(page.idle)


@pytest.mark.parametrize("kept", [False, True])
def test_words_that_are_kept_nowhere_are_not_replaced_unasked(
    page: Page, fake: FakeServer, spoken: Path, kept: bool
) -> None:
    fake.script = talk
    page.open(fake.url)
    keep(page, kept)
    try:
        page.choose(spoken)
        page.until(lambda: len(page.words) == 4 and page.idle())
        for answer, again in (("keep", False), ("replace", True)):
            before = len(fake.clients)
            page.choose(spoken)
            if not kept:
                page.until(lambda: page.find("replace").is_displayed())
                page.driver.find_element("css selector", f"#replace [value={answer}]").click()
            if again or kept:
                page.until(lambda before=before: len(fake.clients) > before and len(page.words) == 4)
                page.until(page.idle)
            assert len(page.words) == 4 and (len(fake.clients) > before) == (again or kept)
    finally:
        keep(page, True)


def keep(page: Page, on: bool) -> None:
    """Whether transcripts are kept in the browser."""
    code = (
        "const box = document.querySelector('#earlier input'); if (box.checked !== arguments[0]) box.click()"
    )
    page.js(code, on)


def test_a_delay_is_chosen(page: Page, fake: FakeServer) -> None:
    fake.script = talk
    page.open(fake.url)
    labels = page.js("return [...document.querySelectorAll('#delays label')].map((l) => l.textContent)")
    assert labels == ["0.72 s", "0.96 s", "1.2 s"]
    page.js("document.querySelectorAll('#delays input')[2].click()")
    assert "1.2 s" in page.text("promise")
    page.click("listen")
    page.until(lambda: len(page.words) >= 2)
    assert fake.clients[-1].query["delay"] == "2"
    page.click("listen")
    page.until(page.idle)


def test_no_server(page: Page, fake: FakeServer) -> None:
    with FakeServer(talk) as gone:
        page.open(gone.url)
    page.click("listen")
    assert "cannot be reached" in page.until(lambda: page.notice)


@pytest.mark.parametrize("width", [320, 390, 768])
def test_it_fits_small_screens(page: Page, fake: FakeServer, spoken: Path, width: int) -> None:
    fake.script = talk
    page.open(fake.url)
    page.resize(width, 700, mobile=True)
    assert page.find("listen").is_displayed()
    assert page.js("return document.documentElement.scrollWidth") <= width
    page.choose(spoken)
    page.until(lambda: len(page.words) == 4 and page.idle())
    assert page.js("return document.documentElement.scrollWidth") <= width


def test_everything_that_can_be_used_has_a_name(page: Page, fake: FakeServer) -> None:
    page.open(fake.url)
    tree = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    names: dict[str, list[str]] = {}
    for node in tree:
        if not node["ignored"]:
            names.setdefault(node["role"]["value"], []).append(node.get("name", {}).get("value", ""))
    for role in ("button", "radio", "group", "image", "region", "log"):
        assert all(names.get(role, [""])), (role, names.get(role))
    # the clock and the meter change all the time, and must not be read out
    assert len(names["status"]) == 1
    assert "Start listening" in names["button"]
    assert "Download srt: SubRip subtitles" in names["button"]


def transcript_of(seed: int) -> Transcript:
    """Random segments: words of all lengths, pauses, fast and slow speech, punctuation."""
    rng = random.Random(seed)
    vocabulary = [
        "a",
        "the",
        "is",
        "I",
        "and",
        "because",
        "Although",
        "well,",
        "no.",
        "why?",
        "so:",
        "Mr.",
        "B.",
        "I.",
        "“The”",
        "that,",
        "Five-and-twenty;",
        "(Go!)",
        "…",
        "naïve",
        "🙂",
        "extraordinarily",
        "x" * 50,
    ]
    time, finals = 0.0, []
    for _ in range(rng.randint(1, 4)):
        words = []
        for _ in range(rng.randint(1, 30)):
            start = time + rng.choice([0, 0, 0.1, 0.3, 1.2])
            time = start + rng.uniform(0.05, 1)
            words.append(Word(rng.choice(vocabulary), start, time, 0.5, time))
        text = " ".join(w.word for w in words)
        finals.append(Final(text, tuple(words), words[0].start, words[-1].end))
    return Transcript.of(finals, duration=time, seconds=0)


def test_subtitles_are_those_of_the_command_line(page: Page, fake: FakeServer) -> None:
    """Python is the oracle of the page's own code."""
    page.open(fake.url)
    transcripts = [transcript_of(seed) for seed in range(30)]
    written = page.module(
        """
        const { toSrt, toVtt } = await load("formats.js");
        return given[0].map((t) => [toSrt(t), toVtt(t)]);
        """,
        [{"segments": [asdict(segment) for segment in t.segments]} for t in transcripts],
    )
    assert written == [[FORMATS["srt"](t), FORMATS["vtt"](t)] for t in transcripts]
