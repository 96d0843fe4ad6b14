"""The microphone: words are shown while they are said, for ten seconds or so many as are given."""

import sys
from collections.abc import Iterable

from speech_reallm import Event, Final, Partial, Recognizer
from speech_reallm.microphone import Microphone


def show(events: Iterable[Event]) -> None:
    for event in events:
        if isinstance(event, Partial):
            print(event.text, end="", flush=True)
        elif isinstance(event, Final):
            print()


seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10
recognizer = Recognizer.load()
with Microphone() as microphone:
    stream = recognizer.stream(sample_rate=microphone.rate)
    for block in microphone.blocks(stop=lambda: stream.duration >= seconds):
        show(stream.accept(block))
# the last words are still inside
show(stream.finish().events)
