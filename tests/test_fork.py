"""Programs that fork after they have recognised something: the child ends, and recognises too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from fake_model import speech

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")

PROGRAM = """
import os, sys, time
from speech_reallm import Recognizer
from speech_reallm.onnx_session import OnnxSession
model, audio, threads, use = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
recognizer = Recognizer.load(model, threads=threads)
text = recognizer.transcribe(audio).text
# one that was in the middle of a call when the process forked
from pathlib import Path
busy = OnnxSession(Path(model) / "encoder.onnx", 1)
busy._calls, before = 1, busy._session
child = os.fork()
if child == 0:
    if use == "use":
        if recognizer.transcribe(audio).text != text:
            os._exit(3)
        if busy.get_inputs()[0].name not in [i.name for i in before.get_inputs()] or busy._session is before:
            os._exit(4)
    # runs all that is run when a program ends
    sys.exit(0)
ends = time.monotonic() + 100
while time.monotonic() < ends:
    ended, status = os.waitpid(child, os.WNOHANG)
    if ended:
        print("ended", status)
        break
    time.sleep(0.02)
else:
    os.kill(child, 9)
    print("hangs")
"""


@pytest.mark.parametrize(("threads", "use"), [(1, "use"), (2, "use"), (2, "leave")])
def test_a_forked_child_ends(threads: int, use: str, model_folder: Path, tmp_path: Path) -> None:
    audio = tmp_path / "talk.wav"
    soundfile.write(audio, speech(1.5), 16000)
    arguments = [str(model_folder), str(audio), str(threads), use]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, timeout=200
    )
    assert done.stdout == "ended 0\n", done.stderr
