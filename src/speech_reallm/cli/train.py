"""reallm train: any training run, from one YAML file."""

from __future__ import annotations

import argparse

NAME = "train"
HELP = "train an encoder, an alignment teacher, a language model or a recogniser"
EPILOG = """examples:
  reallm train recipes/default/1-encoder.yaml             run, or resume where it stopped
  reallm train recipes/default/3-joint.yaml --minutes 95  end in 95 minutes, learning rate decayed by then
  torchrun --nproc-per-node 2 -m speech_reallm train recipes/debug/teacher.yaml
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", help="YAML file of the run")
    parser.add_argument(
        "--minutes", type=float, help="training time in all; the learning rate follows the clock"
    )
    parser.add_argument(
        "--fresh", action="store_true", help="ignore and delete earlier checkpoints of this run"
    )
    parser.add_argument("--threads", type=int, help="CPU threads (default: all)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override, e.g. optim.lr=1e-4"
    )


def run(args: argparse.Namespace) -> int:
    from ..training.run import run_training

    return run_training(args.config, args.set, minutes=args.minutes, fresh=args.fresh, threads=args.threads)
