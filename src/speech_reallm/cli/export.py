"""reallm export: a trained recogniser as a folder that runs without torch."""

from __future__ import annotations

import argparse

NAME = "export"
HELP = "turn a training run into a model folder (ONNX, 8 bits)"
EPILOG = """examples:
  reallm export out/spliced my-model                   8-bit, as it ships
  reallm export out/spliced my-model --float           32-bit graphs and weights
  reallm transcribe talk.wav --model my-model
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="folder of a reallm training run (or its best/)")
    parser.add_argument("out", help="model folder to write")
    parser.add_argument("--name", help="name of the model (default: that of the folder)")
    parser.add_argument("--float", action="store_true", help="no quantisation")


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from ..training.export.folder import export_folder

    out = export_folder(args.run, args.out, name=args.name or Path(args.out).name, int8=not args.float)
    size = sum(f.stat().st_size for f in out.iterdir())
    print(f"wrote {out}: {size / 1e6:.1f} MB")
    return 0
