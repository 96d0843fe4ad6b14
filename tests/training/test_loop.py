"""Schedule, averaged weights, groups of weights, and losses that are not finite."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from tiny import checkpoint_tensors, losses, make, run, tiny, write_file
from tones import Corpus
from torch import nn

from speech_reallm.cli.main import main
from speech_reallm.errors import UserError
from speech_reallm.training.config import OptimConfig
from speech_reallm.training.optimiser import L2SP, Ema, lr_scale, parameter_groups


def test_schedule_warms_up_and_decays() -> None:
    optim = OptimConfig(steps=1000, lr=1.0, warmup_steps=100, final_lr_scale=0.1)
    scales = [lr_scale(optim, step, step / 1000) for step in range(1001)]
    assert scales[0] == pytest.approx(0.01)
    assert max(range(1001), key=scales.__getitem__) == 99
    assert all(a > b for a, b in itertools.pairwise(scales[99:]))
    assert scales[1000] == pytest.approx(0.1)
    # late, as a clock may have it
    assert lr_scale(optim, 500, 7.0) == pytest.approx(0.1)


def test_constant_schedule_and_no_warm_up() -> None:
    optim = OptimConfig(steps=10, lr=1.0, warmup_steps=0, schedule="constant")
    assert [lr_scale(optim, step, step / 10) for step in range(10)] == [1.0] * 10


def test_average_follows_its_definition_and_is_swapped_in_and_out() -> None:
    model = nn.Linear(1, 1, bias=False)
    ema = Ema(model, 0.5)
    expected = float(model.weight.detach())
    for step in range(1, 30):
        with torch.no_grad():
            model.weight.fill_(step)
        ema.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    with ema.swapped():
        assert float(model.weight.detach()) == pytest.approx(expected)
    assert float(model.weight.detach()) == 29


def test_average_swaps_back_after_an_error() -> None:
    model = nn.Linear(1, 1)
    ema = Ema(model, 0.5)
    with torch.no_grad():
        model.weight.fill_(3)
    with pytest.raises(RuntimeError), ema.swapped():
        raise RuntimeError
    assert float(model.weight.detach()) == 3


def model_of_two_parts() -> nn.Module:
    decoder = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    return nn.ModuleDict({"encoder": nn.Linear(2, 2), "decoder": decoder})


def test_matrices_decay_and_the_encoder_has_its_own_rate() -> None:
    model = model_of_two_parts()
    groups = parameter_groups(model, OptimConfig(steps=1, lr=1, encoder_lr_scale=0.5, weight_decay=0.1))
    found = {(g["scale"], g["weight_decay"]): [tuple(p.shape) for p in g["params"]] for g in groups}
    assert found == {
        (0.5, 0.1): [(2, 2)],
        (0.5, 0.0): [(2,)],
        (1.0, 0.1): [(2, 2)],
        (1.0, 0.0): [(2,), (2,), (2,)],
    }


def test_frozen_encoder_has_no_group() -> None:
    model = model_of_two_parts()
    groups = parameter_groups(model, OptimConfig(steps=1, lr=1, encoder_lr_scale=0))
    assert {g["scale"] for g in groups} == {1.0}
    assert not any(p.requires_grad for p in model["encoder"].parameters())


def test_l2_sp_holds_what_is_neither_new_nor_frozen() -> None:
    model = model_of_two_parts()
    optim = OptimConfig(
        steps=1, lr=0.1, l2_sp=5, frozen=("encoder.",), new_parameters=("decoder.1",), weight_decay=0.1
    )
    groups = parameter_groups(model, optim)
    assert not any(p.requires_grad for p in model["encoder"].parameters())
    assert {(g["scale"], g["weight_decay"], g["l2_sp"]) for g in groups} == {
        (1.0, 0.0, 5.0),
        (5.0, 0.0, 0.0),
    }
    l2_sp = L2SP(groups)
    start = [p.detach().clone() for p in model["decoder"].parameters()]
    with torch.no_grad():
        for p in model["decoder"].parameters():
            p += 1
    l2_sp.pull([{**g, "lr": 0.1 * g["scale"]} for g in groups])
    moved = [
        float((p.detach() - s).mean()) for p, s in zip(model["decoder"].parameters(), start, strict=True)
    ]
    # half of the way back for the linear layer, the norm where it went
    assert moved == pytest.approx([0.5, 0.5, 1, 1])


def test_a_run_with_l2_sp_stays_near_where_it_began(corpus: Corpus, out: Path) -> None:
    far = {}
    for strength in (0.0, 300.0):
        data = tiny(
            "reallm", corpus, out / str(strength), optim__steps=30, optim__lr=3e-3, optim__l2_sp=strength
        )
        _, task = make(data)
        before = task.model.decoder.blocks[0].q.weight.detach().clone()
        run(data)
        after = checkpoint_tensors(out / str(strength))["model/decoder.blocks.0.q.weight"]
        far[strength] = float((after - before).norm())
    assert 0 < far[300.0] < 0.5 * far[0.0]


def test_rates_reach_the_weights(corpus: Corpus, out: Path) -> None:
    """The first step of Adam moves every weight by its learning rate."""
    data = tiny(
        "reallm", corpus, out, optim__steps=1, optim__lr=1e-3, optim__encoder_lr_scale=0.1,
        optim__warmup_steps=1, optim__weight_decay=0.0, optim__clip=1e9,
    )  # fmt: skip
    _, task = make(data)
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    run(data)
    after = checkpoint_tensors(out)
    moved = {name: float((after[f"model/{name}"] - before[name]).abs().max()) for name in before}
    assert moved["decoder.blocks.0.q.weight"] == pytest.approx(1e-3, rel=0.05)
    assert moved["encoder.layers.0.up.weight"] == pytest.approx(1e-4, rel=0.05)


def test_minutes_end_the_run_with_a_decayed_rate(corpus: Corpus, out: Path) -> None:
    run(tiny("lm", corpus, out, optim__steps=10**6), minutes=0.02)
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    rates = [row["lr"] for row in rows if row["kind"] == "train"]
    assert 1 < len(rates) < 10**5
    assert rates[-1] < 0.3 * max(rates)


def test_loss_that_is_not_finite_ends_the_run(
    corpus: Corpus, tmp_path: Path, out: Path, capsys: pytest.CaptureFixture
) -> None:
    data = tiny("lm", corpus, out, optim__steps=100, optim__lr=1e30, optim__warmup_steps=0, optim__clip=1e30)
    assert main(["train", write_file(tmp_path / "run.yaml", data)]) == 2
    assert "the loss has not been finite for 10 steps: lower optim.lr" in capsys.readouterr().err
    assert not all(map(math.isfinite, losses(out)))


def test_weights_that_leave_nothing_are_an_error(corpus: Corpus, out: Path) -> None:
    with pytest.raises(UserError, match="nothing to train on"):
        run(tiny("reallm", corpus, out, data__weights=[0.0]))


def test_all_frozen_is_an_error(corpus: Corpus, out: Path) -> None:
    (out / "teacher").mkdir(parents=True)
    run(tiny("reallm", corpus, out / "teacher", optim__steps=1))
    data = tiny("distill", corpus, out, distillation_teacher=str(out / "teacher"), optim__encoder_lr_scale=0)
    with pytest.raises(UserError, match="every weight is frozen"):
        run(data)
