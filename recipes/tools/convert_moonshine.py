"""Moonshine's weights from a folder with model.u8.safetensors and tokenizer.bin to the form that Hugging Face has.

    python recipes/tools/convert_moonshine.py packed/moonshine-tiny-en data/moonshine-tiny

Writes OUT/model.safetensors (float32), OUT/tokenizer.json and copies of the other files. Whoever has the folder from
https://huggingface.co/UsefulSensors/moonshine-tiny needs no conversion.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from speech_reallm.errors import UserError

# ids: single bytes begin, merged pieces begin, special tokens begin
BYTES, MERGED, SPECIAL = 3, 259, 32000
COPIED = ("config.json", "generation_config.json", "LICENSE")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="with model.u8.safetensors and tokenizer.bin")
    parser.add_argument("out", type=Path, help="folder for model.safetensors, config.json and tokenizer.json")
    args = parser.parse_args()
    try:
        convert(args.folder, args.out)
    except (UserError, OSError) as err:
        sys.exit(f"error: {err}")
    print(f"wrote {args.out}")


def convert(folder: Path, out: Path) -> None:
    """Raises UserError for files that are not of the packed form; OSError."""
    pieces = unpacked_pieces((folder / "tokenizer.bin").read_bytes())
    weights = unpacked_weights(load_file(folder / "model.u8.safetensors"))
    out.mkdir(parents=True, exist_ok=True)
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    (out / "tokenizer.json").write_text(json.dumps(tokenizer_json(pieces), ensure_ascii=False), "utf-8")
    for name in COPIED:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, out / name)


def unpacked_weights(packed: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Float32 weights from 8-bit steps on a grid of each tensor: value = lo + step * q."""
    full = {}
    for name, value in packed.items():
        if name.endswith(".q"):
            lo, step = packed[name[:-2] + ".lo_step"]
            full[name[:-2]] = lo + step * value.float()
        elif not name.endswith(".lo_step"):
            full[name] = value.float()
    return full


def unpacked_pieces(data: bytes) -> list[bytes]:
    """The pieces of a tokenizer.bin by id: each after its length, in one byte or two. Raises UserError."""
    pieces: list[bytes] = []
    at = 0
    while at < len(data):
        length, at = data[at], at + 1
        if length >= 128:
            length, at = (data[at] if at < len(data) else 0) * 128 + length - 128, at + 1
        pieces.append(data[at : at + length])
        at += length
    if at != len(data) or len(pieces) <= MERGED or pieces[1:3] != [b"<s>", b"</s>"]:
        raise UserError("tokenizer.bin is not a tokenizer of Moonshine's")
    return pieces


def tokenizer_json(pieces: list[bytes]) -> dict[str, Any]:
    """The byte-pair encoding as the `tokenizers` library has it."""
    special = {i: pieces[i].decode() for i in (*range(BYTES), *range(SPECIAL, len(pieces)))}
    vocab: dict[str, int] = dict.fromkeys(special.values(), 0) | {text: i for i, text in special.items()}
    vocab |= {f"<0x{i - BYTES:02X}>": i for i in range(BYTES, MERGED)}
    merged: dict[str, int] = {}
    for i, piece in enumerate(pieces[MERGED:SPECIAL], MERGED):
        merged.setdefault(piece.decode("utf-8", errors="replace"), i)
    vocab |= {text: i for text, i in merged.items() if text not in vocab}
    merges = [m for text in tqdm(merged, "merges") if (m := last_merge(text, merged)) is not None]
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True}
            for i, text in special.items()
        ],
        "model": {
            "type": "BPE", "vocab": vocab, "merges": merges, "unk_token": "<unk>", "fuse_unk": True,
            "byte_fallback": True,
        },
    }  # fmt: skip


def last_merge(text: str, known: dict[str, int]) -> list[str] | None:
    """The two pieces that the encoding joins to `text`; None for a single character, or one it never comes to."""
    parts = list(text)
    while len(parts) > 2:
        pairs = [(known[a + b], i) for i, (a, b) in enumerate(itertools.pairwise(parts)) if a + b in known]
        if not pairs:
            return None
        _, i = min(pairs)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts if len(parts) == 2 and all(part in known for part in parts) else None


if __name__ == "__main__":
    main()
