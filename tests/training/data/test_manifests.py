import gzip
import json
import logging

import numpy as np
import pytest
import soundfile
from lhotse import CutSet
from lhotse.supervision import AlignmentItem

from speech_reallm.errors import UserError
from speech_reallm.training.data.manifests import load_audio, load_manifest


def write_audio(path, seconds=1.0, rate=16000, channels=1, click=None, **kwargs):
    """Soft noise, with a loud click at `click` seconds if given."""
    audio = 0.01 * np.random.default_rng(0).standard_normal((round(seconds * rate), channels))
    if click is not None:
        audio[round(click * rate)] = 0.9
    soundfile.write(path, audio.astype(np.float32), rate, **kwargs)


def write_rows(path, rows):
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return path


def row(**kwargs):
    return {"id": "a", "audio": "a.flac", "text": "Hello, you.", "duration": 1.0, "speaker": "s"} | kwargs


@pytest.fixture
def folder(tmp_path):
    write_audio(tmp_path / "a.flac")
    return tmp_path


def test_a_plain_row_becomes_a_cut(folder):
    cuts = load_manifest(write_rows(folder / "m.jsonl", [row(corpus="c", split="dev", language="en")]))
    (cut,) = cuts
    (supervision,) = cut.supervisions
    assert (cut.id, cut.duration, cut.sampling_rate, cut.num_samples) == ("a", 1.0, 16000, 16000)
    assert (supervision.text, supervision.speaker, supervision.language) == ("Hello, you.", "s", "en")
    assert supervision.custom == {"corpus": "c", "split": "dev"}
    audio = load_audio(cut)
    assert audio.dtype == np.float32 and audio.shape == (16000,)


def test_audio_is_relative_to_the_manifest(folder, monkeypatch):
    (folder / "sub").mkdir()
    (folder / "sub" / "m.jsonl").write_text(json.dumps(row(audio="../a.flac")) + "\n")
    monkeypatch.chdir(folder)
    assert len(load_audio(load_manifest("sub/m.jsonl")[0])) == 16000


def test_duration_and_id_may_be_missing(folder):
    plain = {"audio": "a.flac", "text": "x"}
    (cut,) = load_manifest(write_rows(folder / "m.jsonl", [plain]))
    assert cut.id == "a" and cut.num_samples == 16000


@pytest.mark.parametrize("name, kwargs", [("o.opus", {"format": "OGG", "subtype": "OPUS"}), ("w.wav", {})])
def test_any_soundfile_format(folder, name, kwargs):
    write_audio(folder / name, seconds=1.5, click=0.7, **kwargs)
    (cut,) = load_manifest(write_rows(folder / "m.jsonl", [row(audio=name, duration=1.5)]))
    audio = load_audio(cut)
    assert len(audio) == 24000
    assert abs(int(np.abs(audio).argmax()) - 11200) <= 16


@pytest.mark.parametrize("rate, channels", [(8000, 1), (44100, 1), (48000, 2), (16000, 2)])
@pytest.mark.parametrize("first", [True, False])
def test_other_rates_and_channels(folder, rate, channels, first):
    """The first file's rate is looked up; later files may differ and are put right when they are loaded."""
    write_audio(folder / "b.wav", rate=rate, channels=channels, click=0.5)
    rows = [row(id="b", audio="b.wav"), row()]
    cuts = load_manifest(write_rows(folder / "m.jsonl", rows if first else rows[::-1]))
    for cut in cuts:
        assert cut.sampling_rate == 16000
        assert load_audio(cut).shape == (16000,)
    audio = load_audio(next(c for c in cuts if c.id == "b"))
    assert abs(int(np.abs(audio).argmax()) - 8000) <= 1


def test_the_rate_of_a_row_is_believed(folder, monkeypatch):
    write_audio(folder / "b.wav", rate=8000)
    manifest = write_rows(folder / "m.jsonl", [row(id="b", audio="b.wav", sample_rate=8000)])
    monkeypatch.setattr(soundfile, "info", lambda *a: pytest.fail("opened a file"))
    assert load_manifest(manifest)[0].recording.num_samples == 16000


@pytest.mark.parametrize("factor", [0.9, 1.1])
@pytest.mark.parametrize("rate", [16000, 44100])
def test_speed_perturbation_moves_audio_and_times_alike(folder, factor, rate):
    write_audio(folder / "b.wav", seconds=2.0, rate=rate, click=1.2)
    (cut,) = load_manifest(write_rows(folder / "m.jsonl", [row(audio="b.wav", duration=2.0)]))
    cut.supervisions[0].alignment = {"word": [AlignmentItem("click", 1.2, 0.3, 0.5)]}
    fast = cut.perturb_speed(factor)
    (item,) = fast.supervisions[0].alignment["word"]
    audio = load_audio(fast)
    assert len(audio) == fast.num_samples == round(32000 / factor)
    assert item.start == pytest.approx(1.2 / factor, abs=1e-3)
    assert item.duration == pytest.approx(0.3 / factor, abs=1e-3)
    assert np.abs(audio).argmax() / 16000 == pytest.approx(item.start, abs=2e-3)


