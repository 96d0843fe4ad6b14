"""A teacher that hears perfectly: audio in which every piece is a stretch of samples of one value."""

import io
import json

import numpy as np
import pytest
import sentencepiece
import soundfile
import torch

from speech_reallm.tokenizer import Tokenizer

TEXTS = ["the cat sat on the mat", "it's a dog's life", "hello hello", "a", "one hundred five men"]
FRAME = 320


class FakeTeacher:
    """Reads the pieces off the audio: a frame whose mean is v / 1000 is piece v, silence is blank."""

    frame_seconds = FRAME / 16000

    def __init__(self, vocab):
        self.vocab = vocab
        self.rows = 0

    def log_probs(self, audio, lengths):
        self.rows += len(audio)
        frames = audio.shape[1] // FRAME
        ids = (audio[:, : frames * FRAME].reshape(len(audio), frames, FRAME).mean(-1) * 1000).round().long()
        ids[ids == 0] = 3
        out = torch.full((*ids.shape, self.vocab), -9.0)
        return out.scatter(2, ids[..., None], -0.05), lengths // FRAME


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 20), model_writer=model, vocab_size=45, hard_vocab_limit=False,
        user_defined_symbols=[], control_symbols=["<blank>"], minloglevel=2,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("tok") / "tokenizer.model"
    path.write_bytes(model.getvalue())
    tokenizer = Tokenizer(path)
    assert tokenizer.id("<blank>") == 3
    return tokenizer


@pytest.fixture
def teacher(tokenizer):
    return FakeTeacher(len(tokenizer))


def speak(ids, rng):
    """Audio of pieces (two to four frames each, silence between), and their (start, end) frames."""
    frames, spans = [0.0] * int(rng.integers(1, 6)), []
    for i in ids:
        n = int(rng.integers(2, 5))
        spans.append((len(frames), len(frames) + n))
        frames += [i / 1000] * n + [0.0] * int(rng.integers(1, 6))
    return np.repeat(np.array(frames, np.float32), FRAME), spans


@pytest.fixture
def corpus(tmp_path, tokenizer):
    """A plain manifest of TEXTS, twice, and the true frames of each utterance's pieces."""
    rng = np.random.default_rng(1)
    rows, truth = [], {}
    for i, text in enumerate(TEXTS * 2):
        audio, truth[f"u{i}"] = speak(tokenizer.encode(text), rng)
        soundfile.write(tmp_path / f"u{i}.flac", audio, 16000, subtype="PCM_24")
        # as published: cased, punctuated, with digits
        published = text.capitalize().replace("One hundred five", "105") + "."
        rows.append({"id": f"u{i}", "audio": f"u{i}.flac", "text": published, "duration": len(audio) / 16000})
    manifest = tmp_path / "plain.jsonl"
    manifest.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return manifest, truth
