"""Real-time factor of a model on one thread, 8-bit and float: of a preset with random weights, or of a run or a folder.

    python benchmarks/real_time_factor.py --preset paper-80m
    python benchmarks/real_time_factor.py --model out/paper/llm --json llm.json

What a model computes does not depend on its weights but for the number of decoder steps, which depends on what is
said. So the encoder is measured by chunk and the decoder by step, in the runtime's own engine, and the real-time factor
is put together for speech of --pieces-per-second: each chunk takes a step for BLANK and one for each of its pieces.
Measured is the processor time of the computing thread, so that other work counts little; the median of --chunks.

The paper reports 0.5 for its 80 M model on a wearable. That is not comparable: another processor, another runtime and
quantisation; 960 ms of right context that are computed again with every chunk; other work of the device beside it. The
widths and the vocabulary of the preset are our choice, since the paper does not give them.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from speech_reallm.engine import Engine
from speech_reallm.modelfolder import ModelFolder, open_folder

# a chunk of warm-up for each that an encoder looks ahead, and some more
WARM_UP = 8


def export_preset(name: str, out: Path, int8: bool) -> Path:
    """A model folder of a preset with random weights."""
    import sentencepiece
    import torch
    from safetensors.torch import save_file

    from speech_reallm.training.config import to_dict
    from speech_reallm.training.config.presets import PRESETS
    from speech_reallm.training.export.folder import export_folder
    from speech_reallm.training.model.reallm import ReaLLM

    # made by the compiler of protocol buffers, and without types
    proto: Any = importlib.import_module("sentencepiece.sentencepiece_model_pb2")
    torch.manual_seed(0)
    run = out / f"{name}-run"
    if not run.exists():
        run.mkdir(parents=True)
        config = PRESETS[name]
        save_file(ReaLLM(config).state_dict(), run / "model.safetensors")
        (run / "model.json").write_text(json.dumps(to_dict(config)))
        pieces = proto.ModelProto()
        types = proto.ModelProto.SentencePiece
        for index in range(config.vocab_size):
            special = {0: types.UNKNOWN, 1: types.CONTROL, 2: types.CONTROL, 3: types.CONTROL}
            pieces.pieces.add(
                piece=f"\u2581w{index}", type=special.get(index, types.NORMAL), score=-float(index)
            )
        sentencepiece.SentencePieceProcessor(model_proto=pieces.SerializeToString())
        (run / "tokenizer.model").write_bytes(pieces.SerializeToString())
    return export_folder(run, out / f"{name}-{'int8' if int8 else 'float'}", name=name, int8=int8)


def measure(folder: ModelFolder, chunks: int) -> dict[str, float]:
    """Median milliseconds of processor time of an encoder's chunk and of a decoder's step, and the state's size."""
    engine = Engine(folder)
    state = engine.new_state()
    rng = np.random.default_rng(0)
    encoder: list[float] = []
    decoder: list[float] = []
    for number in range(WARM_UP + folder.lookahead_chunks + chunks):
        audio = rng.normal(0, 0.05, folder.chunk_samples).astype(np.float32)
        start = time.thread_time()
        encoded = engine._encode(state, audio)
        middle = time.thread_time()
        if number < WARM_UP + folder.lookahead_chunks:
            continue
        encoder.append(middle - start)
        engine._steps.next_chunk(state.decoder, number, encoded)
        start = time.thread_time()
        outputs = engine._decoder.run(None, state.decoder)
        found = dict(zip(engine._decoder_outputs, outputs, strict=True))
        engine._steps.commit(state.decoder, None, found)
        decoder.append(time.thread_time() - start)
    return {
        "encoder_ms_per_chunk": 1000 * statistics.median(encoder),
        "decoder_ms_per_step": 1000 * statistics.median(decoder),
        "state_mb": state.nbytes / 1e6,
    }


def real_time_factor(found: dict[str, float], chunk_ms: int, pieces_per_second: float) -> float:
    """Of speech with so many pieces a second: a decoder step for each piece and one for BLANK in each chunk."""
    steps = 1 + pieces_per_second * chunk_ms / 1000
    return (found["encoder_ms_per_chunk"] + steps * found["decoder_ms_per_step"]) / chunk_ms


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--preset", default="paper-80m", help="random weights (default: %(default)s)")
    what.add_argument("--model", type=Path, help="a run, or a model folder, which is exported both ways")
    parser.add_argument("--only", choices=["int8", "float"], help="one of the two")
    parser.add_argument("--pieces-per-second", type=float, default=3.5, help="(default: %(default)s)")
    parser.add_argument("--chunks", type=int, default=100, help="to measure (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("int8", "float"):
            if args.only not in (None, kind):
                continue
            print(f"exporting {args.model or args.preset}, {kind}", file=sys.stderr, flush=True)
            if args.model:
                from speech_reallm.training.export.folder import export_folder

                path = export_folder(args.model, Path(folder) / kind, name="measured", int8=kind == "int8")
            else:
                path = export_preset(args.preset, Path(folder), kind == "int8")
            model = open_folder(path)
            found = measure(model, args.chunks)
            size = sum(f.stat().st_size for f in path.iterdir()) / 1e6
            rtf = real_time_factor(found, model.chunk_ms, args.pieces_per_second)
            rows.append(
                {"model": str(args.model or args.preset), "kind": kind, "rtf": rtf, "size_mb": size, **found}
            )
    print(
        "| weights | RTF | encoder, ms a chunk | decoder, ms a step | on disk, MB | state of a stream, MB |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for row in rows:
        print(
            f"| {row['kind']} | {row['rtf']:.3f} | {row['encoder_ms_per_chunk']:.1f} "
            f"| {row['decoder_ms_per_step']:.2f} | {row['size_mb']:.1f} | {row['state_mb']:.1f} |"
        )
    if args.json:
        about = {"machine": platform.processor() or platform.machine(), "chunks": args.chunks}
        about |= {"pieces_per_second": args.pieces_per_second, "paper_rtf_on_a_wearable": 0.5}
        args.json.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
