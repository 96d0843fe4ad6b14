"""Give a trained model the encoder of recordings in large blocks, so that files are transcribed with fewer errors.

    python recipes/tools/add_block_encoder.py out/final data/moonshine-tiny --share 0.5 --out out/with-blocks

Its weights are those of the model's own encoder, moved by a share of the way to the published ones: what either has
learnt is kept (WiSE-FT, Wortsman et al., CVPR 2022). In a block all frames are context, as the published encoder had it
in training. Nothing is trained. Writes OUT/best: a run's folder that can be evaluated and exported.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from speech_reallm.errors import UserError
from speech_reallm.training.checkpoint import save_folder
from speech_reallm.training.config import BlockConfig, to_dict
from speech_reallm.training.export.folder import load_reallm
from speech_reallm.training.model.ctc import best_of
from speech_reallm.training.weights import load_weights

ENCODER, BLOCK_ENCODER = "encoder.", "block_encoder."


def add_block_encoder(run: Path, published: Path, share: float, blocks: BlockConfig, out: Path) -> None:
    """Write `out`/best. Raises UserError for folders without weights, or that do not go together; OSError."""
    model = load_reallm(run)
    weights = dict(model.state_dict())
    theirs = load_weights(published)
    for name in [n for n in weights if n.startswith(ENCODER)]:
        if name not in theirs or theirs[name].shape != weights[name].shape:
            raise UserError(f"{published} has no {name} of this shape")
        weights[name.replace(ENCODER, BLOCK_ENCODER, 1)] = weights[name].lerp(theirs[name].float(), share)
    config = dataclasses.replace(model.config, file_blocks=blocks)
    files = {
        "model.safetensors": weights,
        "model.json": to_dict(config),
        "tokenizer.model": (best_of(run) / "tokenizer.model").read_bytes(),
    }
    save_folder(out / "best", files)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a training run, or a model folder")
    parser.add_argument("published", type=Path, help="folder of published weights")
    parser.add_argument("--share", type=float, default=0.5, help="of the way there, 0 to 1 (default: 0.5)")
    parser.add_argument("--chunks", type=int, default=100, help="of a block, at most (default: 100)")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    try:
        blocks = BlockConfig(chunks=args.chunks)
        add_block_encoder(args.run, args.published, args.share, blocks, args.out)
    except (UserError, OSError) as err:
        sys.exit(f"error: {err}")
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
