"""Values as clients write them: whole numbers, languages, base64. One reading for all protocols."""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
from typing import Any

from ..errors import UserError
from ..hotwords import DEFAULT_STRENGTH, MAX_STRENGTH, check_terms
from ..numbers import FORMS
from .settings import Refused

# what asks for no language in particular
_ANY_LANGUAGE = frozenset({"", "auto", "detect", "automatic", "und", "multi", "none", "null"})
# English names and three-letter codes (ISO 639-2 and -3) of languages that models are made for
_NAMES = {
    "ar": ("arabic", "ara"),
    "cs": ("czech", "ces", "cze"),
    "de": ("german", "deu", "ger"),
    "en": ("english", "eng"),
    "es": ("spanish", "spa", "castilian"),
    "fr": ("french", "fra", "fre"),
    "hi": ("hindi", "hin"),
    "it": ("italian", "ita"),
    "ja": ("japanese", "jpn"),
    "ko": ("korean", "kor"),
    "nl": ("dutch", "nld", "dut"),
    "pl": ("polish", "pol"),
    "pt": ("portuguese", "por"),
    "ru": ("russian", "rus"),
    "tr": ("turkish", "tur"),
    "uk": ("ukrainian", "ukr"),
    "vi": ("vietnamese", "vie"),
    "zh": ("chinese", "zho", "chi", "mandarin"),
}
_CODES = {name: code for code, names in _NAMES.items() for name in names}
# ASCII digits alone: int() takes "1_000" and digits of other scripts
_WHOLE = re.compile(r"[+-]?[0-9]{1,12}(\.0*)?")
_DATA_URL = re.compile(r"data:[^,]{0,100},")
_SPACE = re.compile(r"[ \t\r\n]+")


def whole_number(value: Any, name: str, low: int, high: int) -> int:
    """A whole number from `low` to `high`, also written as 500.0, "500" or "500.0". Raises Refused."""
    number: int | None = None
    if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
        number = int(value.strip().partition(".")[0])
    elif isinstance(value, float) and value.is_integer():
        number = int(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        number = value
    if number is None or not low <= number <= high:
        raise Refused("bad_request", f"{name} must be a whole number from {low} to {high}")
    return number


def language_code(value: str) -> str:
    """ "en_US.UTF-8", "English" and "eng" are "en"; "" where none is asked for."""
    text = re.split(r"[-_.@]", value.strip().lower(), maxsplit=1)[0]
    return "" if text in _ANY_LANGUAGE else _CODES.get(text, text)


def check_language(wanted: Any, language: str) -> None:
    """Raises Refused for another language than the model's, however it is written."""
    if wanted is None:
        return
    code = language_code(wanted) if isinstance(wanted, str) else None
    if code is None or (code and code != language_code(language)):
        raise Refused("bad_request", f"language: this model knows only {language}")


def read_numbers(value: Any) -> str | None:
    """The form of numbers; None, as for None and "", is the model's own. Raises Refused for another word."""
    form = value.lower() if isinstance(value, str) else value
    if form not in (None, "", *FORMS):
        raise Refused("bad_request", f"numbers must be {' or '.join(FORMS)}")
    return form or None


def read_terms(value: Any) -> tuple[str, ...]:
    """Hot words: a list of strings, or one string with commas between them. Raises Refused for others, and too many."""
    try:
        return check_terms(value.split(",") if isinstance(value, str) else value)
    except UserError as err:
        raise Refused("bad_request", str(err)) from None


def read_strength(value: Any) -> float:
    """How much hot words are preferred, as a number or in a string; the default for None and "". Raises Refused."""
    if value is None or value == "":
        return DEFAULT_STRENGTH
    number = float("nan")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        # JSON has whole numbers that no float can hold
        with contextlib.suppress(OverflowError):
            number = float(value)
    elif isinstance(value, str) and len(value) < 20:
        with contextlib.suppress(ValueError):
            number = float(value)
    if not 0 <= number <= MAX_STRENGTH:
        raise Refused("bad_request", f"hotwords_strength must be a number from 0 to {MAX_STRENGTH:g}")
    return number


def base64_bytes(text: Any) -> bytes:
    """Base64 with or without padding, line breaks and a data URL's head, in either alphabet. Raises Refused."""
    if not isinstance(text, str):
        raise Refused("bad_message", "audio must be base64")
    if text.startswith("data:") and (head := _DATA_URL.match(text)):
        text = text[head.end() :]
    if not text.isalnum():
        text = _SPACE.sub("", text).rstrip("=").translate({ord("-"): "+", ord("_"): "/"})
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise Refused("bad_message", "audio is not valid base64") from None
