"""Where transcripts go: standard output, one file, or files in a folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ._inputs import Input

if TYPE_CHECKING:
    from ..events import Final, Transcript

# as in formats.py, which is not imported to list the choices
FORMATS = ("text", "json", "jsonl", "srt", "vtt", "ctm")


def parse_formats(text: str) -> list[str]:
    """`srt,vtt` -> ["srt", "vtt"]. Raises ValueError, which argparse reports."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or not set(names) <= set(FORMATS):
        raise ValueError(text)
    return list(dict.fromkeys(names))


class Outputs:
    """Takes transcripts, and segments as they are found where a format allows that."""

    def __init__(
        self, inputs: Sequence[Input], formats: Sequence[str], out: str | None, *, fresh: bool = False
    ) -> None:
        """fresh: without `out`, write to new files in the current folder.

        Raises UserError, before anything is recognised, for a place that cannot be written to.
        """
        from ..formats import BY_SEGMENT, JOINABLE, SUFFIXES

        self._formats, self._fresh = formats, fresh and out is None
        self._several = len(inputs) > 1
        self._file: Path | None = None
        self._folder: Path | None = None
        if self._fresh:
            self._folder = Path()
        elif out is not None and (Path(out).is_dir() or out.endswith(("/", "\\"))):
            self._folder = Path(out)
        else:
            hint = f"write --out {out or 'FOLDER'}/"
            if len(formats) > 1:
                raise UserError(f"several formats need a folder; {hint}")
            if self._several and formats[0] not in JOINABLE:
                raise UserError(f"{formats[0]} of several files needs a folder; {hint}")
            self._file = Path(out) if out is not None else None
        for item in inputs:
            if (
                self._file
                and self._file.exists()
                and Path(item.name).exists()
                and self._file.samefile(item.name)
            ):
                raise UserError(f"--out {out} would overwrite the audio; name another file")
        # one file after another in one place: a transcript that is done earlier has to wait
        self.in_order = self._folder is None
        by_segment = self.in_order and not self._several and formats[0] in BY_SEGMENT
        self._segment = BY_SEGMENT[formats[0]] if by_segment else None
        self._bases: dict[Input, Path] = {}
        if self._folder is not None:
            # in the order of the inputs, not that in which they are done: the same names every time
            used: set[Path] = set()
            for item in inputs:
                self._bases[item] = self._base(item, [SUFFIXES[name] for name in formats], used)
        try:
            if self._folder:
                self._folder.mkdir(parents=True, exist_ok=True)
            if self._file:
                self._file.write_text("", encoding="utf-8")
        except OSError as err:
            raise UserError(f"cannot write {err.filename or out}: {err.strerror}") from None

    def segment(self, item: Input, segment: Final) -> bool:
        """Write a segment as soon as it is known; returns whether that is what this output does."""
        if not self._segment:
            return False
        self._put(self._segment(segment, str(item)))
        return True

    def write(self, item: Input, transcript: Transcript) -> list[Path]:
        """Write one transcript; returns the files it is in, none for standard output."""
        from ..formats import FORMATS as WRITERS
        from ..formats import SUFFIXES

        if self._folder is None:
            # the segments are there already
            if not self._segment:
                if self._several and self._formats[0] == "text" and not self._file:
                    sys.stdout.write(f"==> {item} <==\n")
                self._put(WRITERS[self._formats[0]](transcript))
            return [self._file] if self._file else []
        base = self._bases[item]
        paths = []
        for name in self._formats:
            path = base.with_name(base.name + SUFFIXES[name])
            write_file(path, WRITERS[name](transcript))
            paths.append(path)
        return paths

    def _put(self, text: str) -> None:
        if self._file is None:
            sys.stdout.write(text)
            sys.stdout.flush()
            return
        try:
            with self._file.open("a", encoding="utf-8") as out:
                out.write(text)
        except OSError as err:
            raise UserError(f"cannot write {self._file}: {err.strerror}") from None

    def _base(self, item: Input, suffixes: Sequence[str], used: set[Path]) -> Path:
        """`talk` for talk.mp3; `talk.mp3` or `talk-2` if a file of that name is another's."""
        assert self._folder is not None
        folder, name = self._folder / item.folder, item.stem
        for stem in (name.stem, name.name, *(f"{name.stem}-{n}" for n in range(2, 10000))):
            paths = {folder / f"{stem}{suffix}" for suffix in suffixes}
            audio = Path(item.name).resolve() in {path.resolve() for path in paths}
            if not (paths & used or audio or (self._fresh and any(path.exists() for path in paths))):
                used |= paths
                return folder / stem
        raise UserError(f"no free name for the transcript of {item} in {folder}")


def write_file(path: Path, text: str) -> None:
    """Write a file whole or not at all: an older one stays until the new one is there. Raises UserError."""
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except OSError as err:
        part.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {err.strerror}") from None
