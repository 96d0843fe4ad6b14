"""Sound that comes in small pieces, as from a microphone: words are shown as they are found."""

import sys
from collections.abc import Iterable

import soundfile

from speech_reallm import Event, Final, Partial, Recognizer


def show(events: Iterable[Event]) -> None:
    for event in events:
        if isinstance(event, Partial):
            print(event.text, end="", flush=True)
        elif isinstance(event, Final):
            print()


if len(sys.argv) != 2:
    sys.exit(f"usage: python {sys.argv[0]} FILE")
audio = soundfile.SoundFile(sys.argv[1])
stream = Recognizer.load().stream(sample_rate=audio.samplerate)
for block in audio.blocks(blocksize=audio.samplerate // 10, dtype="float32"):
    show(stream.accept(block))
# the last words are still inside
show(stream.finish().events)
