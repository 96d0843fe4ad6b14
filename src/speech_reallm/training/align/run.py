"""Align a manifest with a CTC teacher."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from lhotse.cut import Cut
from lhotse.supervision import AlignmentItem
from torch import Tensor
from tqdm import tqdm

from ...errors import UserError
from ...text import clean_cased, normalize_for_training
from ...tokenizer import Tokenizer
from ..data.batches import collate_audio, prefetch
from ..data.manifests import load_audio, load_manifest
from ..device import autocast
from .alignment_file import AlignmentFile, Dropped, aligned_cut, piece_items, spread
from .hmm_teacher import hmm_batch
from .viterbi import ctc_viterbi, span_scores

log = logging.getLogger(__name__)

# the blank of a CTC teacher, whatever the blank of the model that is trained on its alignments
BLANK_ID = 3
UNK_ID = 0


def default_device() -> str:
    """Where a teacher computes unless told otherwise: the first GPU, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


class Teacher(Protocol):
    """What is needed of a CTC model."""

    frame_seconds: float

    def log_probs(self, audio: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """audio float32 [B, N], 16 kHz, sample counts [B] -> log_probs [B, T, V], frame counts [B]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignOptions:
    """How to align; `min_score` drops utterances whose mean log probability of a frame is below it."""

    min_score: float | None = None
    batch_seconds: float = 120.0
    # seconds added to all times, to take out a bias of the teacher
    shift: float = 0.0
    # leave the times of the CTC's peaks as they are, instead of spreading them over the blanks between
    peaks: bool = False
    # pieces of the text with case and punctuation; without a teacher only
    cased: bool = False
    # where the teacher is
    device: str = "cpu"
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


def align_batch(
    teacher: Teacher,
    tokenizer: Tokenizer,
    audio: Sequence[np.ndarray],
    texts: Sequence[str],
    shift: float = 0.0,
    device: str = "cpu",
    peaks: bool = False,
) -> list[tuple[list[AlignmentItem], float] | None]:
    """Align texts to audio (float32 [N], 16 kHz each).

    Returns for each (the pieces' AlignmentItems, mean log probability of a frame), or None where the text
    is too long for the audio. Texts are normalised ones and hold no characters that the tokenizer does not
    know.
    """
    ids = [tokenizer.encode(text) for text in texts]
    batch = collate_audio(list(audio), [])
    # in 8 bits of mantissa the encoder takes half the time, and no boundary moves by more than a frame
    with torch.inference_mode(), autocast(torch.device(device), bf16=True):
        log_probs, frames = teacher.log_probs(batch.audio.to(device), batch.lengths.to(device))
    log_probs, frames = log_probs.float().cpu(), frames.cpu()
    targets = torch.zeros(len(ids), max(map(len, ids)), dtype=torch.int64)
    for row, sequence in zip(targets, ids, strict=True):
        row[: len(sequence)] = torch.tensor(sequence, dtype=torch.int64)
    spans = ctc_viterbi(log_probs, frames, targets, torch.tensor([len(s) for s in ids]), BLANK_ID)
    pieces = span_scores(log_probs, targets, spans)
    results: list[tuple[list[AlignmentItem], float] | None] = []
    for b, sequence in enumerate(ids):
        if spans.scores[b] == float("-inf"):
            results.append(None)
            continue
        n = len(sequence)
        items = piece_items(
            tokenizer.pieces(sequence),
            spans.starts[b, :n].tolist(),
            spans.ends[b, :n].tolist(),
            pieces[b, :n].tolist(),
            frame_seconds=teacher.frame_seconds,
            duration=len(audio[b]) / 16000,
            shift=shift,
        )
        if not peaks:
            items = spread(items, len(audio[b]) / 16000)
        results.append((items, spans.scores[b].item() / max(int(frames[b]), 1)))
    return results


def align_manifest(
    teacher: Teacher | None,
    tokenizer: Tokenizer,
    manifest: str | Path,
    out: str | Path,
    options: AlignOptions,
    made_by: dict[str, Any] | None = None,
    quiet: bool = False,
) -> Summary:
    """Align every utterance of a manifest and write the aligned manifest `out` (.jsonl.gz); no teacher: pocketsphinx.

    Goes on where an interrupted run of the same settings ended; `made_by` says what else the result depends
    on (the teacher). An utterance that cannot be aligned is dropped and counted. Raises UserError.
    """
    header = {
        "manifest": str(Path(manifest).resolve()),
        "min_score": options.min_score,
        "shift": options.shift,
        "peaks": options.peaks,
    }
    file = AlignmentFile(out, header | (made_by or {}), overwrite=options.overwrite)
    cuts = list(load_manifest(manifest, skip_bad=options.skip_bad))
    todo: list[tuple[Cut, str]] = []
    for cut in cuts:
        if cut.id in file:
            continue
        text, problem = _text_of(cut, tokenizer, clean_cased if options.cased else normalize_for_training)
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
                _align_into(file, teacher, tokenizer, batch, audio, options)
                file.flush()
                # sums of floats must not pass the end of the bar
                bar.update(min(sum(c.duration for c, _ in batch), bar.total - bar.n))
    finally:
        file.close()
    summary = Summary(
        total=len(cuts),
        aligned=len(file.cuts),
        dropped=Counter(d.reason for d in file.dropped.values()),
        scores=[] if teacher is None else file.scores,
    )
    if not file.cuts:
        raise UserError(
            f"nothing of {manifest} could be aligned: {'; '.join(summary.dropped) or 'it is empty'}"
        )
    file.finish(c.id for c in cuts)
    return summary


def _text_of(cut: Cut, tokenizer: Tokenizer, clean: Callable[[str], str]) -> tuple[str, str | None]:
    """The text to align, and why it cannot be aligned if it cannot."""
    if len(cut.supervisions) != 1 or cut.supervisions[0].start != 0:
        return "", "not one text for the whole utterance"
    raw = cut.supervisions[0].text or ""
    text = clean(raw)
    # silence with an empty text is worth training on; a text of signs alone is some remark
    if not text and raw.strip():
        return "", "no words in the text"
    if UNK_ID in tokenizer.encode(text):
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
    teacher: Teacher | None,
    tokenizer: Tokenizer,
    batch: list[tuple[Cut, str]],
    audio: list[np.ndarray | UserError],
    options: AlignOptions,
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
    texts, samples = [text for _, text, _ in loaded], [a for _, _, a in loaded]
    if teacher is None:
        results = hmm_batch(tokenizer, samples, texts, options.shift)
    else:
        results = align_batch(
            teacher, tokenizer, samples, texts, options.shift, options.device, options.peaks
        )
    for (cut, text, _), result in zip(loaded, results, strict=True):
        if result is None:
            file.drop(Dropped(id=cut.id, reason="the text does not fit into the audio"))
            continue
        pieces, score = result
        if options.min_score is not None and score < options.min_score:
            file.drop(Dropped(id=cut.id, reason=f"score below {options.min_score:g}", score=score))
        else:
            file.add(aligned_cut(cut, text, pieces, score), score)


def load_teacher(folder: str | Path, device: str = "cpu") -> tuple[Teacher, Tokenizer, dict[str, Any]]:
    """A CTC teacher of a training run, its tokenizer, and what tells it from another. Raises UserError."""
    from ..model.ctc import CTCTeacher, best_of

    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give the training run of a CTC teacher")
    tokenizer = Tokenizer(best_of(folder) / "tokenizer.model")
    teacher = CTCTeacher.load(folder)
    teacher.to(device).eval()
    # a run that has been trained further since is another teacher
    weights = [
        p.stat().st_mtime_ns for p in (*folder.glob("*.safetensors"), *folder.glob("best/*.safetensors"))
    ]
    return teacher, tokenizer, {"teacher": str(folder.resolve()), "weights": max(weights, default=0)}
