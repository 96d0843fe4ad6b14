"""One long stream against the utterances it is made of: word error rate, speed and memory.

    python benchmarks/long_form.py --minutes 1 5 30

For each length: utterances of one speaker, of as many speakers as have so much, and of all speakers in turn, are joined
and transcribed as one recording, as often as the manifest gives (--repeats at most). The errors of the utterances
themselves, each a stream of its own, stand beside.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from listening import recognise
from tqdm import tqdm

from speech_reallm.audio import SAMPLE_RATE, read_audio
from speech_reallm.evaluate.wer import edit_alignment, make_normalizer, total
from speech_reallm.jsonl import json_lines
from speech_reallm.recognizer import Recognizer


def memory_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def groups(rows: list[dict[str, Any]], seconds: float, repeats: int) -> list[list[dict[str, Any]]]:
    """Rows cut into recordings of `seconds`, in order; what is left at the end is not enough for one."""
    result: list[list[dict[str, Any]]] = [[]]
    for row in rows:
        if sum(r["duration"] for r in result[-1]) >= seconds:
            result.append([])
        result[-1].append(row)
    return [g for g in result if sum(r["duration"] for r in g) >= seconds][:repeats]


def in_turn(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """An utterance of each speaker, then the next of each, and so on."""
    by_speaker: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_speaker[row["speaker"]].append(row)
    turns = max(map(len, by_speaker.values()))
    return [mine[i] for i in range(turns) for mine in by_speaker.values() if i < len(mine)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--manifest", type=Path, default=Path("../shared/speech/librispeech-dev.jsonl"))
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 5, 30])
    parser.add_argument(
        "--repeats", type=int, default=8, help="recordings of a kind at most (default: %(default)s)"
    )
    parser.add_argument("--model")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    normalize = make_normalizer("librispeech")
    rows = [row for _, row in json_lines(args.manifest)]
    speakers = sorted({row["speaker"] for row in rows})
    recordings = []
    for minutes in args.minutes:
        alone = [g for s in speakers for g in groups([r for r in rows if r["speaker"] == s], 60 * minutes, 1)]
        recordings += [(minutes, "one speaker", g) for g in alone[: args.repeats]]
        recordings += [
            (minutes, "speakers in turn", g) for g in groups(in_turn(rows), 60 * minutes, args.repeats)
        ]
    needed = {row["id"]: row for _, _, group in recordings for row in group}
    audio = {name: read_audio(args.manifest.parent / row["audio"]) for name, row in needed.items()}
    texts = {name: normalize(row["text"]).split() for name, row in needed.items()}
    recognizer = Recognizer.load(args.model)
    seconds = sum(r["duration"] for rows in (needed.values(), *(g for *_, g in recordings)) for r in rows)
    work = tqdm(total=round(seconds), unit="s")
    counts = {}
    for name, samples in audio.items():
        counts[name] = edit_alignment(texts[name], normalize(recognise(recognizer, samples)).split()).counts
        work.update(len(samples) // SAMPLE_RATE)
    joined, spent, seconds, grown = defaultdict(list), 0.0, 0.0, 0
    for minutes, kind, group in recordings:
        whole = np.concatenate([audio[row["id"]] for row in group])
        before, begun = memory_mb(), time.process_time()
        text = normalize(recognise(recognizer, whole)).split()
        spent, seconds = spent + time.process_time() - begun, seconds + len(whole) / SAMPLE_RATE
        grown = max(grown, memory_mb() - before)
        truth = [w for row in group for w in texts[row["id"]]]
        short = total(counts[row["id"]] for row in group)
        joined[minutes, kind].append((edit_alignment(truth, text).counts, short))
        work.update(len(whole) // SAMPLE_RATE)
    work.close()
    rows_out = []
    print("| minutes | recordings of | how many | words | WER in one stream, % | one by one, % | ratio |")
    print("| ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    for (minutes, kind), both in joined.items():
        one, apart = (total(c for c in side).wer or 0.0 for side in zip(*both, strict=True))
        words = total(c for c, _ in both).words
        rows_out.append(
            {"minutes": minutes, "recordings_of": kind, "recordings": len(both), "words": words}
            | {"wer_in_one_stream": one, "wer_one_by_one": apart}
        )
        print(
            f"| {minutes:g} | {kind} | {len(both)} | {words:,} | {one:.1f} | {apart:.1f} | {one / apart:.2f} |"
        )
    print(
        f"RTF {spent / seconds:.3f} (one thread, processor time); memory grew by {grown} MB while recognising"
    )
    if args.json:
        figures = {"rows": rows_out, "rtf": spent / seconds, "memory_growth_mb": grown}
        args.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
