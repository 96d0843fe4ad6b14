"""Several speakers at once: their streams are recognised as one batch, which costs less than one by one."""

import sys

import soundfile

from speech_reallm import Recognizer

if len(sys.argv) < 2:
    sys.exit(f"usage: python {sys.argv[0]} FILE ...")
recognizer = Recognizer.load()
files = [soundfile.SoundFile(name) for name in sys.argv[1:]]
streams = [recognizer.stream(sample_rate=file.samplerate) for file in files]
while any(file.tell() < file.frames for file in files):
    for file, stream in zip(files, streams, strict=True):
        # a file that has ended gives nothing
        stream.feed(file.read(file.samplerate // 4, dtype="float32"))
    recognizer.step(streams)
for stream in streams:
    stream.end()
recognizer.step(streams)
for file, stream in zip(files, streams, strict=True):
    print(f"{file.name}: {stream.finish().text}")
