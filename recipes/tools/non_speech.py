"""Training examples without a word, so that a recogniser learns to say nothing: noise, hiss, digital silence.

    python recipes/tools/non_speech.py data/speech/noise.jsonl out/speech/non-speech

Writes OUT/*.flac (16 kHz mono) and OUT.jsonl, a plain manifest whose texts are empty.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from speech_reallm.audio import SAMPLE_RATE
from speech_reallm.errors import UserError
from speech_reallm.training.data.manifests import load_audio, load_manifest

SECONDS = (4.0, 12.0)


def stretches(audio: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """audio [N] cut into stretches of 4 to 12 s, each at a level of its own; a rest shorter than that is left."""
    found, start = [], 0
    while len(audio) - start >= SECONDS[0] * SAMPLE_RATE:
        size = min(int(rng.uniform(*SECONDS) * SAMPLE_RATE), len(audio) - start)
        part = audio[start : start + size]
        peak = max(float(np.abs(part).max()), 1e-6)
        found.append(part / peak * 10 ** (rng.uniform(-35, -3) / 20))
        start += size
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("noise", type=Path, help="manifest of noises")
    parser.add_argument("out", type=Path, help="folder; OUT.jsonl is written beside it")
    parser.add_argument("--hiss", type=int, default=20, help="examples of faint hiss and of silence, of each")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    try:
        cuts = list(load_manifest(args.noise, require_text=False))
    except UserError as err:
        sys.exit(f"non_speech.py: {err}")
    args.out.mkdir(parents=True, exist_ok=True)
    made: list[np.ndarray] = []
    for cut in tqdm(cuts, desc="cutting noises"):
        made += stretches(load_audio(cut), rng)
    for _ in range(args.hiss):
        size = int(rng.uniform(*SECONDS) * SAMPLE_RATE)
        made.append(np.zeros(size, np.float32))
        made.append(rng.standard_normal(size) * 10 ** (rng.uniform(-80, -45) / 20))
    seconds = 0.0
    with open(args.out.with_suffix(".jsonl"), "w", encoding="utf-8") as rows:
        for number, audio in enumerate(made):
            name = f"non-speech-{number:04d}"
            soundfile.write(args.out / f"{name}.flac", np.clip(audio, -1, 1), SAMPLE_RATE, subtype="PCM_16")
            duration = len(audio) / SAMPLE_RATE
            seconds += duration
            row = {
                "id": name,
                "audio": f"{args.out.name}/{name}.flac",
                "duration": round(duration, 3),
                "speaker": "non-speech",
                "text": "",
            }
            rows.write(json.dumps(row) + "\n")
    print(f"{args.out.with_suffix('.jsonl')}: {len(made)} examples, {seconds / 3600:.2f} h")


if __name__ == "__main__":
    main()
