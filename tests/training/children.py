"""What tests run in processes of their own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

# imported here so that the server that processes are forked from has it
import speech_reallm.training.tasks.ctc
import speech_reallm.training.tasks.lm
import speech_reallm.training.tasks.reallm  # noqa: F401
from speech_reallm.cli.main import main


def command(*argv: str) -> None:
    """`reallm VERB FILE ...`; what it prints goes to FILE.log; the process ends with its exit code."""
    sys.stdout = sys.stderr = Path(argv[1]).with_suffix(".log").open("a")
    torch.set_num_threads(1)
    sys.exit(main(list(argv)))


def ranked_command(rank: int, world: int, port: int, *argv: str) -> None:
    """`reallm ARGV` as torchrun starts it."""
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world),
        MASTER_ADDR="localhost",
        MASTER_PORT=str(port),
    )
    command(*argv)
