"""LibriSpeech as it is published (openslr.org/12) -> plain manifests.

Layout: ROOT/train-clean-100/SPEAKER/CHAPTER/SPEAKER-CHAPTER-UTTERANCE.flac beside
SPEAKER-CHAPTER.trans.txt, whose lines are `SPEAKER-CHAPTER-UTTERANCE TEXT IN UPPER CASE`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import soundfile

from ....errors import UserError


def find_subsets(root: str | Path) -> dict[str, list[Path]]:
    """The transcript files of each subset folder below `root` (or `root`/LibriSpeech), both sorted.

    Raises UserError when there are none.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{root} is not a folder; give the folder that holds train-clean-100, dev-clean, ...")
    for folder in (root, root / "LibriSpeech"):
        if folder.is_dir():
            found = {p.name: sorted(p.glob("*/*/*.trans.txt")) for p in sorted(folder.iterdir())}
            subsets = {name: files for name, files in found.items() if files}
            if subsets:
                return subsets
    raise UserError(f"{root} has no LibriSpeech in it: expected {root}/SUBSET/SPEAKER/CHAPTER/*.trans.txt")


def write_manifest(
    subset: str, transcripts: list[Path], out: str | Path, progress: Callable[[int], object] = lambda n: None
) -> tuple[int, float]:
    """Write OUT/`subset`.jsonl, all of it or nothing; returns utterances and hours.

    `progress` is called with 1 after each transcript file. Raises UserError for a missing audio file, an
    unreadable one or a line that is no transcript.
    """
    out = Path(out)
    target = out / f"{subset}.jsonl"
    part = out / f"{subset}.jsonl.part"
    count, seconds = 0, 0.0
    try:
        out.mkdir(parents=True, exist_ok=True)
        with open(part, "w", encoding="utf-8") as file:
            for transcript in transcripts:
                for row in _rows(subset, transcript, out):
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                    count += 1
                    seconds += row["duration"]
                progress(1)
        os.replace(part, target)
    except OSError as err:
        raise UserError(f"cannot write {target}: {err.strerror or err}") from None
    finally:
        part.unlink(missing_ok=True)
    return count, seconds / 3600


def _rows(subset: str, transcript: Path, out: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(transcript.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        utterance, _, text = line.strip().partition(" ")
        if not text.strip() or utterance.count("-") != 2:
            raise UserError(f"{transcript}, line {number}: expected `SPEAKER-CHAPTER-UTTERANCE TEXT`")
        audio = transcript.parent / f"{utterance}.flac"
        if not audio.is_file():
            raise UserError(f"{transcript}, line {number}: audio file {audio} does not exist")
        try:
            info = soundfile.info(str(audio))
        except (soundfile.LibsndfileError, RuntimeError):
            raise UserError(f"cannot read {audio}; unpack the corpus again") from None
        yield {
            "id": utterance,
            "audio": os.path.relpath(audio.resolve(), out.resolve()),
            "duration": round(info.frames / info.samplerate, 4),
            "sample_rate": info.samplerate,
            "speaker": utterance.split("-")[0],
            "text": text.strip(),
            "corpus": "librispeech",
            "split": subset,
        }
