"""Audio of every kind comes in as mono float32 at 16 kHz; what is unusable is refused in one clear line."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from fake_model import speech
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_reallm.audio import AudioFile, AudioWarning, Resampler, read_audio, to_mono
from speech_reallm.errors import UserError


def write(path: Path, samples: np.ndarray, rate: int = 16000, **options: str) -> Path:
    soundfile.write(path, samples, rate, **options)
    return path


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000, 96000, 192000])
def test_every_rate_becomes_16_khz(tmp_path: Path, rate: int) -> None:
    tone = (0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)).astype(np.float32)
    audio = read_audio(write(tmp_path / "a.wav", tone, rate, subtype="FLOAT"))
    assert audio.dtype == np.float32 and abs(len(audio) - 16000) <= 1
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(len(audio)) / 16000)
    assert np.abs(audio - expected)[500:-500].max() < 1e-3


@pytest.mark.parametrize(
    ("format", "subtype", "error"),
    [
        ("WAV", "PCM_U8", 1e-2),
        ("WAV", "PCM_16", 1e-4),
        ("WAV", "PCM_24", 1e-6),
        ("WAV", "PCM_32", 1e-6),
        ("WAV", "FLOAT", 1e-6),
        ("WAV", "DOUBLE", 1e-6),
        ("WAV", "ULAW", 3e-2),
        ("AIFF", "PCM_16", 1e-4),
        ("FLAC", "PCM_16", 1e-4),
    ],
)
def test_every_sample_format(tmp_path: Path, format: str, subtype: str, error: float) -> None:
    audio = speech(0.3)
    file = write(tmp_path / f"a.{format.lower()}", audio, format=format, subtype=subtype)
    np.testing.assert_allclose(read_audio(file), audio, atol=error)


@pytest.mark.parametrize(("format", "subtype"), [("MP3", None), ("OGG", "VORBIS"), ("OGG", "OPUS")])
def test_compressed_files_read_in_blocks_without_seams(
    tmp_path: Path, format: str, subtype: str | None
) -> None:
    path = tmp_path / f"a.{format.lower()}"
    with soundfile.SoundFile(path, "w", 16000, 1, format=format, subtype=subtype) as file:
        file.write(speech(4))
    whole, _ = soundfile.read(path, dtype="float32")
    with AudioFile(path) as source:
        blocks = np.concatenate(list(source.blocks(0.1)))
    np.testing.assert_allclose(blocks, whole, atol=1e-5)


@pytest.mark.parametrize("channels", [2, 6, 16])
def test_channels_are_averaged(tmp_path: Path, channels: int) -> None:
    samples = np.stack([speech(0.2, seed) for seed in range(channels)], axis=1)
    audio = read_audio(write(tmp_path / "a.wav", samples, subtype="FLOAT"))
    np.testing.assert_allclose(audio, samples.mean(axis=1), atol=1e-6)


def test_a_ten_millisecond_file_and_silence_are_audio(tmp_path: Path) -> None:
    assert len(read_audio(write(tmp_path / "a.wav", np.zeros(160, np.float32)))) == 160
    assert len(read_audio(write(tmp_path / "b.wav", np.zeros(80, np.float32), 8000))) == 160


def test_blocks_are_small(tmp_path: Path) -> None:
    with AudioFile(write(tmp_path / "a.wav", speech(3))) as source:
        assert source.duration == pytest.approx(3)
        assert {len(block) for block in source.blocks(0.5)} == {8000}


def refused(path: Path, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        read_audio(path)
    assert "\n" not in str(caught.value) and path.name in str(caught.value)


def test_unusable_files_are_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none.wav", "no such file")
    refused(tmp_path, "folder")
    (tmp_path / "empty.wav").touch()
    refused(tmp_path / "empty.wav", "empty")
    (tmp_path / "text.wav").write_text("this is no audio " * 100)
    refused(tmp_path / "text.wav", "not audio")
    (tmp_path / "noise.mp3").write_bytes(np.random.default_rng(0).bytes(5000))
    refused(tmp_path / "noise.mp3", "not audio|damaged|no audio")
    (tmp_path / "a.raw").write_bytes(bytes(3200))
    refused(tmp_path / "a.raw", "raw")
    refused(write(tmp_path / "header.wav", np.zeros(0, np.float32)), "no audio")
    refused(write(tmp_path / "slow.wav", np.zeros(100, np.float32), 4000), "sample rate")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(tmp_path: Path, value: float) -> None:
    audio = speech(0.5)
    audio[1000] = value
    refused(write(tmp_path / "a.wav", audio, subtype="FLOAT"), "NaN or infinite")
    with pytest.raises(UserError, match="NaN or infinite"):
        to_mono(audio)


def test_integers_in_float_samples_are_refused(tmp_path: Path) -> None:
    refused(write(tmp_path / "a.wav", speech(0.5) * 32768, subtype="FLOAT"), r"\[-1, 1\]")


def test_a_truncated_wav_is_used_as_far_as_it_goes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", speech(2))
    path.write_bytes(path.read_bytes()[:32044])
    with pytest.warns(AudioWarning, match="cut short"):
        assert len(read_audio(path)) == 16000


@pytest.mark.parametrize(("format", "subtype"), [("FLAC", None), ("MP3", None), ("OGG", "VORBIS")])
def test_a_truncated_compressed_file_is_used_as_far_as_it_goes(
    tmp_path: Path, format: str, subtype: str | None
) -> None:
    path = tmp_path / f"a.{format.lower()}"
    with soundfile.SoundFile(path, "w", 16000, 1, format=format, subtype=subtype) as file:
        file.write(speech(20))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert 5 * 16000 < len(read_audio(path)) < 15 * 16000
    # a cut Ogg file looks like a short one
    assert format == "OGG" or any(issubclass(w.category, AudioWarning) for w in caught)


def test_a_whole_file_gives_no_warning(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for format in ("WAV", "FLAC", "MP3"):
            read_audio(write(tmp_path / f"a.{format.lower()}", speech(3), format=format))


@pytest.mark.parametrize("rate", [8000, 44100, 192000])
@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 6000), max_size=12))
def test_resampling_does_not_depend_on_the_cuts(rate: int, cuts: list[int]) -> None:
    audio = speech(0.2, rate=rate)
    stream = Resampler(rate)
    parts = [stream.push(part) for part in np.split(audio, sorted(c for c in cuts if c < len(audio)))]
    parts.append(stream.push(np.zeros(0, np.float32), last=True))
    np.testing.assert_allclose(np.concatenate(parts), soxr.resample(audio, rate, 16000), atol=1e-6)


def test_pcm_of_every_kind() -> None:
    audio = speech(0.1)
    integers = np.round(audio * 32767).astype(np.int16)
    np.testing.assert_allclose(to_mono(integers), audio, atol=1e-4)
    np.testing.assert_array_equal(to_mono(integers.tobytes()), to_mono(integers))
    np.testing.assert_array_equal(to_mono(memoryview(integers.tobytes())), to_mono(integers))
    np.testing.assert_allclose(to_mono(integers.astype(np.int32) << 16), to_mono(integers), atol=1e-6)
    np.testing.assert_allclose(to_mono(audio.astype(np.float64)), audio)
    np.testing.assert_allclose(to_mono(np.stack([audio, audio * 0], axis=1)), audio / 2)
    np.testing.assert_allclose(to_mono(np.stack([integers, integers], axis=1)), audio, atol=1e-4)
    assert len(to_mono(b"")) == 0 and len(to_mono(np.zeros((0, 2), np.float32))) == 0


@pytest.mark.parametrize(
    "pcm",
    [
        np.zeros(4, np.uint8),
        np.zeros((2, 2, 2)),
        np.zeros(3, complex),
        b"123",
        np.zeros((4, 0)),
        "text",
        None,
    ],
)
def test_other_pcm_is_refused(pcm: object) -> None:
    with pytest.raises(UserError, match="PCM"):
        to_mono(pcm)


@pytest.mark.parametrize("rate", [0, -1, 7999, 192001, 16000.5, True])
def test_odd_rates_are_refused(rate: float) -> None:
    with pytest.raises(UserError, match="sample rate"):
        Resampler(rate)
