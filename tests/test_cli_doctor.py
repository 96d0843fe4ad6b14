"""`reallm doctor`: what is there, what is missing, and how fast it is."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_sounddevice import fake_sounddevice

from speech_reallm import Recognizer, extras
from speech_reallm.cli import _machine, doctor
from speech_reallm.cli import main as cli
from speech_reallm.extras import _PACKAGES, EXTRAS, install_command

ROOT = Path(__file__).parents[1]
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str]:
    code = cli.main(["doctor", *map(str, args)])
    return code, capsys.readouterr().out


def line(out: str, name: str) -> str:
    return next(row for row in out.splitlines() if row.startswith(f"{name} "))


def test_a_healthy_machine(
    model_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "SECONDS", 0.2)
    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice(np.zeros(0)))
    monkeypatch.setattr(_machine, "usable_cores", lambda: 2)
    monkeypatch.setattr(doctor, "is_missing", lambda module: False)
    code, out = run(capsys, "--model", model_folder)
    assert code == 0 and out.count("\n") == 4
    assert re.match(r"recordings  ready, \d+ times faster than they last; video and M4A, too\n", out)
    assert all(
        line(out, name).split()[1].startswith("ready") for name in ("microphone", "server", "training")
    )
    code, out = run(capsys, "--model", model_folder, "--verbose")
    assert code == 0
    assert re.search(r"numpy \d+\.\d+.*onnxruntime \d", out) and "2 usable cores" in out
    speeds = re.findall(r"(\d) threads?: real-time factor (\d+\.\d+); a chunk of 120 ms takes (\d+) ms", out)
    assert [threads for threads, *_ in speeds] == ["1", "2"] and float(speeds[0][1]) > 0


def test_what_is_missing_is_named_with_the_command_that_installs_it(
    model_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = {"torch", "av", "sounddevice"}
    monkeypatch.setattr(doctor, "is_missing", lambda name: name in gone)
    code, out = run(capsys, "--model", model_folder, "--no-speed")
    assert code == 0 and "faster" not in out
    assert f"needs torch: {install_command('torch')}" in line(out, "training")
    assert line(out, "microphone").endswith(f"needs sounddevice: {install_command('sounddevice')}")
    assert line(out, "recordings").endswith(f"ready; for video and M4A: {install_command('av')}")


def test_no_microphone_and_no_portaudio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice(np.zeros(0), microphones=0))
    assert doctor._microphone([]) == "no microphone is connected"
    # what `import` does of a module that is None
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert install_command("sounddevice") in doctor._microphone([])


def test_no_model_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(capsys, "--model", tmp_path / "none")
    assert code == 2 and "no model folder" in line(out, "recordings") and "training" in out


def test_a_broken_runtime_is_a_failure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name == "soxr" else object())
    code, out = run(capsys)
    assert code == 2 and "soxr missing: " in line(out, "recordings")


def test_every_extra_is_one_of_the_project() -> None:
    for extra, modules in EXTRAS.items():
        packages = re.search(rf"^{extra} = \[(.*?)\]", PROJECT, re.MULTILINE | re.DOTALL)[1].lower()
        assert all(f'"{_PACKAGES.get(name, name)}' in packages for name in modules), extra


def test_the_command_that_installs_names_this_python_and_packages_of_the_index(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(extras, "is_missing", lambda name: name in ("uvicorn", "multipart"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "a b" / "python3"))
    command = install_command("uvicorn")
    assert shlex.split(command)[1:4] == ["-m", "pip", "install"]
    assert shlex.split(command)[0] == str(tmp_path / "a b" / "python3")
    assert re.fullmatch(r"uvicorn>=\S+ python-multipart>=\S+", " ".join(shlex.split(command)[4:]))
    monkeypatch.chdir(tmp_path)
    assert shlex.split(install_command("av"))[0] == os.path.join("a b", "python3")
    # an environment that uv has made holds no pip
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    monkeypatch.setattr(extras.shutil, "which", lambda name: "/bin/uv")
    assert install_command("av").startswith("uv pip install --python 'a b/python3' 'av>=")
    monkeypatch.setattr(extras.shutil, "which", lambda name: None)
    assert "-m ensurepip && " in install_command("av")


def test_no_hint_names_a_package_that_no_index_has() -> None:
    """This package itself is not installed by its name: it may be another owner's there."""
    for path in (ROOT / "src").rglob("*.py"):
        assert not re.search(r"pip install[^\n]*speech-reallm", path.read_text(encoding="utf-8")), path


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
