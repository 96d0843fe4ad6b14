import itertools
import json
import string
import threading
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

pytest.importorskip("pocketsphinx")
import soundfile
import soxr
from alignment import synthetic

from speech_reallm.cli.main import main
from speech_reallm.evaluate.hmm_aligner import align_words, in_dictionary
from speech_reallm.evaluate.pronunciation import pronounce
from speech_reallm.text import clean_cased, normalize_for_training
from speech_reallm.tokenizer import Tokenizer
from speech_reallm.training.align.hmm_teacher import HMMTeacher
from speech_reallm.training.data.manifests import load_manifest

SHARED = Path(__file__).parents[3] / "shared" / "speech"
NOISE = (0.1 * np.random.default_rng(0).standard_normal(16000)).astype(np.float32)


DEMO = Path(__file__).parents[2] / "examples" / "demo.opus"
TOKENIZER = Path(__file__).parents[2] / "src/speech_reallm/models/default/tokenizer.model"


def demo():
    audio, rate = soundfile.read(DEMO, dtype="float32")
    return soxr.resample(audio, rate, 16000), DEMO.with_name("demo_text.txt").read_text()


def test_the_pieces_of_a_word_share_its_time():
    audio, text = demo()
    words = normalize_for_training(text).split()
    tokenizer = Tokenizer(TOKENIZER)
    result, none = HMMTeacher(tokenizer).align([audio, NOISE], [" ".join(words), "\u0436"])
    assert none is None and result.score == 0
    aligned = result.pieces
    assert tokenizer.decode(tokenizer.id(p.symbol) for p in aligned) == " ".join(words)
    times = align_words(audio, words)
    begun = [p.start for p in aligned if p.symbol.startswith("\u2581")]
    assert begun == pytest.approx([start for _, start, _ in times], abs=1e-3)
    assert all(p.duration > 0 for p in aligned)
    assert aligned[-1].start + aligned[-1].duration == pytest.approx(times[-1][2], abs=1e-3)


@pytest.fixture
def letters(tmp_path):
    """A tokenizer of single characters."""
    model = tmp_path / "letters.model"
    with model.open("wb") as out:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([" ".join(string.ascii_letters + ".,:;?!-'")] * 9),
            model_writer=out, vocab_size=99, hard_vocab_limit=False, model_type="char", minloglevel=2,
            normalization_rule_name="identity", control_symbols=["<blank>"],
        )  # fmt: skip
    return Tokenizer(model)


def test_case_and_punctuation(letters):
    audio, text = demo()
    words = normalize_for_training(text).split()
    cased = f"{words[0].capitalize()}-{words[1]}, {' '.join(words[2:])}."
    (result,) = HMMTeacher(letters, keep_case=True).align([audio], [cased])
    aligned = result.pieces
    assert letters.decode(letters.id(p.symbol) for p in aligned) == cased
    times = align_words(audio, words)
    ends = {p.symbol: p.start + p.duration for p in aligned if p.symbol in "-,."}
    # two words in one, whose comma has no length
    assert ends["."] == pytest.approx(times[-1][2], abs=1e-3)
    assert ends[","] == pytest.approx(times[1][2], abs=1e-3)
    assert [p.duration for p in aligned if p.symbol in "-,."] == [0, 0, 0]
    assert all(a.start <= b.start for a, b in itertools.pairwise(aligned))
    begun = [p.start for p in aligned if p.symbol.startswith("\u2581")]
    assert begun == pytest.approx([start for _, start, _ in [times[0], *times[2:]]], abs=1e-3)


def test_align_hmm_cased(tmp_path, letters, capsys):
    audio, text = demo()
    text = text.strip().removesuffix(".") + "."
    row = {"id": "demo", "audio": str(DEMO), "text": f"\u2014 {text}", "duration": len(audio) / 16000}
    (tmp_path / "plain.jsonl").write_text(json.dumps(row) + "\n")
    files = [str(tmp_path / "plain.jsonl"), str(tmp_path / "aligned.jsonl.gz")]
    assert main(["align", "hmm", *files, "--tokenizer", str(letters.path), "--cased"]) == 0
    (supervision,) = load_manifest(files[1])["demo"].supervisions
    assert supervision.text == clean_cased(text) and supervision.text.endswith(".")
    assert [w.symbol for w in supervision.alignment["word"]] == supervision.text.split()
    assert supervision.custom["raw_text"] == row["text"]
    assert main(["align", "teacher", *files, "--cased"]) == 2
    assert "align hmm" in capsys.readouterr().err


def test_align_hmm_writes_an_aligned_manifest(tmp_path, capsys):
    audio, text = demo()
    row = {"id": "demo", "audio": str(DEMO), "text": text, "duration": len(audio) / 16000, "speaker": "a"}
    (tmp_path / "plain.jsonl").write_text(json.dumps(row) + "\n")
    arguments = ["align", "hmm", str(tmp_path / "plain.jsonl"), str(tmp_path / "aligned.jsonl.gz")]
    assert main([*arguments]) == 2
    assert "--tokenizer" in capsys.readouterr().err
    assert main([*arguments, "--tokenizer", str(TOKENIZER)]) == 0
    (cut,) = load_manifest(tmp_path / "aligned.jsonl.gz")
    assert len(cut.supervisions[0].alignment["word"]) == len(normalize_for_training(text).split())


