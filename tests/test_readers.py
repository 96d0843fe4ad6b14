"""Containers as the field has them: joined, unfinished, damaged. All of the sound, at its time, and the truth told."""

from __future__ import annotations

import io
import struct
import warnings

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sounds import FRAMED, RATE, alike, encoded, read, sweep, sweep_file, wav

from speech_reallm import UserError
from speech_reallm.media import open_audio

KINDS = list(FRAMED)
PCM = [
    ("WAV", "PCM_16"),
    ("WAV", "PCM_U8"),
    ("WAV", "PCM_24"),
    ("WAV", "PCM_32"),
    ("WAV", "FLOAT"),
    ("WAV", "DOUBLE"),
    ("WAV", "ULAW"),
    ("WAV", "ALAW"),
    ("WAVEX", "PCM_24"),
    ("RF64", "PCM_16"),
    ("W64", "PCM_16"),
    ("W64", "FLOAT"),
    ("AIFF", "PCM_16"),
    ("AIFF", "PCM_24"),
    ("AIFF", "PCM_S8"),
    ("AIFF", "FLOAT"),
    ("AIFF", "ULAW"),
    ("AU", "PCM_16"),
    ("AU", "FLOAT"),
    ("AU", "ALAW"),
    ("CAF", "PCM_16"),
    ("CAF", "FLOAT"),
    ("CAF", "ULAW"),
    ("CAF", "PCM_S8"),
]


