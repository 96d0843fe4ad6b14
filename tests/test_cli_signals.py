"""Ctrl-C, SIGTERM and a closed terminal end every long verb alike: what was recognised is written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import soundfile
from fake_model import speech
from fake_sounddevice import fake_sounddevice

from speech_reallm.cli import main as cli
from speech_reallm.cli._signals import SAME, Interrupt, ending_signals

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no SIGHUP on this system")
SIGNALS = [signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", 1)]


@pytest.fixture(autouse=True)
def no_signal_is_ignored() -> Iterator[None]:
    """Tests that were started by nohup inherit that SIGHUP is ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def main(model_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch, tmp_path: Path) -> Callable:
    monkeypatch.chdir(tmp_path)

    def main(*args: object) -> tuple[int, str]:
        code = cli.main([*map(str, args), "--model", str(model_folder)])
        return code, capsys.readouterr().err

    return main


@pytest.mark.parametrize("number", SIGNALS)
def test_files(number: int, main: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from speech_reallm.cli import transcribe

    for name in "ab":
        soundfile.write(tmp_path / f"{name}.wav", speech(3), 16000)
    before = transcribe._Work._on_audio

    def on_audio(work: transcribe._Work, index: int, seconds: float, of: float) -> bool:
        if index == 1 and seconds > 1.5:
            signal.raise_signal(number)
        return before(work, index, seconds, of)

    monkeypatch.setattr(transcribe._Work, "_on_audio", on_audio)
    code, err = main("transcribe", "a.wav", "b.wav", "--format", "text,srt,json", "--out", "out")
    assert code == 128 + number and err.count("interrupted") == 1
    assert len(list(Path("out").iterdir())) == 6
    assert json.loads(Path("out/b.json").read_text())["duration"] < 3
    code, _ = main("transcribe", "a.wav", "b.wav", "--out", "all.txt")
    assert code == 128 + number and Path("all.txt").read_text() and not Path("all.txt.part").exists()


@pytest.mark.parametrize("number", SIGNALS)
def test_live_pipe(number: int, model_folder: Path, tmp_path: Path) -> None:
    """As in a container that is stopped; once there are words, there is something to keep."""
    command = [sys.executable, "-m", "speech_reallm", "transcribe", "-", "--rate", "16000", "--live"]
    command += ["--format", "text,srt,json", "--out", f"{tmp_path}/out/", "--model", str(model_folder)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, bufsize=0
    ) as process:
        process.stdin.write((speech(3) * 32767).astype("<i2").tobytes())
        assert process.stdout.read(8)
        process.send_signal(number)
        assert process.wait(120) == 128 + number
        assert b"Traceback" not in process.stderr.read()
    assert sorted(p.suffix for p in (tmp_path / "out").iterdir()) == [".json", ".srt", ".txt"]
    assert all(p.read_text() for p in (tmp_path / "out").iterdir())


@pytest.mark.parametrize("number", SIGNALS)
def test_listen(number: int, main: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    module = fake_sounddevice(speech(2.4, rate=48000), then=lambda: os.kill(os.getpid(), number))
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    saves = [x for name in ("t.txt", "t.srt", "t.json") for x in ("--save", name)]
    code, err = main("listen", *saves, "--save-audio", "t.flac")
    assert code == 128 + number and err.count("saved ") == 4
    assert all(Path(f"t.{kind}").stat().st_size for kind in ("txt", "srt", "json"))
    assert soundfile.info("t.flac").frames == round(2.4 * 48000)


@pytest.mark.parametrize("number", SIGNALS)
def test_other_verbs_see_it_as_ctrl_c(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """evaluate and align catch KeyboardInterrupt to write what is done."""
    caught = []

    def run(args: object) -> int:
        try:
            signal.raise_signal(number)
            time.sleep(60)
        except KeyboardInterrupt:
            caught.append(number)
            raise

    monkeypatch.setattr("speech_reallm.cli.transcribe.run", run)
    assert cli.main(["transcribe", "x.wav"]) == 128 + number and caught == [number]


def test_what_comes_at_once_is_one_request() -> None:
    """systemd sends SIGTERM and SIGHUP; a shell and the system both report a closed terminal."""
    with ending_signals(), Interrupt() as interrupt:
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.raise_signal(number)
        assert interrupt.seen
        interrupt._when -= SAME + 1
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_nohup_is_respected_and_handlers_are_put_back() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ending_signals(), Interrupt() as interrupt:
            signal.raise_signal(signal.SIGHUP)
            assert not interrupt.seen
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_thread_may_run_a_command(main: Callable, tmp_path: Path) -> None:
    """Handlers belong to the main thread; elsewhere there are none."""
    soundfile.write(tmp_path / "a.wav", speech(0.5), 16000)
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(main("transcribe", "a.wav")[0]))
    thread.start()
    thread.join(120)
    assert codes == [0]
