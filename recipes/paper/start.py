"""The weights that the decoders of recipes/paper start from: a model folder's, with one fixed look-ahead.

    python recipes/paper/start.py src/speech_reallm/models/default out/paper/start --delay 1

The default model looks further ahead where its label delay is larger. Here one encoder serves all systems, with the
right context of the default model's label delay --delay as its look-ahead; the vector of that delay becomes that of no
delay, and those of longer delays follow. Writes OUT/best: model.safetensors, model.json, tokenizer.model.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

import torch

from speech_reallm.errors import UserError
from speech_reallm.training.checkpoint import save_folder
from speech_reallm.training.config import to_dict
from speech_reallm.training.export.folder import load_reallm
from speech_reallm.training.weights import DELAYS


def start(folder: Path, out: Path, delay: int, encoder_only: bool = False) -> None:
    """Write `out`/best. Raises UserError for a folder that is no recogniser, or has no such label delay."""
    model = load_reallm(folder)
    if delay not in model.config.delays:
        raise UserError(
            f"{folder}: no label delay of {delay} among {', '.join(map(str, model.config.delays))}"
        )
    right = (model.config.encoder.right_context_at(delay),)
    weights = model.state_dict()
    rows = torch.arange(delay, delay + 3).clamp(max=max(model.config.delays))
    weights[DELAYS] = weights[DELAYS][rows]
    if encoder_only:
        weights = {name: value for name, value in weights.items() if name.startswith("encoder.")}
    encoder = dataclasses.replace(model.config.encoder, right_context=right)
    config = dataclasses.replace(
        model.config, encoder=encoder, delays=(0, 1, 2), default_delay=0, file_delay=None
    )
    tokenizer = (folder / "tokenizer.model").read_bytes()
    save_folder(
        out / "best",
        {"model.safetensors": weights, "model.json": to_dict(config), "tokenizer.model": tokenizer},
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="model folder or training run")
    parser.add_argument("out", type=Path)
    parser.add_argument("--delay", type=int, default=1, help="label delay whose right context is taken")
    parser.add_argument("--encoder-only", action="store_true", help="the others begin at random")
    args = parser.parse_args()
    try:
        start(args.model, args.out, args.delay, args.encoder_only)
    except (UserError, OSError) as err:
        sys.exit(f"error: {err}")
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
