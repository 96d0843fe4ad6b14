"""Many channels to one, as a listener would choose: nothing cancels out, noise and effects stay out.

The plain average loses speech in four ways: a channel wired upside down cancels the other, a channel of mere noise
covers the speech in the other, and of surround sound the rumble of the effects channel and the noises behind the
listener are mixed in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from .errors import UserError

# The weights follow from frames of this length that lie before the sample, so that nothing is held back, and how the
# audio is cut makes no difference.
FRAME_SECONDS = 0.02
# where speech is
BAND = (200.0, 4000.0)
# Channels that are opposite beyond OPPOSITE are added with opposite signs; beyond ALIKE they are the same sound, and
# both are used.
OPPOSITE, ALIKE = -0.2, 0.6
# how fast correlations are forgotten: about 4 s
FORGET = 0.995
# A channel is active while it is so many dB above its own noise floor, and so long afterwards.
ACTIVE_DB, HOLD_SECONDS, CENTRE_HOLD_SECONDS = 8.0, 0.6, 1.5
# A floor that is left behind comes up so fast; nothing is quieter than QUIET_DB.
FLOOR_DB_PER_SECOND, QUIET_DB = 2.0, -80.0
# Where the file does not say that six channels are surround sound, channels behind are used when the front has been
# silent for so long: they may be six microphones.
FRONT_MEMORY_SECONDS = 30.0

# orders of WAV, FLAC and most others, by the number of channels
USUAL_LAYOUTS: dict[int, tuple[str, ...]] = {
    1: ("FC",),
    2: ("FL", "FR"),
    3: ("FL", "FR", "FC"),
    5: ("FL", "FR", "FC", "BL", "BR"),
    6: ("FL", "FR", "FC", "LFE", "BL", "BR"),
    7: ("FL", "FR", "FC", "LFE", "BC", "SL", "SR"),
    8: ("FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR"),
}
# those of Vorbis and Opus
OGG_LAYOUTS: dict[int, tuple[str, ...]] = {
    1: ("FC",),
    2: ("FL", "FR"),
    3: ("FL", "FC", "FR"),
    5: ("FL", "FC", "FR", "BL", "BR"),
    6: ("FL", "FC", "FR", "BL", "BR", "LFE"),
    7: ("FL", "FC", "FR", "SL", "SR", "BC", "LFE"),
    8: ("FL", "FC", "FR", "SL", "SR", "BL", "BR", "LFE"),
}
# the bits of the channel mask in WAV, in order
MASK_NAMES = ("FL", "FR", "FC", "LFE", "BL", "BR", "FLC", "FRC", "BC", "SL", "SR")
_NAMES = {"left": "FL", "right": "FR", "center": "FC", "centre": "FC", "lfe": "LFE"}
_FRONT = frozenset({"FL", "FR", "FLC", "FRC", "DL", "DR", "WL", "WR"})


def layout_of_mask(mask: int, channels: int) -> tuple[str, ...] | None:
    """Names of the channels from the mask of a WAV; None if it does not name all."""
    names = tuple(name for bit, name in enumerate(MASK_NAMES) if mask >> bit & 1)
    return names if len(names) == channels else None


def parse_channel(text: str | int) -> str:
    """A choice of channel as people write it: a number from 1, or left, right, center, lfe. Raises UserError."""
    choice = str(text).strip().lower()
    if choice in _NAMES or re.fullmatch(r"[1-9][0-9]?", choice):
        return choice
    raise UserError(f"channel must be a number from 1, left, right or center, not {str(text)[:20]!r}")


class Mixer:
    """Samples of many channels to one; how they are cut makes no difference to the result."""

    def __init__(
        self,
        rate: int,
        channels: int,
        layout: Sequence[str] | None = None,
        *,
        choice: str | int | None = None,
        what: str = "the stream",
        notify: Callable[[str], None] | None = None,
    ) -> None:
        """layout: names of the channels (FL, FR, FC, LFE, BL, ...), None where nobody says.

        choice: the one channel to take, as `parse_channel` reads it. notify: told once of channels that cancel out,
        and of one that is left out for its noise. Raises UserError for a choice that is not there.
        """
        self.rate, self.channels = rate, channels
        self._declared = layout is not None and len(layout) == channels
        self._layout = tuple(layout or ()) if self._declared else USUAL_LAYOUTS.get(channels, ())
        self._notify, self._told = notify or (lambda _: None), set[str]()
        self._chosen = None if choice is None else self._index(parse_channel(choice), what)
        names = self._layout
        self._centre = [i for i, name in enumerate(names) if name == "FC"]
        self._front = [i for i, name in enumerate(names) if name in _FRONT]
        self._behind = [i for i in range(channels) if i not in self._centre and i not in self._front]
        self._surround = bool(self._centre and self._front)
        self._size = max(1, round(rate * FRAME_SECONDS))
        self._frame = np.zeros((channels, self._size), np.float32)
        self._filled = 0
        self._window = np.hanning(self._size + 2)[1:-1].astype(np.float32)
        hertz = np.fft.rfftfreq(self._size, 1 / rate)
        self._bins = np.flatnonzero((hertz >= BAND[0]) & (hertz <= BAND[1]))
        self._cross = np.zeros((channels, channels))
        self._weight = np.full((channels, channels), 1e-12)
        self._sign = np.ones(channels)
        self._reference = 0
        self._floor: np.ndarray | None = None
        self._level = np.full(channels, QUIET_DB)
        # seconds since each channel was active
        self._since = np.full(channels, np.inf)
        self._shares = np.full(channels, 1 / channels)
        if self._surround:
            self._shares = self._even([*self._front, *self._centre])
        self._before = self._now = self._shares.astype(np.float32)
        self._ignored = np.zeros(channels)
        self._flipped = 0

    def push(self, samples: np.ndarray) -> np.ndarray:
        """samples [n, channels] float32 -> [n] float32."""
        if self.channels == 1:
            return np.ascontiguousarray(samples[:, 0])
        if self._chosen is not None:
            return np.ascontiguousarray(samples[:, self._chosen])
        out = np.empty(len(samples), np.float32)
        done = 0
        while done < len(samples):
            count = min(self._size - self._filled, len(samples) - done)
            part = samples[done : done + count].T
            self._frame[:, self._filled : self._filled + count] = part
            out[done : done + count] = self._mixed(part, self._filled)
            self._filled += count
            done += count
            if self._filled == self._size:
                self._filled = 0
                self._before = self._now
                self._now = self._weights().astype(np.float32)
        return out

    def _mixed(self, part: np.ndarray, at: int) -> np.ndarray:
        """part [channels, n], from sample `at` of a frame; new weights fade in over the frame."""
        fade = None
        if (self._before != self._now).any():
            fade = np.arange(at, at + part.shape[1], dtype=np.float32) / np.float32(self._size)
        mono = np.zeros(part.shape[1], np.float32)
        # one after another: a matrix product would round differently for other lengths
        for row, before, now in zip(part, self._before, self._now, strict=True):
            if before or now:
                mono += row * (now if fade is None else before + (now - before) * fade)
        return mono

    def _weights(self) -> np.ndarray:
        """The weights after the frame that has just been filled, [channels]."""
        self._analyse()
        active = self._since <= HOLD_SECONDS
        chosen = self._surrounded(active) if self._surround else self._plain(active)
        if chosen is not None:
            self._shares = self._even(chosen)
        self._report()
        return self._shares * self._sign

    def _analyse(self) -> None:
        spectrum = np.fft.rfft(self._frame * self._window, axis=1)[:, self._bins] / self._size
        power = (spectrum.real**2 + spectrum.imag**2).sum(axis=1) + 1e-12
        product = (spectrum @ spectrum.conj().T).real
        scale = np.sqrt(np.outer(power, power))
        # by amplitude to the half, lest a loud moment outweigh all speech around it
        weight = np.where(scale > 2e-12, scale**0.25, 0)
        self._cross = self._cross * FORGET + weight * product / scale
        self._weight = self._weight * FORGET + weight
        level = np.maximum(10 * np.log10(power), QUIET_DB)
        # over about three frames, as the noise of a single one varies
        self._level = level if self._floor is None else self._level + (level - self._level) * 0.4
        rising = FLOOR_DB_PER_SECOND * FRAME_SECONDS
        self._floor = (
            self._level.copy() if self._floor is None else np.minimum(self._level, self._floor + rising)
        )
        self._since = np.where(self._level > self._floor + ACTIVE_DB, 0.0, self._since + FRAME_SECONDS)
        self._turn_over()

    @property
    def _alike(self) -> np.ndarray:
        """Correlation of the channels, [channels, channels], -1 to 1."""
        alike: np.ndarray = self._cross / self._weight
        return alike

    def _turn_over(self) -> None:
        """Signs of the channels, so that their sum does not cancel out."""
        strength = np.diag(self._weight)
        if strength.max() > 1.4 * strength[self._reference]:
            # the sum keeps its sign, or there would be a click
            sign = self._sign[int(strength.argmax())]
            self._reference = int(strength.argmax())
        else:
            sign = self._sign[self._reference]
        alike = self._alike[self._reference] * sign
        self._sign = np.where(alike < OPPOSITE, -1.0, np.where(alike > 0, 1.0, self._sign))
        self._sign[self._reference] = sign
        opposite = (self._sign != sign).any() and (self._since <= HOLD_SECONDS).any()
        self._flipped = self._flipped + 1 if opposite else 0

    def _plain(self, active: np.ndarray) -> list[int] | None:
        """Which channels are used, None for those of before."""
        if not active.any():
            return None
        first = int(np.argmax(np.where(active, self._level, -np.inf)))
        # what is the same sound as in the active channel does no harm, and less noise is left of the sum
        same = np.abs(self._alike[first]) > ALIKE
        return [i for i in range(self.channels) if active[i] or same[i]]

    def _surrounded(self, active: np.ndarray) -> list[int] | None:
        """The same for surround sound: the centre has the dialogue, else the front; never what is behind."""
        if min(self._since[self._centre]) <= CENTRE_HOLD_SECONDS:
            return self._centre
        if any(active[self._front]):
            return self._front
        ahead = [*self._front, *self._centre]
        behind = [i for i in self._behind if active[i]]
        if not self._declared and behind and min(self._since[ahead]) > FRONT_MEMORY_SECONDS:
            return behind
        return None

    def _even(self, channels: Sequence[int]) -> np.ndarray:
        shares = np.zeros(self.channels)
        shares[list(channels)] = 1 / len(channels)
        return shares

    def _report(self) -> None:
        if self._flipped * FRAME_SECONDS >= 0.3:
            self._tell("its channels cancel each other out (one is upside down); it is turned over")
        if self._surround or self._floor is None:
            return
        loudest = self._level.max()
        out = (self._shares == 0) & (self._floor > loudest - 30) & (self._floor > QUIET_DB + 5)
        self._ignored = np.where(out, self._ignored + FRAME_SECONDS, self._ignored)
        if (self._ignored > 2).any():
            left_out = int(self._ignored.argmax()) + 1
            self._tell(
                f"channel {left_out} has noise and no speech; it is left out (--channel takes one channel)"
            )

    def _tell(self, text: str) -> None:
        if text.split()[0] not in self._told:
            self._told.add(text.split()[0])
            self._notify(text)

    def _index(self, choice: str, what: str) -> int:
        name = _NAMES.get(choice)
        if name and name in self._layout:
            return self._layout.index(name)
        if name or int(choice) > self.channels:
            has = f"{self.channels} channels" if self.channels > 1 else "one channel"
            raise UserError(f"{what} has {has}: there is no channel {choice}")
        return int(choice) - 1
