"""Video and compressed sound through PyAV: the right samples at the right times, and no harm from bad files."""

from __future__ import annotations

import io
import struct
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from fake_model import speech
from sounds import RATE, alike, by_av, encoded, sweep
from sounds import read as of_bytes

from speech_reallm import Recognizer, UserError
from speech_reallm.audio import AudioWarning
from speech_reallm.media import open_audio

av = pytest.importorskip("av", reason="PyAV is not installed")


def read(path: Path, seconds: float = 0.1, **options: object) -> np.ndarray:
    with open_audio(path, **options) as source:
        blocks = list(source.blocks(seconds))
        assert all(b.dtype == np.float32 and 0 < len(b) <= seconds * source.rate for b in blocks)
        samples = np.concatenate(blocks)
        assert source.duration == pytest.approx(len(samples) / source.rate)
    return samples


def tone(seconds: float, rate: int = 48000) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


CONTAINERS = [
    ("mp4", "aac", "m4a"),
    ("matroska", "aac", "mkv"),
    ("webm", "libopus", "webm"),
    ("adts", "aac", "aac"),
    ("mpegts", "aac", "ts"),
    ("mp4", "libopus", "mp4"),
    ("avi", "mp3", "avi"),
    ("caf", "alac", "caf"),
    ("wv", "wavpack", "wv"),
]


@pytest.mark.parametrize(("form", "codec", "suffix"), CONTAINERS)
def test_the_sound_of_a_file(tmp_path: Path, form: str, codec: str, suffix: str) -> None:
    try:
        data = by_av([sweep(3.0, 48000)], form, codec)
    except (av.FFmpegError, ValueError):
        pytest.skip("this FFmpeg cannot write it")
    for pipe in (False, True):
        if pipe and suffix in ("m4a", "mp4", "caf"):
            continue
        samples, rate, told = of_bytes(data, pipe=pipe)
        # encoders are late by some milliseconds, and add some at the end
        assert told == [] and alike(samples, sweep(3.0), rate, slack=0.05)
    (tmp_path / f"a.{suffix}").write_bytes(data)
    np.testing.assert_array_equal(read(tmp_path / f"a.{suffix}"), of_bytes(data)[0])


@pytest.mark.parametrize("form", ["mp4", "matroska"])
def test_with_a_picture(form: str) -> None:
    samples, rate, told = of_bytes(by_av([sweep(1.5, 48000)], form, "aac", video=True))
    assert told == [] and alike(samples, sweep(1.5), rate, slack=0.05)


def test_sound_that_begins_late_keeps_its_time() -> None:
    """Subtitles must fit the picture: what is before the sound counts as silence, and nothing is lost."""
    samples, rate, told = of_bytes(by_av([tone(1.0)], "matroska", "aac", video=True, at=2.5))
    assert told == [] and np.flatnonzero(np.abs(samples) > 0.2)[0] / rate == pytest.approx(2.5, abs=0.15)


def test_a_recogniser_reads_it(tmp_path: Path, recognizer: Recognizer) -> None:
    (tmp_path / "film.mp4").write_bytes(by_av([speech(1.5, rate=48000)], "mp4", "aac", video=True))
    transcript = recognizer.transcribe(tmp_path / "film.mp4")
    assert transcript.text and transcript.duration == pytest.approx(1.5, abs=0.15)


