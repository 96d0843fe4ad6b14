"""The same thing said again: utterances repeated in one stream, with pauses, against the utterances alone.

    python benchmarks/said_again.py --manifest librispeech-dev.jsonl --limit 100

What was said before should not bear on what is recognised next. Each utterance is said two to six times with pauses of
0.3 to 3 s of faint noise between; a repetition counts as wrong where its words are not those of the utterance alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from listening import recognise
from tqdm import tqdm

from speech_reallm.audio import SAMPLE_RATE, read_audio
from speech_reallm.evaluate.wer import edit_alignment, make_normalizer, total
from speech_reallm.jsonl import json_lines
from speech_reallm.recognizer import Recognizer


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--manifest", type=Path, default=Path("../shared/speech/librispeech-dev.jsonl"))
    parser.add_argument("--limit", type=int, default=100, help="utterances (default: %(default)s)")
    parser.add_argument("--longest", type=float, default=8, help="seconds (default: %(default)s)")
    parser.add_argument("--model")
    args = parser.parse_args()
    recognizer = Recognizer.load(args.model)
    normalize = make_normalizer("librispeech")
    rng = np.random.default_rng(0)
    rows = [row for _, row in json_lines(args.manifest)]
    rows = [r for r in rows if r["duration"] <= args.longest]
    rows = [rows[i] for i in rng.permutation(len(rows))[: args.limit]]
    once, again = [], []
    for row in tqdm(rows, unit="utterance"):
        audio = read_audio(args.manifest.parent / row["audio"])
        alone = normalize(recognise(recognizer, audio)).split()
        times, parts = int(rng.integers(2, 7)), []
        for _ in range(times):
            pause = rng.uniform(0.3, 3) * SAMPLE_RATE
            parts += [audio, (rng.standard_normal(int(pause)) * 3e-4).astype(np.float32)]
        repeated = normalize(recognise(recognizer, np.concatenate(parts))).split()
        again.append(edit_alignment(alone * times, repeated).counts)
        once.append(edit_alignment(normalize(row["text"]).split(), alone).counts)
    counts = total(again)
    print(f"{len(rows)} utterances, alone: {total(once).wer:.1f} % WER")
    print(
        f"said again, against what is written of them alone: {counts.substitutions} words otherwise, "
        f"{counts.deletions} missing, {counts.insertions} too many of {counts.words} ({counts.wer:.1f} %)"
    )


if __name__ == "__main__":
    main()
