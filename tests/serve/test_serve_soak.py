"""benchmarks/soak.py in short: seconds always, two minutes when slow tests are asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from fake_model import speech

ROOT = Path(__file__).parents[2]


def soak(model: Path, folder: Path, *options: object) -> dict:
    """What it wrote; every fault fails the test."""
    recording = folder / "talk.wav"
    soundfile.write(recording, speech(8), 16000, subtype="PCM_16")
    report = folder / "soak.json"
    command = [sys.executable, str(ROOT / "benchmarks/soak.py"), "--model", str(model), "--json", str(report)]
    command += ["--recording", str(recording), *map(str, options)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=800, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return json.loads(report.read_text())


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_some_seconds(model_folder: Path, tmp_path: Path) -> None:
    counts = soak(
        model_folder, tmp_path, "--seconds", 8, "--clip", 2, "--speakers", 2, "--abusers", 1, "--every", 1,
        "--restart-every", 60,
    )["counts"]  # fmt: skip
    assert counts["recordings, every word right"] >= 1


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_two_minutes(model_folder: Path, tmp_path: Path) -> None:
    report = soak(
        model_folder, tmp_path, "--seconds", 100, "--clip", 8, "--speakers", 10, "--abusers", 4, "--every", 1,
        "--restart-every", 30,
    )  # fmt: skip
    assert len(report["lives"]) >= 3
    assert report["counts"]["recordings, every word right"] >= 10
