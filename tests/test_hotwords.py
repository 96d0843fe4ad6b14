"""Hot words: how they are given, their bounds, and what they do to streams."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_model import SAMPLES, speech
from test_stream import run, same

from speech_reallm import Event, Partial, Recognizer, StreamOptions, UserError
from speech_reallm.hotwords import (
    MAX_CHARACTERS,
    MAX_STRENGTH,
    MAX_TERM_LENGTH,
    MAX_TERMS,
    check_terms,
    read_hotwords,
    terms_of_prompt,
    within_bounds,
)

STRONG = {"hotwords": ["the weather", "sea"], "hotwords_strength": MAX_STRENGTH}


def text_of(events: list[Event]) -> str:
    return "".join(e.text for e in events if isinstance(e, Partial))


def test_terms_are_evened_out() -> None:
    assert check_terms([" New \t York ", "", "New York", "Bjo\u0308rn"]) == ("New York", "Bj\u00f6rn")
    assert StreamOptions(hotwords=["a  b"]).hotwords == ("a b",)


@pytest.mark.parametrize(
    "terms",
    [
        "a string",
        [1],
        None,
        ["x" * (MAX_TERM_LENGTH + 1)],
        [f"w{i}" for i in range(MAX_TERMS + 1)],
        [f"{i:0{MAX_TERM_LENGTH}d}" for i in range(MAX_CHARACTERS // MAX_TERM_LENGTH + 1)],
    ],
)
def test_what_is_no_list_or_out_of_bounds_is_refused(terms: object) -> None:
    with pytest.raises(UserError, match="hotwords"):
        StreamOptions(hotwords=terms)


@pytest.mark.parametrize("strength", [-1, MAX_STRENGTH + 1, float("nan"), "much", True])
def test_strengths_out_of_range_are_refused(strength: object) -> None:
    with pytest.raises(UserError, match="hotwords_strength"):
        StreamOptions(hotwords_strength=strength)


def test_a_file_of_terms(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("\ufeff# people\nSiobhan\n\n  Van der Berg \r\n", encoding="utf-8")
    assert read_hotwords(path) == ("Siobhan", "Van der Berg")
    with pytest.raises(UserError, match=r"missing\.txt"):
        read_hotwords(tmp_path / "missing.txt")
    path.write_text("x" * 1000, encoding="utf-8")
    with pytest.raises(UserError, match=r"names\.txt.*too long"):
        read_hotwords(path)


@pytest.mark.parametrize(
    ("prompt", "terms"),
    [
        ("ZyntriQix, Digique Plus,\nVortiQore V8", ("ZyntriQix", "Digique Plus", "VortiQore V8")),
        (
            "The following is a talk by Dr. Siobhan Kirkpatrick about the vLLM server and GPT-4.",
            ("Dr. Siobhan Kirkpatrick", "vLLM", "GPT-4"),
        ),
        ("expect words that have to do with technology", ()),
        ("", ()),
    ],
)
def test_terms_of_a_prompt(prompt: str, terms: tuple[str, ...]) -> None:
    assert terms_of_prompt(prompt) == terms


def test_a_prompt_is_never_too_long() -> None:
    terms = terms_of_prompt(", ".join(f"Name{i}" for i in range(10**5)))
    assert len(terms) == MAX_TERMS // 2 and terms[:2] == ("Name0", "Name1")
    assert within_bounds(["x" * 1000, "y"]) == ("y",)


def test_they_are_preferred(recognizer: Recognizer) -> None:
    audio = speech(6)
    without = text_of(run(recognizer, audio))
    assert text_of(run(recognizer, audio, **STRONG)).count("weather") > without.count("weather")
    assert text_of(run(recognizer, audio, hotwords=STRONG["hotwords"], hotwords_strength=0)) == without
    # what no pieces can spell changes nothing
    assert text_of(run(recognizer, audio, hotwords=["\u4e2d\u6587"])) == without


def test_streams_of_a_batch_have_each_their_own(recognizer: Recognizer) -> None:
    audio = [speech(3, seed) for seed in range(3)]
    options = [STRONG, {}, {"hotwords": ["shells"], "hotwords_strength": 3.0}]
    streams = [recognizer.stream(**o) for o in options]
    events: list[list[Event]] = [[] for _ in streams]
    for begin in range(0, 48000, 5000):
        for stream, samples in zip(streams, audio, strict=True):
            stream.feed(samples[begin : begin + 5000])
        for total, new in zip(events, recognizer.step(streams), strict=True):
            total += new
    for i, stream in enumerate(streams):
        events[i] += stream.finish().events
        same(events[i], run(recognizer, audio[i], **options[i]))


def test_they_change_while_the_stream_runs(recognizer: Recognizer) -> None:
    audio = speech(6)
    half = SAMPLES * 25
    plain, strong = run(recognizer, audio), run(recognizer, audio, **STRONG)
    stream = recognizer.stream()
    events = stream.accept(audio[:half])
    stream.set_hotwords(STRONG["hotwords"], MAX_STRENGTH)
    assert stream.hotwords == ("the weather", "sea")
    events += [*stream.accept(audio[half:]), *stream.finish().events]
    before = text_of(recognizer.stream().accept(audio[:half]))
    assert before and text_of(events).startswith(before)
    assert text_of(events) not in (text_of(plain), text_of(strong))
    with pytest.raises(UserError, match="hotwords"):
        stream.set_hotwords("one string")


def test_they_last_beyond_a_pause_and_a_reset(recognizer: Recognizer) -> None:
    audio = speech(3)
    stream = recognizer.stream(**STRONG)
    expected = text_of(stream.accept(audio) + stream.pause())
    assert "weather" in expected
    assert text_of(stream.accept(audio) + stream.pause()) == expected
    stream.reset()
    assert text_of(stream.accept(audio) + stream.pause()) == expected
