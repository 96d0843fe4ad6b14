"""How demo.opus was made: four free synthetic voices (Kokoro-82M, Apache-2.0) read a text of our own.

    python examples/make_demo.py package/voices

What has to be installed is at the top of recipes/tools/voices.py. Writes demo.opus and demo_text.txt beside this
file, and the first ten seconds, small, as what `reallm doctor` measures with.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import soundfile
import soxr

HERE = Path(__file__).resolve().parent
SCRIPT = [
    ("af_heart", "Good morning. I am speaking, and you can read my words while I say them."),
    ("am_michael", "The computer hears a small piece of sound, and asks itself: what was the next word?"),
    ("bf_emma", "If there is nothing to write yet, it waits. It never takes back what it has shown."),
    ("bm_george", "All of this happens on your own machine, and nothing is sent away."),
    ("af_heart", "Now it is your turn. Give it something to listen to."),
]
PAUSE = 0.6
SAMPLE = HERE.parent / "src/speech_reallm/cli/voice.opus"


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(f"usage: python {sys.argv[0]} FOLDER_OF_VOICES   (see recipes/tools/voices.py)")
    sys.path.insert(0, str(HERE.parent / "recipes/tools"))
    from voices import RATE, Voices

    voices = Voices(Path(sys.argv[1]))
    silence = np.zeros(int(PAUSE * RATE), np.float32)
    parts = [silence[: len(silence) // 2]]
    for voice, text in SCRIPT:
        audio = voices.say(text, voice)
        parts += [audio * 0.5 / np.abs(audio).max(), silence]
    audio = np.concatenate(parts)
    soundfile.write(HERE / "demo.opus", audio, RATE, format="OGG", subtype="OPUS", compression_level=0.85)
    sample = soxr.resample(audio[: 10 * RATE], RATE, 16000)
    soundfile.write(SAMPLE, sample, 16000, format="OGG", subtype="OPUS", compression_level=0.9)
    (HERE / "demo_text.txt").write_text("".join(f"{text}\n" for _, text in SCRIPT), encoding="utf-8")
    print(f"{HERE / 'demo.opus'}: {len(audio) / RATE:.1f} s")


if __name__ == "__main__":
    main()
