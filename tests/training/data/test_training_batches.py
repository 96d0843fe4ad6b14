"""Which utterances an epoch takes, in which batches, and who takes them."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tones import Corpus

from speech_reallm.errors import UserError
from speech_reallm.training.config import DataConfig
from speech_reallm.training.data.collate import pad_to_chunks
from speech_reallm.training.data.planning import bucket, epoch_order
from speech_reallm.training.data.prefetch import prefetch
from speech_reallm.training.data.sources.audio import AudioSource, shuffled
from speech_reallm.training.data.sources.base import Example, Mixture, Source

durations = st.lists(st.floats(0.4, 30.0), max_size=60)


@settings(deadline=None)
@given(durations, st.floats(1.0, 200.0), st.integers(0, 9), st.integers(0, 9))
def test_buckets_hold_every_example_once_within_the_bound(
    lengths: list[float], bound: float, seed: int, epoch: int
) -> None:
    batches = bucket(lengths, bound, seed, epoch)
    assert sorted(chain(*batches)) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= bound
    assert batches == bucket(lengths, bound, seed, epoch)


def test_buckets_waste_little() -> None:
    lengths = np.random.default_rng(1).uniform(1, 15, 500)
    batches = bucket(lengths, 100, 1, 1)
    padded = sum(max(lengths[i] for i in b) * len(b) for b in batches)
    assert padded < 1.2 * lengths.sum()
    assert len(batches) < 1.4 * lengths.sum() / 100


@settings(deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.3, 1.0, 2.0, 2.5]), min_size=1, max_size=40), st.integers(0, 99))
def test_epoch_takes_whole_weights_exactly(weights: list[float], epoch: int) -> None:
    counts = Counter(epoch_order(weights, 1, epoch).tolist())
    for index, weight in enumerate(weights):
        assert counts[index] in (int(weight), int(np.ceil(weight)))


def test_weights_hold_over_many_epochs() -> None:
    counts = Counter(chain(*(epoch_order([0.5, 2.25], 1, epoch).tolist() for epoch in range(2000))))
    assert counts[0] / 2000 == pytest.approx(0.5, abs=0.05)
    assert counts[1] / 2000 == pytest.approx(2.25, abs=0.05)


def test_epochs_differ_and_repeat() -> None:
    first, second = (epoch_order([1.0] * 50, 1, epoch).tolist() for epoch in (0, 1))
    assert first != second
    assert first == epoch_order([1.0] * 50, 1, 0).tolist()


def config(corpus: Corpus, **changes: object) -> DataConfig:
    return DataConfig(**{"train": (str(corpus.plain),), "batch_seconds": 8.0, **changes})


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_epoch_of_audio_takes_every_utterance_once(corpus: Corpus) -> None:
    data = AudioSource(config(corpus), 1)
    batches = data.batches(3, 0, lambda examples, _: [e.text for e in examples])
    assert sorted(chain(*batches)) == sorted(corpus.texts.values())


@settings(max_examples=8, deadline=None)
@given(world=st.integers(1, 5), concatenate=st.sampled_from([0.0, 0.7]))
def test_processes_share_out_every_batch(world: int, concatenate: float, corpus: Corpus) -> None:
    data = config(corpus, batch_seconds=4.0, max_seconds=5.0, concatenate_prob=concatenate)
    whole = AudioSource(data, 1)
    shares = [AudioSource(data, 1, rank, world) for rank in range(world)]
    for number in range(3):
        size = len(whole.plan(0)[number])
        parts = [share.load(0, number, rng()) for share in shares]
        # a process has none only when there are fewer examples than processes
        assert [not part for part in parts] == [rank >= size for rank in range(world)]
        found = sorted(e.text for part in parts for e in part)
        assert found == sorted(e.text for e in whole.load(0, number, rng()))


def test_share_is_the_same_audio_that_one_process_would_load(corpus: Corpus) -> None:
    data = config(corpus)
    whole, half = (s.load(0, 0, rng()) for s in (AudioSource(data, 1), AudioSource(data, 1, 1, 2)))
    assert len(half) == len(whole[1::2])
    for ours, theirs in zip(half, whole[1::2], strict=True):
        assert np.array_equal(ours.audio, theirs.audio)


class Numbered(Source):
    """Batches of one example whose text is a name and the batch's number."""

    def __init__(self, name: str, seed: int = 1):
        self.name, self.seed = name, seed

    def steps(self, epoch: int) -> int:
        return 400

    def load(self, epoch: int, number: int, rng: np.random.Generator) -> list[Example]:
        return [Example(text=f"{self.name} {number}")]


def test_a_mixture_replaces_its_share_of_batches_the_same_in_every_process() -> None:
    mixture = Mixture(Numbered("main"), [(0.3, Numbered("a")), (0.5, Numbered("b"))], seed=1)
    assert mixture.steps(0) == 400
    first = [text for (text,) in mixture.batches(0, 0, lambda e, _: [x.text for x in e])]
    assert [int(text.split()[1]) for text in first] == list(range(400))
    counts = Counter(text.split()[0] for text in first)
    assert 90 < counts["a"] < 150 and 110 < counts["b"] < 170
    assert [text for (text,) in mixture.batches(0, 100, lambda e, _: [x.text for x in e])] == first[100:]
    assert [text for (text,) in mixture.batches(1, 0, lambda e, _: [x.text for x in e])] != first


