"""How well turns end: false ends, missed ones, and the delay of true ones, on utterances joined with known gaps.

    python benchmarks/endpoints.py                                   # the demo recording, at three speeds
    python benchmarks/endpoints.py --manifest talks.jsonl --limit 60 # utterances of a plain manifest
    python benchmarks/endpoints.py --noise rain.opus --snr 15        # in noise; --snr alone adds white noise

Recordings are cut where they are silent for 0.3 s, so that no utterance has a longer pause inside, and joined with gaps
of 0.2, 0.6, 1.0 and 1.5 s in turn. An end inside an utterance is false; one in a gap shorter than the silence asked for
is early; a longer gap without one is missed. Two delays count from the last sound of an utterance: `time` is what the
end-point says, `known` is how much audio had been received when it came, which is what a program waits for (computing
comes on top). `text` is the rule that counts chunks without a word and does not look at the sound.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr

from speech_reallm import Endpoint, Recognizer
from speech_reallm.audio import SAMPLE_RATE, read_audio
from speech_reallm.endpoint import Endpointer
from speech_reallm.jsonl import json_lines

DEMO = Path(__file__).parents[1] / "examples/demo.opus"
GAPS = (0.2, 0.6, 1.0, 1.5)
SPEEDS = (0.9, 1.0, 1.15)
BLOCK = SAMPLE_RATE // 100
LONGEST_PAUSE = 0.3


class TextOnly(Endpointer):
    """Counts chunks without a word, whatever the sound is."""

    def receive(self, audio: np.ndarray) -> None:
        pass


@dataclass(frozen=True)
class Joined:
    """audio: float32 [n]. spans: of every utterance its start and end, and the gap after it, in seconds."""

    audio: np.ndarray
    spans: list[tuple[float, float, float]]


def utterances(audio: np.ndarray, below_db: float) -> list[np.ndarray]:
    """Cut where what is `below_db` under the loudest 10 ms lasts for 0.3 s; what is shorter than 0.5 s is left out."""
    count = len(audio) // BLOCK
    level = np.sqrt(np.square(audio[: count * BLOCK].reshape(count, BLOCK)).mean(axis=1))
    loud = np.flatnonzero(level > level.max() * 10 ** (below_db / 20))
    parts, start = [], loud[0]
    for before, after in itertools.pairwise(loud):
        if after - before > LONGEST_PAUSE * 100:
            parts.append((start, before + 1))
            start = after
    parts.append((start, loud[-1] + 1))
    return [audio[max(0, (a - 3) * BLOCK) : (b + 3) * BLOCK] for a, b in parts if b - a > 50]


def join(parts: Sequence[np.ndarray], noise: np.ndarray | None, snr: float) -> Joined:
    """noise: float32, repeated as needed; None for white noise."""
    audio, spans, at = [np.zeros(round(0.6 * SAMPLE_RATE), np.float32)], [], 0.6
    for number, part in enumerate(parts):
        gap = GAPS[number % len(GAPS)]
        audio += [part, np.zeros(round(gap * SAMPLE_RATE), np.float32)]
        spans.append((at, at + len(part) / SAMPLE_RATE, gap))
        at = spans[-1][1] + gap
    speech = math.sqrt(np.square(np.concatenate(parts)).mean())
    whole = np.concatenate(audio)
    if noise is None:
        noise = np.random.default_rng(5).standard_normal(len(whole)).astype(np.float32)
    noise = np.resize(noise, len(whole))
    noise = noise * (speech * 10 ** (-snr / 20) / max(1e-9, math.sqrt(np.square(noise).mean())))
    return Joined((whole + noise).astype(np.float32), spans)


def endpoints(
    recognizer: Recognizer, audio: np.ndarray, silence: float, rule: str
) -> Iterator[tuple[float, float]]:
    """The time of every end-point, and how much audio had been received when it came."""
    stream = recognizer.stream(endpoint_silence=silence, history=0)
    if rule == "text":
        model = recognizer.model
        stream._endpointer = TextOnly(silence, model.chunk_seconds, model.lookahead_chunks, stream.delay)
    for start in range(0, len(audio), BLOCK * 2):
        for event in stream.accept(audio[start : start + BLOCK * 2]):
            if isinstance(event, Endpoint):
                yield event.time, min(len(audio), start + BLOCK * 2) / SAMPLE_RATE


def figures(joined: Joined, ends: list[tuple[float, float]], silence: float) -> dict[str, float]:
    spans = joined.spans
    counts = {"false": 0, "early": 0, "missed": 0, "gaps": 0}
    counts["false"] = sum(a + 0.05 < end < b - 0.05 for end, _ in ends for a, b, _ in spans)
    time, known = [], []
    # the gap after the last one has no end
    for _, b, gap in spans[:-1]:
        after = [(end - b, at - b) for end, at in ends if b - 0.05 <= end < b + gap + 0.05]
        if gap < silence - 0.05:
            counts["early"] += bool(after)
        elif gap > silence + 0.05:
            counts["gaps"] += 1
            counts["missed"] += not after
            if after:
                time.append(after[0][0])
                known.append(after[0][1])
    delays = {"time": time, "known": known}
    medians = {name: float(np.median(values)) if values else math.nan for name, values in delays.items()}
    return counts | medians | {"known_p90": float(np.percentile(known, 90)) if known else math.nan}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--manifest", type=Path, help="JSON lines with `audio`, relative to it; default: the demo"
    )
    parser.add_argument(
        "--limit", type=int, default=40, help="recordings of the manifest (default: %(default)s)"
    )
    parser.add_argument("--noise", type=Path, help="a recording of noise; default: white noise")
    parser.add_argument("--snr", type=float, default=50.0, help="dB (default: %(default)g)")
    parser.add_argument("--below", type=float, default=-45.0, help="dB under the loudest that is silence")
    parser.add_argument("--ms", type=int, nargs="+", default=[350, 500, 800], help="silence asked for")
    parser.add_argument("--rules", nargs="+", choices=("text", "both"), default=["text", "both"])
    args = parser.parse_args()
    if args.manifest:
        rows = [row for _, row in json_lines(args.manifest)]
        order = np.random.default_rng(1).permutation(len(rows))[: args.limit]
        recordings = [read_audio(args.manifest.parent / rows[i]["audio"]) for i in order]
        parts = [part for audio in recordings for part in utterances(audio, args.below)]
    else:
        cut = utterances(read_audio(DEMO), args.below)
        parts = [
            soxr.resample(part, SAMPLE_RATE, round(SAMPLE_RATE / speed)).astype(np.float32)
            for speed in SPEEDS
            for part in cut
        ]
    joined = join(parts, read_audio(args.noise) if args.noise else None, args.snr)
    recognizer = Recognizer.load()
    seconds = len(joined.audio) / SAMPLE_RATE
    print(f"{len(parts)} utterances, {seconds:.0f} s, {args.snr:g} dB", file=sys.stderr)
    print("| silence | rule | false | early | missed | time, s | known, s | known p90, s |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for ms in args.ms:
        for rule in args.rules:
            found = list(endpoints(recognizer, joined.audio, ms / 1000, rule))
            f = figures(joined, found, ms / 1000)
            print(
                f"| {ms} ms | {rule} | {f['false']} of {len(parts)} | {f['early']} | {f['missed']} of {f['gaps']} | "
                f"{f['time']:.2f} | {f['known']:.2f} | {f['known_p90']:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
