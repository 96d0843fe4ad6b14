"""Align a manifest with an alignment teacher."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from lhotse.cut import Cut
from tqdm import tqdm

from ...errors import UserError
from ..data.manifests import load_audio, load_manifest
from ..data.prefetch import prefetch
from .alignment_file import AlignmentFile, Dropped, aligned_cut
from .teacher import AlignmentTeacher

log = logging.getLogger(__name__)

UNK_ID = 0


def default_device() -> str:
    """Where a teacher computes unless told otherwise: the first GPU, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignOptions:
    """How to align a manifest; what concerns the alignment itself is the teacher's.

    min_score: drop utterances whose mean log probability of a frame is below it. batch_seconds: audio in a batch.
    overwrite: start anew even if the result is there. skip_bad: leave out bad rows of the manifest.
    """

    min_score: float | None = None
    batch_seconds: float = 120.0
    overwrite: bool = False
    skip_bad: bool = False


@dataclass(kw_only=True, slots=True)
class Summary:
    """What an alignment run has done, runs that it resumes included."""

    total: int
    aligned: int
    dropped: Counter[str] = field(default_factory=Counter)
    # of all utterances that were scored, those dropped for their score too
    scores: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"aligned {self.aligned:,} of {self.total:,} utterances"]
        lines += [f"dropped {count:,}: {reason}" for reason, count in self.dropped.most_common()]
        if self.scores:
            low, tenth, middle = np.percentile(self.scores, [1, 10, 50])
            lines.append(
                f"mean log probability of a frame: median {middle:.3f}, lowest 10 % below {tenth:.3f}, "
                f"lowest 1 % below {low:.3f}"
            )
        return "\n".join(lines)


def align_manifest(
    teacher: AlignmentTeacher,
    manifest: str | Path,
    out: str | Path,
    options: AlignOptions,
    quiet: bool = False,
) -> Summary:
    """Align every utterance of a manifest and write the aligned manifest `out` (.jsonl.gz).

    Goes on where an interrupted run of the same settings and the same teacher ended. An utterance that cannot be
    aligned is dropped and counted. Raises UserError.
    """
    header = {
        "manifest": str(Path(manifest).resolve()),
        "min_score": options.min_score,
    }
    file = AlignmentFile(out, header | teacher.identity, overwrite=options.overwrite)
    cuts = list(load_manifest(manifest, skip_bad=options.skip_bad))
    todo: list[tuple[Cut, str]] = []
    for cut in cuts:
        if cut.id in file:
            continue
        text, problem = _text_of(cut, teacher)
        if problem:
            file.drop(Dropped(id=cut.id, reason=problem))
        else:
            todo.append((cut, text))
    batches = _batches(todo, options.batch_seconds)
    seconds = sum(c.duration for c in cuts)
    left = sum(c.duration for c, _ in todo)
    try:
        with tqdm(
            total=seconds,
            initial=seconds - left,
            unit="s",
            desc="aligning",
            disable=quiet,
            bar_format="{desc}: {percentage:3.0f}% {bar} {n:.0f}/{total:.0f} s [{elapsed}, {remaining} left]",
        ) as bar:
            for batch, audio in prefetch(batches, lambda batch: (batch, [_try_load(c) for c, _ in batch])):
                _align_into(file, teacher, batch, audio, options.min_score)
                file.flush()
                # sums of floats must not pass the end of the bar
                bar.update(min(sum(c.duration for c, _ in batch), seconds - bar.n))
    finally:
        file.close()
    summary = Summary(
        total=len(cuts),
        aligned=len(file.cuts),
        dropped=Counter(d.reason for d in file.dropped.values()),
        scores=file.scores if teacher.scored else [],
    )
    if not file.cuts:
        raise UserError(
            f"nothing of {manifest} could be aligned: {'; '.join(summary.dropped) or 'it is empty'}"
        )
    file.finish(c.id for c in cuts)
    return summary


def _text_of(cut: Cut, teacher: AlignmentTeacher) -> tuple[str, str | None]:
    """The text to align, and why it cannot be aligned if it cannot."""
    if len(cut.supervisions) != 1 or cut.supervisions[0].start != 0:
        return "", "not one text for the whole utterance"
    raw = cut.supervisions[0].text or ""
    text = teacher.clean(raw)
    # silence with an empty text is worth training on; a text of signs alone is some remark
    if not text and raw.strip():
        return "", "no words in the text"
    if UNK_ID in teacher.tokenizer.encode(text):
        return "", "characters that the tokenizer does not know"
    return text, None


def _batches(items: list[tuple[Cut, str]], batch_seconds: float) -> list[list[tuple[Cut, str]]]:
    """Batches of like durations whose padded audio stays within `batch_seconds`, longest first."""
    batches: list[list[tuple[Cut, str]]] = []
    for item in sorted(items, key=lambda item: -item[0].duration):
        if batches and batches[-1][0][0].duration * (len(batches[-1]) + 1) <= batch_seconds:
            batches[-1].append(item)
        else:
            batches.append([item])
    return batches


def _try_load(cut: Cut) -> np.ndarray | UserError:
    try:
        return load_audio(cut)
    except UserError as err:
        return err


def _align_into(
    file: AlignmentFile,
    teacher: AlignmentTeacher,
    batch: list[tuple[Cut, str]],
    audio: list[np.ndarray | UserError],
    min_score: float | None,
) -> None:
    """Align a batch and put the results into the file."""
    loaded = []
    for (cut, text), samples in zip(batch, audio, strict=True):
        if isinstance(samples, UserError):
            log.warning("dropped %s", samples)
            file.drop(Dropped(id=cut.id, reason="audio that cannot be read"))
        else:
            loaded.append((cut, text, samples))
    if not loaded:
        return
    results = teacher.align([a for _, _, a in loaded], [text for _, text, _ in loaded])
    for (cut, text, _), result in zip(loaded, results, strict=True):
        if result is None:
            file.drop(Dropped(id=cut.id, reason="the text does not fit into the audio"))
        elif min_score is not None and result.score < min_score:
            file.drop(Dropped(id=cut.id, reason=f"score below {min_score:g}", score=result.score))
        else:
            file.add(aligned_cut(cut, text, result.pieces, result.score), result.score)