@pytest.fixture(params=["av", "libsndfile"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What decodes MP3, FLAC and Ogg: PyAV, or libsndfile where that is not installed."""
    if request.param == "av":
        pytest.importorskip("av")
    else:
        monkeypatch.setitem(__import__("sys").modules, "av", None)
    return request.param


# ---- whole files


@pytest.mark.parametrize(("kind", "subtype"), PCM)
@pytest.mark.parametrize("pipe", [False, True])
def test_every_kind_of_samples(kind: str, subtype: str, pipe: bool) -> None:
    sound = sweep(1.0, 44100)
    data = encoded(np.stack([sound, sound], axis=1), kind, subtype, 44100)
    samples, rate, told = read(data, pipe=pipe)
    expected, _ = soundfile.read(io.BytesIO(data), dtype="float32")
    assert rate == 44100 and told == []
    np.testing.assert_allclose(samples, expected.mean(axis=1), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (48000, 2)])
def test_every_framed_file(decoder: str, kind: str, rate: int, channels: int) -> None:
    data = encoded(sweep(3.0, rate, channels), kind, rate=rate)
    samples, got_rate, told = read(data)
    assert told == [] and abs(len(samples) / got_rate - 3.0) < 1e-3
    assert alike(samples, sweep(3.0), got_rate)


# ---- files in parts


@pytest.mark.parametrize("kind", KINDS)
def test_joined_files_are_one(decoder: str, kind: str) -> None:
    """Also of other rates and channels, in any order."""
    first, second = sweep(2.0), sweep(1.5)
    expected = np.concatenate([first, second, first])
    for rate, channels in ((16000, 1), (24000, 2)):
        parts = [
            encoded(first, kind),
            encoded(sweep(1.5, rate, channels), kind, rate=rate),
            encoded(first, kind),
        ]
        samples, got_rate, told = read(b"".join(parts))
        assert told == [] and abs(len(samples) / got_rate - 5.5) < 0.01
        assert alike(samples, expected, got_rate)


def test_tags_between_joined_mp3s(decoder: str) -> None:
    first, second = encoded(sweep(2.0), "mp3"), encoded(sweep(1.5), "mp3")
    id3 = b"ID3\x04\0\0" + bytes([0, 0, 3, 0]) + b"TIT2" + bytes(380)
    ape = b"APETAGEX" + struct.pack("<IIII", 2000, 64, 1, 1 << 29) + bytes(8) + bytes(64)
    for between in (b"TAG" + bytes(125) + id3, ape, id3 + id3):
        samples, rate, told = read(id3 + first + between + second + b"TAG" + bytes(125))
        assert told == [] and alike(samples, np.concatenate([sweep(2.0), sweep(1.5)]), rate)


@pytest.mark.parametrize("pipe", [False, True])
@pytest.mark.parametrize("size", [None, 0, 0xFFFFFFFF])
def test_joined_wavs(size: int | None, pipe: bool) -> None:
    parts = [wav(sweep(1.0), size), wav(sweep(0.5, 24000, 2), size, 24000), wav(sweep(1.0), size)]
    samples, rate, told = read(b"".join(parts), pipe=pipe)
    assert told == [] and rate == RATE
    assert alike(samples, np.concatenate([sweep(1.0), sweep(0.5), sweep(1.0)]))


def test_chunks_before_between_and_behind() -> None:
    note = b"LIST" + struct.pack("<I", 5) + b"12345\0"
    whole = wav(sweep(0.5))
    for pipe in (False, True):
        samples, _, told = read(whole[:36] + note + whole[36:] + note + whole + note, pipe=pipe)
        assert told == [] and len(samples) == RATE


@pytest.mark.parametrize("kind", ["AIFF", "AU", "W64", "CAF"])
def test_other_containers_joined(kind: str) -> None:
    data = encoded(sweep(1.0), kind, "PCM_16")
    samples, _, _ = read(data + data)
    assert alike(samples[: int(2.0 * RATE)], np.concatenate([sweep(1.0)] * 2)) or kind == "CAF"


# ---- unfinished headers


def with_size(kind: str, size: int) -> bytes:
    """A file whose header says that its sound has `size` bytes."""
    data = bytearray(encoded(sweep(1.0), kind, "PCM_16"))
    if kind in ("WAV", "RF64"):
        at = data.index(b"data") + 4
        if kind == "RF64":
            data[at : at + 4] = b"\xff" * 4
            at = data.index(b"ds64") + 16
            data[at : at + 8] = struct.pack("<Q", size)
        else:
            data[at : at + 4] = struct.pack("<I", size & 0xFFFFFFFF)
        data[4:8] = struct.pack("<I", (size + 36) & 0xFFFFFFFF)
    elif kind == "W64":
        at = data.index(b"data\xf3") + 16
        data[at : at + 8] = struct.pack("<Q", size + 24 if size < 1 << 60 else size)
    elif kind == "AIFF":
        at = data.index(b"SSND") + 4
        data[at : at + 4] = struct.pack(">I", (size + 8 if size else 0) & 0xFFFFFFFF)
        data[4:8] = bytes(4)
        at = data.index(b"COMM") + 10
        data[at : at + 4] = struct.pack(">I", min(size // 2, 0xFFFFFFFF))
    elif kind == "AU":
        data[8:12] = struct.pack(">I", size & 0xFFFFFFFF)
    else:
        at = data.index(b"data") + 4
        data[at : at + 8] = struct.pack(">q", -1 if size > 1 << 60 else size + 4 if size else 0)
    return bytes(data)


@pytest.mark.parametrize("kind", ["WAV", "RF64", "W64", "AIFF", "AU", "CAF"])
@pytest.mark.parametrize("size", [0, 16000, 0xFFFFFFFFFFFFFFFF])
@pytest.mark.parametrize("pipe", [False, True])
def test_a_recorder_that_crashed(kind: str, size: int, pipe: bool) -> None:
    """It left a length of 0, an old one, or the largest; all of the sound is read."""
    samples, _, told = read(with_size(kind, size), pipe=pipe)
    assert alike(samples, sweep(1.0)) and abs(len(samples) - RATE) < 40
    if size == 16000:
        assert len(told) == 1 and "header that says 0.5 s" in told[0]
    else:
        assert told == []


@pytest.mark.parametrize("size", [0x7FFFF000, 0x7FFFFFFF, 0x80000000])
def test_lengths_that_mean_not_known(size: int) -> None:
    samples, _, told = read(wav(sweep(1.0), size))
    assert told == [] and len(samples) == RATE


@pytest.mark.parametrize("kind", ["WAV", "RF64", "W64", "AIFF", "AU", "CAF"])
def test_a_file_that_is_cut(kind: str) -> None:
    data = encoded(sweep(2.0), kind, "PCM_16")
    samples, _, told = read(data[: len(data) // 2])
    assert len(told) == 1 and f"cut short after {len(samples) / RATE:.1f} s of 2.0 s" in told[0]
    assert 0.9 * RATE < len(samples) <= RATE and alike(samples, sweep(2.0)[: len(samples)])


@pytest.mark.parametrize("pipe", [False, True])
@pytest.mark.parametrize("name", [b"note", b"abcd", b"LIST"])
@pytest.mark.parametrize("padded", [False, True])
def test_a_chunk_of_odd_size(name: bytes, padded: bool, pipe: bool) -> None:
    whole = wav(sweep(0.5))
    odd = name + struct.pack("<I", 13) + b"taken on site" + b"\0" * padded
    for data in (whole[:36] + odd + whole[36:], whole[:12] + odd + whole[12:]):
        samples, _, told = read(data, pipe=pipe)
        assert told == [] and len(samples) == RATE // 2


def test_a_header_without_sound_is_told() -> None:
    for data in (
        wav(np.zeros(0)),
        encoded(np.zeros(0), "AIFF", "PCM_16"),
        encoded(np.zeros(0), "AU", "PCM_16"),
    ):
        with pytest.raises(UserError, match="no audio"):
            read(data)


# ---- damage


def hole(data: bytes, a: float = 0.45, b: float = 0.55) -> bytes:
    damaged = bytearray(data)
    start, end = int(len(data) * a), int(len(data) * b)
    damaged[start:end] = bytes(end - start)
    return bytes(damaged)


@pytest.mark.parametrize("kind", KINDS)
def test_a_hole(decoder: str, kind: str) -> None:
    """What is before and behind it is there, each at its time."""
    expected = sweep(20.0)
    samples, rate, told = read(hole(sweep_file(20.0, kind)))
    assert len(told) == 1 and "is damaged at" in told[0] and "of sound are lost" in told[0], told
    slack = 0.3 if kind == "mp3" else 0.0
    assert abs(len(samples) / rate - 20.0) <= slack + 0.05
    assert alike(samples[: int(6 * rate)], expected[: 6 * RATE], rate)
    late = samples[int((14 - slack) * rate) : int((19 + slack) * rate)]
    if slack:
        # how long lost frames were is an estimate
        import soxr

        late = soxr.resample(late, rate, RATE) if rate != RATE else late
        probe = expected[15 * RATE : 17 * RATE]
        match = np.correlate(late, probe, "valid")
        assert match.max() > 0.9 * float(probe @ probe)
    else:
        assert alike(late, expected[14 * RATE : 19 * RATE], rate, slack=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_left_out_silently(decoder: str, kind: str) -> None:
    """Bytes that are not there at all."""
    data = sweep_file(20.0, kind)
    gone = data[: int(len(data) * 0.45)] + data[int(len(data) * 0.55) :]
    samples, rate, told = read(gone)
    assert len(told) == 1 and ("lost" in told[0] or "missing" in told[0]), told
    assert alike(samples[: int(6 * rate)], sweep(20.0)[: 6 * RATE], rate)


@pytest.mark.parametrize("kind", KINDS)
def test_a_framed_file_that_is_cut(decoder: str, kind: str) -> None:
    data = sweep_file(20.0, kind)
    samples, rate, told = read(data[: len(data) // 2 + 3])
    assert len(told) == 1 and "cut short" in told[0]
    assert 5 < len(samples) / rate < 11 and alike(
        samples, sweep(20.0)[: round(len(samples) / rate * RATE)], rate
    )


def test_flac_that_was_streamed(decoder: str) -> None:
    """It does not say how long it is, and there is nothing to warn of."""
    data = bytearray(encoded(sweep(3.0), "flac"))
    data[21] &= 0xF0
    data[22:42] = bytes(20)
    samples, _, told = read(bytes(data))
    assert told == [] and len(samples) == 3 * RATE
    _, _, told = read(bytes(data[: len(data) // 2]))
    assert len(told) == 1 and "cut short" in told[0]


def test_flac_behind_a_tag(decoder: str) -> None:
    id3 = b"ID3\x04\0\0" + bytes([0, 0, 3, 0]) + bytes(384)
    samples, _, told = read(id3 + encoded(sweep(1.0), "flac") + b"TAG" + bytes(125))
    assert told == [] and len(samples) == RATE


def test_nan_is_silence_and_told() -> None:
    sound = sweep(3.0)
    sound[40000], sound[20000], sound[20001] = np.nan, np.inf, 1e20
    for kind in ("WAV", "W64", "AU", "CAF"):
        samples, _, told = read(encoded(sound, kind, "FLOAT"))
        assert len(samples) == 3 * RATE and not samples[[20000, 20001, 40000]].any()
        assert len(told) == 1 and "NaN" in told[0] and "3 of them" in told[0]
    with pytest.raises(UserError, match="NaN"):
        read(encoded(sound * np.nan, "WAV", "FLOAT"))
    with pytest.raises(UserError, match="scale"):
        read(encoded(sweep(1.0) * 32767, "WAV", "FLOAT"))


# ---- nothing does harm


@pytest.fixture(scope="module")
def wholes() -> list[bytes]:
    kinds = [(kind, None) for kind in KINDS] + [
        ("WAV", "PCM_16"),
        ("WAVEX", "FLOAT"),
        ("RF64", "PCM_24"),
        ("W64", "PCM_16"),
        ("AIFF", "FLOAT"),
        ("AU", "ULAW"),
        ("CAF", "PCM_16"),
        ("WAV", "IMA_ADPCM"),
    ]
    return [encoded(sweep(0.3, 8000), kind, subtype, 8000) for kind, subtype in kinds]


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    which=st.integers(0, 11),
    other=st.integers(0, 11),
    cut=st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=20),
    erased=st.tuples(st.floats(0, 1), st.integers(0, 3000)),
    pipe=st.booleans(),
)
@example(which=0, other=1, cut=1.0, flips=[], erased=(0.5, 0), pipe=False)
def test_no_damage_does_harm(
    wholes: list[bytes],
    which: int,
    other: int,
    cut: float,
    flips: list[tuple[float, int]],
    erased: tuple[float, int],
    pipe: bool,
) -> None:
    data = bytearray(wholes[which] + wholes[other])
    for place, value in flips:
        # headers are where it is interesting
        data[int(place**3 * (len(data) - 1))] = value
    start = int(erased[0] * len(data))
    data[start : start + erased[1]] = bytes(min(erased[1], len(data) - start))
    harmless(bytes(data[: int(cut * len(data))]), pipe)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(
        [b"", b"RIFF\0\0\0\0WAVE", b"fLaC\0\0\0\x22", b"OggS\0\2", b"ID3", b".snd", b"caff\0\1\0\0", b"FORM"]
    ),
    st.binary(max_size=300),
    st.booleans(),
)
def test_no_bytes_do_harm(head: bytes, rest: bytes, pipe: bool) -> None:
    harmless(head + rest, pipe)


def harmless(data: bytes, pipe: bool) -> None:
    """It is read or refused in one line, and what is read is finite and not much longer than the bytes allow."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            samples, _, told = read(data, pipe=pipe)
        except UserError as err:
            assert "\n" not in str(err)
            return
    assert len(samples) < 10_000_000 and len(told) < 20
    assert all("\n" not in text for text in told)


def test_a_source_closes_what_it_opened(tmp_path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(sweep(0.2)))
    source = open_audio(path)
    source.close()
    source.close()
    file = io.BytesIO(path.read_bytes())
    open_audio(file).close()
    assert not file.closed
