"""Output that cannot be written, streams that are closed, and names that must be told apart."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
from fake_model import speech

from speech_reallm import files
from speech_reallm.cli import main as cli
from speech_reallm.cli._console import printable_json
from speech_reallm.cli._inputs import Input
from speech_reallm.cli._outputs import distinct_names, parse_formats

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    path = tmp_path / "réunion.wav"
    soundfile.write(path, speech(1.0), 16000)
    return path


@pytest.fixture
def run(model_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch, tmp_path: Path) -> Run:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*args: object) -> tuple[int, str, str]:
        code = cli.main(["transcribe", *map(str, args), "--model", str(model_folder)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def shell(line: str, *args: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A line for the shell; "$@" in it is `reallm` with these arguments."""
    command = ["sh", "-c", line, "sh", sys.executable, "-m", "speech_reallm", *map(str, args)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    return subprocess.run(command, env=env, capture_output=True)


class Stream(io.TextIOWrapper):
    """Standard output of any encoding; full from the first write if `error` is set."""

    def __init__(self, encoding: str = "utf-8", error: int = 0) -> None:
        super().__init__(io.BytesIO(), encoding=encoding)
        self.error, self.waiting = error, False

    def write(self, text: str) -> int:
        self.waiting = True
        return super().write(text)

    def flush(self) -> None:
        if self.error and self.waiting:
            raise OSError(self.error, os.strerror(self.error))
        super().flush()

    @property
    def text(self) -> str:
        self.error = 0
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)


@pytest.mark.parametrize(
    "options", [["--format", "text"], ["--format", "json"], ["--format", "srt"], ["--live"]]
)
def test_a_full_disk_behind_standard_output(run: Run, audio: Path, monkeypatch, options: list[str]) -> None:
    monkeypatch.setattr(sys, "stdout", Stream(error=errno.ENOSPC))
    code, _, err = run(audio, *options)
    assert code == 2
    assert err.splitlines()[-1] == "reallm: error: cannot write to standard output: No space left on device"


def test_words_that_cannot_be_shown_are_still_written(run: Run, audio: Path, monkeypatch) -> None:
    _, expected, _ = run(audio)
    for error, last in ((errno.ENOSPC, 2), (errno.EPIPE, cli.EXIT_BROKEN_PIPE), (errno.EIO, 2)):
        monkeypatch.setattr(sys, "stdout", Stream(error=error))
        code, _, err = run(audio, "--live", "--format", "text,json", "--out", f"{error}/")
        assert (code, "Traceback" in err) == (last, False), err
        text = Path(str(error), "réunion.txt").read_text(encoding="utf-8")
        # who closes the pipe wants no more; else all of it is there
        assert text == expected or (text and error == errno.EPIPE)
        assert json.loads(Path(str(error), "réunion.json").read_text(encoding="utf-8"))["words"]


def test_a_full_disk_behind_out(run: Run, audio: Path, monkeypatch) -> None:
    """What was recognised comes on standard output instead."""
    _, expected, _ = run(audio)
    Path("old.txt").write_text("old\n")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    code, out, err = run(audio, "--out", "texts/")
    assert code == 2 and out == f"==> {Path('texts/réunion.txt')} <==\n{expected}"
    assert "réunion.txt: No space left on device; it follows on standard output" in err
    code, _, err = run(audio, "--out", "old.txt")
    assert code == 2 and Path("old.txt").read_text() == "old\n"
    assert "what was recognised is in" in err and Path("old.txt.part").read_text(encoding="utf-8") == expected


def test_an_older_transcript_stays_if_the_new_run_fails(run: Run, audio: Path) -> None:
    Path("talk.txt").write_text("what was said last week\n")
    Path("broken.wav").write_bytes(b"RIFF\x24\0\0\0WAVEfmt ")
    assert run("broken.wav", "--out", "talk.txt")[0] == 2
    assert Path("talk.txt").read_text() == "what was said last week\n"
    assert not list(Path().glob("*.part"))
    # of several, one that can be read is enough
    assert run("broken.wav", audio, "--out", "talk.txt")[0] == 2
    assert "last week" not in Path("talk.txt").read_text() != ""


def test_a_console_that_lacks_letters(run: Run, audio: Path, monkeypatch) -> None:
    other = audio.with_name("b.wav")
    soundfile.write(other, speech(0.5), 16000)
    monkeypatch.setattr(sys, "stdout", out := Stream("ascii"))
    assert run(audio, other)[0] == 0
    assert "r\\xe9union.wav <==" in out.text
    for name in ("json", "jsonl"):
        monkeypatch.setattr(sys, "stdout", out := Stream("ascii"))
        assert run(audio, "--format", name)[0] == 0
        assert {json.loads(line)["file"] for line in out.text.splitlines()} == {str(audio)}
    assert json.loads(printable_json('{"é": "😀\\n"}', "latin-1")) == {"é": "😀\n"}


