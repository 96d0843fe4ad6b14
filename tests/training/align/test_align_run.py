import json
import logging

import pytest

from speech_reallm.errors import UserError
from speech_reallm.training.align.alignment_file import (
    AlignmentFile,
    Dropped,
    aligned_cut,
)
from speech_reallm.training.align.ctc_teacher import CTCTeacher
from speech_reallm.training.align.run import AlignOptions, align_manifest
from speech_reallm.training.align.spans import piece_items, spread, word_items
from speech_reallm.training.data.manifests import load_manifest

FRAME = 320

SECONDS = FRAME / 16000


def align(corpus, teacher, tokenizer, out=None, **options):
    out = out or corpus[0].with_name("out.jsonl.gz")
    settings = {"peaks": True} | {k: options.pop(k) for k in ("peaks", "offset") if k in options}
    aligner = CTCTeacher(teacher, tokenizer, {"teacher": "t"}, **settings)
    options = AlignOptions(**{"batch_seconds": 8.0} | options)
    return align_manifest(aligner, corpus[0], out, options, quiet=True), out


def test_times_are_those_of_the_audio(corpus, teacher, tokenizer):
    summary, out = align(corpus, teacher, tokenizer)
    assert (summary.total, summary.aligned) == (10, 10)
    cuts = load_manifest(out)
    assert [c.id for c in cuts] == [f"u{i}" for i in range(10)]
    assert teacher.rows == 10
    for cut in cuts:
        supervision = cut.supervisions[0]
        ids = tokenizer.encode(supervision.text)
        pieces = supervision.alignment["piece"]
        assert [p.symbol for p in pieces] == tokenizer.pieces(ids)
        spans = [(round(p.start / SECONDS), round(p.end / SECONDS)) for p in pieces]
        assert spans == corpus[1][cut.id]
        assert supervision.custom["align_score"] == pytest.approx(-0.05, abs=1e-3)
        words = supervision.alignment["word"]
        assert [w.symbol for w in words] == supervision.text.split()
        first = [i for i, p in enumerate(pieces) if p.symbol.startswith("\u2581")]
        last = [i - 1 for i in first[1:]] + [len(pieces) - 1]
        assert [w.start for w in words] == [pieces[i].start for i in first]
        assert [w.end for w in words] == pytest.approx([pieces[i].end for i in last])
    # the text is what was aligned, the published one is kept
    assert cuts["u1"].supervisions[0].text == "it's a dog's life"
    assert cuts["u1"].supervisions[0].custom["raw_text"] == "It's a dog's life."
    assert cuts["u4"].supervisions[0].custom["raw_text"] == "105 men."
    assert cuts["u4"].supervisions[0].text.startswith("one hundred")


def test_aligning_an_aligned_manifest_keeps_the_published_text(corpus, teacher, tokenizer):
    _, out = align(corpus, teacher, tokenizer)
    again = out.with_name("again.jsonl")
    align((out, corpus[1]), teacher, tokenizer, again)
    assert load_manifest(again)["u1"].supervisions[0].custom["raw_text"] == "It's a dog's life."
    first, second = load_manifest(out), load_manifest(again)
    assert [c.supervisions[0].alignment for c in first] == [c.supervisions[0].alignment for c in second]


def test_speed_perturbation_carries_the_times(corpus, teacher, tokenizer):
    _, out = align(corpus, teacher, tokenizer)
    cut = load_manifest(out)["u0"]
    for a, b in zip(
        cut.supervisions[0].alignment["piece"],
        cut.perturb_speed(1.1).supervisions[0].alignment["piece"],
        strict=True,
    ):
        assert b.start == pytest.approx(a.start / 1.1, abs=1e-3)
        assert b.end == pytest.approx(a.end / 1.1, abs=1e-3)


def test_an_interrupted_run_goes_on(corpus, teacher, tokenizer, monkeypatch):
    whole, out = align(corpus, teacher, tokenizer)
    expected = out.read_bytes()
    out.unlink()
    hear = teacher.log_probs
    calls = []

    def interrupted(audio, lengths):
        calls.append(len(audio))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return hear(audio, lengths)

    monkeypatch.setattr(teacher, "log_probs", interrupted)
    with pytest.raises(KeyboardInterrupt):
        align(corpus, teacher, tokenizer)
    assert not out.exists()
    part = out.with_name(out.name + ".part")
    # killed in the middle of a line
    part.write_bytes(part.read_bytes() + b'{"cut": {"id": "u')
    done = sum(calls[:2])
    calls[:] = [0] * 3
    summary, _ = align(corpus, teacher, tokenizer)
    assert done > 0 and sum(calls) == 10 - done
    assert out.read_bytes() == expected and not part.exists()
    assert str(summary) == str(whole)


def test_a_finished_file_is_not_touched(corpus, teacher, tokenizer):
    align(corpus, teacher, tokenizer)
    with pytest.raises(UserError, match="--overwrite"):
        align(corpus, teacher, tokenizer)
    summary, _ = align(corpus, teacher, tokenizer, overwrite=True, min_score=-100.0)
    assert summary.aligned == 10


