"""When each reference word was spoken: from the manifest, an aligned manifest, or a forced alignment."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..jsonl import json_lines
from .latency import TimedWord
from .manifest import Row, timed_words

# part of the cache key: raise it when the aligner's results change
_HMM_VERSION = "hmm-1"

SOURCES = {
    "manifest": "`words` of the manifest",
    "alignments": "the aligned manifest",
    "hmm": "forced alignment by pocketsphinx",
}


def describe_source(source: str | None) -> str:
    """`manifest+hmm` in words; empty for None."""
    return ", ".join(SOURCES.get(name, name) for name in source.split("+")) if source else ""


class WordTimes:
    """Finds the word times of a row, from the first source that has them; `used` counts rows by source."""

    def __init__(self, alignments: dict[str, tuple[TimedWord, ...]] | None = None) -> None:
        self.alignments = alignments or {}
        self.used: Counter[str] = Counter()
        self._hmm = importlib.util.find_spec("pocketsphinx") is not None

    def find(self, row: Row, audio: np.ndarray, normalized_text: str) -> tuple[TimedWord, ...] | None:
        """Word times of `audio` (float32 [N], 16 kHz), or None where there are none."""
        if row.words is not None:
            self.used["manifest"] += 1
            return row.words
        if row.id in self.alignments:
            self.used["alignments"] += 1
            return self.alignments[row.id]
        if self._hmm:
            words = _hmm_words(audio, normalized_text.split())
            if words is not None:
                self.used["hmm"] += 1
                return words
        return None

    @property
    def source(self) -> str | None:
        """Where the times came from: keys of SOURCES joined by `+`, or None."""
        return "+".join(name for name in SOURCES if self.used[name]) or None

    @property
    def description(self) -> str:
        """Where the times came from, or why there are none, in words."""
        return describe_source(self.source) or self.note or ""

    @property
    def note(self) -> str | None:
        """Why there are no times at all; None when there are some."""
        if self.source is not None:
            return None
        if not self._hmm:
            return "no word times: none in the manifest, no --alignments, pocketsphinx is not installed"
        return "no word times: the forced alignment found no path through any utterance"


def read_alignments(path: str | Path) -> dict[str, tuple[TimedWord, ...]]:
    """Word times by id from an aligned manifest (lhotse cuts as JSON lines, `.gz` allowed).

    A cut that carries no word alignment is left out. Raises UserError naming file and line.
    """
    path = Path(path)
    found: dict[str, tuple[TimedWord, ...]] = {}
    for number, cut in json_lines(path):
        supervisions = cut.get("supervisions")
        if not isinstance(supervisions, list) or not isinstance(cut.get("id"), str):
            raise UserError(f"{path}, line {number}: not a lhotse cut with an id and supervisions")
        for supervision in supervisions[:1]:
            items = (supervision.get("alignment") or {}).get("word")
            if items is None:
                continue
            try:
                words = tuple(timed_words(items))
            except ValueError as err:
                raise UserError(f"{path}, line {number}: {err}") from None
            found[cut["id"]] = words
            found.setdefault(str(supervision.get("id")), words)
    if not found:
        raise UserError(f"{path} has no word alignments; make it with: reallm align")
    return found


def cache_folder() -> Path:
    """Where alignments are kept between runs: `$XDG_CACHE_HOME` or `~/.cache`, then `speech-reallm`."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "speech-reallm" / "word-times"


def _hmm_words(audio: np.ndarray, words: list[str]) -> tuple[TimedWord, ...] | None:
    """Forced alignment, remembered on disk by audio and words (an alignment takes about a second)."""
    digest = hashlib.sha256(_HMM_VERSION.encode())
    digest.update(np.ascontiguousarray(audio, dtype="<f4").tobytes())
    digest.update(" ".join(words).encode())
    file = cache_folder() / f"{digest.hexdigest()[:32]}.json"
    try:
        items = json.loads(file.read_text(encoding="utf-8"))
        return None if items is None else tuple(timed_words(items))
    except (OSError, ValueError):
        pass  # not there yet, or damaged: make it anew
    from .hmm_aligner import align_words

    found = align_words(audio, words)
    items = None if found is None else [{"word": w, "start": s, "end": e} for w, s, e in found]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # written aside and renamed, so that a run beside this one never reads half a file
        aside = file.with_suffix(f".{os.getpid()}.tmp")
        aside.write_text(json.dumps(items), encoding="utf-8")
        os.replace(aside, file)
    except OSError:
        pass  # a cache that cannot be written costs time only
    return None if items is None else tuple(timed_words(items))
