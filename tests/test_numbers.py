"""Numbers in one form, in text that grows and is never taken back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_reallm import Recognizer, UserError, numbers
from speech_reallm.events import Final, Partial, Word
from speech_reallm.numbers import _VOCABULARY, FORMS, NumberForm, _ordinal, _words

TO_DIGITS = {
    "I have twenty one cats.": "I have 21 cats.",
    "twenty-one, thirty and forty": "21, 30 and 40",
    "three hundred and five people": "305 people",
    "one hundred twenty three": "123",
    "twelve thousand five hundred": "12,500",
    "two thousand and five": "2005",
    "three million people, two point five million": "3 million people, 2.5 million",
    "one hundred twenty three million four hundred thousand": "123,400,000",
    "in nineteen eighty-four and nineteen oh five": "in 1984 and 1905",
    "twenty twenty was not twenty twenty-six": "2020 was not 2026",
    "nineteen hundred": "1900",
    "three point one four": "3.14",
    "zero point five": "0.5",
    "fifty percent of them, one hundred per cent.": "50% of them, 100%.",
    "the twenty-first, the tenth, the one hundredth": "the 21st, the 10th, the 100th",
    "the first, the third": "the first, the third",
    "call five five five one two": "call 55512",
    "at five thirty, at six oh five": "at 5:30, at 6:05",
    "bus five thirty": "bus 5 30",
    "one of them": "one of them",
    "one, two, three": "1, 2, 3",
    "wait a second": "wait a second",
    "two thirds": "two thirds",
    "a hundred times": "a hundred times",
    "five and six": "5 and 6",
    "one hundred and two hundred": "100 and 200",
    "at one point three people": "at one point 3 people",
    'a one-off, "five", seven.': 'a one-off, "5", 7.',
    "to the other": "to the other",
    "Twenty five.": "25.",
    "already 25 or 1,000": "already 25 or 1,000",
}
TO_WORDS = {
    "I have 21 cats.": "I have twenty-one cats.",
    "the 21st, 3rd and 100th": "the twenty-first, third and one hundredth",
    "in 1984, in 1905, in 2005": "in nineteen eighty-four, in nineteen oh five, in two thousand and five",
    "about 12,500 people": "about twelve thousand five hundred people",
    "for 2.5 million": "for two point five million",
    "to 50%": "to fifty percent",
    "for $5.50 or £1": "for five dollars and fifty cents or one pound",
    "at 5:30 or 5:00": "at five thirty or five o'clock",
    "code 0049": "code zero zero four nine",
    "number 5551234": "number five five five one two three four",
    "we are twenty one": "we are twenty-one",
    "B2B and 3D": "B2B and 3D",
    "Yes. 2 of them": "Yes. Two of them",
}


def spoken(text: str) -> tuple[Word, ...]:
    return tuple(Word(word, i, i + 0.9, 0.5 + 0.01 * i, i + 1) for i, word in enumerate(text.split()))


def grown(text: str, form: str) -> tuple[str, Final]:
    """The text as it is shown while it comes letter by letter, and the finished segment."""
    words, changed, shown = spoken(text), NumberForm(form), ""
    for count, word in enumerate(words):
        for letters in range(1, len(word.word) + 1):
            growing = Word(word.word[:letters], word.start, word.end, word.confidence, word.emitted)
            shown += changed.grow((*words[:count], growing))[0]
    shown += changed.grow(words, final=True)[0]
    return shown, changed.final(Final(text, words, 0.0, float(len(words))))


@pytest.mark.parametrize(("text", "expected"), TO_DIGITS.items())
def test_digits(text: str, expected: str) -> None:
    shown, final = grown(text, "digits")
    assert shown == final.text == expected


@pytest.mark.parametrize(("text", "expected"), TO_WORDS.items())
def test_words(text: str, expected: str) -> None:
    shown, final = grown(text, "words")
    assert shown == final.text == expected


def test_what_is_read_from_words_is_written_as_words() -> None:
    for value in (*range(130), 999, 1000, 1001, 1100, 20000, 123456, 999999, 3000000, 1234567890):
        shown, _ = grown(f"about {_words(value)} things", "digits")
        figure = shown.split(" ", 1)[1].removesuffix(" things").replace(",", "")
        figure = figure.replace(" million", "000000")
        assert figure == ("one" if value == 1 else str(value)), shown
    assert [_ordinal(n) for n in (1, 12, 20, 32, 100, 105)] == [
        "first", "twelfth", "twentieth", "thirty-second", "one hundredth", "one hundred and fifth",
    ]  # fmt: skip


def test_times_are_those_of_the_words_that_a_number_was_made_of() -> None:
    _, final = grown("I see twenty one cats", "digits")
    assert [(w.word, w.start, w.end, w.emitted) for w in final.words][2:] == [
        ("21", 2, 3.9, 4),
        ("cats", 4, 4.9, 5),
    ]
    assert final.words[2].confidence == 0.52
    _, final = grown("in 1984 it", "words")
    assert [w.word for w in final.words] == ["in", "nineteen", "eighty-four", "it"]
    times = [t for word in final.words for t in (word.start, word.end)]
    assert times == sorted(times) and (times[2], times[5]) == (1, 1.9)


pieces = st.sampled_from(
    [
        *sorted(_VOCABULARY),
        "a",
        "the",
        "to",
        "tw",
        "B2B",
        "25",
        "3rd",
        "$5.50",
        "5:30",
        "Twenty",
        "one-off",
        "(two",
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(pieces, st.sampled_from(["", "", "", ",", ".", '"', "%"])), max_size=9))
def test_nothing_is_taken_back(parts: list[tuple[str, str]]) -> None:
    text = " ".join(word + mark for word, mark in parts)
    for form in FORMS:
        shown, final = grown(text, form)
        assert shown == final.text == " ".join(word.word for word in final.words)


def test_a_stream_with_numbers(recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The small model knows no numbers, so a word of its is made one."""
    from fake_model import speech

    plain = recognizer.stream()
    plain.accept(speech(6))
    words = re.findall(r"\w+", plain.finish().text)
    assert len(words) > 3
    monkeypatch.setattr(numbers, "_VOCABULARY", numbers._VOCABULARY | {words[2]})
    monkeypatch.setitem(numbers._COUNTS, words[2], 7)
    stream = recognizer.stream(numbers="digits")
    events = [*stream.accept(speech(6)), *stream.finish().events]
    finals = [event for event in events if isinstance(event, Final)]
    shown = "".join(event.text for event in events if isinstance(event, Partial))
    assert shown == "".join(final.text for final in finals) and re.search(r"\b7\b", shown)
    assert words[2] not in re.findall(r"\w+", shown)
    assert stream.finish().text == " ".join(final.text for final in finals)
    with pytest.raises(UserError, match="words or digits"):
        recognizer.stream(numbers="roman")


def test_the_table_of_the_module_is_true() -> None:
    page = Path(numbers.__file__).read_text(encoding="utf-8").split('"""')[1]
    rows = re.findall(r"^\| (.*?) \| (.*?) \| (.*?) \| (.*?) \|$", page, re.MULTILINE)[1:]
    assert len(rows) == 10
    for words, figures, written, said in rows:
        ones = words.split(", ")
        figure = [figures] * len(ones) if ", " not in figures else figures.split(", ")
        assert [grown(one, "digits")[0].removeprefix("at ") for one in ones] == [
            f.removeprefix("at ") for f in figure
        ]
        for part in written.split(", "):
            assert grown(f"is {part}", "words")[0] == f"is {said}"
