"""The programs in examples/ run, and the built-in model understands the demo recording."""

from __future__ import annotations

import difflib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from speech_reallm.errors import UserError
from speech_reallm.modelfolder import find_model

EXAMPLES = Path(__file__).parents[1] / "examples"
DEMO = EXAMPLES / "demo.opus"


@pytest.fixture(autouse=True)
def default_model() -> Path:
    try:
        return find_model(None)
    except UserError as err:
        pytest.skip(str(err))


def run(name: str, *files: Path | str, path: Path | None = None) -> str:
    """Standard output of an example; it must not write to standard error. path: where it finds modules first."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
    if path:
        environment["PYTHONPATH"] = str(path)
    command = [sys.executable, str(EXAMPLES / name), *map(str, files)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


@pytest.fixture(scope="module")
def heard() -> list[str]:
    from speech_reallm import Recognizer

    return words(Recognizer.load().transcribe(DEMO).text)


def test_the_demo_is_understood(heard: list[str]) -> None:
    said = words((EXAMPLES / "demo_text.txt").read_text(encoding="utf-8"))
    matcher = difflib.SequenceMatcher(None, said, heard, autojunk=False)
    assert sum(block.size for block in matcher.get_matching_blocks()) >= 0.6 * len(said), " ".join(heard)


def test_transcribe_file(heard: list[str]) -> None:
    text, *rows = run("transcribe_file.py", DEMO).splitlines()
    assert words(text) == heard
    assert len(rows) == len(text.split())


def test_stream_chunks(heard: list[str]) -> None:
    assert words(run("stream_chunks.py", DEMO)) == heard


def test_many_streams(heard: list[str]) -> None:
    lines = run("many_streams.py", DEMO, DEMO).splitlines()
    first, second = (words(line.split(": ", 1)[1]) for line in lines)
    assert first == second
    # 8-bit products of a batch round otherwise than those of one stream, and a near tie may fall the other way
    assert difflib.SequenceMatcher(None, first, heard, autojunk=False).ratio() > 0.9


def test_transcribe_many(heard: list[str]) -> None:
    first, second = run("transcribe_many.py", DEMO, "missing.wav").splitlines()
    assert first == "missing.wav: missing.wav: no such file"
    assert words(second.split(": ", 1)[1]) == heard


def test_microphone(heard: list[str], tmp_path: Path) -> None:
    """A module sounddevice whose microphone plays the demo."""
    (tmp_path / "sounddevice.py").write_text(
        f"""
import sys
import numpy, soundfile
sys.path.append({str(Path(__file__).parent)!r})
from fake_sounddevice import fake_sounddevice
samples, rate = soundfile.read({str(DEMO)!r}, dtype="float32")
samples = numpy.concatenate([samples, numpy.zeros(rate, numpy.float32)])
globals().update(vars(fake_sounddevice(samples, rate=rate)))
"""
    )
    import soundfile

    said = words(run("microphone.py", str(soundfile.info(DEMO).duration), path=tmp_path))
    # 16 bits are not quite what the file decodes to
    assert difflib.SequenceMatcher(None, said, heard, autojunk=False).ratio() > 0.9
    assert said[-1] == heard[-1], "the last word is there"


def test_subtitles(heard: list[str]) -> None:
    srt = run("subtitles.py", DEMO)
    assert srt.startswith("1\n00:00:")
    assert words(re.sub(r"^\d.*$", "", srt, flags=re.MULTILINE)) == heard


@pytest.mark.parametrize("name", sorted(p.name for p in EXAMPLES.glob("*.py") if p.name != "microphone.py"))
def test_without_an_argument_an_example_says_what_it_wants(name: str) -> None:
    done = subprocess.run([sys.executable, str(EXAMPLES / name)], capture_output=True, text=True)
    assert done.returncode and done.stderr.startswith(f"usage: python {EXAMPLES / name} F")
    assert done.stderr.count("\n") == 1
