"""Where transcripts go: standard output, one file, or files in a folder."""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ..errors import UserError
from ..files import GrowingFile, is_special, write_text
from ._console import printable_json
from ._inputs import Input

if TYPE_CHECKING:
    from ..events import Final, Transcript

# as in formats.py, which is not imported to list the choices
FORMATS = ("text", "json", "jsonl", "srt", "vtt", "ctm")
# what people call them besides
_ALIASES = {"txt": "text", "subrip": "srt", "webvtt": "vtt", "ndjson": "jsonl", "jsonlines": "jsonl"}


def parse_formats(text: str) -> list[str]:
    """`srt,vtt` -> ["srt", "vtt"]; capitals, dots and spaces as people type them.

    Raises argparse.ArgumentTypeError, whose message argparse shows.
    """
    names = [name.lstrip(".") for name in re.split(r"[,;\s]+", text.lower()) if name.strip(".")]
    names = [_ALIASES.get(name, name) for name in names]
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        what = f"there is no format {unknown[0]!r}" if unknown else "no format is named"
        raise argparse.ArgumentTypeError(f"{what}; there are {', '.join(FORMATS)}")
    return list(dict.fromkeys(names))


class Outputs:
    """Takes transcripts, and segments as they are found where a format allows that.

    What cannot be written to its file goes to standard output, lest it be lost; `failed` says that it did.
    """

    def __init__(self, inputs: Sequence[Input], formats: Sequence[str], out: str | None) -> None:
        """formats: none for what the name `out` tells, else text.

        Raises UserError, before anything is recognised, for a place that cannot be written to.
        """
        from ..formats import BY_SEGMENT, JOINABLE, SUFFIXES

        out = None if out == "-" else out
        self._folder = Path(out) if out is not None and _is_folder(out) else None
        if not formats:
            kinds = {suffix: name for name, suffix in SUFFIXES.items()}
            formats = [kinds.get(Path(out or "").suffix.lower(), "text") if self._folder is None else "text"]
        self.formats = list(formats)
        self._several = len(inputs) > 1
        self.failed = False
        self._file: GrowingFile | None = None
        self._begun = self._succeeded = False
        if self._folder is None:
            hint = f"write --out {out or 'FOLDER'}/"
            if len(formats) > 1:
                raise UserError(f"several formats need a folder; {hint}")
            if self._several and formats[0] not in JOINABLE:
                raise UserError(f"{formats[0]} of several files needs a folder; {hint}")
            if out is not None:
                for item in inputs:
                    if _same_file(Path(out), item):
                        raise UserError(f"--out {out} would overwrite the audio; name another file")
                self._file = GrowingFile(out)
        # one file after another in one place: a transcript that is done earlier has to wait
        self.in_order = self._folder is None
        by_segment = self.in_order and not self._several and formats[0] in BY_SEGMENT
        self._segment = BY_SEGMENT[formats[0]] if by_segment else None
        self._bases: dict[Input, Path] = {}
        if self._folder is not None:
            self._bases = _bases(inputs, self._folder, [SUFFIXES[name] for name in formats])
            _check_folder(self._folder)
        # of the recordings in a CTM file, which holds no paths
        labels = distinct_names(inputs, lambda item: Path())
        self._labels = {item: PurePosixPath(*labels[item].parts).as_posix() for item in inputs}

    @property
    def to_standard_output(self) -> bool:
        """Do transcripts go there, and not to files?"""
        return self._folder is None and self._file is None

    def segment(self, item: Input, segment: Final) -> bool:
        """Write a segment as soon as it is known; returns whether that is what this output does."""
        if not self._segment:
            return False
        self._put(self._segment(segment, str(item)))
        return True

    def write(self, item: Input, transcript: Transcript) -> list[Path]:
        """Write one transcript; returns the files it is in, none for standard output."""
        self._succeeded = True
        if self._folder is None:
            # the segments are there already
            if not self._segment:
                if self._several and self.formats[0] == "text" and self.to_standard_output:
                    self._print(f"==> {item} <==\n")
                self._put(self._render(item, transcript, self.formats[0]))
            return [self._file.path] if self._file else []
        from ..formats import SUFFIXES

        paths = []
        for name in self.formats:
            base, text = self._bases[item], self._render(item, transcript, name)
            path = base.with_name(base.name + SUFFIXES[name])
            try:
                write_text(path, text)
                paths.append(path)
            except UserError as err:
                self._rescue(str(err), f"==> {path} <==\n{text}")
        return paths

    def close(self, complete: bool) -> None:
        """The end of the work. complete: it ended as it should, and was not broken off.

        An older file is replaced if the work is complete, or if it was stopped when there was something to write.
        """
        if self._file is None:
            return
        if self.failed:
            left = self._file.abandon(keep=True)
        elif complete and (self._begun or self._succeeded):
            try:
                self._file.commit()
                return
            except UserError as err:
                self._complain(str(err))
                left = self._file.abandon(keep=True)
        else:
            left = self._file.abandon(keep=self._begun)
        if left is not None:
            print(f"reallm: what was recognised is in {left}", file=sys.stderr)

    def _render(self, item: Input, transcript: Transcript, name: str) -> str:
        from ..formats import FORMATS as WRITERS
        from ..formats import to_ctm, to_json

        if name == "ctm":
            return to_ctm(transcript, self._labels[item])
        if name == "json" and item.is_pipe:
            return to_json(transcript, with_speed=True)
        return WRITERS[name](transcript)

    def _put(self, text: str) -> None:
        if self._file is None or self.failed:
            self._print(text)
            return
        try:
            self._file.write(text)
            self._begun = self._begun or bool(text)
        except UserError as err:
            self._rescue(str(err), text)

    def _rescue(self, why: str, text: str) -> None:
        self._complain(f"{why}; it follows on standard output")
        self._print(text)

    def _complain(self, message: str) -> None:
        self.failed = True
        print(f"reallm: error: {message}", file=sys.stderr)

    def _print(self, text: str) -> None:
        if self.formats[0] in ("json", "jsonl"):
            text = printable_json(text, sys.stdout.encoding)
        sys.stdout.write(text)
        sys.stdout.flush()