def test_joined_utterances_are_mostly_of_one_speaker_and_not_too_long(corpus: Corpus) -> None:
    data = AudioSource(config(corpus, max_seconds=5.0, concatenate_prob=1.0, batch_seconds=20.0), 1)
    examples = [e for epoch in range(10) for batch in data.plan(epoch) for e in batch]
    assert len(examples) == 10 * len(corpus.texts)
    assert all(sum(data.cuts[i].duration for i in e) <= 5.0 for e in examples)
    joined = [e for e in examples if len(e) > 1]
    mixed = [e for e in joined if len({data.cuts[i].supervisions[0].speaker for i in e}) > 1]
    assert 0.1 < len(mixed) / len(joined) < 0.6
    loaded = data.example(joined[0], 9, 0, 0)
    assert len(loaded.audio) == sum(data.cuts[i].num_samples for i in joined[0])


def test_one_who_said_one_thing_is_joined_to_others(corpus: Corpus, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in corpus.plain.read_text().splitlines()]
    for i, row in enumerate(rows):
        row |= {"audio": str(corpus.plain.parent / row["audio"]), "speaker": f"speaker {i}"}
    alone = tmp_path / "alone.jsonl"
    alone.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = AudioSource(config(corpus, train=(str(alone),), concatenate_prob=1.0, max_seconds=12.0), 1)
    examples = [e for batch in data.plan(0) for e in batch]
    # chance alone repeats an utterance
    assert sum(len(set(e)) for e in examples) > 0.8 * sum(map(len, examples))


def test_weights_of_manifests(corpus: Corpus) -> None:
    path = str(corpus.plain)
    data = AudioSource(DataConfig(train=(path, path), weights=(2.0, 0.0)), 1)
    ids = Counter(data.cuts[i].id for batch in data.plan(0) for (i,) in batch)
    assert set(ids.values()) == {2}
    assert sum(len(b) for b in data.plan(0)) == 2 * len(corpus.texts)


def test_errors_say_what_to_do(corpus: Corpus) -> None:
    with pytest.raises(UserError, match=r"one number for each of data\.train"):
        AudioSource(config(corpus, weights=(1.0, 2.0)), 1)
    with pytest.raises(UserError, match=r"no utterance of 50\.0 to 60\.0 s"):
        AudioSource(config(corpus, min_seconds=50.0, max_seconds=60.0), 1)


@settings(deadline=None)
@given(st.integers(0, 9000), st.integers(0, 3))
def test_padding_is_to_whole_chunks(samples: int, extra: int) -> None:
    padded = pad_to_chunks(torch.ones(1, samples), 1920, extra)
    assert padded.shape[1] % 1920 == 0
    assert 0 <= padded.shape[1] - samples - extra * 1920 < 1920
    assert padded.sum() == samples


@pytest.mark.parametrize("workers", [1, 3])
def test_prefetch_keeps_the_order_and_raises(workers: int) -> None:
    def load(number: int) -> int:
        time.sleep(0.001 * (number % 3))
        if number == 30:
            raise UserError("broken")
        return number

    assert list(prefetch(range(30), load, workers=workers)) == list(range(30))
    found = []
    with pytest.raises(UserError, match="broken"):
        found.extend(prefetch(range(40), load, workers=workers))
    assert list(prefetch([], load)) == []


def test_prefetch_that_is_left_stops() -> None:
    loaded = []
    items = prefetch(range(1000), lambda n: loaded.append(n))
    next(items)
    items.close()
    while any(t.name.startswith("prefetch") for t in threading.enumerate()):
        time.sleep(0.01)
    assert len(loaded) < 20


@given(st.integers(0, 100_000), st.integers(0, 9))
def test_shuffled_audio_is_the_same_sounds_elsewhere(samples: int, seed: int) -> None:
    audio = np.arange(1, samples + 1, dtype=np.float32)
    mixed = shuffled(audio, np.random.default_rng(seed))
    assert mixed.shape == audio.shape
    # but for 8 ms at each end of a stretch, which fade
    kept = mixed[np.isin(mixed, audio)]
    stretches = 1 + samples / 9600
    assert len(kept) >= samples - 2 * 128 * stretches
    if samples > 60_000:
        assert not np.array_equal(kept, np.sort(kept))


def test_speakers_can_be_taken_alike(corpus: Corpus) -> None:
    plain = AudioSource(config(corpus), 1)
    said = Counter(str(c.supervisions[0].speaker) for c in plain.cuts)
    for balance in (0.0, 0.5, 1.0):
        data = AudioSource(config(corpus, speaker_balance=balance), 1)
        weight: Counter[str] = Counter()
        for cut, repeat in zip(data.cuts, data.repeats, strict=True):
            weight[str(cut.supervisions[0].speaker)] += repeat
        assert sum(weight.values()) == pytest.approx(len(plain.cuts))
        for a in said:
            for b in said:
                assert weight[a] / weight[b] == pytest.approx((said[a] / said[b]) ** (1 - balance))


def test_joined_utterances_have_pauses_of_those_without_words(corpus: Corpus, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in corpus.plain.read_text().splitlines()]
    for i, row in enumerate(rows):
        row["audio"] = str(corpus.plain.parent / row["audio"])
        if i % 4 == 0:
            row |= {"text": "", "speaker": "nobody"}
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = AudioSource(config(corpus, train=(str(mixed),), concatenate_prob=1.0, max_seconds=12.0), 1)
    silent = {row["id"] for row in rows if not row["text"]}
    joined = [[data.cuts[i].id in silent for i in example] for batch in data.plan(0) for example in batch]
    assert sum(any(e) and not all(e) for e in joined) > len(joined) / 4
