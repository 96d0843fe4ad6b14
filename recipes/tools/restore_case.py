"""Case and punctuation for transcripts that have none: as an offline recogniser writes them.

    python recipes/tools/restore_case.py librispeech-train.jsonl out/manifests/librispeech-train.jsonl \\
        --model moonshine-tiny-en

The recogniser is Moonshine tiny, a folder as Hugging Face has it (UsefulSensors/moonshine-tiny). The words stay
those of the transcript; where the recogniser wrote the same word, its spelling is taken. Each row of OUT says how
far the two differ (`recogniser_wer`, 0 to 1). A stopped run goes on where it ended. With --max-wer the rows below
it are copied to OUT with .kept.jsonl at the end. Beside other work on two cores about 30 times as fast as
the speech.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lhotse.cut import Cut
from tqdm import tqdm

from speech_reallm.audio import SAMPLE_RATE
from speech_reallm.evaluate.wer import edit_alignment
from speech_reallm.jsonl import appended_json_lines, json_lines
from speech_reallm.text import clean_cased, normalize_for_training
from speech_reallm.training.data.manifests import load_audio, load_manifest
from speech_reallm.training.data.prefetch import prefetch
from speech_reallm.training.tokenizers.from_moonshine import read_tokenizer

# rows written at once; within them batches are of like length
WINDOW = 192
BATCH_SECONDS = 400.0
# Moonshine's own bound against endless repetition
TOKENS_A_SECOND = 6.5
# how alike two words must be for one to be a misheard spelling of the other, and so of the same case
ALIKE = 0.5

_END = re.compile(r"[.,?!;:]+$")
_TITLES = ("Mr.", "Mrs.", "Dr.", "Messrs.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path, help="plain manifest (.jsonl)")
    parser.add_argument("out", type=Path, help="the same rows with `text` replaced")
    parser.add_argument("--model", type=Path, required=True, help="folder of Moonshine's weights")
    parser.add_argument("--max-wer", type=float, help="copy the rows up to this to OUT with .kept.jsonl")
    parser.add_argument("--limit", type=int, help="only the first rows, as a trial")
    args = parser.parse_args()

    rows = [row for _, row in json_lines(args.manifest)][: args.limit]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    todo = rows[len(finished(args.out, rows)) :]
    if todo:
        recogniser, cuts = Recogniser(args.model), load_manifest(args.manifest)
        with (
            args.out.open("a", encoding="utf-8") as out,
            tqdm(total=sum(r["duration"] for r in todo), unit="s", unit_scale=True) as bar,
        ):
            for start in range(0, len(todo), WINDOW):
                window = todo[start : start + WINDOW]
                transcribed = recogniser.transcribe([cuts[r["id"]] for r in window], bar)
                for row in window:
                    text, wer = restore_case(row["text"], transcribed[row["id"]])
                    audio = os.path.relpath(args.manifest.parent / row["audio"], args.out.parent)
                    new = row | {"audio": audio, "text": text, "recogniser_wer": round(wer, 3)}
                    out.write(json.dumps(new, ensure_ascii=False) + "\n")
                out.flush()
    if args.max_wer is not None:
        keep(args.out, args.max_wer)


def finished(out: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that OUT has already; a half-written last line is cut off. Exits when they are of other rows."""
    if not out.exists():
        return []
    lines = list(appended_json_lines(out))
    done = [row for _, row, _ in lines]
    if [r["id"] for r in done] != [r["id"] for r in rows[: len(done)]]:
        sys.exit(f"{out} is of another manifest; delete it to start anew")
    os.truncate(out, lines[-1][2] if lines else 0)
    return done


def keep(out: Path, most: float) -> None:
    """Copy the rows whose recogniser_wer is at most `most`, and say how many hours they last."""
    rows = [row for _, row in json_lines(out)]
    kept = [r for r in rows if r["recogniser_wer"] <= most]
    path = out.with_suffix(".kept.jsonl")
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in kept), encoding="utf-8")
    hours, all_hours = (sum(r["duration"] for r in some) / 3600 for some in (kept, rows))
    print(f"{path}: {len(kept)} of {len(rows)} rows, {hours:.2f} of {all_hours:.2f} hours")


