"""The command line: what it prints, where it writes, and how it fails."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fake_model import speech

from speech_reallm import Partial, Recognizer, UserError
from speech_reallm.cli import main as cli
from speech_reallm.cli._terminal import LiveText, Progress, clock
from speech_reallm.events import Final
from speech_reallm.extras import install_command

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    path = tmp_path / "my talk.wav"
    soundfile.write(path, speech(1.5), 16000)
    return path


@pytest.fixture
def run(model_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch, tmp_path: Path) -> Run:
    """Run `reallm transcribe` with the small model in an empty folder: exit code, output, errors."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*args: object) -> tuple[int, str, str]:
        code = cli.main(["transcribe", *map(str, args), "--model", str(model_folder)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_text_goes_to_standard_output(run: Run, audio: Path, recognizer: Recognizer) -> None:
    code, out, err = run(audio)
    assert (code, err) == (0, "")
    assert out.split() == recognizer.transcribe(audio).text.split() != []


def test_formats_and_files(run: Run, audio: Path) -> None:
    code, out, _ = run(audio, "--format", "json")
    assert code == 0 and json.loads(out)["file"] == str(audio)
    assert run(audio, "--format", "srt", "--out", "x.srt")[:2] == (0, "")
    assert "-->" in Path("x.srt").read_text()
    assert run(audio, "--format", "vtt", "--out", "subs/")[0] == 0
    assert Path("subs/my talk.vtt").read_text().startswith("WEBVTT")


def test_several_files(run: Run, audio: Path) -> None:
    other = audio.with_name("my talk.flac")
    soundfile.write(other, speech(1, 1), 44100)
    code, out, _ = run(audio, other, "--format", "json")
    assert code == 0 and [json.loads(line)["file"] for line in out.splitlines()] == [str(audio), str(other)]
    assert run(audio, other, "--format", "ctm", "--out", "all.ctm")[0] == 0
    names = {line.split()[0] for line in Path("all.ctm").read_text().splitlines()}
    assert names == {"my_talk.wav", "my_talk.flac"}
    code, _, err = run(audio, other, "--format", "srt")
    assert code == 2 and "--out" in err
    assert run(audio, other, "--out", "texts/")[0] == 0
    assert sorted(p.name for p in Path("texts").iterdir()) == ["my talk.flac.txt", "my talk.wav.txt"]
    code, out, _ = run(audio, other)
    assert f"==> {other} <==" in out


def test_a_bad_file_does_not_stop_the_others(run: Run, audio: Path) -> None:
    bad = audio.with_name("bad.wav")
    bad.write_text("no audio")
    code, out, err = run(bad, "missing.wav", audio, "--format", "json")
    assert code == 2 and json.loads(out)["file"] == str(audio)
    assert [line.startswith("reallm: error: ") for line in err.splitlines()] == [True, True]


def test_a_cut_file_is_transcribed_with_a_warning(run: Run, audio: Path) -> None:
    audio.write_bytes(audio.read_bytes()[:30000])
    code, out, err = run(audio)
    assert code == 0 and out and err.startswith("reallm: warning: ") and err.count("\n") == 1


def test_silence_and_a_blink(run: Run, tmp_path: Path) -> None:
    for name, samples in (("silence.wav", 32000), ("blink.wav", 160)):
        soundfile.write(tmp_path / name, np.zeros(samples), 16000)
        code, out, err = run(tmp_path / name, "--format", "json")
        assert (code, err) == (0, "") and json.loads(out)["text"] == ""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--delay", "9"], "delay"),
        (["--threads", "0"], "threads"),
        (["--out", "nowhere/x.txt"], "cannot write"),
    ],
)
def test_wrong_options(run: Run, audio: Path, options: list[str], words: str) -> None:
    code, out, err = run(audio, *options)
    assert (code, out) == (2, "") and err.startswith("reallm: error: ") and words in err
    assert err.count("\n") == 1


def test_audio_is_never_overwritten(run: Run, audio: Path) -> None:
    before = audio.read_bytes()
    code, _, err = run(audio, "--out", audio)
    assert code == 2 and "overwrite" in err and audio.read_bytes() == before


def test_no_model(audio: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["transcribe", str(audio), "--model", str(tmp_path / "none")]) == 2
    assert "no model folder" in capsys.readouterr().err


