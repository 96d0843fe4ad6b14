"""What a language model keeps when it becomes a recogniser's decoder: perplexity, last words, instructions.

    python benchmarks/llm_retention.py SMOLLM2 --books books.txt --runs out/projector out/lora out/full --json kept.json

SMOLLM2 is the published model as a Hugging Face folder; the runs are of `task: llm`. All are measured without speech,
by the same code: BLANK is left out of the prediction, so what differs is the weights.

- perplexity, per word, of passages of the book text from its end, which no training here takes (--passages);
- last-word cloze: the share of passages whose last word is what greedy decoding writes after the others;
- a handful of instructions, answered greedily, to be read: `--instructions` prints the answers.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from speech_reallm.jsonl import json_lines
from speech_reallm.text import clean_cased
from speech_reallm.tokenizer import Tokenizer, open_tokenizer
from speech_reallm.training.config import ModelConfig, build
from speech_reallm.training.config.pretrained import with_pretrained
from speech_reallm.training.export.folder import load_reallm
from speech_reallm.training.model.ctc import best_of
from speech_reallm.training.model.decoders import Decoder
from speech_reallm.training.model.reallm import ReaLLM
from speech_reallm.training.weights import init_from

INSTRUCTIONS = (
    "What is the capital of France?",
    "Name three colours.",
    "Write one sentence about the sea.",
    "What is two plus three?",
    "Give the opposite of the word hot.",
)
# an encoder that is never used: the decoder is what is measured
_ENCODER = {"kind": "waveform", "layers": 1, "dim": 16, "heads": 2, "ffn": 16}
# words of a passage
PASSAGE = 60


def passages(books: Path, count: int) -> list[str]:
    """The last passages of the text, of about PASSAGE words each, cleaned as the model's training text is."""
    lines = books.read_text(encoding="utf-8", errors="replace").splitlines()[-count * 20 :]
    found: list[str] = []
    words: list[str] = []
    for line in lines:
        words += clean_cased(line).split()
        if len(words) >= PASSAGE:
            found.append(" ".join(words))
            words = []
    return found[-count:]


def published(folder: Path) -> tuple[Decoder, Tokenizer]:
    """The language model as it is published, in the recogniser's layers."""
    plain = {"encoder": _ENCODER, "decoder": {"pretrained": str(folder), "window": 4096}}
    model = ReaLLM(build(ModelConfig, with_pretrained(plain))).eval()
    init_from(model, folder)
    return model.decoder, open_tokenizer(folder / "tokenizer.json")


def trained(run: Path) -> tuple[Decoder, Tokenizer]:
    """The decoder of a run of `task: llm`."""
    return load_reallm(run).decoder, open_tokenizer(best_of(run) / "tokenizer.json")


@torch.no_grad()
def next_logits(decoder: Decoder, ids: list[int]) -> Tensor:
    """Logits [T, V - 1] after each of the pieces, BLANK left out."""
    return decoder.text_logits(torch.tensor([ids]))[0, :, :-1].float()


def perplexity(decoder: Decoder, tokenizer: Tokenizer, texts: list[str]) -> float:
    """Per word, so that tokenizers compare; the first piece of a passage is given."""
    total, words = 0.0, 0
    for text in texts:
        ids = tokenizer.encode(text)
        log_probs = next_logits(decoder, ids[:-1]).log_softmax(-1)
        total -= float(log_probs.gather(-1, torch.tensor(ids[1:])[:, None]).sum())
        words += len(text.split())
    return math.exp(total / words)


def write(
    decoder: Decoder, tokenizer: Tokenizer, ids: list[int], most: int, stop: set[int], word: bool = False
) -> str:
    """What greedy decoding writes after the pieces: up to `most` pieces, a stop piece, or with `word` one word."""
    made: list[int] = []
    while len(made) < most:
        best = int(next_logits(decoder, ids + made)[-1].argmax())
        if best in stop or (word and made and tokenizer.starts_word(best)):
            break
        made.append(best)
    return tokenizer.decode(made)


def cloze(decoder: Decoder, tokenizer: Tokenizer, texts: list[str]) -> float:
    """Percent of the passages whose last word is written, case and punctuation aside."""

    def bare(word: str) -> str:
        return "".join(c for c in word.lower() if c.isalnum())

    right = 0
    for text in texts:
        before, _, last = text.rpartition(" ")
        written = write(decoder, tokenizer, tokenizer.encode(before), 6, set(), word=True)
        right += bare(written.partition(" ")[0]) == bare(last)
    return 100 * right / len(texts)


def answers(decoder: Decoder, tokenizer: Tokenizer, most: int) -> list[str]:
    """Answers to INSTRUCTIONS in the format of chat models (ChatML)."""
    start, end = tokenizer.id("<|im_start|>"), tokenizer.id("<|im_end|>")
    result = []
    for instruction in INSTRUCTIONS:
        ids: list[int] = []
        for role, text in (("user", instruction), ("assistant", "")):
            spelled = tokenizer.encode(f"{role}\n{text}")
            # the space that a tokenizer puts before the first word does not belong there
            ids += [start, *spelled] + ([end, *tokenizer.encode("\n")[-1:]] if text else [])
        result.append(write(decoder, tokenizer, ids, most, {end, start, 0}))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="the published language model, a Hugging Face folder")
    parser.add_argument("--runs", nargs="*", type=Path, default=[], help="runs of task: llm")
    parser.add_argument("--books", type=Path, required=True, help="text, a sentence a line; its end is used")
    parser.add_argument("--passages", type=int, default=40, help="(default: %(default)s)")
    parser.add_argument("--instructions", action="store_true", help="answer instructions, too, and print it")
    parser.add_argument("--pieces", type=int, default=24, help="of an answer at most (default: %(default)s)")
    parser.add_argument(
        "--json", type=Path, help="add a line for each model there; those in it are not measured again"
    )
    args = parser.parse_args()
    texts = passages(args.books, args.passages)
    if not texts:
        parser.error(f"{args.books} is too short: {PASSAGE} words make a passage")
    known: dict[str, dict[str, Any]] = {}
    if args.json and args.json.exists():
        known = {row["model"]: row for _, row in json_lines(args.json)}
    print("| model | perplexity per word | last words right, % |")
    print("| --- | ---: | ---: |")
    for path in (args.model, *args.runs):
        row = known.get(str(path))
        if row is None:
            print(f"measuring {path}", file=sys.stderr, flush=True)
            decoder, tokenizer = published(path) if path == args.model else trained(path)
            row = {"model": str(path), "passages": len(texts)}
            row |= {
                "perplexity": perplexity(decoder, tokenizer, texts),
                "cloze": cloze(decoder, tokenizer, texts),
            }
            if args.instructions:
                row["answers"] = answers(decoder, tokenizer, args.pieces)
            if args.json:
                with args.json.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
        print(f"| {path.name} | {row['perplexity']:.1f} | {row['cloze']:.1f} |", flush=True)
        for instruction, answer in zip(INSTRUCTIONS, row.get("answers", []), strict=False):
            print(f"    {instruction} -> {answer}", file=sys.stderr)


if __name__ == "__main__":
    main()
