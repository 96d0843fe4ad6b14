"""Lhotse Shar: the same audio and labels from shards, on this machine and in a storage; shards of others."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
import soundfile
from lhotse import CutSet
from lhotse.shar import SharWriter
from tones import Corpus

from speech_reallm import UserError
from speech_reallm.cli.main import main
from speech_reallm.tokenizer import Tokenizer
from speech_reallm.training.config import AugmentConfig, DataConfig
from speech_reallm.training.data.manifests import load_audio, load_manifest
from speech_reallm.training.data.shard_writer import write_shards
from speech_reallm.training.data.sources.audio import AudioSource


def assert_same(found: CutSet, expected: CutSet) -> None:
    assert [c.id for c in found] == [c.id for c in expected]
    for a, b in zip(found, expected, strict=True):
        assert np.array_equal(load_audio(a), load_audio(b))
        assert a.supervisions == b.supervisions and a.custom == b.custom


def test_shards_by_one_command(corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "shards"
    assert main(["shard", str(corpus.aligned), str(out), "--shard-mb", "0.2"]) == 0
    tars = sorted(out.glob("recording.*.tar"))
    assert len(tars) > 1 and all(tar.stat().st_size <= 200_000 for tar in tars)
    assert sorted(p.name for p in out.iterdir()) == sorted(
        name for n in range(len(tars)) for name in (f"cuts.{n:06}.jsonl.gz", f"recording.{n:06}.tar")
    )
    assert f"in {len(tars)} shards" in capsys.readouterr().out
    assert_same(load_manifest(out), load_manifest(corpus.aligned))
    # lhotse reads them, too
    for cut, mine in zip(CutSet.from_shar(in_dir=out), load_manifest(corpus.aligned), strict=True):
        assert cut.id == mine.id and np.array_equal(cut.load_audio()[0], load_audio(mine))
    assert main(["shard", str(corpus.aligned), str(out)]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_the_same_batches_whatever_the_number_of_processes(corpus: Corpus, tmp_path: Path) -> None:
    out = "memory://test-shards/train"
    write_shards(str(corpus.aligned), out, 150_000)
    augment = AugmentConfig(speeds=(0.9, 1.1), volume_db=6.0)
    batches = []
    for train, world in ((str(corpus.aligned), 1), (out, 1), (out, 3)):
        config = DataConfig(
            train=(train,), batch_seconds=25, max_seconds=5, concatenate_prob=0.5, augment=augment
        )
        ranks = [
            AudioSource(config, 7, rank, world, chunk_samples=3840, tokenizer=Tokenizer(corpus.tokenizer))
            for rank in range(world)
        ]
        shares = [rank.load(1, 0, np.random.default_rng(0)) for rank in ranks]
        # as they were dealt out
        batches.append([share[row] for row in range(len(shares[0])) for share in shares if row < len(share)])
    first, *others = batches
    assert len(first) > 2
    for other in others:
        assert len(other) == len(first)
        for a, b in zip(first, other, strict=True):
            assert np.array_equal(a.audio, b.audio) and a.text == b.text and a.chunks == b.chunks
            assert a.labels == b.labels and a.labels.pieces
    fsspec.filesystem("memory").rm("/test-shards", recursive=True)


def test_shards_that_others_wrote(corpus: Corpus, tmp_path: Path) -> None:
    plain = load_manifest(corpus.plain)
    (tmp_path / "theirs").mkdir()
    with SharWriter(str(tmp_path / "theirs"), fields={"recording": "wav"}, shard_size=7) as writer:
        for cut in plain:
            writer.write(cut)
    theirs = load_manifest(tmp_path / "theirs")
    assert [c.id for c in theirs] == [c.id for c in plain]
    for a, b in zip(theirs, plain, strict=True):
        # their levels are rounded on the way
        assert np.allclose(load_audio(a), load_audio(b), atol=1e-4)
        assert a.supervisions[0].text == b.supervisions[0].text


def test_a_recording_above_the_size_and_one_without_text(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for name, seconds in (("short", 0.5), ("long", 5.0), ("end", 0.5)):
        soundfile.write(tmp_path / f"{name}.wav", rng.uniform(-0.5, 0.5, int(seconds * 16000)), 16000)
        # a name that is longer than the field in a tar has room for, and not ASCII
        rows.append({"id": f"ü/{name}-{'x' * 120}", "audio": f"{name}.wav", "duration": seconds})
    (tmp_path / "noise.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert write_shards(str(tmp_path / "noise.jsonl"), str(tmp_path / "out"), 60_000)[:2] == (3, 3)
    sizes = [p.stat().st_size for p in sorted((tmp_path / "out").glob("*.tar"))]
    assert sizes[0] <= 60_000 < sizes[1] and sizes[2] <= 60_000
    assert_same(
        load_manifest(tmp_path / "out", require_text=False),
        load_manifest(tmp_path / "noise.jsonl", require_text=False),
    )
    with pytest.raises(UserError, match=r"cuts\.000000\.jsonl\.gz, line 1: no `text`"):
        load_manifest(tmp_path / "out")


def test_shards_that_cannot_be_used(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has no shards"):
        load_manifest(tmp_path / "empty")
    with pytest.raises(UserError, match="has no shards"):
        load_manifest("memory://nothing/there")
    out = tmp_path / "shards"
    write_shards(str(corpus.aligned), str(out), 200_000)
    cuts = load_manifest(out)
    tar = out / "recording.000000.tar"
    with tarfile.open(tar) as members:
        assert members.getnames()[:2] == [f"{cuts[0].id}.flac", f"{cuts[0].id}.json"]
    tar.write_bytes(tar.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"recording\.000000\.tar ends before byte"):
        load_audio(cuts[0])
    tar.unlink()
    with pytest.raises(UserError, match=r"cannot read .*recording\.000000\.tar: no such file"):
        load_audio(cuts[0])
    with pytest.raises(UserError, match="has no recording"):
        load_manifest(out)
