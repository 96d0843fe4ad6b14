"""From a training run to a model folder that the runtime loads."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from ...audio import SAMPLE_RATE
from ...errors import UserError
from ...files import sha256
from ...modelfolder import BLOCK_ENCODER, FILES, FORMAT, TOKENIZERS
from ..config import ModelConfig, build, to_dict
from ..model.ctc import best_of
from ..model.packing import pack, unpack
from ..model.reallm import ReaLLM
from ..weights import renamed_weights
from .onnx import encoder_graphs, export_graphs


def load_reallm(folder: str | Path) -> ReaLLM:
    """A trained ReaLLM from its run's folder or from a model folder. Raises UserError."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = best_of(folder)
    try:
        if (folder / "model.json").exists():
            data = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        else:
            data = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model"]
        if "head_layers" in data:
            raise UserError(
                "it is a CTC model, which `reallm align` uses; export takes a run of task: reallm"
            )
        model = ReaLLM(build(ModelConfig, data))
        model.load_state_dict(renamed_weights(unpack(load_file(folder / "model.safetensors"))))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, UserError) as err:
        raise UserError(f"{folder} is not a trained recogniser: {' '.join(str(err).split())[:200]}") from None
    return model.eval()


def export_folder(run: str | Path, out: str | Path, *, name: str, int8: bool = True) -> Path:
    """Write the model folder `out` from the training run `run`; an existing one is replaced when all is written.

    With int8 matrices are 8-bit, and the graphs refer to those in model.safetensors. Raises UserError.
    """
    source, out = best_of(run), Path(out)
    model = load_reallm(source)
    temporary = out.with_name(f".{out.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        tokenizer = next((name for name in TOKENIZERS if (source / name).exists()), TOKENIZERS[0])
        shutil.copy(source / tokenizer, temporary / tokenizer)
        weights = model.state_dict()
        if int8:
            weights = pack(weights)
            # the graphs are made of what the file holds, so that training goes on from what was measured
            model.load_state_dict(unpack(weights))
        save_file({k: v.contiguous() for k, v in weights.items()}, temporary / "model.safetensors")
        export_graphs(model, temporary, weights if int8 else None)
        files = {*FILES, *encoder_graphs(model.config)} - {*TOKENIZERS} | {tokenizer}
        files |= {BLOCK_ENCODER} if model.block_encoder else set()
        config = describe(model, name) | {"tokenizer": tokenizer}
        config |= {"sha256": {f: sha256(temporary / f) for f in sorted(files)}}
        (temporary / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        # the card and licences of the model that is replaced stay with it
        for kept in [*out.glob("README.md"), *out.glob("LICENSE*")]:
            shutil.copy(kept, temporary / kept.name)
        for file in temporary.iterdir():
            file.chmod(0o644)
        if out.exists():
            shutil.rmtree(out)
        os.replace(temporary, out)
    except OSError as err:
        raise UserError(f"cannot write {out}: {err.strerror or err}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return out


def describe(model: ReaLLM, name: str) -> dict[str, Any]:
    """What config.json says of a model, checksums aside."""
    config = model.config
    file_delay = config.default_delay if config.file_delay is None else config.file_delay
    blocks = config.file_blocks
    return {
        "format": FORMAT,
        "name": name,
        "language": config.language,
        "sample_rate": SAMPLE_RATE,
        "chunk_ms": config.chunk_ms,
        "lookahead_chunks": config.encoder.lookahead_chunks,
        "delays": list(config.delays),
        "default_delay": config.default_delay,
        "file_delay": file_delay,
        "file_blocks": blocks and to_dict(blocks) | {"offset": model.encoder.frame_offset(file_delay)},
        "encoders": {name: list(delays) for name, delays in encoder_graphs(config).items()},
        "vocab_size": config.vocab_size,
        "blank_id": config.blank_id,
        "window": config.decoder.window,
        **model.decoder.describe(),
        "max_pieces_per_chunk": config.max_pieces_per_chunk,
        "max_same_piece_per_chunk": config.max_same_piece_per_chunk,
        "model": to_dict(config),
    }
