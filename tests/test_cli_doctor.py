"""`reallm doctor`: what is there, what is missing, and how fast it is."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_sounddevice import fake_sounddevice

from speech_reallm import Recognizer
from speech_reallm.cli import _machine, doctor
from speech_reallm.cli import main as cli

PROJECT = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str]:
    code = cli.main(["doctor", *map(str, args)])
    return code, capsys.readouterr().out


def line(out: str, verb: str) -> str:
    return next(row for row in out.splitlines() if row.startswith(f"  {verb} "))


def test_a_healthy_machine(
    model_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "SECONDS", 0.2)
    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice(np.zeros(0)))
    monkeypatch.setattr(_machine, "usable_cores", lambda: 2)
    monkeypatch.setattr(doctor, "_missing", lambda modules: [])
    code, out = run(capsys, "--model", model_folder)
    assert code == 0
    assert re.search(r"numpy \d+\.\d+.*onnxruntime \d", out) and "2 usable cores" in out
    speeds = re.findall(r"(\d) threads?: real-time factor (\d+\.\d+); a chunk of 120 ms takes (\d+) ms", out)
    assert [threads for threads, *_ in speeds] == ["1", "2"] and float(speeds[0][1]) > 0
    assert all(line(out, verb.NAME).endswith("ready") for verb in cli.verbs())


def test_what_is_missing_is_named_with_the_command_that_installs_it(
    model_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = {"torch", "av", "sounddevice"}
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name in gone else object())
    code, out = run(capsys, "--model", model_folder, "--no-speed")
    assert code == 0 and "real-time factor" not in out
    assert line(out, "train").endswith("torch missing: pip install 'speech-reallm[train]'")
    assert line(out, "listen").endswith("sounddevice missing: pip install 'speech-reallm[listen]'")
    assert line(out, "transcribe").endswith("ready; for video and M4A: pip install 'speech-reallm[media]'")


def test_no_microphone_and_no_portaudio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice(np.zeros(0), microphones=0))
    assert doctor._microphone() == ["no microphone is connected"]
    # what `import` does of a module that is None
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert "speech-reallm[listen]" in doctor._microphone()[0]


def test_no_model_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(capsys, "--model", tmp_path / "none")
    assert code == 2 and "no model folder" in out and "the commands" in out


def test_a_broken_runtime_is_a_failure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name == "soxr" else object())
    monkeypatch.setattr(doctor, "_microphone", lambda: [])
    code, out = run(capsys)
    assert code == 2 and "soxr is missing" in out


def test_every_extra_is_one_of_the_project() -> None:
    for extra in cli.EXTRAS.keys() - {"llm"} | {e for extras in doctor.NEEDS.values() for e in extras}:
        assert re.search(rf"^{extra} = \[", PROJECT, re.MULTILINE), extra
    assert set(doctor.NEEDS) <= {verb.NAME for verb in cli.verbs()}


def test_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "/proc/cpuinfo": "processor : 0\nmodel name\t: Some CPU\nflags\t\t: fpu avx2 fma avx512_vnni\n",
        "/sys/fs/cgroup/cpu.max": "50000 100000",
    }
    monkeypatch.setattr(_machine, "_read", lambda path: files.get(path, ""))
    found = _machine.processor()
    assert (found.name, found.cores, found.instructions) == ("Some CPU", 1, ("fma", "avx2", "avx512_vnni"))
    files.clear()
    assert _machine.processor().cores >= 1 and _machine.processor().instructions == ()


def test_the_voice_is_one_that_the_built_in_model_writes_words_for() -> None:
    stream = Recognizer.load().stream(16000)
    stream.accept(_machine.voice())
    heard = stream.finish()
    assert "speaking" in heard.text and len(heard.words) >= 4
