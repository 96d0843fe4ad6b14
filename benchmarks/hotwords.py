"""Hot words: errors on rare terms and on all other words, for several strengths, and what it costs.

    python benchmarks/hotwords.py --jobs 2 ../shared/speech/librispeech-dev.jsonl ../shared/speech/various-dev.jsonl \
        --text ../shared/text/books.txt --strengths 0.25 0.5 1 --json out/hotwords-dev.json
    python benchmarks/hotwords.py out/speech/hotwords.jsonl --terms benchmarks/hotwords.tsv

The terms are --count words that occur in the recordings and at most --rare times in the texts, and as many distractors:
rare words of the texts that nobody speaks here. With --terms they are the first column of a table, whose second column
holds a sentence with each (recipes/tools/synthetic_speech.py speaks these), and the distractors come from --text. Of
the utterances with a term and of those without, --utterances each are taken. A term in several words is right where all
of them are. Insertions count with the other words. Every utterance is encoded once and decoded with every strength, so
that the figures are those of a stream with the label delay of --delay.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from speech_reallm import Recognizer
from speech_reallm.audio import read_audio
from speech_reallm.engine.hotwords import HotWords, Matches
from speech_reallm.evaluate.bootstrap import difference
from speech_reallm.evaluate.wer import edit_alignment, make_normalizer

SHORTEST = 5
LONGEST_SECONDS = 8.0
normalize = make_normalizer("librispeech")


@dataclass
class Utterance:
    """A row of a manifest: the words of its text, the terms among them, and what was emitted with each strength."""

    audio: Path
    words: list[str]
    terms: list[list[str]]
    hypotheses: dict[float, str] = field(default_factory=dict)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifests", nargs="+", type=Path)
    parser.add_argument("--text", type=Path, action="append", default=[], help="says how rare a word is")
    parser.add_argument("--terms", type=Path, help="a table of terms and sentences, separated by a tab")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--rare", type=int, default=6, metavar="N")
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.25, 0.5, 0.75, 1.0])
    parser.add_argument("--utterances", type=int, default=150)
    parser.add_argument("--model")
    parser.add_argument("--delay", type=int)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: 1)")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    rng = random.Random(args.seed)
    frequencies = Counter(
        word for path in args.text for word in re.findall(r"[a-z']+", path.read_text("utf-8").lower())
    )
    rows = read_rows(args.manifests)
    if args.terms:
        terms = [line.split("\t")[0] for line in args.terms.read_text("utf-8").splitlines()]
    else:
        terms = rare_words(rows, frequencies, args.rare)
        rng.shuffle(terms)
        terms = sorted(terms[: args.count])
    spoken = {word for row in rows for word in normalize(row["text"]).split()}
    others = sorted(w for w, n in frequencies.items() if n <= args.rare and is_term(w) and w not in spoken)
    distractors = rng.sample(others, min(args.count, len(others)))
    utterances = choose(rows, terms, args.utterances, rng)
    every = [*terms, *distractors]
    seconds = decode_all(utterances, every, args.strengths, args.model, args.delay, args.jobs)
    print(f"{len(utterances)} utterances, {len(terms)} terms and {len(distractors)} distractors")
    report(utterances, seconds, args.json)


def read_rows(manifests: list[Path]) -> list[dict[str, Any]]:
    rows = []
    for path in manifests:
        for line in path.read_text("utf-8").splitlines():
            row = json.loads(line)
            if row["text"] and row.get("duration", 0.0) <= LONGEST_SECONDS:
                rows.append(row | {"audio": path.parent / row["audio"]})
    return rows


def is_term(word: str) -> bool:
    return len(word) >= SHORTEST and word.isascii() and word.isalpha()


def rare_words(rows: list[dict[str, Any]], frequencies: Counter[str], most: int) -> list[str]:
    words = {word for row in rows for word in normalize(row["text"]).split()}
    return sorted(word for word in words if is_term(word) and frequencies[word] <= most)


def choose(rows: list[dict[str, Any]], terms: list[str], count: int, rng: random.Random) -> list[Utterance]:
    split = [normalize(term).split() for term in terms]
    found = []
    for row in rows:
        words = normalize(row["text"]).split()
        found.append(Utterance(row["audio"], words, [term for term in split if places(words, term)]))
    rng.shuffle(found)
    having, rest = [u for u in found if u.terms], [u for u in found if not u.terms]
    return having[:count] + rest[:count]


def places(words: list[str], term: list[str]) -> list[int]:
    """Where a term begins."""
    return [i for i in range(len(words) - len(term) + 1) if words[i : i + len(term)] == term]


class Timed(HotWords):
    """Counts the seconds that it takes, and its tries: all that streams without hot words are spared."""

    seconds = 0.0

    def best(self, *args: Any) -> int:
        began = time.thread_time()
        symbol = super().best(*args)
        self.seconds += time.thread_time() - began
        return symbol

    def advance(self, *args: Any) -> Matches:
        began = time.thread_time()
        matches = super().advance(*args)
        self.seconds += time.thread_time() - began
        return matches


def decode_all(
    utterances: list[Utterance],
    terms: list[str],
    strengths: list[float],
    model: str | None,
    delay: int | None,
    jobs: int,
) -> dict[float, float]:
    """Fills in the hypotheses, that without hot words as strength 0. Returns the added seconds a second of audio."""
    context = multiprocessing.get_context("spawn")
    audio = [utterance.audio for utterance in utterances]
    seconds, added = 0.0, dict.fromkeys(strengths, 0.0)
    with context.Pool(jobs, _Worker.start, (terms, strengths, model, delay)) as pool:
        for number, (hypotheses, spent, length) in enumerate(pool.imap(_Worker.work, audio)):
            utterances[number].hypotheses = hypotheses
            seconds += length
            for strength, value in spent.items():
                added[strength] += value
            if (number + 1) % 10 == 0:
                print(f"{number + 1} of {len(utterances)} utterances", flush=True)
    return {strength: value / seconds for strength, value in added.items()}


class _Worker:
    """A process: one model, and a list of hot words for each strength."""

    current: ClassVar[_Worker]

    def __init__(
        self, terms: list[str], strengths: list[float], model: str | None, delay: int | None
    ) -> None:
        self.recognizer = Recognizer.load(model, delay=delay)
        blank = self.recognizer.model.blank_id
        self.lists: dict[float, Timed | None] = {0.0: None}
        self.lists |= {s: Timed(self.recognizer._tokenizer, terms, s, blank) for s in strengths}

    @classmethod
    def start(cls, *args: Any) -> None:
        cls.current = cls(*args)

    @classmethod
    def work(cls, audio: Path) -> tuple[dict[float, str], dict[float, float], float]:
        """Hypotheses and added seconds by strength, and the seconds of audio."""
        self = cls.current
        hypotheses: dict[float, str] = {}
        spent: dict[float, float] = {}
        delay = self.recognizer.delay
        chunks = encode(self.recognizer, audio, delay)
        for strength, hotwords in self.lists.items():
            if hotwords is not None:
                hotwords.seconds = 0.0
            hypotheses[strength] = decode(self.recognizer, chunks, delay, hotwords)
            if hotwords is not None:
                spent[strength] = hotwords.seconds
        return hypotheses, spent, len(chunks) * self.recognizer.model.chunk_seconds


def encode(recognizer: Recognizer, path: Path, delay: int) -> list[dict[str, np.ndarray]]:
    """The encoder's outputs for each chunk, as a stream has them."""
    engine, folder = recognizer._engine, recognizer.model
    audio = read_audio(path)
    count = -(-len(audio) // folder.chunk_samples) + engine.flush_chunks(delay)
    audio = np.pad(audio, (0, count * folder.chunk_samples - len(audio)))
    state = engine.new_state(delay)
    outputs = [engine._encode(state, samples) for samples in audio.reshape(count, -1)]
    return [
        {name: array.copy() for name, array in out.items() if not name.startswith("new_")}
        for out in outputs[folder.lookahead_chunks :]
    ]


def decode(
    recognizer: Recognizer, chunks: list[dict[str, np.ndarray]], delay: int, hotwords: HotWords | None
) -> str:
    engine = recognizer._engine
    state = engine.new_state(delay)
    state.hotwords = hotwords
    ids: list[int] = []
    for index, encoded in enumerate(chunks):
        engine._steps.next_chunk(state.decoder, index, encoded)
        ids += engine._decode(state)[0]
    return recognizer._tokenizer.decode(ids)


@dataclass(frozen=True)
class Errors:
    """Of one utterance: terms, those that are wrong, all other words, their errors."""

    terms: int
    wrong: int
    words: int
    errors: int


def errors_of(utterance: Utterance, hypothesis: str) -> Errors:
    alignment = edit_alignment(utterance.words, normalize(hypothesis).split())
    right = {reference for reference, _ in alignment.correct}
    found = [
        range(place, place + len(term)) for term in utterance.terms for place in places(utterance.words, term)
    ]
    inside = {index for term in found for index in term}
    return Errors(
        len(found),
        sum(not right.issuperset(term) for term in found),
        len(utterance.words) - len(inside),
        alignment.counts.errors - len(inside - right),
    )


def report(utterances: list[Utterance], seconds: dict[float, float], path: Path | None) -> None:
    print(
        "| strength | errors in terms | in all other words | difference, points (95 %) | ms a second of audio |"
    )
    print("| ---: | ---: | ---: | ---: | ---: |")
    plain = [errors_of(u, u.hypotheses[0.0]) for u in utterances]
    rows = []
    for strength in (0.0, *seconds):
        now = [errors_of(u, u.hypotheses[strength]) for u in utterances]
        terms, words = sum(e.terms for e in now), sum(e.words for e in now)
        row: dict[str, Any] = {
            "strength": strength,
            "terms": terms,
            "wrong": sum(e.wrong for e in now),
            "words": words,
            "errors": sum(e.errors for e in now),
            "milliseconds": 1000 * seconds.get(strength, 0.0),
        }
        row["difference"] = difference(
            [e.errors for e in now], [e.errors for e in plain], [e.words for e in now]
        )
        rows.append(row)
        gap, low, high = row["difference"]
        print(
            f"| {strength:g} | {100 * row['wrong'] / terms:.1f} % ({row['wrong']} of {terms}) "
            f"| {100 * row['errors'] / words:.2f} % | {gap:+.2f} ({low:+.2f} to {high:+.2f}) "
            f"| {row['milliseconds']:.2f} |"
        )
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
