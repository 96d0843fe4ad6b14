"""Where an upload is kept: in memory while it is small, then on disk; without a disk in memory, up to a limit."""

from __future__ import annotations

import contextlib
import io
import tempfile
from typing import IO

from starlette.formparsers import MultiPartParser

# bytes of one upload that stay in memory anyway, and that may where no file can be written
MEMORY = 1 << 20
MEMORY_WITHOUT_DISK = 32 << 20


class StorageError(OSError):
    """The server has no room for an upload; its client is not to blame."""


class Spool(io.RawIOBase):
    """A binary file that can be read, written and sought in."""

    def __init__(self, memory: int = MEMORY, without_disk: int = MEMORY_WITHOUT_DISK) -> None:
        self._file: IO[bytes] = io.BytesIO()
        # these two names are what Starlette asks for to tell whether a write may have to wait for the disk
        self._rolled = False
        self._max_size = memory
        self._without_disk = without_disk

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Raises StorageError."""
        after = self._file.tell() + len(data)
        if not self._rolled and after > self._max_size:
            self._roll(after)
        try:
            return self._file.write(data)
        except OSError as err:
            raise StorageError(f"the server cannot store the file: {err.strerror}") from err

    def _roll(self, size: int) -> None:
        content = memoryview(self._file.getvalue())  # type: ignore[attr-defined]
        try:
            with contextlib.ExitStack() as stack:
                file = stack.enter_context(tempfile.TemporaryFile(prefix="reallm-", buffering=0))
                while content:
                    content = content[file.write(content) :]
                # it is closed with this spool
                stack.pop_all()
        except OSError as err:
            if size <= self._without_disk:
                return
            raise StorageError(
                f"the server cannot store the file: no disk to write on ({err.strerror or 'no temporary folder'}), and "
                f"it is larger than the {self._without_disk >> 20} MB that are kept in memory"
            ) from err
        self._file.close()
        self._file, self._rolled = file, True

    def close(self) -> None:
        self._file.close()
        super().close()


class SpooledParser(MultiPartParser):
    """Starlette's parser of forms, with files in a `Spool`: its own loses an upload where no file can be written."""

    def on_headers_finished(self) -> None:
        super().on_headers_finished()
        upload = self._current_part.file
        if upload is not None:
            upload.file.close()
            spool = Spool()
            upload.file = spool  # type: ignore[assignment]
            self._files_to_close_on_error[-1] = spool  # type: ignore[call-overload]
