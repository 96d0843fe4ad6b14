"""Synthetic speech for training: book sentences in free voices, as a plain manifest.

    python recipes/tools/synthetic_speech.py hibari --text books.txt --out out/speech/hibari --hours 10
    python recipes/tools/synthetic_speech.py flite --text books.txt --out out/speech/flite --hours 8
    python recipes/tools/synthetic_speech.py kokoro --voices package/voices --text books.txt --hours 2 \\
        --out out/speech/kokoro
    python recipes/tools/synthetic_speech.py hibari --isolated --text books.txt --out out/speech/hibari-words --hours
    0.5

What has to be installed is at the top of voices.py. One core makes a minute of speech in about a second with
hibari's one voice or flite's three, in about 35 seconds with Kokoro's 54. The few voices become more: each sentence is
spoken faster or slower and resampled back, which moves pitch and formants as a shorter or longer vocal tract would,
and of Kokoro's sentences most are in a voice between two. With --isolated they say a word or two at a time, with
silence or
faint noise around: commands, numbers, and words of the text, often ones less often than they are there.

Writes OUT/ID.opus (16 kHz) and a row for each to OUT.jsonl at once, so that a stopped run keeps what it has made; run
it again with another --seed for more.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import re
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import soxr
from utterances import between_silences, write_utterance
from voices import FLITE, RATE, Voices

from speech_reallm.audio import SAMPLE_RATE

# ratios by which pitch and formants move
SHIFTS = {
    "hibari": (0.8, 0.86, 0.92, 1.0, 1.08, 1.16),
    "flite": (0.8, 0.86, 0.92, 1.0, 1.08, 1.16),
    "kokoro": (0.93, 1.0, 1.0, 1.07),
}
# of Kokoro's sentences, those in voices that speak English with an accent
ACCENTED = 0.15
# and those in one voice, not between two
UNMIXED = 0.25
# isolated words: those of this list
COMMANDED = 0.4
COMMANDS = (
    "yes", "no", "yeah", "okay", "stop", "go", "start", "pause", "play", "next", "back", "up", "down", "left",
    "right", "on", "off", "open", "close", "help", "hello", "goodbye", "bye", "thanks", "please", "wait",
    "cancel", "save", "delete", "send", "call", "now", "later", "here", "there", "what", "who", "why", "where",
    "when", "how", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "twenty", "thirty", "forty", "fifty", "hundred", "thousand", "first", "second", "last",
    "good", "great", "sure", "maybe", "never", "always", "again", "more", "less", "ready", "done"
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", choices=("hibari", "flite", "kokoro"))
    parser.add_argument("--voices", type=Path, help="kokoro: folder of its voices")
    parser.add_argument("--text", type=Path, required=True, help="sentences, one a line")
    parser.add_argument("--out", type=Path, required=True, help="folder of the audio; manifest: OUT.jsonl")
    parser.add_argument("--hours", type=float, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--isolated", action="store_true", help="a word or two between silences, not sentences"
    )
    args = parser.parse_args()

    rng = random.Random(f"{args.engine} {args.seed}")
    voices = Voices(args.voices)
    sentences = [s.strip() for s in args.text.read_text(encoding="utf-8").splitlines()]
    if args.isolated:
        sentences = isolated(sentences, rng)
    else:
        sentences = [s for s in sentences if 3 <= len(s.split()) <= 32]
        rng.shuffle(sentences)
    args.out.mkdir(parents=True, exist_ok=True)
    total = 0.0
    with args.out.with_suffix(".jsonl").open("a", encoding="utf-8") as rows:
        for text in sentences:
            if total >= args.hours * 3600:
                break
            voice = pick(rng, voices, args.engine)
            shift = rng.choice(SHIFTS[args.engine])
            speed = rng.choice([0.9, 1.0, 1.0, 1.1, 1.2])
            speaker = voice if shift == 1.0 else f"{voice}-{shift}"
            name = f"{speaker.replace('*', '-')}-{hashlib.sha1(f'{speaker}{speed}{text}'.encode()).hexdigest()[:10]}"
            if (args.out / f"{name}.opus").exists():
                continue
            try:
                audio = voices.say(text, voice, speed / shift)
            except (ValueError, KeyError, IndexError, subprocess.CalledProcessError) as err:
                # a sentence that the phonemiser cannot read
                print("skipped:", text[:60], repr(err)[:80], flush=True)
                continue
            audio = soxr.resample(audio, RATE * shift, SAMPLE_RATE)
            if args.isolated:
                audio = between_silences(audio, rng)
            audio *= 10 ** (rng.uniform(-14, -1) / 20) / max(float(np.abs(audio).max()), 1e-4)
            total += write_utterance(audio, args.out, rows, name=name, speaker=speaker, text=text)
    print(f"{args.out.with_suffix('.jsonl')}: {total / 3600:.2f} hours more")


def isolated(sentences: list[str], rng: random.Random) -> list[str]:
    """A hundred thousand texts of a word or, of five, two: commands, and words as often as the root of their count."""
    words = Counter(w for s in sentences for w in re.findall(r"[a-z]+(?:'[a-z]+)?", s))
    chances = [n**0.5 for n in words.values()]
    drawn = iter(rng.choices(list(words), chances, k=200_000))
    texts = []
    for _ in range(100_000):
        word = rng.choice(COMMANDS) if rng.random() < COMMANDED else next(drawn)
        text = f"{word} {next(drawn)}" if rng.random() < 0.2 else word
        texts.append(f"{text[0].upper()}{text[1:]}.")
    return texts


def pick(rng: random.Random, voices: Voices, engine: str) -> str:
    if engine == "hibari":
        return "hibari"
    if engine == "flite":
        return rng.choice(FLITE)
    names = (rng.random() < ACCENTED and voices.accented) or voices.native
    first, second = rng.sample(names, 2)
    return first if rng.random() < UNMIXED else f"{first}+{second}*{rng.uniform(0.2, 0.5):.2f}"


if __name__ == "__main__":
    main()
