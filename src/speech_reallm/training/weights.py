"""Weights to start from: earlier runs, model folders, published ones; renamed keys; interpolation."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import UserError
from ..tokenizer import Tokenizer
from .model.decoders import Decoder
from .model.packing import unpack
from .model.pretrained.llama import load_decoder

# a row for each label delay
DELAYS = "label_delay_embedding.weight"
# names of weights in earlier model folders and runs, and today's
RENAMED = (
    (re.compile(r"^delay\."), "label_delay_embedding."),
    (re.compile(r"^wait\."), "decoder.chunks_since_piece."),
    (re.compile(r"(^|\.)(blocks\.\d+\.)norm_frames\."), r"\1\2norm_cross_attention."),
    (re.compile(r"(^|\.)(blocks\.\d+\.)frames\.age$"), r"\1\2cross_attention.chunk_age"),
    (re.compile(r"(^|\.)(blocks\.\d+\.)frames\."), r"\1\2cross_attention."),
)


def renamed_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of an earlier version under today's names."""
    result = {}
    for name, value in weights.items():
        for pattern, new in RENAMED:
            name = pattern.sub(new, name)
        result[name] = value
    return result


@torch.no_grad()
def interpolate(module: nn.Module, other: nn.Module, share: float, leave: tuple[str, ...] = ()) -> None:
    """Move the weights towards those of `other` by this share of the way (WiSE-FT, Wortsman et al., CVPR 2022).

    leave: ends of names that stay as they are.
    """
    theirs = other.state_dict()
    for name, mine in module.state_dict().items():
        if not name.endswith(leave):
            mine.lerp_(theirs[name].to(mine.device), share)


def load_weights(folder: str | Path, tokenizer: Tokenizer | None = None) -> dict[str, Tensor]:
    """Tensors of an earlier run (its best/ if it has one), a model folder, a language model, or Moonshine's.

    Of Moonshine's weights the encoder's, and the decoder's for the pieces of `tokenizer`. Raises UserError when there
    are none.
    """
    root = Path(folder)
    if (root / "model.safetensors.index.json").exists():
        return load_decoder(root)
    for path in (root / "best" / "model.safetensors", root / "model.safetensors"):
        if path.exists():
            break
    else:
        if (root / "model.u8.safetensors").exists():
            raise UserError(
                f"{folder}: convert it first: python recipes/tools/convert_moonshine.py {folder} OUT"
            )
        raise UserError(f"no weights in {folder}: expected model.safetensors there or in its best/")
    try:
        with safe_open(path, "pt") as f:
            names = set(f.keys())
        if any(n.startswith("model.encoder.") for n in names):
            from .model.pretrained.moonshine import load_moonshine
            from .tokenizers.from_moonshine import old_ids

            return load_moonshine(root, old_ids(tokenizer, root) if tokenizer else None)
        if any(n.startswith("model.layers.") for n in names):
            return load_decoder(root)
        return renamed_weights(unpack(load_file(path)))
    except SafetensorError as err:
        raise UserError(f"{path} is not a readable safetensors file: {err}") from None


def init_from(
    model: nn.Module, folder: str | Path, prefix: str = "", tokenizer: Tokenizer | None = None
) -> list[str]:
    """Load the tensors of `folder` whose names (under prefix) and shapes match; returns their names.

    Only the number of label delays may differ.

    With `tokenizer`, a published decoder's too, where the model has a decoder for it.
    """
    mine = model.state_dict()
    found = {}
    weights = load_weights(folder, tokenizer)
    decoder = getattr(model, "decoder", None)
    if isinstance(decoder, Decoder):
        weights = decoder.converted(weights)
    for name, value in weights.items():
        key = name.removeprefix(prefix)
        if not name.startswith(prefix) or key not in mine:
            continue
        if key == DELAYS and value.shape[1:] == mine[key].shape[1:]:
            # a label delay that the run did not have begins as the largest of those that it had
            value = torch.cat((value, value[-1:].expand(len(mine[key]), -1)))[: len(mine[key])]
        if mine[key].shape == value.shape:
            found[key] = value
    if not found:
        raise UserError(f"nothing in {folder} fits this model: are the configurations the same?")
    model.load_state_dict(found, strict=False)
    return sorted(found)
