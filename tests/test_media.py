"""Video and compressed sound through PyAV: the right samples at the right times, and no harm from bad files."""

from __future__ import annotations

import builtins
import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fake_model import speech

from speech_reallm import Recognizer, UserError
from speech_reallm.audio import AudioFile, AudioWarning
from speech_reallm.media import MediaFile, open_audio

av = pytest.importorskip("av", reason="PyAV is not installed")


def write(
    path: Path, samples: np.ndarray, *, codec: str, rate: int = 16000, video: bool = False, at: float = 0.0
):
    """A media file by way of PyAV; the sound begins `at` seconds."""
    with av.open(str(path), "w") as container:
        track = container.add_stream(codec, rate=rate, layout="stereo")
        if video:
            picture = container.add_stream("mpeg4", rate=10)
            picture.width = picture.height = 32
            for i in range(10):
                frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
                frame.pts = i
                container.mux(picture.encode(frame))
            container.mux(picture.encode())
        for start in range(0, len(samples), 1024):
            part = samples[start : start + 1024]
            stereo = np.ascontiguousarray(np.stack([part, part]))
            frame = av.AudioFrame.from_ndarray(stereo, format="fltp", layout="stereo")
            frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
            frame.pts = start + int(at * rate)
            container.mux(track.encode(frame))
        container.mux(track.encode())
    return path


def read(path: Path, seconds: float = 0.1) -> np.ndarray:
    with open_audio(path) as source:
        assert isinstance(source, MediaFile)
        blocks = list(source.blocks(seconds))
        assert all(b.dtype == np.float32 and 0 < len(b) <= seconds * source.rate for b in blocks)
        samples = np.concatenate(blocks)
        assert source.duration == pytest.approx(len(samples) / source.rate)
    return samples


def tone(seconds: float, rate: int = 16000) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


@pytest.mark.parametrize(("suffix", "video"), [("m4a", False), ("mp4", True), ("mkv", True)])
def test_the_sound_of_a_file(tmp_path: Path, suffix: str, video: bool) -> None:
    path = write(tmp_path / f"a.{suffix}", tone(1.5, 44100), codec="aac", rate=44100, video=video)
    samples = read(path)
    assert len(samples) == pytest.approx(1.5 * 44100, abs=0.1 * 44100)
    middle = samples[22050:44100]
    spectrum = np.abs(np.fft.rfft(middle))
    assert np.argmax(spectrum) == pytest.approx(440 / 2, abs=1)
    assert np.abs(middle).max() == pytest.approx(0.5, abs=0.05)


def test_sound_that_begins_late_keeps_its_time(tmp_path: Path) -> None:
    """Subtitles must fit the picture: what is before the sound counts as silence."""
    samples = read(write(tmp_path / "a.mkv", tone(1.0), codec="aac", video=True, at=2.5))
    assert np.flatnonzero(np.abs(samples) > 0.2)[0] / 16000 == pytest.approx(2.5, abs=0.15)


def test_a_recogniser_reads_it(tmp_path: Path, recognizer: Recognizer) -> None:
    path = write(tmp_path / "film.mp4", speech(1.5), codec="aac", video=True)
    transcript = recognizer.transcribe(path)
    assert transcript.text and transcript.duration == pytest.approx(1.5, abs=0.15)


def test_files_that_libsndfile_knows_stay_with_it(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", speech(0.2), 16000)
    with open_audio(tmp_path / "a.flac") as source:
        assert isinstance(source, AudioFile)


def refused(path: Path, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        read(path)
    assert "\n" not in str(caught.value) and path.name in str(caught.value)


def test_unusable_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("this is no film " * 100)
    refused(tmp_path / "text.mp4", "neither audio nor video")
    (tmp_path / "noise.mkv").write_bytes(np.random.default_rng(0).bytes(5000))
    refused(tmp_path / "noise.mkv", "neither|decoded|no sound")
    with av.open(str(tmp_path / "mute.mp4"), "w") as container:
        picture = container.add_stream("mpeg4", rate=10)
        picture.width = picture.height = 32
        container.mux(picture.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(picture.encode())
    refused(tmp_path / "mute.mp4", "no sound track")


def test_a_playlist_opens_no_other_file(tmp_path: Path) -> None:
    """It could name any file or address."""
    soundfile.write(tmp_path / "secret.wav", speech(1), 16000)
    (tmp_path / "list.m3u8").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.wav\n#EXT-X-ENDLIST\n"
    )
    refused(tmp_path / "list.m3u8", "neither audio nor video")
    (tmp_path / "list.txt").write_text("ffconcat version 1.0\nfile secret.wav\n")
    refused(tmp_path / "list.txt", "neither audio nor video")


def test_a_damaged_file_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", speech(4), codec="aac")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(2000)
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AudioWarning)
        samples = read(path)
    assert np.isfinite(samples).all() and 1.5 * 16000 < len(samples) < 6 * 16000


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_no_damage_does_harm(tmp_path: Path, suffix: str) -> None:
    whole = write(tmp_path / f"whole.{suffix}", tone(0.3), codec="aac").read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / f"damaged.{suffix}"
    for _ in range(15):
        data = bytearray(whole[: rng.integers(1, len(whole) + 1)] if rng.random() < 0.3 else whole)
        for at in rng.integers(0, len(data), rng.integers(1, 30)):
            data[at] = rng.integers(256)
        path.write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AudioWarning)
            try:
                samples = read(path)
            except UserError as err:
                assert "\n" not in str(err)
                continue
        assert np.isfinite(samples).all()


def test_without_pyav_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.m4a", tone(0.2), codec="aac")
    real = builtins.__import__

    def missing(name: str, *args, **kwargs):
        if name == "av":
            raise ModuleNotFoundError("No module named 'av'", name="av")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    refused(path, r"-m pip install 'av>=14'")
