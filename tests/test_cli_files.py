"""What the command line reads from, and where it writes to."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import soundfile
from fake_model import speech

from speech_reallm import UserError
from speech_reallm.cli import main as cli
from speech_reallm.cli._inputs import find_inputs

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(model_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch, tmp_path: Path) -> Run:
    """Run `reallm transcribe` with the small model in an empty folder: exit code, output, errors."""
    monkeypatch.chdir(tmp_path)

    def run(*args: object, stdin: bytes | None = None) -> tuple[int, str, str]:
        if stdin is not None:
            file = SimpleNamespace(buffer=io.BytesIO(stdin), isatty=lambda: False)
            monkeypatch.setattr("sys.stdin", file)
        code = cli.main(["transcribe", *map(str, args), "--model", str(model_folder)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def wav(path: Path, seconds: float = 0.6, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, speech(seconds, seed), 16000)
    return path


def test_standard_input(run: Run, tmp_path: Path) -> None:
    path = wav(tmp_path / "a.wav", 1.5)
    _, expected, _ = run(path)
    assert expected
    assert run("-", stdin=path.read_bytes()) == (0, expected, "")
    raw, _ = soundfile.read(path, dtype="int16")
    assert run("-", "--rate", 16000, stdin=raw.tobytes()) == (0, expected, "")
    code, out, _ = run("-", "--rate", 16000, "--format", "srt,json", "--out", "x/", stdin=raw.tobytes())
    assert (code, out) == (0, "") and json.loads(Path("x/stdin.json").read_text())[
        "text"
    ].split() == expected.split()
    code, out, err = run("-", stdin=b"ID3 mp3")
    assert (code, out) == (2, "") and "--rate" in err and err.count("\n") == 1


def test_live_from_standard_input_does_not_wait(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("-", "--live", stdin=wav(tmp_path / "a.wav", 30).read_bytes())
    assert code == 0 and out and not Path("stdin.txt").exists()


def test_a_folder_keeps_its_shape(run: Run, tmp_path: Path) -> None:
    for name in ("in/b.wav", "in/a.flac", "in/deep/a.WAV", "in/.hidden/x.wav"):
        wav(tmp_path / name)
    (tmp_path / "in/notes.txt").write_text("no sound")
    assert run("in", "--format", "text,vtt", "--out", "out.d")[0] == 2, "out.d may be a file"
    assert run("in", "--format", "text,vtt", "--out", "out")[0] == 0
    written = sorted(p.relative_to("out").as_posix() for p in Path("out").rglob("*.*"))
    assert written == ["a.txt", "a.vtt", "b.txt", "b.vtt", "deep/a.txt", "deep/a.vtt"]
    code, out, _ = run("in", "--format", "json")
    assert code == 0
    assert [json.loads(line)["file"] for line in out.splitlines()] == [
        "in/a.flac",
        "in/b.wav",
        "in/deep/a.WAV",
    ]


def test_order_is_kept_whatever_is_done_first(run: Run, tmp_path: Path) -> None:
    names = [str(wav(tmp_path / f"{i}.wav", seconds, i)) for i, seconds in enumerate([3, 0.5, 2, 0.3, 1])]
    (tmp_path / "bad.wav").touch()
    code, out, err = run(names[0], "bad.wav", *names[1:], "--format", "json", "--batch", 2)
    assert code == 2 and err.count("\n") == 1
    assert [json.loads(line)["file"] for line in out.splitlines()] == names
    assert run(*names, "--format", "jsonl", "--out", "all.jsonl", "--batch", 8)[0] == 0
    files = [json.loads(line)["file"] for line in Path("all.jsonl").read_text().splitlines()]
    assert files == sorted(files)


def test_patterns_and_files_named_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a1.wav", "a2.wav", "sub/b.wav", "odd[1].wav"):
        wav(tmp_path / name, 0.1)
    assert [i.name for i in find_inputs(["a*.wav"])] == ["a1.wav", "a2.wav"]
    assert [i.name for i in find_inputs(["**/b.wav", "a1.wav"])] == ["sub/b.wav", "a1.wav"]
    assert [i.name for i in find_inputs(["a2.wav", "./a2.wav", str(tmp_path / "a2.wav")])] == ["a2.wav"]
    assert [i.name for i in find_inputs(["odd[1].wav"])] == ["odd[1].wav"]
    with pytest.raises(UserError, match="no file matches z"):
        find_inputs(["z*.wav"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no sound or video files in the folder empty"):
        find_inputs(["empty"])


def test_a_name_that_is_not_utf8(run: Run, tmp_path: Path) -> None:
    try:
        wav(tmp_path / "in" / "a.wav").rename(tmp_path / "in" / os.fsdecode(b"caf\xe9.wav"))
    except OSError:
        pytest.skip("this file system wants names in UTF-8")
    code, out, err = run("in", "--format", "json")
    assert (code, err) == (0, "") and json.loads(out)["file"] == "in/caf?.wav"


def test_options_that_do_not_fit(run: Run, tmp_path: Path) -> None:
    path = wav(tmp_path / "a.wav")
    for options, words in (
        ([path, "--rate", 16000], "--rate is for raw samples"),
        (["-", "-"], "only once"),
        ([path, "--format", "srt,vtt"], "several formats need a folder; write --out FOLDER/"),
        ([path, "--batch", 0], "--batch"),
    ):
        code, out, err = run(*options, stdin=b"")
        assert (code, out) == (2, "") and words in err and err.count("\n") == 1
    with pytest.raises(SystemExit) as caught:
        run(path, "--format", "docx")
    assert caught.value.code == 2


def test_a_terminal_is_not_waited_for(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    code, _, err = run("-")
    assert code == 2 and "pipe WAV into it" in err
