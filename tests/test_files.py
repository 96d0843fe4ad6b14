"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from speech_reallm import UserError, files
from speech_reallm.files import GrowingFile, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_an_older_file_stays_until_the_new_one_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "below" / "a.txt"
    write_text(path, "old\n")
    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(UserError, match=r"cannot write .*a\.txt: No space left"):
        write_text(path, "new\n")
    assert path.read_text() == "old\n" and names(path.parent) == ["a.txt"]


def test_a_growing_file_gets_its_name_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old\n")
    path.chmod(0o640)
    file = GrowingFile(path)
    assert names(tmp_path) == ["a.txt"], "nothing is begun before there is something to write"
    file.write("one\n")
    assert path.read_text() == "old\n" and (tmp_path / "a.txt.part").read_text() == "one\n"
    file.write("café\n")
    file.commit()
    assert path.read_bytes() == "one\ncafé\n".encode() and names(tmp_path) == ["a.txt"]
    assert path.stat().st_mode & 0o777 == 0o640


def test_what_was_begun_is_dropped_or_kept_aside(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old\n")
    for keep in (False, True):
        file = GrowingFile(path)
        file.write("new\n")
        assert file.abandon(keep) == (tmp_path / "a.txt.part" if keep else None)
        assert path.read_text() == "old\n" and names(tmp_path) == ["a.txt", "a.txt.part"][: 1 + keep]


def test_what_a_link_points_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    link = tmp_path / "a.txt"
    link.symlink_to(tmp_path / "far" / "b.txt")
    for write in (lambda: write_text(link, "text\n"), lambda: GrowingFile(link).commit()):
        write()
        assert link.is_symlink() and names(tmp_path / "far") == ["b.txt"]


def test_devices_and_named_pipes_are_written_to_as_they_are(tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes on this system")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for write in (lambda: write_text(pipe, "text\n"), lambda: grow(pipe)):
        read: list[str] = []
        reader = threading.Thread(target=lambda: read.append(pipe.read_text()))  # noqa: B023
        reader.start()
        write()
        reader.join(60)
        assert read == ["text\n"] and names(tmp_path) == ["pipe"]
    write_text("/dev/null", "text\n")
    assert not Path("/dev/null").is_file()


def grow(path: Path) -> None:
    file = GrowingFile(path)
    file.write("text\n")
    file.commit()


def test_a_file_that_cannot_be_replaced_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that is mounted into a container."""

    def busy(*_: object) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    path = tmp_path / "a.txt"
    path.write_text("an older and longer text\n")
    monkeypatch.setattr(files.os, "replace", busy)
    write_text(path, "new\n")
    assert path.read_text() == "new\n" and names(tmp_path) == ["a.txt"]


def test_places_that_cannot_be_written_to(tmp_path: Path) -> None:
    for path, words in ((tmp_path, "is a folder"), (tmp_path / "none" / "a.txt", "there is no folder")):
        with pytest.raises(UserError, match=words):
            GrowingFile(path)


def test_long_names(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 125 + ".txt")
    write_text(path, "one\n")
    file = GrowingFile(path)
    file.write("two\n")
    file.commit()
    assert path.read_text() == "two\n" and len(names(tmp_path)) == 1
