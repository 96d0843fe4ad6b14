"""Pronunciations for words that a dictionary lacks, good enough to find the word in audio.

Forced alignment needs roughly the right number of roughly the right sounds: vowels as vowels, hissing as
hissing. English spelling read letter by letter gives that; it would not do for recognition or synthesis.
"""

from __future__ import annotations

from collections.abc import Callable

Lookup = Callable[[str], str | None]

# fmt: off
# longest match first; ARPAbet as in cmudict
_LETTERS = {
    "tion": "SH AH N", "sion": "ZH AH N", "ough": "AO", "augh": "AO", "eigh": "EY",
    "tch": "CH", "igh": "AY", "sch": "SH", "dge": "JH", "eau": "OW", "ous": "AH S",
    "ch": "CH", "sh": "SH", "th": "TH", "ph": "F", "wh": "W", "ck": "K", "ng": "NG", "qu": "K W", "gh": "G",
    "kn": "N", "wr": "R", "ai": "EY", "ay": "EY", "au": "AO", "aw": "AO", "ea": "IY", "ee": "IY", "ei": "IY",
    "ey": "IY", "ie": "IY", "oa": "OW", "oe": "OW", "oi": "OY", "oy": "OY", "oo": "UW", "ou": "AW",
    "ow": "OW", "ue": "UW", "ui": "UW", "ew": "UW", "er": "ER", "ir": "ER", "ur": "ER", "ar": "AA R",
    "or": "AO R", "bb": "B", "cc": "K", "dd": "D", "ff": "F", "gg": "G", "ll": "L", "mm": "M", "nn": "N",
    "pp": "P", "rr": "R", "ss": "S", "tt": "T", "zz": "Z",
    "a": "AE", "b": "B", "c": "K", "d": "D", "e": "EH", "f": "F", "g": "G", "h": "HH", "i": "IH", "j": "JH",
    "k": "K", "l": "L", "m": "M", "n": "N", "o": "OW", "p": "P", "q": "K", "r": "R", "s": "S", "t": "T",
    "u": "AH", "v": "V", "w": "W", "x": "K S", "y": "IY", "z": "Z",
}
# fmt: on
_SIBILANTS = frozenset(("S", "Z", "SH", "ZH", "CH", "JH"))
_VOICELESS = frozenset(("P", "T", "K", "F", "TH"))


def pronounce(word: str, lookup: Lookup) -> str:
    """Phones ("K AE T") of `word`, lower-case letters and apostrophes; at least one letter.

    `lookup` is the dictionary: the phones of a word, or None. Tried in turn: the dictionary, a possessive
    or plural of a word in it, two words of it written together, the letters.
    """
    return lookup(word) or _inflected(word, lookup) or _compound(word, lookup) or _spelled(word)


def _inflected(word: str, lookup: Lookup) -> str | None:
    for suffix in ("'s", "s'", "'", "s"):
        stem = word.removesuffix(suffix)
        phones = lookup(stem) if stem and stem != word else None
        if phones is None:
            continue
        last = phones.split()[-1]
        if suffix == "'":
            return phones
        if last in _SIBILANTS:
            return phones + " IH Z"
        return phones + (" S" if last in _VOICELESS else " Z")
    return None


def _compound(word: str, lookup: Lookup) -> str | None:
    # the most even split, both parts long enough to be words rather than chance
    cuts = sorted(range(3, len(word) - 2), key=lambda i: abs(2 * i - len(word)))
    for cut in cuts:
        first, second = lookup(word[:cut]), lookup(word[cut:])
        if first is not None and second is not None:
            return f"{first} {second}"
    return None


def _spelled(word: str) -> str:
    letters = word.replace("'", "")
    # a final e is mute, except in the shortest words
    if len(letters) > 3 and letters[-1] == "e" and letters[-2] not in "aeiou":
        letters = letters[:-1]
    phones = []
    i = 0
    while i < len(letters):
        size = next(n for n in (4, 3, 2, 1) if letters[i : i + n] in _LETTERS)
        phones.append(_LETTERS[letters[i : i + size]])
        i += size
    return " ".join(phones)