class Recogniser:
    """Moonshine tiny, greedy."""

    def __init__(self, folder: Path) -> None:
        from transformers import MoonshineForConditionalGeneration

        model: Any = MoonshineForConditionalGeneration.from_pretrained(folder, local_files_only=True)
        self._model = model.eval()
        self._pieces = read_tokenizer(folder)

    def transcribe(self, cuts: list[Cut], bar: tqdm[Any]) -> dict[str, str]:
        """Text by id; the bar counts seconds of audio."""
        texts: dict[str, str] = {}
        for batch, audio in prefetch(
            list(batches(cuts)), lambda batch: (batch, [load_audio(c) for c in batch])
        ):
            texts |= zip([c.id for c in batch], self._batch(audio), strict=True)
            bar.update(sum(c.duration for c in batch))
        return texts

    @torch.inference_mode()
    def _batch(self, audio: list[np.ndarray]) -> list[str]:
        longest = max(map(len, audio))
        values = torch.stack([torch.from_numpy(np.pad(a, (0, longest - len(a)))) for a in audio])
        mask = torch.arange(longest) < torch.tensor([[len(a)] for a in audio])
        with torch.autocast("cpu", torch.bfloat16):
            ids = self._model.generate(
                input_values=values,
                attention_mask=mask.long(),
                max_new_tokens=int(TOKENS_A_SECOND * longest / SAMPLE_RATE) + 4,
                pad_token_id=2,
                do_sample=False,
            )
        return [self._decode(row) for row in ids.tolist()]

    def _decode(self, ids: list[int]) -> str:
        text = b"".join(self._pieces[i] for i in ids if 2 < i < 32000)
        return text.decode("utf-8", errors="ignore").replace("\u2581", " ").strip()


def batches(cuts: list[Cut]) -> Iterator[list[Cut]]:
    """Cuts of like lengths, of BATCH_SECONDS or less with padding."""
    batch: list[Cut] = []
    for cut in sorted(cuts, key=lambda c: -c.duration):
        if batch and batch[0].duration * (len(batch) + 1) > BATCH_SECONDS:
            yield batch
            batch = []
        batch.append(cut)
    if batch:
        yield batch


@dataclass(frozen=True, slots=True)
class Word:
    """A word of the hypothesis: normalised, as spelled, the punctuation after it; `joined` by a hyphen to the next."""

    normal: str
    spelled: str
    after: str = ""
    joined: bool = False


def restore_case(transcript: str, hypothesis: str) -> tuple[str, float]:
    """The transcript's words in the hypothesis's spelling, and the hypothesis's word error rate, 0 to 1.

    Words that it lacks are lower case. One that it has another word for still has the punctuation of what stands in its
    place, and its case where the two are alike.
    """
    reference = normalize_for_training(transcript).split()
    recognised = [word for token in clean_cased(hypothesis).split() for word in spellings(token)]
    alignment = edit_alignment(reference, [w.normal for w in recognised])
    wer = min(alignment.counts.errors / max(len(reference), 1), 1.0)
    words: list[str] = []
    r = h = 0
    for next_r, next_h in (*alignment.correct, (len(reference), len(recognised))):
        adjacent = (next_r, next_h) == (r, h)
        words += substituted(reference[r:next_r], recognised[h:next_h], words)
        if next_r < len(reference):
            word = recognised[next_h].spelled + recognised[next_h].after
            if adjacent and h and recognised[h - 1].joined:
                words[-1] += f"-{word}"
            else:
                words.append(word)
        r, h = next_r + 1, next_h + 1
    first_differs = not alignment.correct or alignment.correct[0][0] > 0
    if words and ((recognised and recognised[0].spelled[0].isupper()) or first_differs):
        words[0] = capital(words[0])
    return " ".join(words), wer


def spellings(token: str) -> list[Word]:
    """The words of a token of cleaned text."""
    normal = normalize_for_training(token).split()
    if token.startswith(_TITLES):
        core = token[: token.index(".") + 1]
    else:
        core = _END.sub("", token)
    parts = core.split("-")
    if len(parts) != len(normal):
        parts = [w.upper() for w in normal] if core.isupper() else normal
    last = len(normal) - 1
    return [
        Word(word, part, token[len(core) :] if i == last else "", "-" in core and i < last)
        for i, (word, part) in enumerate(zip(normal, parts, strict=True))
    ]


def substituted(reference: list[str], recognised: list[Word], before: list[str]) -> list[str]:
    """Spellings of reference words in whose place the hypothesis has others, or none; `before`: the words so far."""
    words = [capital(w) if re.fullmatch("i('.+)?", w) else w for w in reference]
    if not words or not recognised:
        return words
    if len(recognised) == len(words):
        pairs = list(enumerate(recognised))
    else:
        # only how the stretch begins and ends can be told
        pairs = [(0, replace(recognised[0], after="")), (len(words) - 1, replace(recognised[-1], spelled=""))]
    for i, word in pairs:
        previous = words[i - 1] if i else (before or [""])[-1]
        begins = previous.endswith((".", "?", "!")) and previous not in _TITLES
        alike = difflib.SequenceMatcher(None, reference[i], word.normal).ratio() >= ALIKE
        if word.spelled[:1].isupper() and (alike or begins):
            words[i] = capital(words[i])
        words[i] += word.after
    return words


def capital(word: str) -> str:
    """With its first letter in upper case: 'tis -> 'Tis."""
    return re.sub("[A-Za-z]", lambda match: match[0].upper(), word, count=1)


if __name__ == "__main__":
    main()
