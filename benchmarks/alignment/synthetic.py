"""Synthetic speech whose word times are known exactly, to measure aligners with.

Two kinds, both from flite's statistical voices (Debian package `flite`), which tell when each of their
sounds ends:

- `speak_sentence`: running speech; a word lies from the start of its first sound to the end of its last;
- `speak_words`: words spoken one by one, cut to what is audible and joined with silences of known lengths.
"""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from speech_reallm.audio import SAMPLE_RATE
from speech_reallm.errors import UserError
from speech_reallm.text import normalize_for_training

# real speakers' voices, a woman and two men; the times that the fourth, kal, prints are not those of its
# audio
VOICES = ("slt", "rms", "awb")
TimedWord = tuple[str, float, float]
# below this share of the loudest sample a word is not audible (-40 dB)
_AUDIBLE = 0.01
# a floor of noise, for no microphone delivers zeros
_NOISE = 3e-5


def available() -> bool:
    """Whether flite is installed."""
    return shutil.which("flite") is not None


def speak_sentence(text: str, voice: str) -> tuple[np.ndarray, list[TimedWord]] | None:
    """Running speech: float32 [N] at 16 kHz, and (normalised word, start, end) in seconds.

    None where the sounds cannot be told apart into the words of the text (numbers, abbreviations). Raises
    UserError without flite.
    """
    words = normalize_for_training(text).split()
    audio, segments = _flite(text, voice)
    sounds = [(phone, start, end) for phone, start, end in segments if phone != "pau"]
    times: list[TimedWord] = []
    at = 0
    for word in words:
        phones = _phones(word)
        own = sounds[at : at + len(phones)]
        if not phones or [_kind(p) for p, _, _ in own] != [_kind(p) for p in phones]:
            return None
        times.append((word, own[0][1], own[-1][2]))
        at += len(phones)
    if at != len(sounds) or not times:
        return None
    return _with_noise(audio), times


def speak_words(
    words: Sequence[str], voice: str, rng: np.random.Generator, gap: tuple[float, float] = (0.1, 0.5)
) -> tuple[np.ndarray, list[TimedWord]]:
    """Words one by one with silences between: float32 [N] at 16 kHz, and (word, start, end) in seconds."""
    parts: list[np.ndarray] = []
    times: list[TimedWord] = []
    at = 0

    def add(samples: np.ndarray) -> None:
        nonlocal at
        parts.append(samples)
        at += len(samples)

    for word in words:
        add(np.zeros(round(rng.uniform(*gap) * SAMPLE_RATE), np.float32))
        sound = _trimmed(_word_audio(word, voice))
        times.append((word, at / SAMPLE_RATE, (at + len(sound)) / SAMPLE_RATE))
        add(sound)
    add(np.zeros(round(rng.uniform(*gap) * SAMPLE_RATE), np.float32))
    return _with_noise(np.concatenate(parts)), times


def _trimmed(audio: np.ndarray) -> np.ndarray:
    loud = np.flatnonzero(np.abs(audio) > _AUDIBLE * np.abs(audio).max())
    return audio[loud[0] : loud[-1] + 1] if len(loud) else audio[:0]


def _with_noise(audio: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(len(audio))
    return audio + (_NOISE * rng.standard_normal(len(audio))).astype(np.float32)


def _kind(phone: str) -> str:
    """Sounds that neighbours change into one another: all vowels are one, and so are t, d and the flap."""
    if phone[0] in "aeiou":
        return "vowel"
    return "t" if phone in ("t", "d", "dx") else phone


@functools.lru_cache(maxsize=20000)
def _phones(word: str) -> tuple[str, ...]:
    # kal is the quickest voice; all share one dictionary
    printed = _run_flite("-voice", "kal", "-ps", "-t", word, "-o", "none")
    return tuple(phone for phone in printed.split() if phone != "pau")


@functools.lru_cache(maxsize=2000)
def _word_audio(word: str, voice: str) -> np.ndarray:
    return _flite(word, voice)[0]


def _flite(text: str, voice: str) -> tuple[np.ndarray, list[tuple[str, float, float]]]:
    """Audio, and the (sound, start, end) of all of it."""
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "a.wav"
        printed = _run_flite("-voice", voice, "-psdur", "-t", text, "-o", str(wav))
        audio, rate = soundfile.read(wav, dtype="float32")
    if rate != SAMPLE_RATE:
        raise ValueError(f"the voice {voice} speaks at {rate} Hz")
    segments = []
    start = 0.0
    for phone, end in re.findall(r"(\S+):(\d+\.\d+)", printed):
        segments.append((phone, start, float(end)))
        start = float(end)
    return audio, segments


def _run_flite(*arguments: str) -> str:
    if not available():
        raise UserError("flite is not installed; on Debian: apt-get install flite")
    return subprocess.run(["flite", *arguments], check=True, capture_output=True, text=True).stdout