@pytest.mark.parametrize(
    "audio, words",
    [
        (NOISE, []),
        (NOISE, ["hello", ""]),
        (NOISE, ["<s>"]),
        (NOISE, ["[noise]"]),
        (NOISE, ["the(2)"]),
        (NOISE, ["'"]),
        (NOISE, ["two words"]),
        (NOISE, ["жук"]),
        (NOISE, ["a\nb"]),
        (NOISE[:0], ["hello"]),
        (NOISE[:900], ["extraordinary"] * 20),
        (np.zeros(16000, np.float32), ["hello", "there"]),
        (np.full(16000, np.nan, np.float32), ["hello"]),
        (np.zeros((2, 16000), np.float32), ["hello"]),
    ],
)
def test_odd_input_is_none(audio, words):
    assert align_words(audio, words) is None


def test_words_out_of_the_dictionary():
    assert in_dictionary("Hello") and not in_dictionary("kaliko") and not in_dictionary("<s>")
    assert align_words(NOISE, ["kaliko"], guess=False) is None
    # a guess is not remembered as if it had been known
    align_words(NOISE, ["kaliko"])
    assert not in_dictionary("kaliko") and align_words(NOISE, ["kaliko"], guess=False) is None


def test_pronunciations():
    lookup = {"cat": "K AE T", "dog": "D AO G", "boss": "B AO S", "house": "HH AW S"}.get
    assert pronounce("cat", lookup) == "K AE T"
    assert pronounce("cat's", lookup) == "K AE T S"
    assert pronounce("dog's", lookup) == "D AO G Z"
    assert pronounce("boss's", lookup) == "B AO S IH Z"
    assert pronounce("dogs'", lookup) == "D AO G Z"
    assert pronounce("doghouse", lookup) == "D AO G HH AW S"
    assert pronounce("jingo", lookup) == "JH IH NG OW"
    assert pronounce("shape", lookup) == "SH AE P"
    for word in ("'tis", "x", "qqq", "rhythm", "e", "o'er"):
        assert pronounce(word, lambda w: None)


@pytest.mark.skipif(not synthetic.available(), reason="needs flite")
@pytest.mark.parametrize("voice", synthetic.VOICES)
def test_known_times(voice):
    """Running speech of which every boundary is known: the median error is about 10 ms."""
    audio, truth = synthetic.speak_sentence(
        "The old man went to the garden, and sat down under a tree.", voice
    )
    found = align_words(audio, [w for w, _, _ in truth])
    assert [w for w, _, _ in found] == [w for w, _, _ in truth]
    errors = np.array([(f[1] - t[1], f[2] - t[2]) for f, t in zip(found, truth, strict=True)])
    assert np.median(np.abs(errors)) < 0.02
    assert np.abs(errors).mean() < 0.04


@pytest.mark.skipif(not synthetic.available(), reason="needs flite")
def test_synthetic_words_lie_where_they_are_said_to():
    words = ["apple", "garden", "it's", "seven"]
    audio, times = synthetic.speak_words(words, "slt", np.random.default_rng(0), gap=(0.2, 0.4))
    assert [w for w, _, _ in times] == words
    loud = np.abs(audio) > 0.005
    inside = np.zeros(len(audio), bool)
    for _, start, end in times:
        inside[round(start * 16000) : round(end * 16000)] = True
        assert loud[round(start * 16000) : round(start * 16000) + 400].any()
        assert loud[round(end * 16000) - 400 : round(end * 16000)].any()
    assert not loud[~inside].any()
    assert synthetic.speak_sentence("He paid 25 dollars.", "slt") is not None
    assert synthetic.speak_sentence("Rostóv followed.", "slt") is None


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared speech")
def test_times_do_not_depend_on_what_came_before():
    rows = [json.loads(line) for line in (SHARED / "librispeech-dev.jsonl").read_text().splitlines()[:3]]
    audio = [soundfile.read(SHARED / r["audio"], dtype="float32")[0] for r in rows]
    words = [r["text"].split() for r in rows]
    alone = align_words(audio[0], words[0])
    assert len(alone) == len(words[0])
    assert all(a[1] < a[2] <= b[1] + 1e-9 for a, b in itertools.pairwise(alone))
    align_words(audio[1], words[1])
    assert align_words(audio[0], words[0]) == alone
    align_words(audio[2][:3000], words[2])
    align_words(np.zeros(16000, np.float32), words[2])
    assert align_words(audio[0], words[0]) == alone
    # threads share one decoder
    results = [None] * 4
    threads = [
        threading.Thread(target=lambda i=i: results.__setitem__(i, align_words(audio[i % 2], words[i % 2])))
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results[0] == results[2] == alone and results[1] == results[3]
