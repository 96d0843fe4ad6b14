"""Sound from a microphone, block by block, by way of sounddevice (PortAudio)."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from .audio import MAX_RATE, MIN_RATE
from .errors import UserError
from .extras import install_command

# seconds of sound that one block holds, and that may wait for a recogniser that is late; more is dropped
BLOCK = 0.05
BACKLOG = 30.0
# seconds without any block after which something must be wrong
SILENT_DEVICE_SECONDS = 5.0

_PORTAUDIO = (
    "the PortAudio library is missing; install it: apt install libportaudio2 (Debian, Ubuntu), "
    "dnf install portaudio (Fedora), pacman -S portaudio (Arch), brew install portaudio (macOS)"
)


@dataclass(frozen=True, slots=True)
class Device:
    """An input: `number` and `name` choose it; `rate` (Hz) is its own sample rate."""

    number: int
    name: str
    channels: int
    rate: int
    default: bool


def import_sounddevice() -> Any:
    """The module sounddevice. Raises UserError that says what to install."""
    try:
        import sounddevice
    except ImportError:
        raise UserError(f"the microphone needs sounddevice: {install_command('sounddevice')}") from None
    except OSError:
        # sounddevice is there, the C library that it loads is not
        raise UserError(_PORTAUDIO) from None
    return sounddevice


def devices() -> list[Device]:
    """All inputs of this machine. Raises UserError if sounddevice or PortAudio is missing."""
    sounddevice = import_sounddevice()
    try:
        known = list(sounddevice.query_devices())
        default = sounddevice.default.device[0]
    except sounddevice.PortAudioError as err:
        raise UserError(f"the sound devices cannot be listed ({_reason(err)})") from None
    return [
        Device(number, d["name"], d["max_input_channels"], round(d["default_samplerate"]), number == default)
        for number, d in enumerate(known)
        if d["max_input_channels"] > 0
    ]


class Microphone:
    """An open microphone: `with Microphone() as microphone: for block in microphone.blocks(): ...`.

    Attributes: `name`, `rate` (Hz); `lost`: seconds of sound that were dropped because nobody took them.
    """

    def __init__(self, device: int | str | None = None, rate: int | None = None) -> None:
        """device: number or part of the name, None for the system's choice. rate: Hz, None for the device's.

        Raises UserError if there is none, or it cannot be used.
        """
        self._sounddevice = sounddevice = import_sounddevice()
        self._queue: queue.Queue[np.ndarray | None] = queue.Queue(maxsize=int(BACKLOG / BLOCK))
        self.lost = 0.0
        try:
            info = sounddevice.query_devices(device, "input")
        except (ValueError, sounddevice.PortAudioError) as err:
            if device is None:
                raise UserError(
                    "no microphone found; connect one, or see what there is: reallm listen --list"
                ) from None
            raise UserError(f"no microphone {device!r} ({_reason(err)}); see: reallm listen --list") from None
        self.name = str(info["name"])
        self.rate = rate or round(info["default_samplerate"])
        if not MIN_RATE <= self.rate <= MAX_RATE:
            raise UserError(f"a sample rate of {self.rate} Hz is not within {MIN_RATE} to {MAX_RATE}")
        # some devices do not offer one channel
        for channels in sorted({1, min(2, info["max_input_channels"])}):
            try:
                self._stream = sounddevice.InputStream(
                    samplerate=self.rate,
                    blocksize=int(BLOCK * self.rate),
                    device=device,
                    channels=channels,
                    # which every device has; floats may be anything, even NaN
                    dtype="int16",
                    callback=self._on_sound,
                    finished_callback=self._on_end,
                )
                break
            except (ValueError, sounddevice.PortAudioError) as err:
                reason = _reason(err)
        else:
            raise UserError(
                f"{self.name} cannot be opened ({reason}); another program may use it, or try --device or --rate"
            )

    def _on_sound(self, sound: np.ndarray, frames: int, when: Any, status: Any) -> None:
        """PortAudio calls this in a thread of its own, where nothing may take long or fail."""
        try:
            # the array is PortAudio's and will be used again
            self._queue.put_nowait(sound.mean(axis=1, dtype=np.float32) / np.float32(1 << 15))
        except queue.Full:
            self.lost += frames / self.rate

    def _on_end(self) -> None:
        # if it is full, who reads will see that nothing comes any more
        with suppress(queue.Full):
            self._queue.put_nowait(None)

    def blocks(self, stop: Callable[[], bool] = lambda: False) -> Iterator[np.ndarray]:
        """Mono float32 blocks [n] at `rate`, as they come; all that was recorded before `stop()` was true.

        Raises UserError if the device falls silent for good, after everything before has been given out.
        """
        try:
            self._stream.start()
        except self._sounddevice.PortAudioError as err:
            raise UserError(f"{self.name} cannot be started ({_reason(err)})") from None
        last = time.monotonic()
        while not stop():
            try:
                block = self._queue.get(timeout=0.1)
            except queue.Empty:
                if time.monotonic() - last < SILENT_DEVICE_SECONDS:
                    continue
                raise UserError(
                    f"{self.name} gives no sound; is it connected, and may this program use it?"
                ) from None
            if block is None:
                raise UserError(f"{self.name} is gone; was it unplugged?")
            last = time.monotonic()
            yield block
        # lets what is in the device's own buffer through
        self._stream.stop()
        while True:
            try:
                block = self._queue.get_nowait()
            except queue.Empty:
                return
            if block is not None:
                yield block

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> Microphone:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _reason(err: Exception) -> str:
    return " ".join(str(err).split())[:120]
