"""Word times from pocketsphinx's hidden Markov models: an aligner that shares nothing with our own.

Used to judge the teacher's alignments and as the reference for the emission delay. Without torch.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..audio import SAMPLE_RATE
from .pronunciation import pronounce

FRAME_SECONDS = 0.01
# a frame is a window of 25.6 ms that starts where the frame does; two frames meet midway between their
# windows' middles
_FRAME_OFFSET = (0.0256 - FRAME_SECONDS) / 2
# silence between words as likely as none: with the default of 0.005 a word swallows the pause that follows it
# (word ends off by more than 100 ms on synthetic speech: 6.6 % by default, 2.9 % like this)
_SILENCE_PROBABILITY = 0.5
# silence after the audio: without it the last word stretches over the silence that the audio ends with
# (its end is 100 ms late on synthetic speech, 35 ms like this)
_TAIL = bytes(2 * 4800)
# the shortest audio worth a try; the front end wants a few windows
_MIN_SAMPLES = 800
# what is not letters and apostrophes is not in the dictionary, and its own markers must not come in through
# a text
_WORD = re.compile(r"[a-z']*[a-z][a-z']*")
# an alternative pronunciation: "the(2)"
_ALTERNATIVE = re.compile(r"\(\d+\)$")
_lock = threading.Lock()


@functools.lru_cache(maxsize=2)
def _decoder(kind: str = "align") -> Any:
    # "dictionary" is a second one that is never added to, so that what is known does not depend on what
    # came before
    from pocketsphinx import Decoder

    # no dither: the same audio gives the same times
    return Decoder(lm=None, loglevel="FATAL", dither=False, silprob=_SILENCE_PROBABILITY)


def in_dictionary(word: str) -> bool:
    """Whether pocketsphinx's dictionary (cmudict) has the word, in any case."""
    return (
        bool(_WORD.fullmatch(word.lower())) and _decoder("dictionary").lookup_word(word.lower()) is not None
    )


def align_words(
    audio: np.ndarray, words: Sequence[str], *, guess: bool = True
) -> list[tuple[str, float, float]] | None:
    """Times of known words in audio.

    `audio`: float32 [N], 16 kHz mono, in [-1, 1]. `words`: any case, apostrophes allowed, no punctuation.
    Returns (word as given, start, end) in seconds for every word, in order. None when the words do not fit
    the audio, there are none, one is not made of the letters a to z, or, without `guess`, one is not in the
    dictionary; with `guess` such a word's pronunciation is made up from its spelling. Never raises for odd
    input; safe with threads.
    """
    audio = np.asarray(audio, dtype=np.float32)
    if audio.ndim != 1 or len(audio) < _MIN_SAMPLES or not np.isfinite(audio).all():
        return None
    lowered = [w.lower() for w in words]
    if not lowered or not all(_WORD.fullmatch(w) for w in lowered):
        return None
    if not guess and not all(map(in_dictionary, lowered)):
        return None
    pcm = (np.clip(audio, -1.0, 1.0) * 32767.0).astype("<i2").tobytes() + _TAIL
    with _lock:
        segments = _align(pcm, lowered)
    if [word for word, _, _ in segments] != lowered:
        # the best path did not reach the end of the text
        return None
    seconds = len(audio) / SAMPLE_RATE
    return [
        (word, min(_seconds(first), seconds), min(_seconds(last + 1), seconds))
        for word, (_, first, last) in zip(words, segments, strict=True)
    ]


def _seconds(frame: int) -> float:
    """When a frame begins; 0 for the first."""
    return round(frame * FRAME_SECONDS + _FRAME_OFFSET, 4) if frame else 0.0


def _align(pcm: bytes, words: list[str]) -> list[tuple[str, int, int]]:
    """(word, first frame, last frame) of the best path; empty when there is none."""
    decoder = _decoder()
    for word in dict.fromkeys(words):
        if decoder.lookup_word(word) is None:
            decoder.add_word(word, pronounce(word, _decoder("dictionary").lookup_word), True)
    try:
        decoder.set_align_text(" ".join(words))
        # forget the noise estimate of the audio before, so that the times depend on this audio alone
        decoder.start_stream()
        decoder.start_utt()
        try:
            decoder.process_raw(pcm, full_utt=True)
        finally:
            decoder.end_utt()
        segments = [(s.word, s.start_frame, s.end_frame) for s in decoder.seg() or ()]
    except RuntimeError:
        return []
    # drop silence (<sil>) and noise ([NOISE], ++UH++)
    return [(_ALTERNATIVE.sub("", w), a, b) for w, a, b in segments if w[0] not in "<[+"]
