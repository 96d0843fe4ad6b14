"""Frameworks for voice agents, unmodified: LiveKit's openai.STT and Pipecat's OpenAI Realtime STT.

They pin versions of what others need, so they may live in an interpreter of their own, named by
REALLM_AGENTS_PYTHON:

    python -m venv agents && agents/bin/pip install livekit-plugins-openai pipecat-ai openai
    REALLM_AGENTS_PYTHON=agents/bin/python python -m pytest tests/serve/test_serve_agents.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fake_model import speech
from serving import PATIENCE, Running

from speech_reallm import Final, Recognizer

PYTHON = os.environ.get("REALLM_AGENTS_PYTHON", sys.executable)
AGENTS = Path(__file__).parent / "agents"
RATE = 24000


def need(module: str) -> None:
    """Skip where the interpreter lacks it."""
    asked = subprocess.run([PYTHON, "-c", f"import {module}"], capture_output=True, timeout=PATIENCE)
    if asked.returncode:
        pytest.skip(f"{module} is not installed for {PYTHON}; see the top of this file")


def drive(script: str, *arguments: object) -> list[dict[str, str]]:
    command = [PYTHON, str(AGENTS / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=4 * PATIENCE)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two utterances, each with two seconds of silence behind it; the drivers wait for two turns."""
    path = tmp_path_factory.mktemp("talk") / "talk.wav"
    quiet = np.zeros(2 * RATE, np.float32)
    audio = np.concatenate([speech(1.4, rate=RATE), quiet, speech(1.4, 1, rate=RATE), quiet])
    soundfile.write(path, audio, RATE, subtype="PCM_16")
    return path


def turns(recognizer: Recognizer, talk: Path, silence: float) -> list[str]:
    """The first two; random weights may write something in silence, too."""
    stream = recognizer.stream(RATE, endpoint_silence=silence)
    events = stream.accept(soundfile.read(talk, dtype="int16")[0])
    texts = [event.text for event in events if isinstance(event, Final)]
    assert len(texts) >= 2
    return texts[:2]


def test_livekit_realtime_with_its_defaults(server: Running, recognizer: Recognizer, talk: Path) -> None:
    need("livekit.plugins.openai")
    events = drive("livekit_stt.py", server.url, talk, "realtime")
    finals = [event["text"] for event in events if event["type"] == "final_transcript"]
    assert finals[:2] == turns(recognizer, talk, 0.35)
    kinds = [event["type"] for event in events]
    assert (
        kinds.index("start_of_speech") < kinds.index("interim_transcript") < kinds.index("final_transcript")
    )


def test_livekit_rest(server: Running, recognizer: Recognizer, talk: Path) -> None:
    need("livekit.plugins.openai")
    (event,) = drive("livekit_stt.py", server.url, talk, "rest")
    assert event["text"] == recognizer.transcribe(talk).text


def test_pipecat_with_turns_of_the_server(server: Running, recognizer: Recognizer, talk: Path) -> None:
    need("pipecat.services.openai.stt")
    events = drive("pipecat_stt.py", server.url, talk, "server")
    finals = [event["text"] for event in events if event["type"] == "TranscriptionFrame"]
    assert finals[:2] == turns(recognizer, talk, 0.5)
    assert events[0]["type"] == "InterimTranscriptionFrame"


def test_pipecat_with_turns_of_its_own(server: Running, recognizer: Recognizer, talk: Path) -> None:
    need("pipecat.services.openai.stt")
    events = drive("pipecat_stt.py", server.url, talk, "local")
    finals = [event["text"] for event in events if event["type"] == "TranscriptionFrame"]
    audio = soundfile.read(talk, dtype="int16")[0]
    expected = []
    for half in np.split(audio, [len(audio) // 2]):
        stream = recognizer.stream(RATE, endpoint_silence=None)
        stream.feed(half)
        expected.append(stream.finish().text)
    assert finals == expected