def test_streams_that_are_closed(model_folder: Path, audio: Path, tmp_path: Path) -> None:
    options = ["transcribe", audio, "--model", model_folder]
    done = shell('"$@" >&-', *options)
    assert done.returncode == 2
    assert done.stderr == b"reallm: error: cannot write to standard output: it is closed\n"
    out = tmp_path / "a.txt"
    done = shell('"$@" <&- >&- 2>&-', *options, "--out", out)
    assert done.returncode == 0 and out.read_text()
    done = shell('"$@" <&-', "transcribe", "-", "--model", model_folder)
    assert done.returncode == 2 and done.stderr.startswith(b"reallm: error: there is no standard input")
    assert done.stderr.count(b"\n") == 1
    # errors that cannot be told do not end up among the output, nor change the exit code
    done = shell('"$@" 2>&-', "transcribe", "none.wav", "--model", model_folder)
    assert (done.returncode, done.stdout) == (2, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_a_full_disk_at_the_very_end(audio: Path, model_folder: Path) -> None:
    """What Python itself flushes when it ends."""
    for line in ('"$@" >/dev/full', '"$@" >/dev/full 2>/dev/full'):
        done = shell(line, "--help")
        assert done.returncode == 2
        assert done.stderr in (
            b"",
            b"reallm: error: cannot write to standard output: No space left on device\n",
        )


def test_formats_as_people_type_them(run: Run, audio: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text, names in (
        ("SRT", ["srt"]),
        ("Text, JSON", ["text", "json"]),
        (".vtt;txt", ["vtt", "text"]),
        ("WebVTT srt,srt", ["vtt", "srt"]),
    ):
        assert parse_formats(text) == names
    for wrong in ("docx", "text,docx", "", ","):
        with pytest.raises(SystemExit) as caught:
            run(audio, "--format", wrong)
        last = capsys.readouterr().err.splitlines()[-1]
        assert caught.value.code == 2 and "there are text, json, jsonl, srt, vtt, ctm" in last
    assert run(audio, "--format", "srt", "--format", "VTT", "--out", "both")[0] == 0
    assert sorted(p.suffix for p in Path("both").iterdir()) == [".srt", ".vtt"]


def test_what_out_means(run: Run, audio: Path) -> None:
    _, expected, _ = run(audio)
    assert run(audio, "--out", "-") == (0, expected, "") and not Path("-").exists()
    assert run(audio, "--out", "subtitles")[0] == 0
    assert [p.name for p in Path("subtitles").iterdir()] == ["réunion.txt"]
    # a name that says which format is meant
    assert run(audio, "--out", "a.SRT")[0] == 0 and "-->" in Path("a.SRT").read_text(encoding="utf-8")
    assert run(audio, "--out", "a.srt", "--format", "text")[0] == 0
    assert Path("a.srt").read_text(encoding="utf-8") == expected


def test_the_same_in_the_same_out(run: Run, audio: Path) -> None:
    for name in ("text", "json", "jsonl", "srt", "vtt", "ctm"):
        assert run(audio, "--format", name)[1] == run(audio, "--format", name)[1] != ""


def test_names_that_can_be_told_apart(tmp_path: Path) -> None:
    def names(*files: str, folder: str = "") -> list[str]:
        inputs = [Input(str(tmp_path / name), folder=Path(folder)) for name in files]
        return [path.as_posix() for path in distinct_names(inputs, lambda item: item.folder).values()]

    assert names("a.wav", "deep/b.wav") == ["a", "b"]
    assert names("a.wav", "a.mp3", "b.wav") == ["a.wav", "a.mp3", "b"]
    assert names("day1/talk.wav", "day2/talk.wav") == ["day1/talk", "day2/talk"]
    # all of them alike, lest one stand beside the folder of its neighbours
    assert names("day1/talk.wav", "day1/a.wav", "day2/talk.wav") == ["day1/talk", "day1/a", "day2/talk"]
    assert names("x/1/a.wav", "y/1/a.wav", "y/1/a.mp3") == ["x/1/a", "y/1/a.wav", "y/1/a.mp3"]
    assert names("x/deep/a.wav", "y/deep/a.wav", folder="deep") == ["x/deep/a", "y/deep/a"]


def test_two_files_of_one_name(run: Run) -> None:
    for i, name in enumerate(("day1/talk.wav", "day2/talk.wav")):
        Path(name).parent.mkdir()
        soundfile.write(name, speech(0.6, i), 16000)
    assert run("day1", "day2", "--out", "out/")[0] == 0
    assert sorted(p.as_posix() for p in Path("out").rglob("*.txt")) == [
        "out/day1/talk.txt",
        "out/day2/talk.txt",
    ]
    assert run("day1", "day2", "--out", "all.ctm")[0] == 0
    assert {row.split()[0] for row in Path("all.ctm").read_text().splitlines()} == {"day1/talk", "day2/talk"}
