"""Lhotse Shar: the utterances of a manifest in a few large files, for object storages and copies on local disks.

A folder, or a URL, holds `cuts.000000.jsonl.gz` and `recording.000000.tar`, and so on. Batches are drawn from all
shards at random, so that they depend on the seed and not on how many processes read; therefore an utterance is read by
its place in its tar and no shard as a whole. `reallm shard` notes the place with the cut; the tars of others are gone
through once.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from lhotse.audio import AudioSource
from lhotse.cut import Cut, MonoCut

from ...errors import UserError
from ...storage import Folder, is_url, join, open_binary, read_range

# in the `custom` of a cut: where its audio begins in the tar, and its size, in bytes
PLACE = "shard_place"
_CUTS = re.compile(r"cuts\.(\d+)\.jsonl(\.gz)?")
_SOURCE = re.compile(r"(\d+)\+(\d+):(.+)", re.DOTALL)


def is_sharded(path: str | Path) -> bool:
    """Is it a folder of shards? A URL is one unless it names a manifest."""
    text = str(path)
    return not text.endswith((".jsonl", ".jsonl.gz")) if is_url(text) else Path(path).is_dir()


def shard_files(folder: str) -> list[tuple[str, str]]:
    """Manifest and tar of each shard, in order. Raises UserError where there are none, or one lacks its tar."""
    names = Folder(folder).names
    found = sorted((match[1], match[0]) for name in names if (match := _CUTS.fullmatch(name)))
    if not found:
        raise UserError(f"{folder} has no shards (cuts.000000.jsonl.gz, ...); `reallm shard` makes them")
    for number, _ in found:
        if f"recording.{number}.tar" not in names:
            raise UserError(f"{folder} has no recording.{number}.tar")
    return [(join(folder, name), join(folder, f"recording.{number}.tar")) for number, name in found]


class Shard:
    """The tar of a shard, for the cuts of its manifest one after another."""

    def __init__(self, tar: str) -> None:
        self.tar = tar
        self._places: dict[str, tuple[int, int]] | None = None

    def placed(self, cut: Cut) -> Cut:
        """The cut with its audio's place as its source. Raises ValueError where the tar lacks it."""
        if not isinstance(cut, MonoCut) or not cut.has_recording:
            raise ValueError("a shard has recordings of one channel only")
        custom = dict(cut.custom or {})
        place = custom.pop(PLACE, None) or self._search(cut.id)
        try:
            offset, size = map(int, place)
        except (TypeError, ValueError):
            raise ValueError(f"`{PLACE}` must be two whole numbers") from None
        source = AudioSource(type="shar", channels=[0], source=f"{offset}+{size}:{self.tar}")
        recording = replace(cut.recording, sources=[source])
        return replace(cut, recording=recording, custom=custom or None)

    def _search(self, cut_id: str) -> tuple[int, int]:
        if self._places is None:
            self._places = dict(_members(self.tar))
        if cut_id not in self._places:
            raise ValueError(f"{self.tar} has no audio of {cut_id}")
        return self._places[cut_id]


def _members(tar: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Name without suffix and place of each member that is audio. Raises UserError."""
    try:
        with open_binary(tar, tar) as file, tarfile.open(fileobj=file, mode="r:") as members:
            for member in members:
                name, _, suffix = member.name.rpartition(".")
                if member.isfile() and suffix not in ("json", "nodata", "nometa"):
                    yield name, (member.offset_data, member.size)
    except (tarfile.TarError, EOFError) as err:
        raise UserError(f"{tar} is damaged: {err}") from None


def sharded_audio(source: AudioSource) -> bytes:
    """The file that a source of `Shard.placed` stands for. Raises UserError."""
    match = _SOURCE.fullmatch(source.source)
    if not match:
        raise UserError("a cut of a shard is read by its folder, and not by its manifest alone")
    offset, size, tar = int(match[1]), int(match[2]), match[3]
    data = read_range(tar, offset, size)
    if len(data) < size:
        raise UserError(f"{tar} ends before byte {offset + size}; copy it again")
    return data
