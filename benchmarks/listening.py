"""What the benchmarks have in common: audio in memory through a stream, as from a live speaker."""

from __future__ import annotations

import numpy as np

from speech_reallm.audio import SAMPLE_RATE
from speech_reallm.recognizer import Recognizer

# samples in a feed: 240 ms
FEED = 3840


def recognise(recognizer: Recognizer, audio: np.ndarray) -> str:
    """The text of audio float32 [N], 16 kHz, fed in pieces of 240 ms."""
    stream = recognizer.stream(sample_rate=SAMPLE_RATE)
    for start in range(0, len(audio), FEED):
        stream.accept(audio[start : start + FEED])
    return stream.finish().text
