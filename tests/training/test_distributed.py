"""Two processes train as one does, on the same global batches."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import children
import pytest
import torch
import torch.distributed as dist
from tiny import checkpoint_tensors, losses, run, tiny, write_file
from tones import Corpus
from torch.nn.parallel import DistributedDataParallel

from speech_reallm.training.data.shard_writer import write_shards
from speech_reallm.training.distributed import without_sum
from speech_reallm.training.loop import _Forward

# nothing random in the model: its random numbers are each process's own
PLAIN = {"optim__steps": 6, "optim__lr": 5e-4}


def two_processes(data: dict[str, Any], folder: Path, context: ForkServerContext) -> None:
    path = write_file(folder / f"{Path(data['out']).name}.yaml", data)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    ranks = [
        context.Process(target=children.ranked_command, args=(rank, 2, port, "train", path))
        for rank in (0, 1)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    assert [p.exitcode for p in ranks] == [0, 0]


@pytest.mark.parametrize(
    "task, changes",
    [
        ("reallm", {"model__encoder__dropout": 0.0, "model__decoder__dropout": 0.0, "optim__accumulate": 2}),
        # batches of one or two utterances: often there is nothing for the second process
        ("ctc", {"ctc__encoder__dropout": 0.0, "data__batch_seconds": 3, "cache": True}),
    ],
)
def test_two_processes_give_the_losses_and_weights_of_one(
    task: str, changes: dict[str, Any], corpus: Corpus, tmp_path: Path, processes: ForkServerContext
) -> None:
    def data(name: str) -> dict[str, Any]:
        settings = PLAIN | changes
        if "cache" in changes:
            settings |= {"cache": str(tmp_path / name / "cache"), "optim__encoder_lr_scale": 0}
        return tiny(task, corpus, tmp_path / name, **settings)

    run(data("one"))
    two_processes(data("two"), tmp_path, processes)
    expected, found = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(expected) == 6
    assert found == pytest.approx(expected, rel=1e-4)
    a, b = checkpoint_tensors(tmp_path / "one"), checkpoint_tensors(tmp_path / "two")
    for name in a:
        if name.startswith("ema/"):
            torch.testing.assert_close(b[name], a[name], rtol=1e-3, atol=1e-4)


def test_shards_on_another_number_of_processes_half_way(
    corpus: Corpus, tmp_path: Path, processes: ForkServerContext
) -> None:
    """Two processes that read shards, then one that goes on: the losses of one process that reads single files."""
    assert write_shards(str(corpus.aligned), str(tmp_path / "shards"), 100_000)[0] > 2
    plain = PLAIN | {"model__encoder__dropout": 0.0, "model__decoder__dropout": 0.0, "optim__accumulate": 2}
    # a rate that does not ask how many steps there will be
    plain |= {"optim__schedule": "constant"}
    run(tiny("reallm", corpus, tmp_path / "files", **plain))
    shards = plain | {"data__train": [str(tmp_path / "shards")]}
    two_processes(
        tiny("reallm", corpus, tmp_path / "moved", **(shards | {"optim__steps": 3})), tmp_path, processes
    )
    run(tiny("reallm", corpus, tmp_path / "moved", **shards))
    expected, found = losses(tmp_path / "files"), losses(tmp_path / "moved")
    assert len(expected) == 6
    assert found == pytest.approx(expected, rel=1e-4)


def slurm(folder: Path, srun: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """deploy/slurm/train.sbatch as the first node of two runs it, with `srun` for Slurm's."""
    for name, text in (
        ("srun", srun),
        # what the list of nodes stands for
        ("scontrol", 'test "$1 $2 $3" = "show hostnames node[1-2]" && printf "localhost\\nother\\n"'),
    ):
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    environment = os.environ | {
        "PATH": os.pathsep.join([str(folder), os.environ["PATH"]]),
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "1",
        "TORCHRUN": f"{sys.executable} -m torch.distributed.run",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    script = ["bash", str(Path(__file__).parents[2] / "deploy/slurm/train.sbatch"), *arguments]
    return subprocess.run(script, env=environment, capture_output=True, text=True, timeout=280)


def test_the_slurm_job(tmp_path: Path) -> None:
    """What it would run on each node."""
    done = slurm(tmp_path, 'shift; echo "$OMP_NUM_THREADS $@"', "run.yaml", "--set", "out=a b")
    port = 20000 + os.getpid() % 20000
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        f"1 {sys.executable} -m torch.distributed.run --nnodes 2 --nproc-per-node 1 --rdzv-backend c10d "
        f"--rdzv-endpoint localhost:{port} --rdzv-id {os.getpid()} -m speech_reallm train run.yaml --set out=a b\n"
    )


@pytest.mark.slow
def test_the_slurm_job_on_two_nodes(corpus: Corpus, tmp_path: Path) -> None:
    """The nodes are two processes of this machine, which meet as torchrun's agents do."""
    plain = PLAIN | {"model__encoder__dropout": 0.0, "model__decoder__dropout": 0.0, "optim__accumulate": 2}
    run(tiny("reallm", corpus, tmp_path / "one", **plain))
    path = write_file(tmp_path / "run.yaml", tiny("reallm", corpus, tmp_path / "nodes", **plain))
    done = slurm(tmp_path, 'shift; "$@" & "$@"; code=$?; wait $! && exit $code', path)
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "nodes") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)


def test_gradients_are_summed_once_a_step(tmp_path: Path) -> None:
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    try:
        layer = DistributedDataParallel(torch.nn.Linear(2, 1, bias=False))
        sums: list[int] = []

        # without annotations: torch compares them, and here they are strings
        def counting(state, bucket):
            sums.append(bucket.buffer().numel())
            future: torch.futures.Future[torch.Tensor] = torch.futures.Future()
            future.set_result(bucket.buffer())
            return future

        layer.register_comm_hook(None, counting)
        for more in (True, True, False):
            with without_sum(layer, more):
                layer(torch.ones(1, 2)).sum().backward()
        assert sums == [2]
        assert torch.equal(layer.module.weight.grad, torch.full((1, 2), 3.0))
    finally:
        dist.destroy_process_group()


def test_no_share_of_a_batch_is_a_zero_with_gradients() -> None:
    layer = torch.nn.Linear(2, 2)
    loss, metrics = _Forward(layer)(None)
    loss.backward()
    assert loss == 0 and metrics == {}
    assert torch.equal(layer.weight.grad, torch.zeros(2, 2))