def test_another_setting_does_not_go_on(corpus, teacher, tokenizer, monkeypatch):
    monkeypatch.setattr(teacher, "log_probs", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        align(corpus, teacher, tokenizer)
    with pytest.raises(UserError, match="another min_score"):
        align(corpus, teacher, tokenizer, min_score=-1.0)


def change(manifest, number, **values):
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    rows[number] |= values
    manifest.write_text("".join(json.dumps(r) + "\n" for r in rows))


def test_utterances_that_cannot_be_aligned_are_counted(corpus, teacher, tokenizer, caplog):
    manifest, _ = corpus
    change(manifest, 0, text="A dog's life.")  # not what is said
    change(manifest, 1, text="the cat " * 100)
    change(manifest, 2, text="?!")
    change(manifest, 3, text="zz")
    change(manifest, 4, duration=100.0)
    with caplog.at_level(logging.WARNING):
        summary, out = align(corpus, teacher, tokenizer, min_score=-1.0)
    assert "u4" in caplog.text
    assert summary.dropped == {
        "score below -1": 1,
        "the text does not fit into the audio": 1,
        "no words in the text": 1,
        "characters that the tokenizer does not know": 1,
        "audio that cannot be read": 1,
    }
    assert [c.id for c in load_manifest(out)] == [f"u{i}" for i in range(5, 10)]
    assert "dropped 1: score below -1" in str(summary) and "aligned 5 of 10" in str(summary)


def test_silence_with_an_empty_text_is_kept(corpus, teacher, tokenizer):
    change(corpus[0], 0, text="")
    _, out = align(corpus, teacher, tokenizer)
    supervision = load_manifest(out)["u0"].supervisions[0]
    assert supervision.text == "" and not supervision.alignment["word"]


def test_nothing_left_is_an_error(corpus, teacher, tokenizer):
    with pytest.raises(UserError, match=r"nothing of .* could be aligned: score below 0"):
        align(corpus, teacher, tokenizer, min_score=0.0)


def test_shift_stays_within_the_audio():
    items = piece_items(
        ["\u2581a", "b"], [0, 9], [2, 10], [-0.5, -1.5], frame_seconds=0.1, duration=1.0, offset=-0.3
    )
    assert [(i.start, i.duration) for i in items] == [(0.0, 0.0), (0.6, 0.1)]
    late = piece_items(["\u2581a"], [9], [10], [0.0], frame_seconds=0.1, duration=1.0, offset=0.5)
    assert [(i.start, i.duration) for i in late] == [(1.0, 0.0)]


def test_peaks_are_spread_over_the_blanks_between():
    peaks = piece_items(
        ["\u2581a", "b", "\u2581c"], [10, 20, 100], [12, 21, 102], [-1.0, -2.0, -3.0],
        frame_seconds=0.02, duration=2.1,
    )  # fmt: skip
    a, b, c = spread(peaks, 2.1)
    # 160 ms of blanks between a and b: 56 and 104
    assert (a.start, a.end) == pytest.approx((0.05, 0.296))
    assert b.start == pytest.approx(0.296)
    # a long pause belongs to neither
    assert (b.end, c.start) == pytest.approx((0.57, 1.85))
    assert c.end == pytest.approx(2.1)
    assert [p.symbol for p in (a, b, c)] == ["\u2581a", "b", "\u2581c"] and c.score == -3.0
    assert spread([], 1.0) == []
    (short,) = spread(piece_items(["\u2581a"], [1], [2], [0.0], frame_seconds=0.02, duration=0.1), 0.1)
    assert (short.start, short.end) == (0.0, 0.1)


def test_what_is_written_is_spread(corpus, teacher, tokenizer):
    _, peaks = align(corpus, teacher, tokenizer)
    _, out = align(corpus, teacher, tokenizer, peaks.with_name("spread.jsonl"), peaks=False)
    for narrow, wide in zip(load_manifest(peaks), load_manifest(out), strict=True):
        expected = spread(narrow.supervisions[0].alignment["piece"], narrow.duration)
        assert wide.supervisions[0].alignment["piece"] == expected


def test_words_of_pieces():
    pieces = piece_items(
        ["\u2581", "it", "'s", "\u2581on"], [1, 2, 5, 9], [2, 4, 6, 12], [-1.0, -2.0, -4.0, -1.0],
        frame_seconds=0.1, duration=5.0,
    )  # fmt: skip
    first, second = word_items(["it's", "on"], pieces)
    assert (first.symbol, first.start, first.duration) == ("it's", 0.1, 0.5)
    assert first.score == pytest.approx((-1 - 4 - 4) / 4, abs=1e-3)
    assert (second.start, second.end) == (0.9, 1.2)
    with pytest.raises(ValueError, match="are not the words"):
        word_items(["its"], pieces)


def test_part_files_are_checked(tmp_path):
    out = tmp_path / "a.jsonl.gz"
    with pytest.raises(UserError, match=r"must end in \.jsonl\.gz"):
        AlignmentFile(tmp_path / "a.txt", {})
    file = AlignmentFile(out, {"x": 1})
    file.drop(Dropped(id="u", reason="r", score=-2.0))
    file.close()
    again = AlignmentFile(out, {"x": 1})
    assert "u" in again and again.scores == [-2.0]
    again.close()
    again.part.write_bytes(again.part.read_bytes() + b"junk\n")
    with pytest.raises(UserError, match="line 3 is damaged"):
        AlignmentFile(out, {"x": 1})
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        AlignmentFile(tmp_path / "file" / "a.jsonl", {})


def test_aligned_cut_refuses_other_words(corpus):
    cut = load_manifest(corpus[0])["u3"]
    items = piece_items(["\u2581a"], [1], [2], [0.0], frame_seconds=0.02, duration=1.0)
    assert aligned_cut(cut, "a", items, -0.1).supervisions[0].alignment["word"][0].symbol == "a"
    with pytest.raises(ValueError):
        aligned_cut(cut, "a b", items, -0.1)
