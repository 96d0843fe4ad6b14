"""What the makers of training speech have in common: a sound among silence, and an utterance in a manifest."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TextIO

import numpy as np
import soundfile

from speech_reallm.audio import SAMPLE_RATE


def between_silences(audio: np.ndarray, rng: random.Random) -> np.ndarray:
    """float32 [n], 16 kHz, at full scale with 0.2 to 1.5 s of silence or faint noise before and after."""
    audio = audio / max(float(np.abs(audio).max()), 1e-4)
    whole = np.pad(audio, [round(rng.uniform(0.2, 1.5) * SAMPLE_RATE) for _ in range(2)])
    if rng.random() < 0.7:
        level = 10 ** (rng.uniform(-70, -35) / 20)
        whole = whole + level * np.random.default_rng(rng.getrandbits(32)).standard_normal(len(whole))
    return whole.astype(np.float32)


def write_utterance(
    audio: np.ndarray, folder: Path, rows: TextIO, *, name: str, speaker: str, text: str
) -> float:
    """float32 [n], 16 kHz, as folder/NAME.opus and a row of the manifest beside the folder. Returns its seconds."""
    soundfile.write(
        folder / f"{name}.opus", audio, SAMPLE_RATE, format="OGG", subtype="OPUS", compression_level=0.8
    )
    seconds = round(len(audio) / SAMPLE_RATE, 3)
    row = {
        "id": name,
        "audio": f"{folder.name}/{name}.opus",
        "duration": seconds,
        "speaker": speaker,
        "text": text,
    }
    rows.write(json.dumps(row, ensure_ascii=False) + "\n")
    rows.flush()
    return seconds
