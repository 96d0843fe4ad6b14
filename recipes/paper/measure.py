"""Stream a manifest through a model folder, an utterance a line: several processes share the work and resume it.

    python recipes/paper/measure.py out/paper/joint/model data/speech/librispeech-dev.jsonl \\
        out/paper/joint/librispeech-dev --share 1/2 --alignments out/paper/librispeech-dev.jsonl.gz

Writes OUT/SHARE.jsonl: for each utterance its errors, the times of its words and the processor time. What is there
already is not measured again. Word times are those of --alignments alone; utterances without have no emission delay.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from speech_reallm import Recognizer
from speech_reallm.errors import UserError
from speech_reallm.evaluate.latency import TimedWord
from speech_reallm.evaluate.manifest import Row, read_manifest
from speech_reallm.evaluate.run import CLOCKS, Utterance, evaluate
from speech_reallm.evaluate.times import WordTimes, read_alignments
from speech_reallm.evaluate.wer import edit_alignment, make_normalizer
from speech_reallm.jsonl import appended_json_lines

# a run of words that were left out is a mute stretch where they take longer than this to say
MUTE_SECONDS = 2.0


class KnownTimes(WordTimes):
    """Word times of an aligned manifest and from nowhere else."""

    def find(self, row: Row, audio: Any, normalized_text: str) -> tuple[TimedWord, ...] | None:
        return self.alignments.get(row.id)


def mute_stretches(words: int, written: int, correct: Sequence[tuple[int, int]], seconds: float) -> int:
    """Stretches between recognised words that lack so many words that these take over MUTE_SECONDS to say.

    words, written: how many the reference and the hypothesis have; correct: (reference index, hypothesis index) of the
    recognised ones. Words take as long as the utterance's do on average.
    """
    if not words:
        return 0
    places = [(-1, -1), *correct, (words, written)]
    lacking = [(b[0] - a[0]) - (b[1] - a[1]) for a, b in pairwise(places)]
    return sum(count * seconds / words > MUTE_SECONDS for count in lacking)


def repeats(words: list[str]) -> int:
    """How often one to four words come again right after themselves: each such place once, the longest first."""
    found, at = 0, 0
    while at < len(words):
        size = next((n for n in (4, 3, 2, 1) if words[at : at + n] == words[at + n : at + 2 * n]), 0)
        found += bool(size)
        at += size or 1
    return found


def row_of(u: Utterance) -> dict[str, Any]:
    """What an utterance's line holds; times in seconds, delays in ms."""
    counts, reference, hypothesis = u.alignment.counts, u.reference.split(), u.hypothesis.split()
    return {
        "id": u.row.id,
        "seconds": round(u.streamed.duration, 3),
        "reference": u.reference,
        "hypothesis": u.hypothesis,
        "words": counts.words,
        "substitutions": counts.substitutions,
        "deletions": counts.deletions,
        "insertions": counts.insertions,
        "leading_insertions": u.alignment.leading_insertions,
        "mute_stretches": mute_stretches(
            len(reference), len(hypothesis), u.alignment.correct, u.streamed.duration
        ),
        "repeats": max(repeats(hypothesis) - repeats(reference), 0),
        "delays_ms": None if u.delays is None else [round(d) for d in u.delays],
        "cpu_seconds": round(sum(u.streamed.compute) + u.streamed.finalize, 4),
    }


def measure(
    model: Path, manifest: Path, out: Path, share: tuple[int, int], alignments: Path | None, delay: int | None
) -> None:
    """Write the lines of one share of the manifest. Raises UserError."""
    number, count = share
    rows = read_manifest(manifest)[number - 1 :: count]
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{number}-of-{count}.jsonl"
    kept = list(appended_json_lines(path)) if path.exists() else []
    if kept:
        # a line that was being written when an earlier run stopped
        os.truncate(path, kept[-1][2])
    done = {row["id"] for _, row, _ in kept}
    rows = [row for row in rows if row.id not in done]
    times = KnownTimes(read_alignments(alignments) if alignments else None)
    edit_alignment([], [])
    recognizer = Recognizer.load(model, **({} if delay is None else {"delay": delay}))
    normalize = make_normalizer("librispeech")
    with path.open("a", encoding="utf-8") as file:
        for index, u in enumerate(
            evaluate(recognizer, rows, normalize, times, clock=CLOCKS["cpu"]), len(done) + 1
        ):
            file.write(json.dumps(row_of(u), ensure_ascii=False) + "\n")
            file.flush()
            if index % 10 == 0:
                print(f"{path}: {index} of {len(rows) + len(done)}", file=sys.stderr, flush=True)


def share_of(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is not NUMBER/COUNT, such as 1/2")
    return int(number), int(count)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="model folder")
    parser.add_argument("manifest", type=Path)
    parser.add_argument("out", type=Path, help="folder for the lines")
    parser.add_argument("--share", type=share_of, default=(1, 1), metavar="I/N")
    parser.add_argument("--alignments", type=Path, help="aligned manifest with the word times")
    parser.add_argument("--delay", type=int, help="label delay in chunks (default: the model's)")
    args = parser.parse_args()
    try:
        measure(args.model, args.manifest, args.out, args.share, args.alignments, args.delay)
    except (UserError, OSError) as err:
        sys.exit(f"error: {err}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
