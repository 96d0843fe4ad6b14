"""Speech that a tiny model learns in seconds: every word is a pair of tones, and word times are exact."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from lhotse.supervision import AlignmentItem

from speech_reallm.tokenizer import Tokenizer
from speech_reallm.training.align.alignment_file import AlignmentFile, aligned_cut
from speech_reallm.training.data.manifests import load_manifest
from speech_reallm.training.tokenizers.from_text import train_tokenizer

RATE = 16000
WORDS = ("ba", "du", "fi", "go", "ka", "li", "mo", "su")


def tone(word: str) -> np.ndarray:
    """float32 [0.3 s]: a low tone and a high one, as of a telephone's keys."""
    low, high = divmod(WORDS.index(word), 4)
    t = np.arange(int(0.3 * RATE)) / RATE
    wave = np.sin(2 * np.pi * (350 + 250 * low) * t) + np.sin(2 * np.pi * (1000 + 450 * high) * t)
    fade = np.minimum(1, np.minimum(t, t[::-1]) / 0.01)
    return (0.2 * fade * wave).astype(np.float32)


def speak(words: list[str], rng: np.random.Generator) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Audio [N] of words with pauses between, and each word's (start, end) in seconds."""
    parts, times, at = [], [], 0
    for word in words:
        parts += [np.zeros(int(rng.uniform(0.05, 0.3) * RATE), np.float32), tone(word)]
        start = at + len(parts[-2])
        at = start + len(parts[-1])
        times.append((start / RATE, at / RATE))
    parts.append(np.zeros(int(0.2 * RATE), np.float32))
    audio = np.concatenate(parts)
    return audio + rng.normal(0, 1e-3, len(audio)).astype(np.float32), times


@dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    """Files of a miniature corpus, and what is in it."""

    plain: Path
    aligned: Path
    tokenizer: Path
    # sentences without speech
    text: Path
    texts: dict[str, str]

    @property
    def vocab(self) -> int:
        return len(Tokenizer(self.tokenizer))


def sentences(count: int, rng: np.random.Generator) -> list[list[str]]:
    return [list(rng.choice(WORDS, rng.integers(2, 5))) for _ in range(count)]


def write_tokenizer(folder: Path) -> tuple[Path, Path]:
    """A tokenizer, of whole words and of letters, and the text that it is made from."""
    text, tokenizer = folder / "text.txt", folder / "tokenizer.model"
    lines = sentences(300, np.random.default_rng(0))
    text.write_text("".join(" ".join(words) + "\n" for words in lines))
    train_tokenizer([str(text)], 24, tokenizer, threads=1)
    return text, tokenizer


def write_corpus(folder: Path, count: int, text: Path, tokenizer: Path, seed: int = 1) -> Corpus:
    """`count` utterances of 1 to 2.5 s by four speakers, as a plain and an aligned manifest."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    rows, times, texts = [], {}, {}
    for number, words in enumerate(sentences(count, rng)):
        name = f"u{number:03}"
        audio, times[name] = speak(words, rng)
        texts[name] = " ".join(words)
        soundfile.write(folder / f"{name}.wav", audio, RATE)
        row = {"id": name, "audio": f"{name}.wav", "text": texts[name], "speaker": f"s{number % 4}"}
        rows.append({**row, "duration": len(audio) / RATE})
    plain, aligned = folder / "plain.jsonl", folder / "aligned.jsonl.gz"
    plain.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pieces = Tokenizer(tokenizer)
    file = AlignmentFile(aligned, {})
    for cut in load_manifest(plain):
        items: list[AlignmentItem] = []
        for word, (start, end) in zip(texts[cut.id].split(), times[cut.id], strict=True):
            symbols = pieces.encode_pieces(word)
            each = (end - start) / len(symbols)
            items += [AlignmentItem(s, start + i * each, each, -0.1) for i, s in enumerate(symbols)]
        file.add(aligned_cut(cut, texts[cut.id], items, -0.1), -0.1)
    file.finish(texts)
    return Corpus(plain=plain, aligned=aligned, tokenizer=tokenizer, text=text, texts=texts)
