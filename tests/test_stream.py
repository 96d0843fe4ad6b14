"""Streams: nothing depends on how audio is cut or batched, nothing shown is taken back, nothing is lost."""

from __future__ import annotations

import math

import numpy as np
import pytest
import soundfile
import soxr
from fake_model import SAMPLES, speech, write_model
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_reallm import Endpoint, Event, Final, Partial, Recognizer, UserError
from speech_reallm.batch import transcribe_files
from speech_reallm.engine import Decoded
from speech_reallm.engine.blocks import LATE_CHUNKS
from speech_reallm.segment import Segment

RATE = 16000


def run(recognizer: Recognizer, audio: np.ndarray, cuts: list[int] = (), **options) -> list[Event]:
    stream = recognizer.stream(**options)
    events = []
    for part in np.split(audio, cuts):
        events += stream.accept(part)
    return events + list(stream.finish().events)


def same(a: list[Event], b: list[Event]) -> None:
    """Equal but for the rounding of confidences in batches of another size."""
    assert [type(x) for x in a] == [type(x) for x in b]
    for x, y in zip(a, b, strict=True):
        if isinstance(x, Final):
            assert (x.text, x.start, x.end) == (y.text, y.start, y.end)
            for v, w in zip(x.words, y.words, strict=True):
                assert (v.word, v.start, v.end, v.emitted) == (w.word, w.start, w.end, w.emitted)
                assert v.confidence == pytest.approx(w.confidence, abs=1e-4)
        else:
            assert x == y


def talk(seed: int = 0) -> np.ndarray:
    """Speech, a pause, and speech that ends within a chunk."""
    return np.concatenate([speech(1.5, seed), np.zeros(24000, np.float32), speech(1.03, seed + 1)])


OPTIONS = {"endpoint_silence": 0.3}


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, len(talk())), max_size=20))
def test_the_cuts_of_the_audio_make_no_difference(recognizer: Recognizer, cuts: list[int]) -> None:
    same(run(recognizer, talk(), sorted(cuts), **OPTIONS), run(recognizer, talk(), **OPTIONS))