def test_speed_is_kept_when_the_file_is_not_as_stated(folder):
    write_audio(folder / "b.wav", rate=44100, channels=2, click=0.5)
    cuts = load_manifest(write_rows(folder / "m.jsonl", [row(), row(id="b", audio="b.wav")]))
    audio = load_audio(cuts["b"].perturb_speed(1.1))
    assert abs(len(audio) - 16000 / 1.1) <= 1
    assert np.abs(audio).argmax() / 16000 == pytest.approx(0.5 / 1.1, abs=1e-3)


def test_joined_cuts_load(folder):
    cuts = load_manifest(write_rows(folder / "m.jsonl", [row(), row(id="b")]))
    assert load_audio(cuts["a"].append(cuts["b"])).shape == (32000,)


def test_a_shorter_file_than_stated_is_named(folder):
    cuts = load_manifest(write_rows(folder / "m.jsonl", [row(duration=1.3)]))
    with pytest.raises(UserError, match=r"a\.flac has 1\.00 s.* 1\.30 s"):
        load_audio(cuts[0])
    with pytest.raises(UserError, match=r"a\.flac has 1\.00 s"):
        load_audio(cuts[0].perturb_speed(1.1))


BAD = [
    ("{", "not JSON"),
    ("[]", "expected a JSON object"),
    (json.dumps({"text": "x"}), "no `audio`"),
    (row(audio="gone.flac"), r"gone\.flac does not exist"),
    (row(audio=3), "`audio` must be a path"),
    (row(text=None), "no `text`"),
    (row(text=7), "`text` must be a string"),
    (row(duration="long"), "`duration` must be a number"),
    (row(duration=0), "empty"),
    (row(duration=float("nan")), "`duration` must be a number"),
    (row(sample_rate="16k"), "`sample_rate`"),
    (row(id="ok"), "'ok' occurs twice"),
    (json.dumps({"type": "MonoCut", "id": "c"}), "not a lhotse cut"),
]


@pytest.mark.parametrize("bad, message", BAD)
def test_a_bad_row_is_named_by_file_and_line(folder, bad, message, caplog):
    manifest = write_rows(folder / "m.jsonl", [row(id="ok"), "", bad, row(id="last")])
    with pytest.raises(UserError, match=rf"m\.jsonl, line 3: .*{message}") as err:
        load_manifest(manifest)
    assert "\n" not in str(err.value)
    with caplog.at_level(logging.WARNING):
        cuts = load_manifest(manifest, skip_bad=True)
    assert [c.id for c in cuts] == ["ok", "last"]
    assert "line 3" in caplog.text


def test_unreadable_audio_is_named(folder):
    (folder / "junk.wav").write_bytes(b"not audio at all")
    with pytest.raises(UserError, match=r"line 1: cannot read audio file .*junk\.wav"):
        load_manifest(write_rows(folder / "m.jsonl", [row(audio="junk.wav")]))
    cuts = load_manifest(write_rows(folder / "n.jsonl", [row(), row(id="b", audio="junk.wav")]))
    with pytest.raises(UserError, match=r"junk\.wav"):
        load_audio(cuts["b"])


def test_manifests_that_cannot_be_read(folder):
    with pytest.raises(UserError, match="cannot read"):
        load_manifest(folder / "none.jsonl")
    with pytest.raises(UserError, match="no usable rows"):
        load_manifest(write_rows(folder / "m.jsonl", []))
    data = gzip.compress("".join(json.dumps(row(id=str(i))) + "\n" for i in range(1000)).encode())
    (folder / "cut.jsonl.gz").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="ends early"):
        load_manifest(folder / "cut.jsonl.gz")
    (folder / "plain.jsonl.gz").write_text("{}")
    with pytest.raises(UserError, match="cannot read"):
        load_manifest(folder / "plain.jsonl.gz")


def test_noise_has_no_text(folder):
    noise = {"id": "n", "audio": "a.flac", "duration": 1.0}
    (cut,) = load_manifest(write_rows(folder / "m.jsonl", [noise]), require_text=False)
    assert cut.supervisions == [] and len(load_audio(cut)) == 16000


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_aligned_cuts_come_back(folder, suffix, rate):
    write_audio(folder / "b.wav", rate=rate)
    (cut,) = load_manifest(write_rows(folder / "m.jsonl", [row(audio="b.wav")]))
    cut.supervisions[0].alignment = {"word": [AlignmentItem("hello", 0.1, 0.25, 0.5)]}
    CutSet([cut]).to_file(folder / f"cuts{suffix}")
    (back,) = load_manifest(folder / f"cuts{suffix}")
    assert back.supervisions[0].alignment == cut.supervisions[0].alignment
    assert np.array_equal(load_audio(back), load_audio(cut))


def test_a_relative_path_in_cuts_is_relative_to_their_file(folder, monkeypatch):
    (cut,) = load_manifest(write_rows(folder / "m.jsonl", [row()]))
    cut.recording.sources[0].source = "a.flac"
    CutSet([cut]).to_file(folder / "cuts.jsonl")
    monkeypatch.chdir("/")
    assert len(load_audio(load_manifest(folder / "cuts.jsonl")[0])) == 16000
    (folder / "a.flac").unlink()
    with pytest.raises(UserError, match=r"line 1: audio file .*a\.flac does not exist"):
        load_manifest(folder / "cuts.jsonl")
