"""A stand-in for the module sounddevice, with microphones that play given samples."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import numpy as np


class PortAudioError(Exception):
    pass


def fake_sounddevice(
    samples: np.ndarray,
    *,
    rate: int = 48000,
    channels: int = 1,
    then: Callable[[], None] | None = None,
    unplugged: bool = False,
    refuse_mono: bool = False,
    microphones: int = 2,
) -> ModuleType:
    """samples [n] at `rate`: what every microphone hears, as fast as it is taken.

    then: called when all has been heard (to press Ctrl-C, say). unplugged: the device goes away then.
    """
    devices = [
        {"name": "Loudspeaker", "max_input_channels": 0, "default_samplerate": 44100.0},
        {"name": "Built-in Microphone", "max_input_channels": channels, "default_samplerate": float(rate)},
        {"name": "USB Headset", "max_input_channels": channels, "default_samplerate": float(rate)},
    ][: 1 + microphones]

    def query_devices(device: int | str | None = None, kind: str | None = None) -> object:
        if kind is None and device is None:
            return devices
        inputs = [d for d in devices if d["max_input_channels"]]
        if isinstance(device, int):
            inputs = [d for d in devices[device : device + 1] if d["max_input_channels"]]
        elif device is not None:
            inputs = [d for d in inputs if device.lower() in d["name"].lower()]
        if not inputs:
            raise (
                PortAudioError("Error querying device -1")
                if device is None
                else ValueError("No input device")
            )
        return inputs[0]

    class InputStream:
        opened: ClassVar[list[InputStream]] = []

        def __init__(
            self, *, samplerate, blocksize, device, channels, dtype, callback, finished_callback
        ) -> None:
            assert dtype == "int16"
            if refuse_mono and channels == 1:
                raise PortAudioError("Invalid number of channels [PaErrorCode -9998]")
            self.blocksize, self.channels = blocksize, channels
            self.callback, self.finished = callback, finished_callback
            self.stopped = threading.Event()
            self.closed = False
            self.opened.append(self)

        def start(self) -> None:
            threading.Thread(target=self._play, daemon=True).start()

        def _play(self) -> None:
            buffer = np.empty((self.blocksize, self.channels), np.int16)
            for start in range(0, len(samples) - self.blocksize + 1, self.blocksize):
                # PortAudio, too, uses the same memory again and again
                buffer[:] = np.round(32767 * samples[start : start + self.blocksize, None])
                self.callback(buffer, self.blocksize, None, None)
            if then:
                then()
            if unplugged:
                self.finished()

        def stop(self) -> None:
            self.stopped.set()

        def close(self) -> None:
            self.closed = True

    module = ModuleType("sounddevice")
    module.PortAudioError, module.InputStream, module.query_devices = (
        PortAudioError,
        InputStream,
        query_devices,
    )
    module.default = SimpleNamespace(device=[1, 0])
    return module
