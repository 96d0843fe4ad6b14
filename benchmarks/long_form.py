"""One endless stream against the utterances it is made of: word error rate, speed and memory.

    python benchmarks/long_form.py --minutes 20

Joins utterances of a manifest (every second one, so that speakers change) and transcribes them as one recording.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np

from speech_reallm.audio import read_audio
from speech_reallm.evaluate.wer import align, make_normalizer, total
from speech_reallm.recognizer import Recognizer

FEED = 3840


def recognise(recognizer: Recognizer, audio: np.ndarray) -> str:
    """The text of audio float32 [N], 16 kHz, fed in pieces of 240 ms."""
    stream = recognizer.stream(sample_rate=16000)
    for start in range(0, len(audio), FEED):
        stream.accept(audio[start : start + FEED])
    return stream.finish().text


def memory_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, default=Path("../shared/speech/librispeech-dev.jsonl"))
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--model")
    args = parser.parse_args()
    normalize = make_normalizer("librispeech")
    rows, seconds = [], 0.0
    for line in args.manifest.read_text().splitlines()[::2]:
        if seconds >= args.minutes * 60:
            break
        rows.append(json.loads(line))
        seconds += rows[-1]["duration"]
    audio = [read_audio(args.manifest.parent / row["audio"]) for row in rows]
    texts = [normalize(row["text"]).split() for row in rows]
    recognizer = Recognizer.load(args.model)
    parts = [recognise(recognizer, a) for a in audio]
    short = total(align(t, normalize(p).split()).counts for t, p in zip(texts, parts, strict=True)).wer
    whole = np.concatenate(audio)
    before, begun = memory_mb(), time.process_time()
    heard = normalize(recognise(recognizer, whole)).split()
    spent = time.process_time() - begun
    joined = align([w for t in texts for w in t], heard).counts.wer
    print(f"{len(rows)} utterances, {seconds / 60:.1f} min; one thread, processor time")
    print(f"WER one by one {short:.1f} %, as one stream {joined:.1f} % ({joined / short:.2f} times)")
    print(f"RTF {spent / seconds:.3f}; memory grew by {memory_mb() - before} MB")


if __name__ == "__main__":
    main()
