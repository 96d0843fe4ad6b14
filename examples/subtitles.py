"""Subtitles for a film: SubRip on standard output."""

import sys

from speech_reallm import Recognizer
from speech_reallm.formats import to_srt

if len(sys.argv) != 2:
    sys.exit(f"usage: python {sys.argv[0]} FILE")
transcript = Recognizer.load().transcribe(sys.argv[1])
print(to_srt(transcript), end="")
