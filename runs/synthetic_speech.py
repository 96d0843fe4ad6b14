"""Synthetic speech for training: book sentences in free voices, as a plain manifest.

    python runs/synthetic_speech.py --voices package/voices --text books.txt --out out/speech/kokoro --hours 2
    python runs/synthetic_speech.py --voices package/voices --text books.txt --out out/speech/hibari \
        --hours 7 --hibari-share 1

What has to be installed is at the top of voices.py. One core makes a second of speech in about 0.6 s with
Kokoro's 54 voices, in about 0.01 s with hibari's one. Writes OUT/ID.opus (16 kHz) and a row for each to
OUT.jsonl at once, so that a stopped run keeps what it has made; run it again with another --seed for more.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from pathlib import Path

import numpy as np
import soundfile
import soxr
from voices import RATE, Voices


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voices", type=Path, required=True, help="folder of Kokoro's voices")
    parser.add_argument("--text", type=Path, required=True, help="sentences, one a line")
    parser.add_argument("--out", type=Path, required=True, help="folder of the audio; manifest: OUT.jsonl")
    parser.add_argument("--hours", type=float, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--accented-share", type=float, default=0.15, help="default: %(default)s")
    parser.add_argument("--hibari-share", type=float, default=0.0, help="default: %(default)s")
    args = parser.parse_args()

    rng = random.Random(args.seed)
    voices = Voices(args.voices)
    sentences = [s.strip() for s in args.text.read_text(encoding="utf-8").splitlines()]
    sentences = [s for s in sentences if 3 <= len(s.split()) <= 32]
    rng.shuffle(sentences)
    args.out.mkdir(parents=True, exist_ok=True)
    total = 0.0
    with args.out.with_suffix(".jsonl").open("a", encoding="utf-8") as rows:
        for text in sentences:
            if total >= args.hours * 3600:
                break
            voice = pick(rng, voices, args.hibari_share, args.accented_share)
            speed = rng.choice([0.9, 1.0, 1.0, 1.1, 1.2])
            try:
                audio = soxr.resample(voices.say(text, voice, speed), RATE, 16000)
            except (ValueError, KeyError, IndexError) as err:
                # a sentence that the phonemiser cannot read
                print("skipped:", text[:60], repr(err)[:80], flush=True)
                continue
            audio *= 10 ** (rng.uniform(-14, -1) / 20) / max(float(np.abs(audio).max()), 1e-4)
            name = f"{voice}-{hashlib.sha1(f'{voice}{speed}{text}'.encode()).hexdigest()[:10]}"
            soundfile.write(
                args.out / f"{name}.opus", audio, 16000, format="OGG", subtype="OPUS", compression_level=0.8
            )
            row = {
                "id": name,
                "audio": f"{args.out.name}/{name}.opus",
                "duration": round(len(audio) / 16000, 3),
                "speaker": voice,
                "text": text,
            }
            rows.write(json.dumps(row, ensure_ascii=False) + "\n")
            rows.flush()
            total += row["duration"]
    print(f"{args.out.with_suffix('.jsonl')}: {total / 3600:.2f} hours more")


def pick(rng: random.Random, voices: Voices, hibari_share: float, accented_share: float) -> str:
    if rng.random() < hibari_share:
        return "hibari"
    accented = voices.accented if rng.random() < accented_share else []
    return rng.choice(accented or voices.native)


if __name__ == "__main__":
    main()
