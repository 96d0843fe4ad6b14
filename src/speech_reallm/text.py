"""Text as it is scored, and as it is trained on."""

from __future__ import annotations

import re
import unicodedata

_APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u201b\u02bc\u2032\u00b4\u0060\uff07", "'"))


def normalize(text: str) -> str:
    """For scoring, as LibriSpeech writes its transcripts, in lower case: letters, digits and apostrophes.

    Other punctuation separates words. Letters of any script stay. Idempotent.
    """
    # lower-casing can decompose a letter, composing first and last makes the result stable
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).lower()).translate(_APOSTROPHES)
    kept = "".join(c if c == "'" or unicodedata.category(c)[0] in "LMN" else " " for c in text)
    return " ".join(filter(None, map(_word, kept.split())))


_ONES = (  # noqa: SIM905
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SCALES = ("", "thousand", "million", "billion", "trillion")
_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}


def spell_cardinal(number: int) -> str:
    """1984 -> "one thousand nine hundred eighty four". Raises ValueError below 0 and from 10**15 on."""
    if not 0 <= number < 1000 ** len(_SCALES):
        raise ValueError(f"no words for {number}")
    if number < 20:
        return _ONES[number]
    if number < 100:
        return _TENS[number // 10] + (f" {_ONES[number % 10]}" if number % 10 else "")
    for power in range(len(_SCALES) - 1, 0, -1):
        unit = 1000**power
        if number >= unit:
            head = f"{spell_cardinal(number // unit)} {_SCALES[power]}"
            return head + (f" {spell_cardinal(number % unit)}" if number % unit else "")
    return f"{_ONES[number // 100]} hundred" + (f" {spell_cardinal(number % 100)}" if number % 100 else "")


def spell_ordinal(number: int) -> str:
    """22 -> "twenty second"."""
    *head, last = spell_cardinal(number).split()
    if last in _ORDINALS:
        last = _ORDINALS[last]
    else:
        last = (last[:-1] + "ie" if last.endswith("y") else last) + "th"
    return " ".join([*head, last])


def spell_year(year: int) -> str:
    """1984 -> "nineteen eighty four", 1905 -> "nineteen oh five", 2007 -> "two thousand seven"."""
    century, rest = divmod(year, 100)
    if year % 1000 < 10:
        return spell_cardinal(year)
    if rest == 0:
        return f"{spell_cardinal(century)} hundred"
    return f"{spell_cardinal(century)} {'oh ' if rest < 10 else ''}{spell_cardinal(rest)}"


def _digits(digits: str) -> str:
    return " ".join(_ONES[int(d)] for d in digits)


def _integer(digits: str, year: bool = False) -> str:
    if year and len(digits) == 4 and 1100 <= int(digits) < 2100:
        return spell_year(int(digits))
    # a number with leading zeros is a code, and a very long one is read digit by digit
    if (digits[0] == "0" and len(digits) > 1) or len(digits) > 15:
        return _digits(digits)
    return spell_cardinal(int(digits))


def _plural(words: str) -> str:
    """eighty -> eighties, six -> sixes, hundred -> hundreds."""
    if words.endswith("y"):
        return words[:-1] + "ies"
    return words + ("es" if words.endswith("x") else "s")


_NUMBER = re.compile(
    r"(?P<money>[$£€])?(?P<whole>\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.(?P<fraction>\d+))?"
    r"(?:(?P<ordinal>st|nd|rd|th)|'?(?P<plural>s))?(?![a-z])(?P<percent>\s?%)?"
)
_MONEY = {"$": ("dollar", "cent"), "£": ("pound", "pence"), "€": ("euro", "cent")}


def _spell_match(match: re.Match[str]) -> str:
    digits, fraction = match["whole"].replace(",", ""), match["fraction"]
    if match["money"]:
        words = _spell_money(match["money"], digits, fraction)
    elif fraction:
        words = f"{_integer(digits)} point {_digits(fraction)}"
    elif match["ordinal"] and len(digits) <= 15:
        words = spell_ordinal(int(digits))
    else:
        words = _integer(digits, year="," not in match["whole"])
        if match["plural"]:
            words = _plural(words)
    if match["percent"]:
        words += " percent"
    return f" {words} "


def _spell_money(sign: str, digits: str, fraction: str | None) -> str:
    unit, small = _MONEY[sign]
    cents = int(fraction) if fraction and len(fraction) == 2 else 0
    if fraction and len(fraction) != 2:
        return f"{_integer(digits)} point {_digits(fraction)} {unit}s"
    words = f"{_integer(digits)} {unit}" + ("" if digits.lstrip("0") == "1" else "s")
    if cents:
        words += f" and {spell_cardinal(cents)} {small}" + ("" if cents == 1 or small == "pence" else "s")
    return words


_TITLES = {"mr": "mister", "mrs": "missus", "dr": "doctor", "messrs": "messieurs"}
_SIGNS = {"&": " and ", "+": " plus ", "%": " percent ", "@": " at "}
# letters that do not decompose into an ASCII letter and an accent
_LETTERS = str.maketrans(
    {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "þ": "th", "ł": "l", "ı": "i", "ħ": "h"}
)
# words that begin with an apostrophe; before any other word it is a quotation mark
_APHAERESES = frozenset(
    ("tis", "twas", "twere", "twill", "twould", "em", "cause", "til", "till", "bout", "round", "neath")
)


def _word(word: str) -> str:
    """Quotation marks off, apostrophes left: 'tis, don't, dogs', talkin'."""
    core = word.strip("'")
    if not core:
        return ""
    if word.startswith("'") and core in _APHAERESES:
        core = f"'{core}"
    elif word.endswith("'") and not word.startswith("'") and core.endswith(("s", "in")):
        core = f"{core}'"
    return core


def normalize_for_training(text: str) -> str:
    """What a model is trained to write: lower-case ASCII words and apostrophes, numbers as words.

    Returns "" where nothing is left. Only a to z, the apostrophe and single spaces come out. Idempotent.
    """
    text = unicodedata.normalize("NFKD", text.lower()).lower().translate(_LETTERS).translate(_APOSTROPHES)
    text = "".join(c for c in text if not unicodedata.combining(c))
    # a letter before a digit would hide the number from \d: "b2b" is read "b two b"
    text = re.sub(r"(?<=[a-z])(?=\d)", " ", text)
    text = _ascii_digits(text)
    text = _NUMBER.sub(_spell_match, text)
    # numbers glued to letters, as in "5km"
    text = re.sub(r"\d+", lambda match: f" {_integer(match[0])} ", text)
    for sign, word in _SIGNS.items():
        text = text.replace(sign, word)
    text = re.sub(r"[^a-z']", " ", text)
    words = filter(None, map(_word, text.split()))
    return spell_titles(" ".join(words))


def spell_titles(text: str) -> str:
    """Titles in full: "mr brown" -> "mister brown". text: lower case, no punctuation, as `normalize` leaves it."""
    return " ".join(_TITLES.get(word, word) for word in text.split())


def _ascii_digits(text: str) -> str:
    """Digits of other scripts as ASCII digits, and what is a number without being one (as Ⅻ) as nothing."""
    return "".join(c if c.isascii() or not c.isdecimal() else str(unicodedata.decimal(c)) for c in text)


_DOUBLE_QUOTES = str.maketrans(dict.fromkeys('"\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033', " "))
_DASH = re.compile("[\u2012-\u2015\u2212]|--+")
_UPPER_LETTERS = str.maketrans(
    {"Æ": "Ae", "Œ": "Oe", "Ø": "O", "Đ": "D", "Ð": "D", "Þ": "Th", "Ł": "L", "Ħ": "H"}
)
_TITLE = re.compile("(mr|mrs|dr|messrs)[.]?", re.IGNORECASE)
# a word between what stands before and after it; what comes after may be an apostrophe that belongs to it
_TOKEN = re.compile(r"(?P<before>[^\w$£€&@+%]*)(?P<core>.*[\w$£€&@+%]|)(?P<after>.*)", re.ASCII)


def clean_cased(text: str) -> str:
    """What a model with case and punctuation is trained to write: ASCII words with . , ? ! ; : - ' as written.

    Quotation marks, brackets, dashes and accents are left out, since nobody can hear them; numbers and signs
    become lower-case words; titles have their dot ("Mr."). Idempotent; "" where nothing is left.
    """
    text = unicodedata.normalize("NFKD", text).translate(_LETTERS).translate(_UPPER_LETTERS)
    text = _DASH.sub(" ", text.translate(_APOSTROPHES).translate(_DOUBLE_QUOTES))
    text = _ascii_digits("".join(c for c in text if not unicodedata.combining(c)))
    text = re.sub(r"[^A-Za-z0-9.,?!;:'$£€&%@+ -]", " ", text)
    return " ".join(filter(None, map(_clean_token, text.split())))


def _clean_token(token: str) -> str:
    """A word with its punctuation, cleaned; several words for a number; "" for one without words."""
    match = _TOKEN.fullmatch(token)
    assert match is not None  # every group may be empty
    core, after = match["core"], match["after"]
    if not (words := normalize_for_training(core)):
        return ""
    if re.search(r"[^A-Za-z'.,?!;:-]", core):
        core = words
    before = "'" if "'" in match["before"] and core.lower() in _APHAERESES else ""
    # of apostrophes after it a word keeps its own: dogs', talkin'
    own = after.startswith("'") and "'" not in match["before"] and core.lower().endswith(("s", "in"))
    after = ("'" if own else "") + re.sub("['-]", "", after)
    if _TITLE.fullmatch(core) and not after.startswith("."):
        after = f".{after}"
    return before + core + after
