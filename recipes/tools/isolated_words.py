"""Isolated words, cut out of aligned recordings of sentences: real voices say them, with silence around.

    python recipes/tools/isolated_words.py out/aligned/librispeech-train.jsonl.gz out/aligned/kathleen.jsonl.gz \
        --count 3000 --out out/speech/cut-words

Writes OUT/ID.opus (16 kHz) and OUT.jsonl. A word in the middle of a sentence may not be one when it is cut out: let
recipes/tools/restore_case.py keep those that an offline recogniser makes out (--max-wer 0).
"""

from __future__ import annotations

import argparse
import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
from tqdm import tqdm
from utterances import between_silences, write_utterance

from speech_reallm.audio import SAMPLE_RATE
from speech_reallm.training.data.manifests import load_audio, load_manifest

# seconds: shortest word, what is kept before and after it, fade
SHORTEST, BEFORE, AFTER, FADE = 0.28, 0.06, 0.08, 0.025


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifests", type=Path, nargs="+", help="aligned manifests")
    parser.add_argument("--count", type=int, required=True, help="words to cut")
    parser.add_argument("--out", type=Path, required=True, help="folder of the audio; manifest: OUT.jsonl")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    found = []
    for path in args.manifests:
        for cut in load_manifest(path):
            for item in (cut.supervisions[0].alignment or {}).get("word") or []:
                word = re.sub(r"[^a-z']", "", item.symbol.lower())
                if len(word) > 1 and item.duration >= SHORTEST:
                    found.append((word, str(cut.supervisions[0].speaker), cut, item))
    if not found:
        raise SystemExit(f"no word of {SHORTEST} s or more in {', '.join(map(str, args.manifests))}")
    # frequent words and talkative speakers less often than they are there
    words, speakers = Counter(f[0] for f in found), Counter(f[1] for f in found)
    keys = [rng.random() ** ((words[w] * speakers[s]) ** 0.5) for w, s, *_ in found]
    chosen = sorted(range(len(found)), key=keys.__getitem__, reverse=True)[: args.count]
    args.out.mkdir(parents=True, exist_ok=True)
    ramp = np.linspace(0, 1, round(FADE * SAMPLE_RATE), dtype=np.float32)
    with args.out.with_suffix(".jsonl").open("w", encoding="utf-8") as rows:
        for number in tqdm(chosen, unit="word"):
            word, speaker, cut, item = found[number]
            sound = load_audio(cut)
            start, end = item.start - BEFORE, item.start + item.duration + AFTER
            sound = sound[max(0, round(start * SAMPLE_RATE)) : round(end * SAMPLE_RATE)].copy()
            sound[: len(ramp)] *= ramp
            sound[-len(ramp) :] *= ramp[::-1]
            audio = between_silences(sound, rng) * 10 ** (rng.uniform(-14, -1) / 20)
            name = f"{cut.id}-{round(item.start * 1000)}"
            write_utterance(audio, args.out, rows, name=name, speaker=speaker, text=word)


if __name__ == "__main__":
    main()
