"""Where recognisers break: noise over speech, noise and silence without speech, single short words.

    python benchmarks/robustness.py --limit 150

- speech with noise added at 10 dB, each utterance with another noise, against the same speech without;
- ten minutes of each kind of noise together, ten of digital silence, ten of faint hiss: every word is one too many;
- yes, no, stop, go and the digits, spoken alone by three voices of flite (Debian package `flite`) between silences.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from alignment.synthetic import VOICES, available, speak_words
from listening import recognise

from speech_reallm.audio import SAMPLE_RATE, read_audio
from speech_reallm.evaluate.wer import Counts, edit_alignment, make_normalizer, total
from speech_reallm.jsonl import json_lines
from speech_reallm.recognizer import Recognizer
from speech_reallm.training.data.augment import add_noise

WORDS = (
    "yes", "no", "stop", "go", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"
)  # fmt: skip


def joined(parts: Iterable[np.ndarray], seconds: float) -> np.ndarray:
    """The parts one after another, again and again, `seconds` long."""
    whole = np.concatenate(list(parts))
    return np.resize(whole, round(seconds * SAMPLE_RATE)).astype(np.float32)


def write(path: Path | None, figures: dict[str, object]) -> None:
    if path:
        path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--manifest", type=Path, default=Path("../shared/speech/librispeech-dev.jsonl"))
    parser.add_argument("--noise", type=Path, default=Path("../shared/speech/noise.jsonl"))
    parser.add_argument("--limit", type=int, default=150, help="utterances (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=10, help="of no speech (default: %(default)s)")
    parser.add_argument("--snr", type=float, default=10, help="dB (default: %(default)s)")
    parser.add_argument("--model")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    recognizer = Recognizer.load(args.model)
    normalize = make_normalizer("librispeech")
    rng = np.random.default_rng(0)
    noise_rows = [row for _, row in json_lines(args.noise)]
    noises = [read_audio(args.noise.parent / row["audio"]) for row in noise_rows]

    lines = [row for _, row in json_lines(args.manifest)]
    rows = [lines[i] for i in rng.permutation(len(lines))[: args.limit]]
    clean: list[Counts] = []
    noisy: list[Counts] = []
    for number, row in enumerate(rows):
        audio = read_audio(args.manifest.parent / row["audio"])
        reference = normalize(row["text"]).split()
        mixed = add_noise(audio, noises[number % len(noises)], args.snr, rng).astype(np.float32)
        for counts, samples in ((clean, audio), (noisy, np.clip(mixed, -1, 1))):
            counts.append(edit_alignment(reference, normalize(recognise(recognizer, samples)).split()).counts)
    print(
        f"WER of {len(rows)} utterances: {total(clean).wer:.1f} %, at {args.snr:g} dB {total(noisy).wer:.1f} %"
    )
    figures: dict[str, object] = {
        "utterances": len(rows),
        "snr_db": args.snr,
        "noises": [row["id"] for row in noise_rows],
        "wer": total(clean).wer,
        "wer_noisy": total(noisy).wer,
        "minutes": args.minutes,
    }

    seconds = args.minutes * 60
    share = seconds / len(noises)
    quiet = {
        "noise": joined((joined([n], share) for n in noises), seconds),
        "silence": np.zeros(round(seconds * SAMPLE_RATE), np.float32),
        "faint hiss": (1e-3 * rng.standard_normal(round(seconds * SAMPLE_RATE))).astype(np.float32),
    }
    for name, audio in quiet.items():
        words = figures[f"words in {name}"] = len(recognise(recognizer, audio).split())
        print(f"words in {args.minutes:g} min of {name}: {words}")

    if not available():
        print("single words: skipped, flite is not installed")
        write(args.json, figures)
        return
    lost = right = 0
    # for which "9" is "nine"
    normalize = make_normalizer("whisper")
    for voice in VOICES:
        for word in WORDS:
            audio, _ = speak_words([word], voice, rng, gap=(0.8, 1.2))
            recognised = normalize(recognise(recognizer, audio)).split()
            lost += not recognised
            right += recognised == normalize(word).split()
    share = 100 / (len(WORDS) * len(VOICES))
    print(f"single words: {lost * share:.0f} % lost, {right * share:.0f} % right")
    write(args.json, figures | {"isolated_words_lost": lost * share, "isolated_words_right": right * share})


if __name__ == "__main__":
    main()
