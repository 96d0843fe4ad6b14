"""A file: the text, and when each word was said."""

import sys

from speech_reallm import Recognizer

if len(sys.argv) != 2:
    sys.exit(f"usage: python {sys.argv[0]} FILE")
recognizer = Recognizer.load()
transcript = recognizer.transcribe(sys.argv[1])
print(transcript.text)
for word in transcript.words:
    print(f"{word.start:6.2f} {word.end:6.2f}  {word.confidence:.2f}  {word.word}")
