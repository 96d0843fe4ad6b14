"""What can be done with the transcript on the page: played, kept, taken along; and the captions alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Page
from fake_server import Client, FakeServer, word

LINES = 40


def long_talk(client: Client) -> None:
    """So many segments that the page has to be scrolled."""
    client.ready()
    client.receive_all()
    for i in range(LINES):
        words = [word(f"{text}{i}", i / 10 + k / 40, i / 10 + k / 40 + 0.02) for k, text in enumerate("abc")]
        text = " ".join(str(w["word"]) for w in words)
        client.send("partial", text=text, time=5, words=words)
        client.send("final", text=text, start=words[0]["start"], end=words[-1]["end"], words=words)
    client.socket.close(1000)


def three_words(client: Client) -> None:
    client.ready()
    client.receive(4)
    words = [word("One", 0.5, 1), word("two", 1.5, 2), word("three.", 3, 3.5)]
    client.send("partial", text="One two three.", time=4, words=words)
    client.receive_all()
    client.send("final", text="One two three.", start=0.5, end=3.5, words=words)
    client.socket.close(1000)


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeServer]:
    with FakeServer(three_words) as server:
        yield server


@pytest.fixture
def opened(page: Page, fake: FakeServer) -> Page:
    """The page with nothing kept from other tests."""
    fake.script = three_words
    page.open(fake.url)
    page.module("await (await (await load('storage.js')).Storage.open()).clear();")
    return page


def count(page: Page, selector: str) -> int:
    return page.js("return document.querySelectorAll(arguments[0]).length", selector)


COVERED = """
return [...document.querySelectorAll("#play, #copy, [data-format], #clear, #listen")].filter((button) => {
  const box = button.getBoundingClientRect();
  return [[0.5, 0.5], [0.1, 0.1], [0.9, 0.9]].some(([x, y]) => {
    const on = document.elementFromPoint(box.x + box.width * x, box.y + box.height * y);
    return on === null || !button.contains(on);
  });
}).map((button) => button.textContent);
"""


def test_the_buttons_are_never_covered(opened: Page, fake: FakeServer, spoken: Path) -> None:
    page = opened
    fake.script = long_talk
    page.choose(spoken)
    page.until(lambda: len(page.words) == 3 * LINES and page.idle())
    for size in ((1000, 700), (1000, 500), (390, 760), (320, 600), (768, 1024)):
        page.resize(*size, mobile=size[0] < 700)
        for at in ("0", "document.documentElement.scrollHeight / 2", "document.documentElement.scrollHeight"):
            page.js(f"scrollTo(0, {at})")
            # on a small phone the controls stay in view only while something runs
            may = {"Start listening"} if size == (320, 600) else set()
            assert set(page.js(COVERED)) <= may, (size, at)
        # and they do not cover the last words
        box = page.js(
            "const b = [...document.querySelectorAll('.word')].at(-1).getBoundingClientRect();"
            "return document.elementFromPoint(b.x + b.width / 2, b.y + b.height / 2).className"
        )
        assert "word" in box
    # a window as low as this has no room for a waveform that stays, but the buttons do stay
    page.resize(1000, 420)
    page.js("scrollTo(0, document.documentElement.scrollHeight / 2)")
    assert set(page.js(COVERED)) <= {"Start listening", "Go on listening"}


def test_words_under_the_waveform_have_places_of_their_own(opened: Page) -> None:
    """Random words, some long, many at once; also while they grow and when their times settle."""
    rng = random.Random(7)
    words, start = [], 0.0
    for _ in range(600):
        start += rng.choice([0, 0.05, 0.2, 0.3, 0.8])
        end = start + rng.uniform(0, 0.5)
        words.append(word("x" * rng.randint(1, 18), start, end))
    overlaps, moved, missing = opened.module(
        """
        const [words] = given;
        const { Labels } = await load("labels.js");
        const labels = new Labels(3);
        const measure = (text) => 7 * text.length;
        const overlapping = (places) => {
          let overlaps = 0;
          const ends = {};
          for (const { lane, at, width, mark } of places) {
            if (lane < 0) continue;
            if (at < (ends[lane] ?? -1)) overlaps++;
            ends[lane] = at + Math.max(width, mark);
          }
          return overlaps;
        };
        const shown = [];
        let [overlaps, moved] = [0, 0];
        for (const [i, word] of words.entries()) {
          const { word: whole } = word;
          shown.push(word);
          word.word = whole.slice(0, 1);
          labels.place(shown, 85, measure);
          word.word = whole;
          const before = shown.slice(0, -1).map((_, k) => labels.places[k].at);
          const places = labels.place(shown, 85, measure);
          overlaps += overlapping(places);
          moved += before.filter((at, k) => places[k].at !== at).length;
          if (i % 20 === 19) {
            word.start += 0.1;
            overlaps += overlapping(labels.place(shown, 85, measure));
          }
        }
        const missing = labels.places.filter(({ lane }) => lane < 0).length;
        return [overlaps, moved, missing];
        """,
        words,
    )
    assert (overlaps, moved) == (0, 0)
    # only where far more is spoken at once than there is room for
    assert missing < 300


def drawn(page: Page) -> list[str]:
    """What is written on the strip."""
    return page.module(
        """
        const canvas = document.getElementById("waveform");
        const pen = canvas.getContext("2d");
        const texts = [];
        const plain = pen.fillText;
        pen.fillText = function (text, ...rest) { texts.push(text); return plain.call(this, text, ...rest); };
        // any change of its size makes it draw anew
        canvas.style.height = `${canvas.clientHeight + 1}px`;
        while (!texts.length) await new Promise((resolve) => setTimeout(resolve, 20));
        delete pen.fillText;
        canvas.style.height = "";
        return texts;
        """
    )


def test_words_stay_under_the_waveform(opened: Page, spoken: Path) -> None:
    page = opened
    page.choose(spoken)
    page.until(lambda: len(page.words) == 3 and page.idle())
    assert {"One", "two", "three."} <= set(drawn(page))
    # in a strip too narrow for all, a word that is pointed at comes into view
    page.resize(390, 760, mobile=True)
    page.js("document.querySelectorAll('.word')[2].focus()")
    assert "three." in drawn(page)
    page.js("document.querySelectorAll('.word')[0].focus()")
    assert "One" in drawn(page)


@pytest.mark.parametrize("source", ["file", "microphone"])
def test_a_word_plays_from_there(opened: Page, spoken: Path, source: str) -> None:
    page = opened
    assert not page.find("play").is_enabled()
    if source == "file":
        page.choose(spoken)
    else:
        page.click("listen")
        page.until(lambda: len(page.words) == 3)
        # not while the microphone would record it
        page.js("document.querySelectorAll('.word')[1].click()")
        assert page.text("play") == "Play" and not page.find("play").is_enabled()
        page.click("listen")
    page.until(lambda: len(page.words) == 3 and page.idle())
    assert page.text("play") == "Play" and page.find("play").is_enabled()
    assert "to play" in page.text("legend-play") or "plays" in page.text("legend-play")
    page.js(
        "window.sounding = []; new MutationObserver(() => {"
        " const now = document.querySelector('.sounding')?.textContent;"
        " if (now && window.sounding.at(-1) !== now) window.sounding.push(now); })"
        ".observe(document.getElementById('transcript'), { subtree: true, attributes: true });"
    )
    page.js("document.querySelectorAll('.word')[1].click()")
    page.until(lambda: page.js("return window.sounding.at(-1)") == "three.")
    # from the second word on, or a hair before it
    assert page.js("return window.sounding")[-2:] == ["two", "three."]
    page.until(lambda: page.text("play") == "Play")
    assert count(page, ".sounding") == 0
    # Escape stops it
    page.click("play")
    page.until(lambda: page.text("play") == "Pause")
    page.driver.switch_to.active_element.send_keys("\ue00c")
    page.until(lambda: page.text("play") == "Play")
    assert not page.complaints()


def test_the_microphones_sound_is_what_was_recorded(opened: Page) -> None:
    """At other rates too; the oldest of half an hour makes way."""
    tone, header, first, last, kept = opened.module(
        """
        const { Recorded } = await load("tape.js");
        const of = async (rate) => {
          const recorded = new Recorded();
          const pcm = Int16Array.from({ length: rate }, (_, i) => 10000 * Math.sin((2 * Math.PI * 200 * i) / rate));
          for (let i = 0; i < rate; i += 441) recorded.push(pcm.subarray(i, i + 441), rate);
          return recorded;
        };
        const tone = [];
        for (const rate of [8000, 16000, 44100, 48000]) {
          const bytes = new DataView(await (await of(rate)).toBlob().arrayBuffer());
          const length = (bytes.byteLength - 44) / 2;
          const samples = Array.from({ length }, (_, i) => bytes.getInt16(44 + 2 * i, true));
          let rises = 0;
          for (let i = 1; i < samples.length; i++) if (samples[i - 1] < 0 && samples[i] >= 0) rises++;
          tone.push([samples.length, rises, Math.max(...samples)]);
        }
        const blob = (await of(16000)).toBlob();
        const header = new TextDecoder("latin1").decode((await blob.arrayBuffer()).slice(0, 16));
        const long = new Recorded();
        const minute = new Int16Array(60 * 16000);
        for (let i = 0; i < 33; i++) { minute.fill(i); long.push(minute, 16000); }
        const samples = new Int16Array((await long.toBlob().arrayBuffer()).slice(44));
        return [tone, header, samples[0], samples.at(-1), [long.from, long.to, samples.length / 16000]];
        """
    )
    for samples, rises, peak in tone:
        assert abs(samples - 16000) <= 2 and 199 <= rises <= 201 and 9700 <= peak <= 10000
    assert header == "RIFF\x24\x7d\0\0WAVEfmt "
    assert (first, last, kept) == (3, 32, [180, 1980, 1800])


def test_transcripts_are_kept_opened_and_deleted(opened: Page, fake: FakeServer, spoken: Path) -> None:
    page = opened

    def rows() -> int:
        return count(page, "#earlier li")

    page.choose(spoken)
    page.until(lambda: len(page.words) == 3 and page.idle())
    page.until(
        lambda: (
            not page.js("const e = new Event('beforeunload', {cancelable: true}); return !dispatchEvent(e)")
        )
    )
    page.open(fake.url)
    assert page.words == []
    page.click("earlier-button")
    page.until(lambda: rows() == 1)
    text = page.find("earlier").text
    assert spoken.name in text and "0:05 · 3 words" in text and "One two three." in text
    page.driver.find_element("css selector", "#earlier li button").click()
    page.until(lambda: page.words == ["One", "two", "three."])
    assert page.status == "Opened. Its sound was not kept." and not page.find("play").is_enabled()
    assert page.text("clock") == "0:05.0"
    assert page.download("txt").read_text() == "One two three.\n"
    assert {"One", "two", "three."} <= set(drawn(page))
    page.click("earlier-button")
    page.until(lambda: rows() == 1 and page.find("earlier").is_displayed())
    page.driver.find_element("css selector", "#earlier li .danger").click()
    page.until(lambda: rows() == 0)
    page.driver.find_element("css selector", "#earlier [value=close]").click()
    page.open(fake.url)
    page.click("earlier-button")
    page.until(lambda: page.find("earlier").is_displayed() and "none yet" in page.find("earlier").text)
    assert not page.complaints()


def test_the_oldest_transcripts_make_way(opened: Page) -> None:
    left, large = opened.module(
        """
        const { Storage } = await load("storage.js");
        const storage = await Storage.open();
        const segment = (count) => ({ text: "a", words: Array(count).fill(["a", 0, 1, 1]) });
        const data = (count) => ({ name: "a", duration: 1, segments: [segment(count)] });
        for (let i = 0; i < 53; i++) await storage.put(`n${i}`, i, data(2));
        const left = (await storage.list()).map(({ id }) => id);
        await storage.put("large", 100, data(299990));
        const large = (await storage.list()).map(({ id }) => id);
        const orphans = await storage.run("readonly", (_, transcripts) => transcripts.count());
        await storage.clear();
        return [left, [...large, orphans]];
        """
    )
    assert left == [f"n{i}" for i in range(52, 2, -1)]
    assert large == ["large", *(f"n{i}" for i in range(52, 47, -1)), 6]


def test_nothing_is_kept_where_it_is_not_wanted(opened: Page, fake: FakeServer, spoken: Path) -> None:
    page = opened
    page.js("document.querySelector('#earlier input').click()")
    try:
        page.choose(spoken)
        page.until(lambda: len(page.words) == 3 and page.idle())
        page.open(fake.url)
        page.click("earlier-button")
        page.until(lambda: page.find("earlier").is_displayed())
        assert count(page, "#earlier li") == 0
        assert not page.js("return document.querySelector('#earlier input').checked")
    finally:
        page.js("document.querySelector('#earlier input').click()")


def test_captions_alone(opened: Page, fake: FakeServer) -> None:
    """They start by themselves, on a transparent ground, and nothing else is there."""
    page = opened
    page.driver.get(f"{fake.url}?overlay&lines=2&size=30&delay=2#key=secret")
    page.until(lambda: page.text("caption-lines") == "One two three.")
    assert fake.clients[-1].query["key"] == "secret" and fake.clients[-1].query["delay"] == "2"
    shown = page.js(
        "return [...document.body.children].filter((e) => e.getClientRects().length).map((e) => e.id)"
    )
    assert shown == ["captions"]
    assert page.js("return getComputedStyle(document.documentElement).backgroundColor") == "rgba(0, 0, 0, 0)"
    assert page.js("return getComputedStyle(document.body).backgroundColor") == "rgba(0, 0, 0, 0)"
    assert page.js("return getComputedStyle(captions).fontSize") == "30px"
    assert page.text("caption-message") == ""
    page.driver.get(f"{fake.url}?overlay=1&background=00b140")
    page.until(lambda: page.text("caption-lines") == "One two three.")
    assert page.js("return getComputedStyle(document.documentElement).backgroundColor") == "rgb(0, 177, 64)"
    page.driver.get("about:blank")


def test_captions_roll_and_come_back(opened: Page, fake: FakeServer) -> None:
    """Only the last lines are seen, memory stays small, and a broken connection is made anew."""

    def script(client: Client) -> None:
        client.ready()
        client.receive(0.5)
        number = len(fake.clients) - first
        for i in range(8):
            text = f"Connection {number} line {i}."
            words = [word(w, 0.1, 0.2) for w in text.split()]
            client.send("partial", text=text, time=0.4, words=words)
            client.send("final", text=text, start=0.1, end=0.2, words=words)
        client.vanish()

    page = opened
    first = len(fake.clients)
    fake.script = script
    page.driver.get(f"{fake.url}?overlay&lines=1")
    page.until(lambda: "Connection 2 line 7." in page.text("caption-lines"))
    assert 1 <= count(page, "#caption-lines p") <= 4
    box, last = page.js(
        "const l = document.getElementById('caption-lines');"
        "return [l.getBoundingClientRect().height, l.lastChild.getBoundingClientRect().height]"
    )
    assert box == pytest.approx(last, abs=2)
    page.driver.get("about:blank")


@pytest.mark.parametrize(
    ("seconds", "digits", "text"),
    [
        (0, 0, "0:00"),
        (75.26, 1, "1:15.2"),
        (59.999, 0, "0:59"),
        (26.139999999999997, 1, "0:26.1"),
        (4000, 0, "1:06:40"),
    ],
)
def test_times_are_read_as_on_a_clock(opened: Page, seconds: float, digits: int, text: str) -> None:
    code = "const { clock } = await load('clock.js'); return clock(...given);"
    assert opened.module(code, seconds, digits) == text


def test_durations_are_rounded(opened: Page) -> None:
    values = [0.72, 6.559999, 33.7, 59.6, 82.28, 3725.4]
    code = "const { duration } = await load('clock.js'); return given[0].map(duration);"
    assert opened.module(code, values) == ["0.72 s", "6.6 s", "34 s", "1:00", "1:22", "1:02:05"]