def distinct_names(inputs: Sequence[Input], below: Callable[[Input], Path]) -> dict[Input, Path]:
    """A name for the transcript of each input, without suffix, by which they can be told apart.

    below(input): the folders that are part of its name in any case. The name is that of the recording: `talk`. Where
    two would be the same, their suffixes are added (`talk.mp3`), or as many folders above as it takes (`day1/talk`).
    """
    most = max((len(Path(item.name).absolute().parts) for item in inputs), default=0)
    names: dict[Input, Path] = {}
    for folders in range(most + 1):
        names = {item: _name(item, below(item), folders) for item in inputs}
        short = list(names.values())
        for item, name in names.items():
            if short.count(name) > 1:
                names[item] = name.with_name(item.stem.name)
        if len(set(names.values())) == len(names):
            break
    return names


def _name(item: Input, below: Path, folders: int) -> Path:
    parents = Path(item.name).absolute().parent.parts[1:]
    above = parents[: len(parents) - len(below.parts)]
    return Path(*above[len(above) - min(folders, len(above)) :], below, item.stem.stem)


def _bases(inputs: Sequence[Input], folder: Path, suffixes: Sequence[str]) -> dict[Input, Path]:
    """The files of each input, without suffixes: the same names every time, whatever is done first."""
    names = distinct_names(inputs, lambda item: item.folder)
    audio = {Path(item.name).resolve() for item in inputs if not item.is_stdin}
    used: set[Path] = set()
    bases = {}
    for item, name in names.items():
        stems = (name.name, item.stem.name, *(f"{name.name}-{n}" for n in range(2, 10000)))
        for stem in stems:
            base = folder / name.with_name(stem)
            paths = {base.with_name(f"{stem}{suffix}") for suffix in suffixes}
            # recordings are never overwritten
            if not paths & used and not any(path.resolve() in audio for path in paths):
                used |= paths
                bases[item] = base
                break
        else:
            raise UserError(f"no free name for the transcript of {item} in {folder}")
    return bases


def _is_folder(out: str) -> bool:
    """A folder that is there, a name that ends in a slash, or a new name without a suffix: `--out subtitles`."""
    path = Path(out)
    return path.is_dir() or out.endswith(("/", "\\")) or not (path.exists() or path.suffix)


def _check_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as err:
        raise UserError(f"cannot write to the folder {folder}: {err.strerror}") from None


def _same_file(out: Path, item: Input) -> bool:
    try:
        return not item.is_stdin and not is_special(out) and out.samefile(item.name)
    except OSError:
        return False