@pytest.mark.parametrize("rate", [8000, 44100, 192000])
def test_nor_do_they_at_other_rates(recognizer: Recognizer, rate: int) -> None:
    audio = speech(1.7, rate=rate)
    whole = run(recognizer, audio, sample_rate=rate)
    assert any(isinstance(e, Final) for e in whole)
    for size in (1, 7, 100):
        cuts = list(range(0, len(audio), rate * size // 100))
        same(run(recognizer, audio, cuts, sample_rate=rate), whole)


@settings(max_examples=10, deadline=None)
@given(plan=st.lists(st.lists(st.integers(0, 9000), min_size=4, max_size=4), max_size=12))
def test_a_batch_is_as_each_alone(recognizer: Recognizer, plan: list[list[int]]) -> None:
    """plan: for each round, how many samples each of four streams is fed."""
    audio = [talk(seed) for seed in range(4)]
    streams = [recognizer.stream(delay=d, **OPTIONS) for d in (0, 1, 2, 1)]
    events: list[list[Event]] = [[] for _ in streams]
    used = [0] * 4

    def feed(counts: list[int]) -> None:
        for i, stream in enumerate(streams):
            if used[i] < len(audio[i]):
                stream.feed(audio[i][used[i] : used[i] + counts[i]])
                used[i] += counts[i]
        for total, new in zip(events, recognizer.step(streams), strict=True):
            total += new

    for counts in plan:
        feed(counts)
    feed([len(a) for a in audio])
    for stream in streams:
        stream.end()
    feed([0] * 4)
    for i, stream in enumerate(streams):
        same(events[i], run(recognizer, audio[i], delay=stream.delay, **OPTIONS))
        assert stream.finish().events == ()
        assert stream.finish().text == " ".join(e.text for e in events[i] if isinstance(e, Final))


def test_partials_add_up_to_the_final_text(recognizer: Recognizer) -> None:
    events = run(recognizer, np.concatenate([talk(s) for s in range(4)]), **OPTIONS)
    shown, finals, after_final = "", 0, False
    for event in events:
        if isinstance(event, Partial):
            assert event.text
            shown += event.text
        elif isinstance(event, Final):
            assert shown == event.text == " ".join(w.word for w in event.words)
            shown, finals = "", finals + 1
        else:
            assert after_final
        after_final = isinstance(event, Final)
    assert shown == "" and finals > 2


def test_times_are_in_order(recognizer: Recognizer) -> None:
    audio = np.concatenate([talk(s) for s in range(4)])
    for delay in recognizer.delays:
        events = run(recognizer, audio, delay=delay, **OPTIONS)
        words = [w for e in events if isinstance(e, Final) for w in e.words]
        before = 0.0
        for word in words:
            assert before <= word.start <= word.end <= len(audio) / RATE
            assert word.emitted <= len(audio) / RATE
            assert 0 <= word.confidence <= 1
            before = word.end
        for event in events:
            if isinstance(event, Final):
                assert (event.start, event.end) == (event.words[0].start, event.words[-1].end)
        times = [e.time for e in events if isinstance(e, Endpoint)]
        assert times == sorted(times) and times[-1] <= len(audio) / RATE


@pytest.fixture(scope="module")
def chatty(tmp_path_factory: pytest.TempPathFactory) -> Recognizer:
    """A recogniser that says something in silence, too: no chunk goes unnoticed."""
    return Recognizer.load(write_model(tmp_path_factory.mktemp("chatty") / "model", blank_bias=-100.0))


@pytest.mark.parametrize("samples", [1, 160, SAMPLES - 1, SAMPLES, SAMPLES + 1, 5 * SAMPLES + 77])
@pytest.mark.parametrize("kind", ["recognizer", "chatty"])
def test_the_flush_reaches_the_end(request: pytest.FixtureRequest, kind: str, samples: int) -> None:
    """Finishing gives what zeros would have brought out: look-ahead and label delay cost no words."""
    recognizer = request.getfixturevalue(kind)
    audio = speech(2)[:samples]
    for delay in recognizer.delays:
        flushed = run(recognizer, audio, delay=delay, endpoint_silence=None)
        stream = recognizer.stream(delay=delay, endpoint_silence=None)
        chunks = math.ceil(samples / SAMPLES) + 2 + delay + LATE_CHUNKS
        padded = np.concatenate([audio, np.zeros(chunks * SAMPLES - samples, np.float32)])
        shown = [e for e in stream.accept(padded) if isinstance(e, Partial)]
        assert "".join(e.text for e in flushed if isinstance(e, Partial)) == "".join(e.text for e in shown)


@pytest.mark.parametrize("rate", [8000, 48000])
def test_the_flush_empties_the_resampler(chatty: Recognizer, rate: int) -> None:
    # a little more than ten chunks, so that the last chunk is there only if the filter's tail is
    audio = speech(10 * SAMPLES / RATE + 0.005, rate=rate)
    resampled = soxr.resample(audio, rate, RATE)
    events, expected = run(chatty, audio, sample_rate=rate), run(chatty, resampled)
    assert [e.text for e in events if isinstance(e, Final)] == [
        e.text for e in expected if isinstance(e, Final)
    ]


def test_nothing_in_nothing_out(recognizer: Recognizer) -> None:
    stream = recognizer.stream()
    assert stream.accept(np.zeros(0, np.float32)) == [] and stream.accept(b"") == []
    transcript = stream.finish()
    assert (transcript.text, transcript.words, transcript.duration, transcript.rtf) == ("", (), 0.0, 0.0)


def test_integers_and_channels_are_the_same_audio(recognizer: Recognizer) -> None:
    integers = np.round(talk() * 32767).astype(np.int16)
    expected = run(recognizer, integers.astype(np.float32) / 32768)
    same(run(recognizer, integers), expected)
    same(run(recognizer, np.stack([integers, integers], axis=1)), expected)
    stream = recognizer.stream()
    same(stream.accept(integers.tobytes()) + list(stream.finish().events), expected)


def test_the_caller_may_reuse_its_buffer(recognizer: Recognizer) -> None:
    stream, buffer, events = recognizer.stream(), np.zeros(1000, np.float32), []
    for start in range(0, 24000, 1000):
        buffer[:] = talk()[start : start + 1000]
        events += stream.accept(buffer)
        buffer[:] = 9.0
    same(events + list(stream.finish().events), run(recognizer, talk()[:24000]))


def test_an_ended_stream_takes_no_audio_until_reset(recognizer: Recognizer) -> None:
    stream = recognizer.stream(**OPTIONS)
    first = stream.accept(talk()) + list(stream.finish().events)
    with pytest.raises(UserError, match="reset"):
        stream.accept(talk())
    assert stream.finish() is stream.finish()
    stream.reset()
    same(stream.accept(talk()) + list(stream.finish().events), first)
    stream.reset()
    stream.accept(speech(0.5, 9))
    stream.reset()
    same(stream.accept(talk()) + list(stream.finish().events), first)


def test_the_transcript_covers_the_whole_stream(recognizer: Recognizer) -> None:
    stream = recognizer.stream(**OPTIONS)
    events = stream.accept(talk())
    assert any(isinstance(e, Endpoint) for e in events)
    transcript = stream.finish()
    finals = [e for e in [*events, *transcript.events] if isinstance(e, Final)]
    assert transcript.segments == tuple(finals)
    assert transcript.text == " ".join(f.text for f in finals)
    assert transcript.duration == pytest.approx(len(talk()) / RATE) and transcript.rtf > 0


def test_wrong_options_are_refused(recognizer: Recognizer) -> None:
    wrong = [{"delay": 9}, {"sample_rate": 100}, {"endpoint_silence": 0}, {"max_segment": 0}, {"history": -1}]
    for options in [*wrong, {"endpoint_silence": math.nan}]:
        with pytest.raises(UserError):
            recognizer.stream(**options)
    stream = recognizer.stream()
    with pytest.raises(UserError, match="twice"):
        recognizer.step([stream, stream])
    assert recognizer.step([]) == []


def size_of(stream: object) -> int:
    """Bytes of all arrays, and objects in all containers, that a stream holds on to."""
    total, seen, todo = 0, set(), [stream._state, stream._buffer, stream._segment, stream._history]
    while todo:
        item = todo.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, np.ndarray):
            total += (item.base if item.base is not None else item).nbytes
        elif isinstance(item, dict):
            todo += item.values()
        elif isinstance(item, (list, tuple)) or hasattr(item, "popleft"):
            total += len(item)
            todo += item
        elif isinstance(item, str):
            total += len(item)
        elif hasattr(item, "__slots__"):
            todo += [getattr(item, name) for name in item.__slots__]
        elif hasattr(item, "__dict__"):
            todo += [v for k, v in vars(item).items() if k != "_tokenizer"]
    return total


@pytest.mark.parametrize("endpoint_silence", [0.3, None])
def test_an_endless_stream_takes_constant_memory(
    recognizer: Recognizer, endpoint_silence: float | None
) -> None:
    stream = recognizer.stream(endpoint_silence=endpoint_silence, max_segment=5, history=10)
    sizes = []
    for minute in range(4):
        for second in range(0, 60, 4):
            stream.accept(talk(minute * 60 + second))
        sizes.append(size_of(stream))
    assert stream.duration > 200
    assert max(sizes[1:]) < sizes[0] + 5000


def test_an_idle_stream_holds_little(recognizer: Recognizer) -> None:
    streams = [recognizer.stream() for _ in range(4)]
    for stream in streams:
        stream.feed(speech(5))
    recognizer.step(streams)
    assert max(map(size_of, streams)) < size_of(recognizer.stream()) + 4 * SAMPLES + 5000
    streams[0].finish()
    assert streams[0]._state is None and size_of(streams[0]) < 5000


def test_long_speech_without_a_pause_is_cut_between_words(recognizer: Recognizer) -> None:
    events = run(recognizer, speech(30), endpoint_silence=None, max_segment=4)
    finals = [e for e in events if isinstance(e, Final)]
    assert len(finals) > 4 and not any(isinstance(e, Endpoint) for e in events)
    whole = run(recognizer, speech(30), endpoint_silence=None, max_segment=1000)
    words = [w.word for e in whole if isinstance(e, Final) for w in e.words]
    assert [w.word for f in finals for w in f.words] == words


class Spoken:
    """A stream's decoding with an invented model: chunk index -> pieces."""

    def __init__(self, recognizer: Recognizer, **options) -> None:
        self.stream = recognizer.stream(**options)
        self.tokenizer = recognizer._tokenizer
        self.index = 0

    def say(self, *pieces: str) -> list[Event]:
        ids = tuple(self.tokenizer.id(p.replace("_", "\u2581")) for p in pieces)
        events = self.stream._absorb(Decoded(self.index, self.index + 3, ids, (-0.5,) * len(ids)))
        self.index += 1
        return events


def test_endpoints(recognizer: Recognizer) -> None:
    # chunks of 0.12 s: 0.36 s are three of them
    spoken = Spoken(recognizer, endpoint_silence=0.36, delay=1)
    assert [spoken.say() for _ in range(9)] == [[]] * 9
    assert spoken.say("_the") == [Partial("the", pytest.approx(12 * 0.12))]
    assert spoken.say() == spoken.say() == []
    assert [type(e) for e in spoken.say("_w", "e")] == [Partial]
    assert spoken.say() == spoken.say() == []
    final, endpoint = spoken.say()
    assert final.text == "the we" and endpoint == Endpoint(pytest.approx(15 * 0.12))
    assert [spoken.say() for _ in range(9)] == [[]] * 9


def test_times_follow_the_delay(recognizer: Recognizer) -> None:
    for delay in recognizer.delays:
        spoken = Spoken(recognizer, delay=delay, endpoint_silence=0.12)
        for _ in range(20):
            spoken.say()
        spoken.say("_w")
        spoken.say("o", "od")
        final = spoken.say()[0]
        word = final.words[0]
        # the last piece ends in chunk 21 - delay, in its middle as far as one can tell
        assert word.end == pytest.approx((21 - delay + 0.5) * 0.12)
        assert (20 - delay - 1) * 0.12 < word.start < (20 - delay + 0.5) * 0.12
        assert word.emitted == pytest.approx((21 + 2 + 1) * 0.12)
        assert word.confidence == round(math.exp(-0.5), 4)


def test_words_of_one_chunk_share_it(recognizer: Recognizer) -> None:
    spoken = Spoken(recognizer, delay=0, endpoint_silence=0.12)
    for _ in range(10):
        spoken.say()
    spoken.say("_we", "_w", "_she")
    words = spoken.say()[0].words
    assert [w.end for w in words] == pytest.approx([(10 + i / 4) * 0.12 for i in (1, 2, 3)])
    assert [w.start for w in words[1:]] == pytest.approx([w.end for w in words[:-1]])


class Bytes:
    """A tokenizer whose pieces are given as bytes."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces

    def text_bytes(self, index: int) -> bytes:
        return self.pieces[index]


def test_spaces_and_broken_characters() -> None:
    pieces = [b" ", b" caf", b"\xc3", b"\xa9", b"", b" ", b" of the", b"\xe2\x82"]
    segment = Segment(Bytes(*pieces), 0.24)
    deltas = [segment.add(i, -0.1, i, 1.0) for i in range(len(pieces))]
    assert deltas == ["", "caf", "", "é", "", "", " of the", ""]
    assert segment.close() == "\ufffd"
    final = segment.final()
    assert final.text == "café of the\ufffd"
    assert [w.word for w in final.words] == ["café", "of", "the\ufffd"]


def test_punctuation_goes_to_its_word_and_changes_neither_times_nor_confidence() -> None:
    pieces = [b" Five", b"-", b"and", b",", b" 'tis", b".", b" .", b" no", b"?"]
    # punctuation comes later than its word
    chunks, log_probs = [0, 2, 3, 5, 6, 7, 8, 12, 14], [-0.1, -3, -0.3, -4, -0.2, -5, -6, -0.4, -8]
    segment = Segment(Bytes(*pieces), 0.24)
    deltas = [segment.add(i, log_probs[i], chunks[i], chunks[i] + 1.0) for i in range(len(pieces))]
    assert deltas == ["Five", "-", "and", ",", " 'tis", ".", ".", " no", "?"]
    words = segment.final().words
    assert [w.word for w in words] == ["Five-and,", "'tis..", "no?"]
    assert [w.emitted for w in words] == [4.0, 7.0, 13.0]
    assert [w.confidence for w in words] == [round(math.exp(-p), 4) for p in (0.2, 0.2, 0.4)]
    assert [w.end for w in words] == pytest.approx([(c + 0.5) * 0.24 for c in (3, 6, 12)])

    alone = Segment(Bytes(b" Five", b"and", b" 'tis", b" no"), 0.24)
    for i, chunk in enumerate((0, 3, 6, 12)):
        alone.add(i, -0.1, chunk, 0.0)
    assert [(w.start, w.end) for w in words] == [(w.start, w.end) for w in alone.final().words]


def test_punctuation_before_the_first_letter_is_not_its_time() -> None:
    segment = Segment(Bytes(b" '", b"tis"), 0.24)
    assert [segment.add(i, -1.0 - i, 4 * i, i) for i in range(2)] == ["'", "tis"]
    (word,) = segment.final().words
    assert word.word == "'tis" and word.start > 0.24 and word.confidence == round(math.exp(-2), 4)


def test_punctuation_without_a_word_is_dropped() -> None:
    segment = Segment(Bytes(b".", b" ,", b" We", b","), 0.24)
    assert [segment.add(i, -1.0, i, i) for i in range(4)] == ["", "", "We", ","]
    assert segment.final().text == "We,"


def test_a_pause_begins_after_the_last_letter(recognizer: Recognizer) -> None:
    spoken = Spoken(recognizer, endpoint_silence=0.36, delay=0)
    assert [e.text for e in spoken.say("_she")] == ["she"]
    (partial,) = spoken.say("'")
    assert partial.text == "'" and [w.word for w in partial.words] == ["she'"]
    assert spoken.say() == []
    final, endpoint = spoken.say("'")[1:]
    assert final.text == "she''" and endpoint == Endpoint(pytest.approx(4 * 0.12))


def test_transcribe_is_the_stream_of_a_file(recognizer: Recognizer, tmp_path) -> None:
    import soundfile

    path = tmp_path / "talk.wav"
    soundfile.write(path, talk(), RATE, subtype="FLOAT")
    events = []
    transcript = recognizer.transcribe(path, on_event=events.append, endpoint_silence=0.3)
    same(events, run(recognizer, talk(), **OPTIONS))
    assert transcript.segments == tuple(e for e in events if isinstance(e, Final))
    assert transcript.file == str(path) and transcript.duration == pytest.approx(len(talk()) / RATE)
    stopped = recognizer.transcribe(path, on_audio=lambda seconds: seconds < 1)
    assert 0 < stopped.duration <= 1 and stopped.text


def test_the_default_delay(model_folder, tmp_path) -> None:
    assert Recognizer.load(model_folder).stream().delay == 1
    assert Recognizer.load(model_folder, delay=2).stream().delay == 2
    assert Recognizer.load(model_folder, delay=2).stream(delay=0).delay == 0
    with pytest.raises(UserError, match="delay"):
        Recognizer.load(model_folder, delay=5)
    folder = write_model(tmp_path / "m", chunk_ms=240, default_delay=0)
    assert Recognizer.load(folder).model.chunk_samples == 3840


def test_recordings_have_a_delay_of_their_own(tmp_path) -> None:
    folder = write_model(tmp_path / "m", file_delay=2)
    recognizer = Recognizer.load(folder)
    assert (recognizer.delay, recognizer.file_delay) == (1, 2)
    assert Recognizer.load(folder, delay=0).file_delay == 0
    path = tmp_path / "talk.wav"
    soundfile.write(path, talk(), RATE, subtype="FLOAT")
    surest = recognizer.transcribe(path)
    for chosen in (0, 1, 2):
        stream = recognizer.stream(RATE, delay=chosen)
        stream.accept(talk())
        same = stream.finish().segments == surest.segments
        assert same == (chosen == 2)
        assert (recognizer.transcribe(path, delay=chosen).segments == surest.segments) == same
    (found,) = transcribe_files(recognizer, [path])
    assert found.transcript is not None and found.transcript.segments == surest.segments


def test_a_partial_knows_its_words(recognizer: Recognizer) -> None:
    spoken = Spoken(recognizer, endpoint_silence=0.36)
    (first,) = spoken.say("_we", "_w")
    (second,) = spoken.say("e", "_the")
    assert (first.text, [w.word for w in first.words]) == ("we w", ["we", "w"])
    # it goes on with the last word of the one before
    assert (second.text, [w.word for w in second.words]) == ("e the", ["we", "the"])
    # once the last word is whole, the final has nothing to add to it
    final = next(e for _ in range(3) for e in spoken.say())
    assert final.words[-2:] == second.words


def test_missing_counts_down_to_a_chunk(recognizer: Recognizer) -> None:
    stream = recognizer.stream(sample_rate=8000)
    assert stream.missing == SAMPLES // 2
    for _ in range(40):
        before = stream.missing
        stream.feed(np.zeros(100, np.int16))
        assert stream.missing <= before
        if not stream.missing:
            break
    assert not stream.missing
    recognizer.step([stream])
    assert 0 < stream.missing <= SAMPLES // 2