@pytest.mark.parametrize(("form", "codec"), [("webm", "libopus"), ("matroska", "aac"), ("mp4", "aac")])
def test_a_file_that_is_cut(form: str, codec: str) -> None:
    data = by_av([sweep(8.0, 48000)], form, codec)
    if form == "mp4":
        # the index must come first, or nothing is left
        data = faststart(data)
    samples, rate, told = of_bytes(data[: len(data) // 2])
    assert len(told) == 1 and "cut short" in told[0], told
    assert 2.5 < len(samples) / rate < 5.5
    _, _, told = of_bytes(data)
    assert told == []


def faststart(data: bytes) -> bytes:
    """The same MP4 with its index before the sound, as FFmpeg's option of that name does with files on disk."""
    at, boxes = 0, {}
    while at < len(data):
        size, name = struct.unpack(">I4s", data[at : at + 8])
        boxes[name] = data[at : at + size]
        at += size
    moov = bytearray(boxes[b"moov"])
    first = len(boxes[b"ftyp"]) + len(moov) + 8
    place = moov.index(b"stco") + 8
    (count,) = struct.unpack(">I", moov[place : place + 4])
    offsets = struct.unpack(f">{count}I", moov[place + 4 : place + 4 + 4 * count])
    shift = first - (data.index(b"mdat") + 4)
    moov[place + 4 : place + 4 + 4 * count] = struct.pack(f">{count}I", *(o + shift for o in offsets))
    return boxes[b"ftyp"] + bytes(moov) + boxes[b"mdat"]


def test_what_a_browser_records_has_no_length() -> None:
    data = by_av([sweep(3.0, 48000)], "webm", "libopus", options={"live": "1"})
    samples, rate, told = of_bytes(data)
    assert told == [] and alike(samples, sweep(3.0), rate, slack=0.05)


def test_an_mp4_without_its_index_says_so() -> None:
    data = by_av([sweep(2.0, 48000)], "mp4", "aac")
    with pytest.raises(UserError, match="index"):
        of_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("form", "codec"), [("webm", "libopus"), ("matroska", "aac"), ("adts", "aac"), ("mpegts", "aac")]
)
def test_a_hole(form: str, codec: str) -> None:
    """What is behind it is there at its time, and the loss is told."""
    data = bytearray(by_av([sweep(20.0, 48000)], form, codec))
    start, end = int(len(data) * 0.45), int(len(data) * 0.55)
    data[start:end] = bytes(end - start)
    samples, rate, told = of_bytes(bytes(data))
    assert len(told) == 1 and "damaged" in told[0] and "lost" in told[0], told
    assert len(samples) / rate == pytest.approx(20.0, abs=0.4)
    assert alike(samples[: 6 * rate], sweep(20.0)[: 6 * RATE], rate, slack=0.05)
    late = soxr.resample(samples[int(13.5 * rate) : int(18.5 * rate)], rate, RATE)
    probe = sweep(20.0)[15 * RATE : 17 * RATE]
    assert np.correlate(late, probe, "valid").max() > 0.8 * float(probe @ probe)


def test_a_pause_of_the_writer_is_no_damage() -> None:
    """Packets that were never written, as of a browser that was muted: silence, and nothing is told."""
    samples, rate, told = of_bytes(by_av([sweep(6.0, 48000)], "webm", "libopus", skipped=range(100, 200)))
    assert told == [] and len(samples) / rate == pytest.approx(6.0, abs=0.1)
    assert not samples[int(2.3 * rate) : int(3.7 * rate)].any()


@pytest.mark.parametrize("channels", [6, 8, 16])
def test_many_channels(channels: int) -> None:
    """Planar frames of eight channels and more must be looked at with care."""
    file = io.BytesIO()
    sound = sweep(1.0, 48000)
    layout = {6: "5.1", 8: "7.1", 16: "hexadecagonal"}[channels]
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("wavpack", rate=48000, layout=layout)
        for start in range(0, len(sound), 4800):
            part = np.repeat(sound[None, start : start + 4800], channels, axis=0).reshape(1, -1, order="F")
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(part), format="flt", layout=layout)
            frame.sample_rate, frame.pts = 48000, start
            resampler = av.AudioResampler(format="fltp", layout=layout, rate=48000)
            for planar in resampler.resample(frame):
                container.mux(stream.encode(planar))
        container.mux(stream.encode(None))
    samples, rate, _ = of_bytes(file.getvalue())
    assert alike(samples, sweep(1.0), rate)


# what was found in other readers lies in folders beside these
FINDINGS = sorted(p for p in (Path(__file__).parent / "findings").glob("*") if p.is_file())


