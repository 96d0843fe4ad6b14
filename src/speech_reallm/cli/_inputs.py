"""What a command line names: files, folders, patterns, and `-` for standard input."""

from __future__ import annotations

import glob
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import SOUND_SUFFIXES


@dataclass(frozen=True, slots=True)
class Input:
    """One thing to recognise. `name`: as the user knows it; `folder`: where its transcript goes below --out."""

    name: str
    folder: Path = Path()
    # of raw samples on standard input
    rate: int | None = None
    # the one channel and the sound track to take, None: as `media.open_audio` chooses
    channel: str | None = None
    track: int | None = None

    @property
    def is_stdin(self) -> bool:
        return self.name == "-"

    @property
    def is_pipe(self) -> bool:
        """Is it read as it comes, once, and perhaps waited for?"""
        from ..media import is_pipe

        return self.is_stdin or is_pipe(self.name)

    @property
    def stem(self) -> Path:
        """The name for the transcript, without its folder."""
        return Path("stdin") if self.is_stdin else Path(Path(self.name).name)

    @property
    def bytes(self) -> int:
        """The size of the file: how large a part of the work it is."""
        try:
            return max(1, Path(self.name).stat().st_size)
        except OSError:
            return 1

    def __str__(self) -> str:
        # names that are not UTF-8 could not be printed
        return "standard input" if self.is_stdin else self.name.encode("utf-8", "replace").decode()

    def open(self) -> Any:
        """Something with rate, duration, blocks and close. Raises UserError."""
        from ..media import open_audio
        from ..readers.items import UnknownFormat

        source = sys.stdin.buffer if self.is_stdin else self.name
        try:
            return open_audio(
                source, name=str(self), channel=self.channel, track=self.track, raw_rate=self.rate
            )
        except UnknownFormat as err:
            if self.is_stdin:
                raise UserError(f"{err}; for raw 16-bit samples add --rate HZ") from None
            raise


def find_inputs(
    names: list[str], rate: int | None = None, *, channel: str | None = None, track: int | None = None
) -> list[Input]:
    """Files as named, patterns and folders in alphabetic order. Raises UserError where there is nothing.

    rate: of raw samples on standard input, Hz; None: it says itself what it is. channel, track: see `Input`.
    """
    if names.count("-") > 1:
        raise UserError("- (standard input) can be read only once")
    if "-" in names and (sys.stdin is None or getattr(sys.stdin, "closed", False)):
        raise UserError("- reads standard input, and this process has none")
    if "-" in names and sys.stdin.isatty():
        raise UserError("- reads standard input: pipe WAV into it, or raw 16-bit samples with --rate HZ")
    if rate is not None and "-" not in names:
        raise UserError("--rate is for raw samples on standard input: reallm transcribe - --rate HZ")
    inputs: list[Input] = []
    for name in names:
        if name == "-":
            inputs.append(Input(name, rate=rate))
        elif Path(name).is_dir():
            inputs += _in_folder(Path(name))
        elif glob.has_magic(name) and not Path(name).exists():
            # shells that do not expand patterns, and quoted ones
            found = sorted(path for path in glob.glob(_pattern(name), recursive=True) if Path(path).is_file())
            if not found:
                raise UserError(f"no file matches {name}")
            inputs += [Input(path) for path in found]
        else:
            inputs.append(Input(name))
    # a file that is named twice, or lies in a folder that is named too, is recognised once
    unique = list({_identity(item): item for item in reversed(inputs)}.values())[::-1]
    return [replace(item, channel=channel, track=track) for item in unique]


def _pattern(name: str) -> str:
    """The pattern with what is not meant as one escaped: the brackets of a folder that exists, as in "[1] talks/*.wav".

    Of "a[1]/b[1]/*.wav" the parts are taken one by one, as long as there is a folder of that very name.
    """
    parts = Path(name).parts
    done = Path()
    for index, part in enumerate(parts):
        if not (done / part).is_dir():
            return str(Path(glob.escape(str(done)), *parts[index:])) if index else name
        done /= part
    return name


def _in_folder(folder: Path) -> Iterator[Input]:
    found = sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in SOUND_SUFFIXES and path.is_file()
    )
    found = [
        path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not found:
        raise UserError(f"no sound or video files in the folder {folder}")
    return (Input(str(path), path.relative_to(folder).parent) for path in found)


def _identity(item: Input) -> str:
    return item.name if item.is_stdin else str(Path(item.name).resolve())
