"""Readers of sound, one per kind of container; all work on a file, an upload or a pipe alike.

A reader has `rate` (Hz), `channels`, `duration` (seconds as the input promises them, 0 if it does not), a generator
`sound()` of `items.Item`, and `close()`. `media.open_audio` chooses the reader and makes one stream of samples of
what it yields.
"""