def test_segments_are_printed_as_they_are_found(model_folder: Path, tmp_path: Path) -> None:
    """Of an endless pipe nobody sees the end; words must not wait for it."""
    command = [
        sys.executable,
        "-m",
        "speech_reallm",
        "transcribe",
        "-",
        "--rate",
        "16000",
        "--format",
        "jsonl",
    ]
    process = subprocess.Popen(
        [*command, "--model", model_folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_environment(),
    )
    talk = np.concatenate([speech(1.5), np.zeros(32000, np.float32)])
    process.stdin.write((talk * 32767).astype("<i2").tobytes())
    process.stdin.flush()
    row = json.loads(process.stdout.readline())
    assert row["text"] and row["file"] == "standard input"
    # nothing more comes, and Ctrl-C ends the waiting
    process.send_signal(signal.SIGINT)
    with process.stdin:
        # communicate() would close it at once
        process.stdin = None
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130 and b"interrupted" in err and b"Traceback" not in err
    assert all(json.loads(line)["start"] >= row["end"] for line in out.splitlines())


def test_live(run: Run, audio: Path) -> None:
    started = time.monotonic()
    code, out, err = run(audio, "--live")
    assert code == 0 and time.monotonic() - started >= 1.4
    assert out.split() and not list(Path().iterdir()), "words are shown, and no file was asked for"
    assert "1.5 s of audio; words came " in err and "computing took " in err and err.count("\n") == 1
    code, shown, err = run(audio, "--live", "--format", "text,srt", "--out", "here/")
    assert (code, shown) == (0, out) and Path("here/my talk.txt").read_text() == out
    assert f"written: {Path('here/my talk.srt')}" in err


def test_interrupting_live_keeps_what_was_heard(model_folder: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", speech(60), 16000)
    command = [
        sys.executable,
        "-m",
        "speech_reallm",
        "transcribe",
        "long.wav",
        "--live",
        "--out",
        "long.txt",
        "--model",
        model_folder,
    ]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_environment(),
        bufsize=0,
    )
    # once there are words there is something to save
    first = process.stdout.read(8)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert (first + out).decode() == (tmp_path / "long.txt").read_text() != ""
    assert b"interrupted" in err and b"Traceback" not in err


def test_interrupting_many_files_writes_all_that_were_begun(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from speech_reallm.cli import transcribe

    for i in range(12):
        soundfile.write(tmp_path / f"{i:02}.wav", speech(3, i), 16000)
    before = transcribe._Work._on_audio

    def on_audio(work: transcribe._Work, index: int, seconds: float, of: float) -> bool:
        if index == 7 and seconds > 1.5:
            signal.raise_signal(signal.SIGINT)
        return before(work, index, seconds, of)

    monkeypatch.setattr(transcribe._Work, "_on_audio", on_audio)
    out = tmp_path / "out"
    command = ["transcribe", str(tmp_path), "--format", "text,srt", "--out", f"{out}/"]
    assert cli.main([*command, "--model", str(model_folder)]) == 130
    assert sorted(path.name for path in out.iterdir()) == [
        f"{i:02}.{s}" for i in range(8) for s in ("srt", "txt")
    ]
    assert all(path.read_text() for path in out.iterdir())
    assert capsys.readouterr().err.count("interrupted") == 1


def test_a_reader_that_leaves(model_folder: Path, audio: Path) -> None:
    command = [sys.executable, "-m", "speech_reallm", "transcribe", *[audio] * 3, "--model", model_folder]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, env=_environment()) as process:
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait(30) == cli.EXIT_BROKEN_PIPE and err == b""


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_live_text_wraps_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "36")
    deltas = [
        Partial("the qui", 0),
        Partial("ck brown fox", 0),
        Partial(" jumps over the lazy", 0),
        Partial(" dog", 0),
    ]
    final = Final("", (), 0.0, 1.0)
    for out, expected in (
        (Terminal(), "the quick brown fox jumps over\nthe lazy dog\n"),
        (io.StringIO(), "the quick brown fox jumps over the lazy dog\n"),
    ):
        text = LiveText(out)
        for event in [*deltas, final]:
            text.show(event)
        text.newline()
        assert out.getvalue() == expected


def test_progress_is_for_terminals_and_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for out, shown in ((Terminal(), True), (io.StringIO(), False)):
        now[0] = 100.0
        progress = Progress("a.wav", 600.0, out)
        progress.update(1.0)
        assert out.getvalue() == ""
        now[0] = 110.0
        progress.update(300.0)
        progress.close()
        assert ("50%" in out.getvalue() and "0:10 left" in out.getvalue()) is shown
    assert [clock(s) for s in (0, 59.9, 75, 4000)] == ["0:00", "0:59", "1:15", "1:06:40"]


def test_progress_of_several_files_counts_their_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress = Progress("0 of 2 files", 4e6, out := Terminal())
    now[0] = 120.0
    progress.update(1e6, 600.0, "1 of 2 files")
    assert "1 of 2 files" in out.getvalue() and " 25% 30.0x, 1:00 left" in out.getvalue()


def fails(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    """The exit code when a verb raises `error`."""

    def run(args: object) -> int:
        raise error

    monkeypatch.setattr("speech_reallm.cli.transcribe.run", run)
    return cli.main(["transcribe", "x.wav"])


def test_exit_codes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert fails(monkeypatch, UserError("do better")) == 2
    assert capsys.readouterr().err == "reallm: error: do better\n"
    assert fails(monkeypatch, KeyboardInterrupt()) == 130
    capsys.readouterr()
    assert fails(monkeypatch, ModuleNotFoundError("No module named 'torch'", name="torch.nn")) == 2
    assert capsys.readouterr().err == (
        f"reallm: error: this command needs torch: {install_command('torch')}\n"
    )
    with pytest.raises(ModuleNotFoundError):
        fails(monkeypatch, ModuleNotFoundError("a bug", name="speech_reallm.nothing"))


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in cli.verbs():
        with pytest.raises(SystemExit) as caught:
            cli.main([verb.NAME, "--help"])
        assert caught.value.code == 0
        assert "usage: reallm " + verb.NAME in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out.startswith("reallm ")
    assert cli.main([]) == 2 and "transcribe" in capsys.readouterr().out


def test_hot_words_from_a_file(run: Run, audio: Path, recognizer: Recognizer, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("# terms\nthe weather\nsea\n", encoding="utf-8")
    code, out, err = run(audio, "--hotwords", names, "--hotwords-strength", 10)
    terms = {"hotwords": ["the weather", "sea"], "hotwords_strength": 10}
    assert (code, err) == (0, "")
    assert out.split() == recognizer.transcribe(audio, **terms).text.split()
    assert out.split() != recognizer.transcribe(audio).text.split()
    for wrong in (("--hotwords", "missing.txt"), ("--hotwords", names, "--hotwords-strength", -1)):
        code, _, err = run(audio, *wrong)
        assert code == 2 and err.startswith("reallm: error: ") and err.count("\n") == 1
