"""recipes/default/run.sh from end to end: miniature manifests, a miniature published model, a few steps a stage."""

from __future__ import annotations

import itertools
import json
import os
import runpy
import string
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speech_reallm import Recognizer
from speech_reallm.audio import SAMPLE_RATE, read_audio
from speech_reallm.cli.main import main
from speech_reallm.tokenizer import Tokenizer

ROOT = Path(__file__).parents[3]
DEMO, TEXT = ROOT / "examples/demo.opus", ROOT / "examples/demo_text.txt"
# upper case without punctuation, as LibriSpeech has it
UNCASED = ("librispeech-train", "librispeech-dev")
MANIFESTS = (
    *UNCASED, "various-dev", "speechocean762", "kathleen", "ljspeech", "asterisk-allison", "queen", "vctk",
    "arctic", "commands", "keywords", "words", "games",
)  # fmt: skip
SYNTHETIC = ("kokoro", "hibari", "kokoro-words", "hibari-words")
SIZE = {"layers": 1, "dim": 32, "ffn": 64}


def sentences() -> list[tuple[str, np.ndarray]]:
    """The sentences of the demo, each with its audio: between them are the longest silences."""
    audio = read_audio(DEMO)
    frames = np.abs(audio[: len(audio) // 160 * 160]).reshape(-1, 160).max(1) > 0.01
    spoken = np.flatnonzero(frames)
    texts = TEXT.read_text(encoding="utf-8").splitlines()
    gaps = np.diff(spoken)
    longest = np.sort(np.argsort(gaps)[1 - len(texts) :])
    middles = [0, *((spoken[longest] + gaps[longest] // 2) * 160), len(audio)]
    return [(text, audio[a:b]) for text, (a, b) in zip(texts, itertools.pairwise(middles), strict=True)]


def write_manifest(folder: Path, name: str, rows: list[tuple[str | None, np.ndarray]]) -> None:
    (folder / name).mkdir(parents=True)
    with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as out:
        for number, (text, audio) in enumerate(rows):
            path = f"{name}/{number}.flac"
            soundfile.write(folder / path, audio, SAMPLE_RATE)
            row = {
                "id": f"{name}-{number}",
                "audio": path,
                "duration": len(audio) / SAMPLE_RATE,
                "speaker": "a",
            }
            out.write(json.dumps(row if text is None else row | {"text": text}) + "\n")


def write_published(folder: Path) -> None:
    """A Moonshine of one layer with random weights, as Hugging Face has the published ones."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    script = ROOT / "recipes/tools/convert_moonshine.py"
    tokenizer_json = runpy.run_path(str(script), run_name="convert")["tokenizer_json"]
    pieces = [b"<unk>", b"<s>", b"</s>", *(bytes([i]) for i in range(256))]
    pieces += [p.encode() for p in ["▁t", "he", "▁the", "in", "▁", *string.printable[:95].replace(" ", "")]]
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(pieces)))
    torch.manual_seed(0)
    config = transformers.MoonshineConfig(
        vocab_size=len(pieces), hidden_size=SIZE["dim"], intermediate_size=SIZE["ffn"],
        encoder_num_hidden_layers=1, decoder_num_hidden_layers=1,
        encoder_num_attention_heads=8, decoder_num_attention_heads=8,
    )  # fmt: skip
    transformers.MoonshineForConditionalGeneration(config).save_pretrained(folder)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_stage_runs(tmp_path: Path) -> None:
    speech, published, out = tmp_path / "speech", tmp_path / "moonshine", tmp_path / "out"
    parts, rng = sentences(), np.random.default_rng(0)
    for number, name in enumerate((*MANIFESTS, *SYNTHETIC)):
        rows = [parts[(number + i) % len(parts)] for i in range(2)]
        if name in UNCASED:
            rows = [(text.upper().translate(str.maketrans("", "", ".,:?")), audio) for text, audio in rows]
        write_manifest(speech, name, rows)
    write_manifest(speech, "noise", [(None, 0.1 * rng.standard_normal(5 * SAMPLE_RATE))])
    write_manifest(speech, "rir", [(None, 0.5 ** np.arange(1600.0))])
    write_published(published)
    assert main(["tokenizer", "--moonshine", str(published), "--out", str(tmp_path / "tokenizer.model")]) == 0
    settings = {
        "optim.steps": 2, "optim.warmup_steps": 1, "data.dev_utterances": 2, "data.batch_seconds": 12,
        "model.vocab_size": len(Tokenizer(tmp_path / "tokenizer.model")),
        **{f"model.{part}.{key}": value for part in ("encoder", "decoder") for key, value in SIZE.items()},
    }  # fmt: skip
    environment = os.environ | {
        "SPEECH": str(speech), "SYNTHETIC": str(speech), "TEXT": str(tmp_path), "MOONSHINE": str(published),
        "OUT": str(out), "PROCESSES": "1", "MAX_WER": "99", "NAME": "trial",
        "SET": " ".join(f"{key}={value}" for key, value in settings.items()),
    }  # fmt: skip
    (tmp_path / "books.txt").write_text("A sentence.\n")
    command = ["bash", str(ROOT / "recipes/default/run.sh")]
    first = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert first.returncode == 0, (first.stdout + first.stderr)[-4000:]
    assert "h in all" in first.stdout
    model = out / "model"
    assert Recognizer.load(model).model.name == "trial" and (model / "LICENSE-moonshine.txt").is_file()
    assert Recognizer.load(model).transcribe(DEMO).duration > 20
    # what is done is not done again
    again = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert again.returncode == 0 and again.stdout.count(": done, ") == len(list((out / "done").iterdir()))
