"""`reallm listen`: everything heard is shown and saved, however it ends; trouble is told in one line."""

from __future__ import annotations

import builtins
import io
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fake_model import speech
from fake_sounddevice import fake_sounddevice

from speech_reallm import Partial, Recognizer
from speech_reallm import microphone as microphones
from speech_reallm.cli import main as cli
from speech_reallm.cli._screen import Screen, meter
from speech_reallm.events import Final

RATE = 48000
Run = Callable[..., tuple[int, str, str]]


def ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def run(model_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch, tmp_path: Path) -> Run:
    """Run `reallm listen` with the small model and a fake microphone: exit code, output, errors."""
    monkeypatch.chdir(tmp_path)

    def run(*args: object, module: object = None) -> tuple[int, str, str]:
        # nobody presses Ctrl-C unless a test says so: it would hit whatever runs when the microphone is through
        monkeypatch.setitem(sys.modules, "sounddevice", module or fake_sounddevice(talk()))
        code = cli.main(["listen", *map(str, args), "--model", str(model_folder)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def talk(seconds: float = 2.4) -> np.ndarray:
    return speech(seconds, rate=RATE)


def expected(recognizer: Recognizer, samples: np.ndarray) -> str:
    stream = recognizer.stream(RATE)
    stream.feed(samples)
    return stream.finish().text


def test_ctrl_c_loses_nothing(run: Run, recognizer: Recognizer) -> None:
    saves = [
        x for name in ("t.txt", "t.json", "t.jsonl", "t.srt", "t.vtt", "t.ctm") for x in ("--save", name)
    ]
    module = fake_sounddevice(talk(), then=ctrl_c)
    code, out, err = run(*saves, "--save-audio", "t.wav", module=module)
    text = expected(recognizer, talk())
    assert code == 130 and out.split() == text.split() != []
    assert (
        Path("t.txt").read_text().split()
        == json.loads(Path("t.json").read_text())["text"].split()
        == text.split()
    )
    assert json.loads(Path("t.jsonl").read_text().splitlines()[0])["file"] == "microphone"
    assert "-->" in Path("t.srt").read_text() and Path("t.vtt").read_text().startswith("WEBVTT")
    assert len(Path("t.ctm").read_text().splitlines()) == len(text.split())
    samples, rate = soundfile.read("t.wav", dtype="float32")
    assert rate == RATE
    np.testing.assert_allclose(samples, talk()[: len(samples)], atol=1e-4)
    assert len(samples) == len(talk())
    assert err.count("saved ") == 7 and "listening to Built-in Microphone" in err and "lost" not in err


def test_so_many_seconds(run: Run, recognizer: Recognizer) -> None:
    code, out, _ = run("--seconds", 1.23, "--save-audio", "a.flac", module=fake_sounddevice(talk()))
    assert code == 0 and out.split() == expected(recognizer, talk()[: round(1.23 * RATE)]).split()
    assert soundfile.info("a.flac").frames == round(1.23 * RATE)


def test_a_microphone_that_is_unplugged(run: Run, recognizer: Recognizer) -> None:
    code, out, err = run("--save", "a.txt", module=fake_sounddevice(talk(), unplugged=True))
    assert code == 2 and "Built-in Microphone is gone" in err
    assert out.split() == Path("a.txt").read_text().split() == expected(recognizer, talk()).split()


def test_a_microphone_that_says_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microphones, "SILENT_DEVICE_SECONDS", 0.05)
    code, out, err = run(module=fake_sounddevice(talk(0)))
    assert (code, out) == (2, "") and "gives no sound" in err


def test_a_muted_microphone_is_mentioned(run: Run) -> None:
    code, _, err = run(module=fake_sounddevice(np.zeros(6 * RATE, np.float32), then=ctrl_c))
    assert code == 130 and err.count("only silence so far") == 1


def test_devices(run: Run) -> None:
    code, out, _ = run("--list")
    assert code == 0 and out.splitlines() == [
        "*   1  Built-in Microphone  (1 channels, 48000 Hz)",
        "    2  USB Headset  (1 channels, 48000 Hz)",
    ]
    assert "listening to USB Headset" in run("--device", "usb", "--seconds", 0.5)[2]
    assert "listening to USB Headset" in run("--device", 2, "--seconds", 0.5)[2]
    code, out, err = run("--device", "banjo")
    assert (code, out) == (2, "") and "no microphone 'banjo'" in err and "--list" in err
    for options in ([], ["--list"]):
        code, out, err = run(*options, module=fake_sounddevice(talk(), microphones=0))
        assert (code, out) == (2, "") and "no microphone found" in err and err.count("\n") == 1


def test_a_device_without_mono(run: Run, recognizer: Recognizer) -> None:
    code, out, _ = run(module=fake_sounddevice(talk(), channels=2, refuse_mono=True, then=ctrl_c))
    assert code == 130 and out.split() == expected(recognizer, talk()).split()
    code, _, err = run(module=fake_sounddevice(talk(), channels=1, refuse_mono=True))
    assert code == 2 and "cannot be opened (Invalid number of channels" in err


def test_sound_that_nobody_takes_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microphones, "BACKLOG", 0.5)
    module = fake_sounddevice(talk())
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    with microphones.Microphone() as microphone:
        # as a thread that nobody waits for would
        module.InputStream.opened[-1]._play()
        assert microphone.lost == pytest.approx(2.4 - 0.5)
        module.InputStream.opened[-1].start = lambda: None
        assert sum(map(len, microphone.blocks(lambda: True))) == 0.5 * RATE
    assert module.InputStream.opened[-1].closed


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            ModuleNotFoundError("No module named 'sounddevice'", name="sounddevice"),
            "-m pip install 'sounddevice>=0.5'",
        ),
        (OSError("PortAudio library not found"), "apt install libportaudio2"),
    ],
)
def test_what_is_missing_is_named(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    real = builtins.__import__

    def missing(name: str, *args, **kwargs):
        if name == "sounddevice":
            raise error
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    for options in ([], ["--list"]):
        code, out, err = run(*options)
        assert (code, out) == (2, "") and words in err and err.count("\n") == 1


def test_wrong_options(run: Run) -> None:
    Path("old.txt").write_text("precious")
    for options, words in (
        (["--save", "a.doc"], ".srt"),
        (["--save-audio", "a.mp9"], ".flac"),
        (["--save", "old.txt"], "is there already"),
        (["--save", "none/a.txt"], "its folder does not exist"),
        (["--save", "a.txt", "--save", "./a.txt"], "twice"),
        (["--seconds", "0"], "--seconds"),
        (["--rate", "100"], "sample rate"),
    ):
        code, out, err = run(*options)
        assert (code, out) == (2, "") and words in err and err.count("\n") == 1
    assert sorted(p.name for p in Path().iterdir()) == ["old.txt"]


class Terminal(io.StringIO):
    """Understands what Screen writes; `lines` is what a viewer sees."""

    def __init__(self) -> None:
        super().__init__()
        self.lines, self.row, self.column = [""], 0, 0

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        i = 0
        while i < len(text):
            if text.startswith("\x1b[K", i):
                self.lines[self.row] = self.lines[self.row][: self.column]
                i += 3
            elif text.startswith("\x1b[1A", i):
                self.row -= 1
                assert self.row >= 0
                i += 4
            elif text[i] == "\r":
                self.column = 0
                i += 1
            elif text[i] == "\n":
                self.row, self.column = self.row + 1, 0
                self.lines += [""] * (self.row + 1 - len(self.lines))
                i += 1
            else:
                line = self.lines[self.row].ljust(self.column)
                self.lines[self.row] = line[: self.column] + text[i] + line[self.column + 1 :]
                self.column += 1
                i += 1
        return len(text)


def test_words_appear_in_place_above_the_meter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "31")
    screen = Screen(out := Terminal())
    loud = np.full(100, 0.5, np.float32)
    screen.level(loud, 1.0)
    assert out.lines == ["", "[###########.] 0:01  Ctrl-C end"[:30]]
    screen.show(Partial("the qui", 0))
    screen.show(Partial("ck brown", 0))
    assert out.lines[0] == "the quick brown" and out.lines[1].startswith("[####")
    screen.show(Partial(" fox jumps over the lazy", 0))
    assert out.lines[:2] == ["the quick brown fox jumps over", "the lazy"]
    screen.show(Partial(" dog", 0))
    screen.show(Final("", (), 0.0, 1.0))
    screen.level(np.zeros(100), 75.0)
    assert out.lines[1:] == ["the lazy dog", "", "[............] 1:15  Ctrl-C en"]
    screen.note("a note")
    screen.show(Partial("x" * 40, 0))
    screen.close()
    assert [line for line in out.lines if line] == [
        "the quick brown fox jumps over",
        "the lazy dog",
        "(a note)",
        "x" * 30,
        "x" * 10,
    ]


def test_the_meter() -> None:
    assert meter(np.zeros(10)) == "............" and meter(np.zeros(0)) == "............"
    assert meter(np.full(10, 10 ** (-30 / 20))) == "######......"
    assert meter(np.full(10, 1.0)) == "###########!"


def test_the_screen_is_for_terminals(model_folder: Path, recognizer: Recognizer, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice(talk(), then=ctrl_c))
    monkeypatch.setattr(sys, "stdout", out := Terminal())
    assert cli.main(["listen", "--model", str(model_folder)]) == 130
    assert " ".join(out.lines).split() == expected(recognizer, talk()).split()
