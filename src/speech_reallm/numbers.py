"""English numbers in one form, digits or words, in text that grows and is never taken back.

A model writes what it has read in its training data: mostly words, at times digits. Here either becomes the other:

| `digits` | | `words` | |
| --- | --- | --- | --- |
| twenty one, twenty-one | 21 | 21, twenty one | twenty-one |
| three hundred and five | 305 | 305 | three hundred and five |
| twelve thousand five hundred | 12,500 | 12,500 | twelve thousand five hundred |
| three million, two point five million | 3 million, 2.5 million | 2.5 million | two point five million |
| nineteen eighty-four, nineteen oh five | 1984, 1905 | 1984 | nineteen eighty-four |
| three point one four | 3.14 | 3.14 | three point one four |
| fifty percent | 50% | 50% | fifty percent |
| twenty-first | 21st | 21st | twenty-first |
| five five five one two | 55512 | 0049 | zero zero four nine |
| at five thirty | at 5:30 | 5:30 | five thirty |

What is no count stays as it is: a lone "one", ordinals below the tenth, fractions ("two thirds"), "a hundred".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .events import Final, Word

FORMS = ("words", "digits")


def _table(words: str, values: range) -> dict[str, int]:
    return dict(zip(words.split(), values, strict=True))


_UNITS = _table("zero one two three four five six seven eight nine", range(10))
_TEENS = _table(
    "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen", range(10, 20)
)
_TENS = _table("twenty thirty forty fifty sixty seventy eighty ninety", range(20, 100, 10))
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_ORDINAL_UNITS = _table("first second third fourth fifth sixth seventh eighth ninth", range(1, 10))
_ORDINAL_TEENS = _table(
    "tenth eleventh twelfth thirteenth fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth",
    range(10, 20),
)
_ORDINAL_TENS = {word[:-1] + "ieth": value for word, value in _TENS.items()}
_ORDINAL_SCALES = {f"{word}th": value for word, value in {"hundred": 100, **_SCALES}.items()}
_FRACTIONS = frozenset(
    (
        *(f"{word}s" for word in (*_ORDINAL_UNITS, *_ORDINAL_TEENS) if word not in ("first", "second")),
        *("half", "halves", "quarter", "quarters"),
    )
)
# before a time of day
_BEFORE_TIMES = frozenset(("at", "by", "until", "till", "before", "after", "from"))
_COUNTS = {**_UNITS, **_TEENS, **_TENS}
_BELOW_HUNDRED = frozenset((*_COUNTS, *_ORDINAL_UNITS, *_ORDINAL_TEENS, *_ORDINAL_TENS))
# all that the grammar asks for; a word that may still grow into one of these is waited for
_VOCABULARY = (
    frozenset(
        (*_COUNTS, "hundred", *_SCALES, *_ORDINAL_UNITS, *_ORDINAL_TEENS, *_ORDINAL_TENS, *_ORDINAL_SCALES)
    )
    | _FRACTIONS
    | {"and", "point", "percent", "per", "cent", "oh"}
)

_OPENING, _ENDING = "\"'“‘([", ".,?!;:…\"'”’)]"
_WRITTEN = re.compile(
    r"(?P<money>[$£€])?(?P<whole>\d{1,3}(?:,\d{3})+|\d+)(?:\.(?P<rest>\d+))?(?::(?P<minutes>[0-5]\d))?"
    r"(?P<th>st|nd|rd|th)?(?P<percent>%)?"
)
_MONEY = {"$": ("dollar", "cent"), "£": ("pound", "penny"), "€": ("euro", "cent")}


class _NotYet(Exception):
    """What comes next decides, and it is not there."""


@dataclass(frozen=True, slots=True)
class _Token:
    """A word without the marks around it. `open`: it may still grow."""

    before: str
    bare: str
    after: str
    open: bool

    @classmethod
    def of(cls, word: str, open: bool) -> _Token:
        rest = word.lstrip(_OPENING)
        bare = rest.rstrip(_ENDING)
        return cls(word[: len(word) - len(rest)], bare, rest[len(bare) :], open)

    @property
    def parts(self) -> list[str]:
        return self.bare.lower().split("-")


@dataclass(frozen=True, slots=True)
class _Item:
    """What the input words from `first` to `last` (not included) became: one word or several."""

    text: str
    first: int
    last: int


class NumberForm:
    """The numbers of one segment, as it grows."""

    def __init__(self, form: str) -> None:
        """form: `words` or `digits`."""
        self._rewrite = _to_digits if form == "digits" else _to_words
        self._shown = ""

    def grow(self, words: Sequence[Word], final: bool = False) -> tuple[str, tuple[Word, ...]]:
        """words: those of the segment so far. Returns the text to append, and the words it belongs to.

        A number is held back until the word after it shows where it ends. final: no more words come.
        """
        items = self._items([word.word for word in words], final)
        text = " ".join(item.text for item in items)
        if len(text) <= len(self._shown):
            # a word that has begun to be shown is waited for: "B" may become "B2B"
            return "", ()
        delta, self._shown = text[len(self._shown) :], text
        count = sum(map(bool, delta.split(" ")))
        return delta, self._words(items, words)[-count:] if count else ()

    def final(self, segment: Final) -> Final:
        """The finished segment."""
        items = self._items([word.word for word in segment.words], True)
        words = self._words(items, segment.words)
        return replace(segment, text=" ".join(word.word for word in words), words=words)

    def _items(self, words: list[str], final: bool) -> list[_Item]:
        tokens = [_Token.of(word, open=not final and i == len(words) - 1) for i, word in enumerate(words)]
        items: list[_Item] = []
        at = 0
        while at < len(words):
            try:
                item = self._rewrite(tokens, at, final)
            except _NotYet:
                break
            item = item or _Item(words[at], at, at + 1)
            items.append(item)
            at = item.last
        return items

    def _words(self, items: Sequence[_Item], words: Sequence[Word]) -> tuple[Word, ...]:
        found: list[Word] = []
        for item in items:
            group = words[item.first : item.last]
            texts = item.text.split(" ")
            start, seconds = group[0].start, group[-1].end - group[0].start
            letters, done = sum(map(len, texts)), 0
            for text in texts:
                begin = start + seconds * done / letters
                done += len(text)
                found.append(
                    Word(
                        text,
                        begin,
                        start + seconds * done / letters,
                        min(word.confidence for word in group),
                        max(word.emitted for word in group),
                    )
                )
        return tuple(found)


def _peek(tokens: Sequence[_Token], at: int, final: bool) -> _Token | None:
    """The token at a place, None after the last; raises _NotYet where one may come or become one of ours."""
    if at >= len(tokens):
        if final:
            return None
        raise _NotYet
    token = tokens[at]
    if token.open and _may_become(token):
        raise _NotYet
    return token


def _may_become(token: _Token) -> bool:
    *done, last = token.parts
    if token.after or not all(part in _VOCABULARY for part in done):
        return token.bare.lower() in _VOCABULARY or all(part in _VOCABULARY for part in token.parts)
    return any(word.startswith(last) for word in _VOCABULARY)


# ---- to digits


class _Reader:
    """Reads number words one after another; a mark after a word ends what it belongs to."""

    def __init__(self, tokens: Sequence[_Token], at: int, final: bool) -> None:
        self.tokens, self.final, self._first = tokens, final, at
        # place of the next word: token, part of it
        self.at, self.part = at, 0

    def word(self, ahead: int = 0) -> str | None:
        """The word so many places ahead, None where the phrase cannot go on."""
        at, part = self.at, self.part
        for _ in range(ahead):
            at, part = self._after(at, part)
        token = _peek(self.tokens, at, self.final)
        if token is None:
            return None
        begun = at == self._first
        # marks before a word, and after the word before it, separate
        if (token.before and not begun) or (not begun and self.tokens[at - 1].after):
            return None
        parts = token.parts
        # "twenty-one" is two words of ours, "one-off" none
        return parts[part] if all(p in _VOCABULARY for p in parts) else None

    def _after(self, at: int, part: int) -> tuple[int, int]:
        if part + 1 < len(self.tokens[at].parts):
            return at, part + 1
        return at + 1, 0

    def take(self) -> None:
        self.at, self.part = self._after(self.at, self.part)

    def state(self) -> tuple[int, int]:
        return self.at, self.part


@dataclass(frozen=True, slots=True)
class _Number:
    """`value`; `ordinal`: "twenty-first"; `digits`: as they are written, if that is not by the value."""

    value: int
    ordinal: bool = False
    digits: str = ""
    words: int = 1


def _to_digits(tokens: Sequence[_Token], at: int, final: bool) -> _Item | None:
    token = _peek(tokens, at, final)
    if token is None or not all(part in _VOCABULARY for part in token.parts):
        return None
    reader = _Reader(tokens, at, final)
    previous = tokens[at - 1].bare.lower() if at and not tokens[at - 1].after else ""
    number = _year(reader) or _digit_string(reader, previous) or _cardinal(reader)
    if number is None or reader.part:
        return None
    last = reader.at
    text = number.digits or _grouped(number.value)
    if number.ordinal:
        if number.value < 10:
            return None
        text += _suffix(number.value)
    else:
        if not number.digits:
            text, last = _with_fraction(reader, number, text, previous)
            if not text:
                return None
        if _lone_one(tokens, at, last, final, text):
            return None
    return _Item(tokens[at].before + text + tokens[last - 1].after, at, last)


def _cardinal(reader: _Reader) -> _Number | None:
    """`two hundred and five thousand and six`, or an ordinal; None where none begins."""
    total, count = 0, 0
    largest = None
    while True:
        state = reader.state()
        below = _below_thousand(reader, after_number=count > 0)
        if below is None:
            reader.at, reader.part = state
            break
        count += below.words
        if below.ordinal:
            return _Number(total + below.value, ordinal=True, words=count)
        scale = reader.word()
        if scale in _SCALES and (largest is None or _SCALES[scale] < largest):
            reader.take()
            largest = _SCALES[scale]
            total += below.value * largest
            count += 1
            continue
        if scale in _ORDINAL_SCALES and scale != "hundredth":
            reader.take()
            return _Number(total + below.value * _ORDINAL_SCALES[scale], ordinal=True, words=count + 1)
        total += below.value
        break
    return _Number(total, words=count) if count else None


def _below_thousand(reader: _Reader, after_number: bool) -> _Number | None:
    count = 0
    if after_number and reader.word() == "and":
        # "two thousand and five", but not "two thousand and a half"
        if reader.word(1) not in _BELOW_HUNDRED:
            return None
        reader.take()
        count = 1
        found = _below_hundred(reader)
        return found and replace(found, words=found.words + count)
    found = _below_hundred(reader)
    if found is None or found.ordinal:
        return found
    value, count = found.value, found.words
    if 1 <= value <= 99 and reader.word() in ("hundred", "hundredth"):
        ordinal = reader.word() == "hundredth"
        reader.take()
        value, count = value * 100, count + 1
        if ordinal:
            return _Number(value, ordinal=True, words=count)
        state = reader.state()
        if reader.word() == "and":
            if reader.word(1) not in _BELOW_HUNDRED:
                return _Number(value, words=count)
            reader.take()
        rest = _below_hundred(reader)
        if rest is None or reader.word() == "hundred" or rest.value == 0:
            reader.at, reader.part = state
            return _Number(value, words=count)
        return _Number(value + rest.value, rest.ordinal, words=count + rest.words)
    return _Number(value, words=count)


def _below_hundred(reader: _Reader) -> _Number | None:
    word = reader.word()
    if word is None:
        return None
    for table in (_ORDINAL_UNITS, _ORDINAL_TEENS, _ORDINAL_TENS):
        if word in table:
            reader.take()
            return _Number(table[word], ordinal=True)
    if word in _TENS:
        reader.take()
        following = reader.word()
        if following in _UNITS and following != "zero":
            reader.take()
            return _Number(_TENS[word] + _UNITS[following], words=2)
        if following in _ORDINAL_UNITS:
            reader.take()
            return _Number(_TENS[word] + _ORDINAL_UNITS[following], ordinal=True, words=2)
        return _Number(_TENS[word])
    if word in _COUNTS:
        reader.take()
        return _Number(_COUNTS[word])
    return None


def _year(reader: _Reader) -> _Number | None:
    """`nineteen eighty-four`, `twenty twenty`, `nineteen oh five`."""
    start = reader.state()
    word = reader.word()
    century = {**_TEENS, "twenty": 20}.get(word or "", 0)
    if century >= 13:
        reader.take()
        following = reader.word()
        if following == "oh" and reader.word(1) in _UNITS:
            reader.take()
            year = _UNITS[reader.word() or "zero"]
            reader.take()
            return _Number(0, digits=f"{century}{year:02}")
        if following in _TEENS or following in _TENS:
            rest = _below_hundred(reader)
            # "sixteen twenty thousand" is no year
            if rest is not None and not rest.ordinal and reader.word() not in ("hundred", *_SCALES):
                return _Number(0, digits=f"{century}{rest.value}")
    reader.at, reader.part = start
    return None


def _digit_string(reader: _Reader, previous: str) -> _Number | None:
    """Three single digits or more, as of a telephone number. previous: the word before them."""
    start, digits = reader.state(), ""
    if previous in _BEFORE_TIMES and reader.word() in _UNITS and reader.word(1) == "oh":
        # "at six oh five"
        return None
    while (word := reader.word()) in _UNITS or (word == "oh" and digits):
        digits += "0" if word == "oh" else str(_UNITS[word or "zero"])
        reader.take()
    if len(digits) >= 3 and reader.word() not in ("hundred", *_SCALES, "point"):
        return _Number(0, digits=digits)
    reader.at, reader.part = start
    return None


def _with_fraction(reader: _Reader, number: _Number, text: str, previous: str) -> tuple[str, int]:
    """What may follow a count: decimals, millions, percent, minutes. previous: the word before it.

    Returns the text and the place after its last word. An empty text: it is no count.
    """
    following = reader.word()
    if following in _FRACTIONS or (following == "and" and reader.word(1) in ("half", "quarter")):
        return "", reader.at
    if following == "point" and reader.word(1) in _UNITS and not (number.value == 1 and previous == "at"):
        reader.take()
        text += "."
        while (word := reader.word()) in _UNITS:
            text += str(_UNITS[word or "zero"])
            reader.take()
        following = reader.word()
    elif previous in _BEFORE_TIMES and 1 <= number.value <= 12 and number.words == 1:
        state = reader.state()
        oh = following == "oh"
        if oh:
            reader.take()
        minutes = _below_hundred(reader) if oh or following in _TEENS or following in _TENS else None
        if minutes is not None and not minutes.ordinal and minutes.value < 60 and (minutes.value < 10) == oh:
            return f"{number.value}:{minutes.value:02}", reader.at
        reader.at, reader.part = state
    # "3 million" is read more easily than its zeros
    for name, scale in _SCALES.items():
        if scale < 10**6:
            continue
        if following == name and "." in text:
            reader.take()
            return f"{text} {name}", reader.at
        if number.value >= scale and number.value % scale == 0 and number.value < 1000 * scale:
            text = f"{number.value // scale} {name}"
    if following == "percent":
        reader.take()
        return f"{text}%", reader.at
    if following == "per" and reader.word(1) == "cent":
        reader.take()
        reader.take()
        return f"{text}%", reader.at
    return text, reader.at


def _lone_one(tokens: Sequence[_Token], at: int, last: int, final: bool, text: str) -> bool:
    """Is it "one" without a number beside it? That is as often "one of them" as a count."""
    if text != "1":
        return False
    neighbours = [tokens[at - 1] if at else None, _peek(tokens, last, final)]
    return not any(token is not None and _is_number(token) for token in neighbours)


def _is_number(token: _Token) -> bool:
    return token.bare[:1].isdigit() or all(part in _COUNTS for part in token.parts)


def _grouped(value: int) -> str:
    return f"{value:,}" if value >= 10000 else str(value)


def _suffix(value: int) -> str:
    return "th" if value % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(value % 10, "th")


# ---- to words


def _to_words(tokens: Sequence[_Token], at: int, final: bool) -> _Item | None:
    token = tokens[at]
    # a figure may still grow, and so may what could be "twenty" of "twenty-one"
    if token.open and (_holds_figures(token) or any(word.startswith(token.bare.lower()) for word in _TENS)):
        raise _NotYet
    if token.bare.lower() in _TENS and not token.after:
        following = _peek(tokens, at + 1, final)
        units = {*_UNITS, *_ORDINAL_UNITS} - {"zero"}
        if following is not None and not following.before and following.bare.lower() in units:
            text = f"{token.before}{token.bare}-{following.bare}{following.after}"
            return _Item(text, at, at + 2)
        return None
    match = _WRITTEN.fullmatch(token.bare)
    # "%" is no mark that stands around a word
    spoken = _spoken(match) if match else ""
    if not spoken:
        return None
    if at == 0 or tokens[at - 1].after.rstrip("\"'”’)]")[-1:] in (".", "?", "!"):
        spoken = spoken[0].upper() + spoken[1:]
    return _Item(token.before + spoken + token.after, at, at + 1)


def _holds_figures(token: _Token) -> bool:
    return any(c.isdigit() or c in _MONEY for c in token.bare) or not token.bare


def _spoken(match: re.Match[str]) -> str:
    """A figure as it is spoken; empty for one that is none of ours."""
    whole, rest = match["whole"], match["rest"]
    if len(whole.replace(",", "")) > 15 or (match["th"] and (rest or match["money"] or match["percent"])):
        return ""
    value = int(whole.replace(",", ""))
    if match["minutes"]:
        minutes = int(match["minutes"])
        if value > 24 or rest or match["money"] or match["th"] or match["percent"]:
            return ""
        after = "o'clock" if not minutes else f"oh {_words(minutes)}" if minutes < 10 else _words(minutes)
        return f"{_words(value)} {after}"
    if match["th"]:
        return _ordinal(value)
    if match["money"]:
        one, part = _MONEY[match["money"]]
        text = f"{_words(value)} {one}{'' if value == 1 else 's'}"
        if rest:
            if len(rest) != 2:
                return f"{_words(value)} point {_each(rest)} {one}s"
            parts = {"penny": "pence"}.get(part, f"{part}s")
            text += f" and {_words(int(rest))} {part if int(rest) == 1 else parts}" if int(rest) else ""
        return text
    if rest:
        text = f"{_words(value)} point {_each(rest)}"
    elif "," not in whole and ((len(whole) > 1 and whole[0] == "0") or len(whole) > 6):
        text = _each(whole)
    elif "," not in whole and not match["percent"] and _is_year(value):
        century, year = divmod(value, 100)
        text = f"{_words(century)} {'hundred' if not year else _words(year) if year > 9 else f'oh {_words(year)}'}"
    else:
        text = _words(value)
    return f"{text} percent" if match["percent"] else text


def _is_year(value: int) -> bool:
    return 1100 <= value <= 1999 or 2010 <= value <= 2099


def _each(digits: str) -> str:
    names = list(_UNITS)
    return " ".join(names[int(digit)] for digit in digits)


def _words(value: int) -> str:
    """123456 -> one hundred and twenty-three thousand four hundred and fifty-six"""
    if value < 20:
        return [*_UNITS, *_TEENS][value]
    if value < 100:
        tens = list(_TENS)[value // 10 - 2]
        return tens if value % 10 == 0 else f"{tens}-{_words(value % 10)}"
    if value < 1000:
        text = f"{_words(value // 100)} hundred"
        return text if value % 100 == 0 else f"{text} and {_words(value % 100)}"
    for name, scale in reversed(_SCALES.items()):
        if value >= scale:
            text = f"{_words(value // scale)} {name}"
            rest = value % scale
            return text if not rest else f"{text} {'and ' if rest < 100 else ''}{_words(rest)}"
    raise AssertionError(value)


def _ordinal(value: int) -> str:
    *front, last = re.split(r"([ -])", _words(value))
    for cardinals, ordinals in (
        (list(_UNITS)[1:], list(_ORDINAL_UNITS)),
        (list(_TEENS), list(_ORDINAL_TEENS)),
        (list(_TENS), list(_ORDINAL_TENS)),
        (["hundred", *_SCALES], list(_ORDINAL_SCALES)),
    ):
        if last in cardinals:
            return "".join(front) + ordinals[cardinals.index(last)]
    return "zeroth"
