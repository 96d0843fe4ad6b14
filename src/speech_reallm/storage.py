"""Files by path or by URL: on this machine, or in an object storage that fsspec reaches (extra `remote`)."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from .errors import UserError
from .extras import install_command
from .files import write_text
from .media import is_pipe


def is_url(path: str) -> bool:
    """`s3://bucket/name`, `memory://name`, `zip://talk.wav::s3://bucket/all.zip`: what fsspec opens."""
    return "://" in path


def join(folder: str, name: str) -> str:
    """`folder`, a path or a URL, and what is below it."""
    return f"{folder.rstrip('/') or '/'}/{name}" if folder.rstrip("/") else f"/{name}"


def local_path(path: str) -> Path | None:
    """The path on this machine; None for a URL of another storage."""
    if path.startswith("file://"):
        return Path(unquote(urlsplit(path).path))
    return None if is_url(path) else Path(path)


def open_binary(path: str, name: str) -> BinaryIO:
    """Open a file for reading, to seek in. name: for messages. Raises UserError."""
    local = local_path(path)
    try:
        if local is None:
            system, inner = _system(path)
            return system.open(inner, "rb")  # type: ignore[no-any-return]
        if is_pipe(local):
            raise UserError(f"{name} is a pipe or a device, and no recording")
        return local.open("rb")
    except OSError as err:
        raise UserError(f"cannot read {name}: {_reason(err)}") from None
    except ValueError as err:
        raise UserError(f"cannot read {name}: {err}") from None


def read_text(path: str) -> str | None:
    """A small text file, None if there is none. Raises UserError."""
    local = local_path(path)
    try:
        if local is not None:
            return local.read_text(encoding="utf-8")
        system, inner = _system(path)
        # a listing that is kept would not show what others have written
        system.invalidate_cache()
        return bytes(system.cat_file(inner)).decode("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as err:
        raise UserError(f"cannot read {path}: {_reason(err)}") from None


def write_whole(path: str, text: str) -> None:
    """Write a text file whole or not at all. Raises UserError.

    Object storages show an object when all of it has arrived; on this machine `files.write_text` sees to it.
    """
    local = local_path(path)
    if local is not None:
        write_text(local, text)
        return
    try:
        system, inner = _system(path)
        # where folders are no more than a part of the name, this does nothing
        system.makedirs(inner.rpartition("/")[0], exist_ok=True)
        system.pipe_file(inner, text.encode("utf-8", errors="backslashreplace"))
    except (OSError, ValueError) as err:
        raise UserError(f"cannot write {path}: {_reason(err)}") from None


def read_range(path: str, offset: int, size: int) -> bytes:
    """At most `size` bytes of a file from byte `offset` on, fewer where it ends before. Raises UserError."""
    local = local_path(path)
    try:
        if local is None:
            system, inner = _system(path)
            return bytes(system.cat_file(inner, start=offset, end=offset + size))
        with local.open("rb") as file:
            file.seek(offset)
            return file.read(size)
    except (OSError, ValueError) as err:
        raise UserError(f"cannot read {path}: {_reason(err)}") from None


def put_file(source: Path, path: str) -> None:
    """Put a file of this machine at a path or a URL, whole or not at all. Raises UserError."""
    local = local_path(path)
    try:
        if local is None:
            system, inner = _system(path)
            system.makedirs(inner.rpartition("/")[0], exist_ok=True)
            system.put_file(str(source), inner)
            return
        local.parent.mkdir(parents=True, exist_ok=True)
        part = local.with_name(f".{local.name}.{os.getpid()}.part")
        try:
            shutil.copyfile(source, part)
            part.replace(local)
        finally:
            part.unlink(missing_ok=True)
    except (OSError, ValueError) as err:
        raise UserError(f"cannot write {path}: {_reason(err)}") from None


class Folder:
    """A folder as it was when it was listed. `names`: of what is in it, none if there is no such folder."""

    def __init__(self, path: str) -> None:
        """Raises UserError for one that cannot be listed."""
        self._local = local_path(path)
        self.names: set[str] = set()
        self._parts: dict[str, list[str]] = {}
        try:
            if self._local is not None:
                self.names = {entry.name for entry in os.scandir(self._local)}
            else:
                system, inner = _system(path)
                system.invalidate_cache()
                self.names = {name.rstrip("/").rpartition("/")[2] for name in system.ls(inner, detail=False)}
        except FileNotFoundError:
            return
        except (OSError, ValueError) as err:
            raise UserError(f"cannot list {path}: {_reason(err)}") from None
        for name in self.names:
            # as `files.write_text` calls what it has not finished
            if name.startswith(".") and name.endswith(".part"):
                self._parts.setdefault(name[1:].rsplit(".", 2)[0], []).append(name)

    def remove_parts(self, name: str) -> None:
        """Remove what a killed process left of a file that it had not finished."""
        if self._local is not None:
            for part in self._parts.get(name, ()):
                (self._local / part).unlink(missing_ok=True)


class Watched(io.RawIOBase):
    """A binary file that remembers the first error of reading, which readers may take for the end of the sound."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: Exception | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        try:
            return self._file.read(size)
        except Exception as err:
            # storages have errors of their own
            self.error = self.error or err
            raise

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()

    def __enter__(self) -> Watched:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _system(path: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it. Raises UserError where a package is missing."""
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise UserError(f"{path} needs fsspec: {install_command('fsspec')}") from None
    try:
        system, inner = url_to_fs(path)
    except ImportError as err:
        # "Install s3fs to access S3"
        raise UserError(f"{path}: {err}") from None
    except ValueError as err:
        raise UserError(f"{path}: {err}") from None
    return system, str(inner)


def _reason(err: Exception) -> str:
    if isinstance(err, FileNotFoundError):
        return "no such file"
    return (err.strerror if isinstance(err, OSError) else None) or str(err) or type(err).__name__
