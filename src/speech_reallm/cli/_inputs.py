"""What a command line names: files, folders, patterns, and `-` for standard input."""

from __future__ import annotations

import glob
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError

# what is taken from a folder; a file that is named is read whatever it is called
SOUND = frozenset(
    str.split(
        ".wav .flac .mp3 .ogg .oga .opus .aif .aiff .aifc .au .caf .w64 .rf64 .m4a .m4b .aac .ac3 .amr .wma .wv "
        ".ape .spx .mka .mp4 .m4v .mov .mkv .webm .avi .mpg .mpeg .ts .mts .m2ts .3gp .flv .wmv .ogv"
    )
)


@dataclass(frozen=True, slots=True)
class Input:
    """One thing to recognise. `name`: as the user knows it; `folder`: where its transcript goes below --out."""

    name: str
    folder: Path = Path()
    # of raw samples on standard input
    rate: int | None = None

    @property
    def is_stdin(self) -> bool:
        return self.name == "-"

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
        if self.is_stdin:
            from ..pipes import Pipe

            return Pipe(sys.stdin.buffer, self.rate)
        from ..media import open_audio

        return open_audio(self.name)


def find_inputs(names: list[str], rate: int | None = None) -> list[Input]:
    """Files as named, patterns and folders in alphabetic order. Raises UserError where there is nothing.

    rate: of raw samples on standard input, Hz; None: it is WAV.
    """
    if names.count("-") > 1:
        raise UserError("- (standard input) can be read only once")
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
            found = sorted(path for path in glob.glob(name, recursive=True) if Path(path).is_file())
            if not found:
                raise UserError(f"no file matches {name}")
            inputs += map(Input, found)
        else:
            inputs.append(Input(name))
    # a file that is named twice, or lies in a folder that is named too, is recognised once
    return list({_identity(item): item for item in reversed(inputs)}.values())[::-1]


def _in_folder(folder: Path) -> Iterator[Input]:
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SOUND and path.is_file())
    found = [
        path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not found:
        raise UserError(f"no sound or video files in the folder {folder}")
    return (Input(str(path), path.relative_to(folder).parent) for path in found)


def _identity(item: Input) -> str:
    return item.name if item.is_stdin else str(Path(item.name).resolve())
