"""Many files at once give what each alone would; memory does not grow with their length."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fake_model import speech

from speech_reallm import Final, Recognizer, UserError
from speech_reallm.audio import AudioWarning
from speech_reallm.batch import transcribe_files
from speech_reallm.formats import to_json


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("audio")
    paths = []
    for i, (seconds, rate) in enumerate(
        [(2.5, 16000), (0.3, 8000), (1.2, 44100), (3.1, 16000), (0.9, 48000)]
    ):
        paths.append(folder / f"{i}.wav")
        soundfile.write(paths[-1], speech(seconds, i, rate), rate)
    return paths


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_each_as_if_alone(recognizer: Recognizer, files: list[Path], batch: int) -> None:
    results = {r.index: r for r in transcribe_files(recognizer, files, batch=batch)}
    assert sorted(results) == list(range(len(files)))
    for index, path in enumerate(files):
        result, alone = results[index], recognizer.transcribe(path)
        assert result.complete and result.error is None
        assert (result.transcript.text, result.transcript.file) == (alone.text, str(path))
        assert result.transcript.duration == alone.duration and result.transcript.rtf > 0
        for a, b in zip(result.transcript.words, alone.words, strict=True):
            assert (a.word, a.start, a.end) == (b.word, b.start, b.end)


def test_bad_files_are_reported_and_the_others_done(
    recognizer: Recognizer, files: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "empty.wav").touch()
    soundfile.write(tmp_path / "broken.wav", np.full(16000, np.nan), 16000, subtype="FLOAT")
    inputs = [tmp_path / "empty.wav", files[0], tmp_path / "broken.wav", tmp_path / "none.wav", files[1]]
    with pytest.warns(AudioWarning, match="NaN"):
        results = {r.index: r for r in transcribe_files(recognizer, inputs, batch=2)}
    assert [isinstance(results[i].error, UserError) for i in range(5)] == [True, False, True, True, False]
    assert results[1].transcript.text == recognizer.transcribe(files[0]).text


def test_what_is_wrong_late_is_kept_with_the_transcript(recognizer: Recognizer, tmp_path: Path) -> None:
    """A NaN near the end throws nothing away, and the transcript says that it is not whole."""
    sound = speech(2.5)
    soundfile.write(tmp_path / "whole.wav", sound, 16000, subtype="FLOAT")
    sound[39000] = np.nan
    soundfile.write(tmp_path / "field.wav", sound, 16000, subtype="FLOAT")
    with pytest.warns(AudioWarning, match="NaN"):
        (result,) = transcribe_files(recognizer, [tmp_path / "field.wav"])
    assert result.error is None and result.complete
    assert (
        result.transcript.text.split()[:2] == recognizer.transcribe(tmp_path / "whole.wav").text.split()[:2]
    )
    assert len(result.transcript.warnings) == 1 and "NaN" in result.transcript.warnings[0]
    fields = json.loads(to_json(result.transcript))
    assert fields["complete"] is False and fields["warnings"] == list(result.transcript.warnings)
    with pytest.warns(AudioWarning):
        alone = recognizer.transcribe(tmp_path / "field.wav")
    assert (alone.text, alone.warnings) == (result.transcript.text, result.transcript.warnings)
    assert "warnings" not in json.loads(to_json(recognizer.transcribe(tmp_path / "whole.wav")))


def test_events_and_progress(recognizer: Recognizer, files: list[Path]) -> None:
    finals, heard = {i: [] for i in range(len(files))}, {}

    def on_event(index: int, event: object) -> None:
        if isinstance(event, Final):
            finals[index].append(event)

    def on_audio(index: int, seconds: float, of: float) -> None:
        assert heard.get(index, 0) < seconds <= of + 1e-6
        heard[index] = seconds

    for result in transcribe_files(recognizer, files, on_event=on_event, on_audio=on_audio):
        assert tuple(finals[result.index]) == result.transcript.segments
        assert heard[result.index] == pytest.approx(result.transcript.duration)


def test_stopping_keeps_what_was_heard(recognizer: Recognizer, files: list[Path]) -> None:
    def on_audio(index: int, seconds: float, of: float) -> bool:
        return not (index == 0 and seconds > 2)

    results = {r.index: r for r in transcribe_files(recognizer, files, batch=2, on_audio=on_audio)}
    assert not results[0].complete and results[0].transcript.text
    assert 4 not in results, "files that had not begun are left alone"
    assert recognizer.transcribe(files[0]).text.startswith(results[0].transcript.segments[0].text[:3])


class Endless:
    """So many seconds of silence and sound, made when they are read."""

    rate = 16000

    def __init__(self, seconds: int) -> None:
        self.duration = seconds

    def blocks(self, seconds: float) -> Iterator[np.ndarray]:
        block = np.zeros(int(seconds * self.rate), np.float32)
        for _ in range(int(self.duration / seconds)):
            yield block

    def close(self) -> None:
        pass


def test_memory_does_not_grow_with_length(recognizer: Recognizer) -> None:
    def peak(seconds: int) -> int:
        tracemalloc.start()
        results = list(transcribe_files(recognizer, [seconds], open_file=Endless))
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert results[0].transcript.duration == pytest.approx(seconds, abs=1)
        return used

    peak(5)
    # 160 s of samples are 10 MB
    assert peak(180) < peak(20) + 500_000
