"""Nothing is sent anywhere and nothing is left behind: under a fresh home folder, through every way in."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import soundfile
from fake_model import speech

ROOT = Path(__file__).parents[1]
# imports onnxruntime and recognises something in a process that was spawned
WORKERS = """
import multiprocessing, sys
from speech_reallm import Recognizer

def work(name):
    return Recognizer.load(sys.argv[1]).transcribe(name).text

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(work, [sys.argv[2]]))
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    path = tmp_path / "talk.wav"
    soundfile.write(path, speech(1.5), 16000)
    return path


def environment(home: Path) -> dict[str, str]:
    """That of a new user who has switched nothing off."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "ORT_"))}
    return {**kept, "HOME": str(home), "USERPROFILE": str(home), "LOCALAPPDATA": str(home)}


def ways_in(model: Path, audio: Path, folder: Path) -> dict[str, list[str]]:
    script = folder / "workers.py"
    script.write_text(WORKERS)
    python = [sys.executable]
    return {
        "command": [*python, "-m", "speech_reallm", "transcribe", str(audio), "--model", str(model)],
        "live": [*python, "-m", "speech_reallm", "transcribe", str(audio), "--live", "--model", str(model)],
        "doctor": [*python, "-m", "speech_reallm", "doctor", "--no-speed", "--model", str(model)],
        "import": [*python, "-c", "import speech_reallm, onnxruntime; onnxruntime.SessionOptions()"],
        "workers": [*python, str(script), str(model), str(audio)],
    }


@pytest.mark.parametrize("way", ["command", "live", "doctor", "import", "workers"])
def test_a_fresh_home_stays_empty(
    way: str, home: Path, audio: Path, model_folder: Path, tmp_path: Path
) -> None:
    command = ways_in(model_folder, audio, tmp_path)[way]
    done = subprocess.run(command, env=environment(home), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [p for p in home.rglob("*") if p.is_file()] == []


def test_the_server_leaves_nothing_either(home: Path, audio: Path, model_folder: Path) -> None:
    pytest.importorskip("uvicorn")
    command = [sys.executable, "-m", "speech_reallm", "serve", "--port", "0", "--model", str(model_folder)]
    with subprocess.Popen(command, env=environment(home), stderr=subprocess.PIPE, text=True) as server:
        try:
            port = next(m[1] for line in server.stderr if (m := re.search(r"127\.0\.0\.1:(\d+)", line)))
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=60) as answer:
                assert answer.status == 200
        finally:
            server.send_signal(signal.SIGTERM)
            server.stderr.read()
    assert [p for p in home.rglob("*") if p.is_file()] == []


def test_who_imports_the_library_first_is_told(model_folder: Path) -> None:
    code = "import onnxruntime, sys; from speech_reallm import Recognizer; Recognizer.load(sys.argv[1])"
    kept = {k: v for k, v in os.environ.items() if not k.startswith("ORT_")}
    # the library itself must not begin to send from a test
    for setting, told in ((None, True), ("1", False)):
        env = kept | ({"ORT_DISABLE_TELEMETRY": setting} if setting else {})
        program = "import os; os.environ['ORT_DISABLE_TELEMETRY'] = '1'; import onnxruntime; "
        program += "os.environ.pop('ORT_DISABLE_TELEMETRY'); " if setting is None else ""
        done = subprocess.run(
            [sys.executable, "-c", program + code, str(model_folder)], env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert ("ORT_DISABLE_TELEMETRY=1" in done.stderr) == told


def test_scripts_switch_it_off_before_they_import_the_library() -> None:
    """Those that import onnxruntime themselves have imported the package, or set the variable, before."""
    scripts = [
        p for folder in ("benchmarks", "runs", "recipes", "examples") for p in (ROOT / folder).rglob("*.py")
    ]
    found = [(p, p.read_text(encoding="utf-8")) for p in scripts]
    found = [
        (p, text) for p, text in found if re.search(r"^\s*(import|from) onnxruntime", text, re.MULTILINE)
    ]
    for path, text in found:
        first = re.search(r"^\s*(import|from) onnxruntime", text, re.MULTILINE).start()
        assert re.search(r"speech_reallm|ORT_DISABLE_TELEMETRY", text[:first]), path


@pytest.mark.parametrize(
    "way",
    [
        "command",
        pytest.param("workers", marks=pytest.mark.slow),
        pytest.param("stays", marks=pytest.mark.slow),
    ],
)
def test_no_connection_and_no_look_up(
    way: str, home: Path, audio: Path, model_folder: Path, tmp_path: Path
) -> None:
    """Where strace may trace: no process of it connects to anything or sends anything."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    trace = tmp_path / "trace.txt"
    commands = ways_in(model_folder, audio, tmp_path)
    # the library begins to send some seconds after it was loaded
    code = (
        "import sys, time; from speech_reallm import Recognizer; Recognizer.load(sys.argv[1]); time.sleep(13)"
    )
    commands["stays"] = [sys.executable, "-c", code, str(model_folder)]
    done = subprocess.run(
        ["strace", "-f", "-qq", "-e", "trace=connect,sendto,sendmmsg", "-o", str(trace), *commands[way]],
        env=environment(home),
        capture_output=True,
        text=True,
    )
    if "ptrace" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr
    calls = trace.read_text(errors="replace").splitlines()
    assert [line for line in calls if re.search(r"AF_INET|sendto|sendmmsg", line)] == []
