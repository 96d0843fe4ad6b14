"""Checksums of files; text files that are written whole or not at all, in UTF-8.

An older file stays until the new one is complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import stat
from pathlib import Path
from typing import TextIO

from .errors import UserError

# files with these are taken from a folder; one that is named is read whatever it is called
SOUND_SUFFIXES = frozenset(
    str.split(
        ".wav .flac .mp3 .ogg .oga .opus .aif .aiff .aifc .au .caf .w64 .rf64 .m4a .m4b .aac .ac3 .amr .wma .wv "
        ".ape .spx .mka .mp4 .m4v .mov .mkv .webm .avi .mpg .mpeg .ts .mts .m2ts .3gp .flv .wmv .ogv"
    )
)
# longest name that every usual file system takes, in bytes
_LONGEST_NAME = 255


def sha256(path: Path) -> str:
    """The checksum of a file, in hexadecimal. Raises UserError where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    except OSError as err:
        raise UserError(f"cannot read {path}: {err.strerror}") from None
    return digest.hexdigest()


class GrowingFile:
    """A text file that grows as `NAME.part` and gets its name when it is complete.

    A place that is no regular file (a device, a named pipe) is written to as it is, and so is a file whose folder
    takes no new files.
    """

    def __init__(self, path: str | Path) -> None:
        """Nothing is opened yet. Raises UserError for a place that cannot be written to."""
        self.path = Path(path)
        # what a link points to is replaced, and not the link
        self._target = Path(os.path.realpath(self.path))
        self._file: TextIO | None = None
        self.part: Path | None = None
        if not is_special(self._target):
            _check(self.path, self._target)
            self.part = _part_of(self._target)

    def write(self, text: str) -> None:
        """Append, and hand it to the system at once. Raises UserError."""
        try:
            file = self._file or self._open()
            file.write(text)
            file.flush()
        except OSError as err:
            raise _refusal(self.path, err) from err

    def _open(self) -> TextIO:
        if self.part is not None:
            try:
                self._file = _open(self.part)
                return self._file
            except OSError:
                # the file itself may be writable although its folder is not
                self.part = None
        self._file = _open(self._target)
        return self._file

    def commit(self) -> None:
        """Give it its name. Raises UserError."""
        try:
            if self._file is None:
                self._open()
            self._close()
            if self.part is not None:
                _replace(self.part, self._target)
        except OSError as err:
            raise _refusal(self.path, err) from err

    def abandon(self, keep: bool) -> Path | None:
        """The older file stays. keep: what was written stays as well, in the file that is returned."""
        with contextlib.suppress(OSError):
            self._close()
        if self.part is None or not self.part.exists():
            return None
        if keep and self.part.stat().st_size:
            return self.part
        self.part.unlink(missing_ok=True)
        return None

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            try:
                if self.part is not None:
                    file.flush()
                    os.fsync(file.fileno())
            finally:
                file.close()


def write_text(path: str | Path, text: str) -> None:
    """Write a file whole or not at all; folders above it are made. Raises UserError."""
    target = Path(os.path.realpath(path))
    # several machines may write it at once, and in containers processes have the same number
    unique = f"{os.getpid()}-{secrets.token_hex(4)}"
    part = target.with_name(f".{target.name}.{unique}.part")
    if len(os.fsencode(part.name)) > _LONGEST_NAME:
        part = target.with_name(f".{unique}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if is_special(target):
            part = target
        try:
            file = _open(part)
        except PermissionError:
            file = _open(part := target)
        try:
            with file:
                file.write(text)
                if part != target:
                    file.flush()
                    os.fsync(file.fileno())
            if part != target:
                _replace(part, target)
        except OSError:
            if part != target:
                part.unlink(missing_ok=True)
            raise
    except OSError as err:
        raise _refusal(path, err) from err


def is_special(path: Path) -> bool:
    """Is there something that is neither a regular file nor a folder: a device, a named pipe?"""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _open(path: Path) -> TextIO:
    # a name that is not UTF-8 may be part of the text
    return path.open("w", encoding="utf-8", errors="backslashreplace", newline="\n")


def _part_of(target: Path) -> Path:
    part = target.with_name(f"{target.name}.part")
    return part if len(os.fsencode(part.name)) <= _LONGEST_NAME else target.with_name(f"{os.getpid()}.part")


def _replace(part: Path, target: Path) -> None:
    """`part` becomes `target`, with the permissions that a file of that name had."""
    if target.exists():
        with contextlib.suppress(OSError):
            shutil.copymode(target, part)
    try:
        os.replace(part, target)
    except OSError:
        # a file that is mounted cannot be replaced, only written
        shutil.copyfile(part, target)
        part.unlink(missing_ok=True)


def _check(path: Path, target: Path) -> None:
    """Raises UserError if the file can surely not be written."""
    if target.is_dir():
        raise UserError(f"cannot write {path}: it is a folder")
    if not target.parent.is_dir():
        raise UserError(f"cannot write {path}: there is no folder {path.parent}")
    if not os.access(target if target.exists() else target.parent, os.W_OK):
        raise UserError(f"cannot write {path}: permission denied")


def _refusal(path: str | Path, err: OSError) -> UserError:
    return UserError(f"cannot write {path}: {err.strerror or err}")