@pytest.mark.parametrize("path", FINDINGS, ids=lambda path: path.name)
@pytest.mark.parametrize("pipe", [False, True])
def test_what_fuzzing_has_found(path: Path, pipe: bool) -> None:
    """Files that once crashed the reader; each is read or refused in one line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AudioWarning)
        try:
            samples, _, _ = of_bytes(path.read_bytes(), pipe=pipe)
        except UserError as err:
            assert "\n" not in str(err)
            return
    assert np.isfinite(samples).all()


# ---- tracks


FIRST, SECOND = tone(1.0), np.zeros(48000, np.float32)


@pytest.mark.parametrize(
    ("dispositions", "titles", "taken"),
    [
        (("", ""), (), 1),
        (("comment", "default"), (), 2),
        (("comment", ""), (), 2),
        (("default", ""), (), 1),
        (("", ""), ("Director's commentary", "English"), 2),
        (("visual_impaired", "default"), (), 2),
    ],
)
def test_the_track_that_players_take(
    dispositions: tuple[str, ...], titles: tuple[str, ...], taken: int
) -> None:
    for loud in (1, 2):
        tracks = [FIRST, SECOND] if loud == 1 else [SECOND, FIRST]
        data = by_av(tracks, "matroska", "aac", dispositions=dispositions, titles=titles)
        samples, _, told = of_bytes(data)
        assert (np.abs(samples).max() > 0.3) == (loud == taken)
        assert len(told) == 1 and f"track {taken}" in told[0] and "--track" in told[0]
        for track in (1, 2):
            samples, _, told = of_bytes(data, track=track)
            assert (np.abs(samples).max() > 0.3) == (loud == track) and told == []
        with pytest.raises(UserError, match="no track 3"):
            of_bytes(data, track=3)


def test_files_with_one_track() -> None:
    for kind in ("WAV", "mp3", "flac"):
        assert len(of_bytes(encoded(sweep(0.5), kind), track=1)[0])
        with pytest.raises(UserError, match="no track 2"):
            of_bytes(encoded(sweep(0.5), kind), track=2)


def test_a_channel_of_a_file(tmp_path: Path, recognizer: Recognizer) -> None:
    left, right = speech(1.0, 1), speech(1.0, 2)
    stereo = np.stack([left, right], axis=1)
    for kind in ("WAV", "flac"):
        (tmp_path / "a").write_bytes(encoded(stereo, kind))
        np.testing.assert_allclose(read(tmp_path / "a", channel="left"), left, atol=1e-3)
        np.testing.assert_allclose(read(tmp_path / "a", channel=2), right, atol=1e-3)
    text = recognizer.transcribe(tmp_path / "a", channel="right").text
    (tmp_path / "b").write_bytes(encoded(right, "flac"))
    assert text == recognizer.transcribe(tmp_path / "b").text
    with pytest.raises(UserError, match="no channel 3"):
        open_audio(tmp_path / "a", channel=3)


def refused(path: Path, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        read(path)
    assert "\n" not in str(caught.value) and path.name in str(caught.value)


def test_unusable_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("this is no film " * 100)
    refused(tmp_path / "text.mp4", "neither audio nor video")
    (tmp_path / "noise.mkv").write_bytes(np.random.default_rng(0).bytes(5000))
    refused(tmp_path / "noise.mkv", "neither|decoded|no sound")
    refused(tmp_path / "none.wav", "no such file")
    refused(tmp_path, "folder")
    (tmp_path / "empty.wav").touch()
    refused(tmp_path / "empty.wav", "empty")
    (tmp_path / "a.raw").write_bytes(bytes(3200))
    refused(tmp_path / "a.raw", "raw")
    (tmp_path / "noise.mp3").write_bytes(np.random.default_rng(0).bytes(5000))
    refused(tmp_path / "noise.mp3", "neither|decoded|no sound")
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


@pytest.mark.parametrize(
    ("form", "suffix"), [("mp4", "mp4"), ("matroska", "mkv"), ("adts", "aac"), ("mpegts", "ts")]
)
def test_no_damage_does_harm(tmp_path: Path, form: str, suffix: str) -> None:
    whole = by_av([tone(0.3)], form, "aac")
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
    path = tmp_path / "a.m4a"
    path.write_bytes(by_av([tone(0.2)], "mp4", "aac"))
    monkeypatch.setitem(sys.modules, "av", None)
    refused(path, r"-m pip install 'av>=14'")
