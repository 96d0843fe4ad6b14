"""Every training file in recipes/ loads and describes a model that can be built; presets; overrides."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from speech_reallm.errors import UserError
from speech_reallm.tokenizer import Tokenizer
from speech_reallm.training.config import (
    AugmentConfig,
    CTCConfig,
    DataConfig,
    DecoderConfig,
    EncoderConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    to_dict,
)
from speech_reallm.training.config.presets import PRESETS
from speech_reallm.training.model.ctc import CTCModel
from speech_reallm.training.model.encoders import build_encoder
from speech_reallm.training.model.reallm import ReaLLM
from speech_reallm.training.run import load_config
from speech_reallm.training.tasks.base import task_configs

CONFIGS = (AugmentConfig, CTCConfig, DataConfig, DecoderConfig, EncoderConfig, ModelConfig, OptimConfig)

ROOT = Path(__file__).parents[3]
FILES = sorted(p for p in (ROOT / "recipes").rglob("*.yaml") if not p.name.startswith("_"))
RECIPE = ROOT / "recipes/librispeech-960"


def build(config: RunConfig) -> nn.Module:
    if config.task == "ctc":
        assert config.ctc is not None
        return CTCModel(config.ctc)
    assert config.model is not None
    return ReaLLM(config.model)


@pytest.mark.parametrize("path", FILES, ids=[str(p.relative_to(ROOT / "recipes")) for p in FILES])
def test_file_loads_and_its_model_can_be_built(path: Path) -> None:
    config = load_config(str(path), [])
    assert load_config(str(path), [f"seed={config.seed}"]) == config
    if config.task == "lm":
        # text alone: no file names speech
        assert not config.data.train
    with torch.device("meta"):
        model = build(config)
        if config.task == "distill":
            build_encoder(config.model.encoder, config.model.chunk_ms)
    assert sum(p.numel() for p in model.parameters()) > 0


def test_stages_of_the_recipe_fit_together() -> None:
    teacher, reallm = (load_config(str(RECIPE / f), []) for f in ("1-teacher.yaml", "2-reallm.yaml"))
    assert teacher.ctc.vocab_size == reallm.model.vocab_size
    assert teacher.data.tokenizer == reallm.data.tokenizer
    aligned = [p.replace("librispeech/", "librispeech/aligned/") + ".gz" for p in teacher.data.train]
    assert list(reallm.data.train) == aligned
    assert reallm.model == PRESETS["paper-80m"]
    # what the README says is what the files say
    readme = (RECIPE / "README.md").read_text()
    for said in (teacher.data.tokenizer, teacher.out, reallm.out, f"--vocab {reallm.model.vocab_size}"):
        assert said in readme


def test_stages_of_the_default_model_fit_together() -> None:
    encoder, decoder, joint, mixed, wide, upper, whole = (
        load_config(str(path), []) for path in sorted((ROOT / "recipes/default").glob("[0-9]*.yaml"))
    )
    assert encoder.out in decoder.init and joint.init == (decoder.out,) and mixed.init == (joint.out,)
    assert decoder.data == dataclasses.replace(joint.data, concatenate_prob=decoder.data.concatenate_prob)
    assert decoder.model.decoder == joint.model.decoder and joint.model == mixed.model
    plain = [dataclasses.replace(c.model.encoder, dropout=0.0) for c in (encoder, decoder, joint)]
    assert plain[0] == plain[1] == plain[2]
    # the script runs them in this order
    script = (ROOT / "recipes/default/run.sh").read_text()
    places = [
        script.index(f"train {path.stem}") for path in sorted((ROOT / "recipes/default").glob("[0-9]*.yaml"))
    ]
    assert places == sorted(places)
    mean = "recipes/tools/interpolate.py {} {} --out".format(
        *(f'"{c.out.replace("out/", "$OUT/")}"' for c in (joint, mixed))
    )
    assert mean in script
    assert '--out "$OUT/half"' in script and wide.init == ("out/half",)
    assert upper.init == (wide.out,) and upper.data == wide.data
    assert 'interpolate.py "$OUT/upper" "$OUT/half"' in script and upper.out == "out/upper"
    assert whole.init == ("out/blocks",) and '--out "$OUT/blocks"' in script
    assert 'export "$OUT/whole"' in script and whole.out == "out/whole"
    # no two stages draw the same
    assert len({c.seed for c in (encoder, decoder, joint, mixed, wide, upper, whole)}) == 7


def write(path: Path, model: str) -> str:
    path.write_text(
        f"task: reallm\nout: x\nmodel: {model}\ndata: {{train: [a], tokenizer: t}}\noptim: {{steps: 1, lr: 1.0}}\n"
    )
    return str(path)


def test_preset_is_the_default_of_what_a_file_leaves_out(tmp_path: Path) -> None:
    text = "{preset: debug, vocab_size: 99, encoder: {layers: 1, lookahead: []}}"
    model = load_config(write(tmp_path / "a.yaml", text), []).model
    expected = to_dict(PRESETS["debug"])
    expected["vocab_size"] = 99
    expected["encoder"] |= {"layers": 1, "lookahead": []}
    assert to_dict(model) == expected


def test_a_file_extends_another(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    base = write(tmp_path / "base.yaml", "{preset: debug}")
    (tmp_path / "below/middle.yaml").write_text(
        "extends: ../base.yaml\nmodel: {encoder: {layers: 3}}\nout: y\n"
    )
    top = tmp_path / "top.yaml"
    top.write_text("extends: below/middle.yaml\ndata: {train: [b, c]}\nout: z\n")
    changes = ["model.encoder.layers=3", "data.train=[b, c]", "out=z"]
    assert load_config(str(top), []) == load_config(base, changes)


@pytest.mark.parametrize(
    "text, message",
    [
        ("extends: top.yaml", "top.yaml extends itself"),
        ("extends: other.yaml", "top.yaml extends itself"),
        ("extends: nowhere.yaml", "cannot read"),
        ("extends: [a]", "expected a file"),
        ("extends: list.yaml\nout: x", "task: None is not one of"),
    ],
)
def test_extensions_that_are_wrong(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "top.yaml").write_text(text + "\n")
    (tmp_path / "other.yaml").write_text("extends: top.yaml\n")
    (tmp_path / "list.yaml").write_text("[a]\n")
    with pytest.raises(UserError, match=message):
        load_config(str(tmp_path / "top.yaml"), [])


@pytest.mark.parametrize(
    "model, message",
    [
        ("{preset: huge}", "a.yaml: model.preset: 'huge' is not one of paper-80m"),
        ("{preset: [1]}", "a.yaml: model.preset"),
        ("{preset: debug, sise: 1}", "a.yaml: unknown key model.sise"),
        ("debug", "a.yaml: model: expected a mapping"),
    ],
)
def test_presets_that_are_wrong(model: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_config(write(tmp_path / "a.yaml", model), [])
    assert message in str(caught.value)


def test_overrides(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "{preset: debug}")
    changes = [
        "optim.lr=1e-4",
        "data.train=[b, c]",
        "model.encoder.layers=3",
        "data.dev=d",
        "label_smoothing=1",
    ]
    config = load_config(path, changes)
    assert config.optim.lr == 1e-4
    assert config.data.train == ("b", "c")
    assert config.model.encoder.layers == 3
    assert (config.data.dev, config.label_smoothing) == (("d",), 1.0)


@pytest.mark.parametrize(
    "change", ["optim.rate=1", "optim.lr.x=1", "nothing", "ctc.vocab_size=1", "data.train=[a"]
)
def test_overrides_that_are_wrong(change: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--set"):
        load_config(write(tmp_path / "a.yaml", "{preset: debug}"), [change])


def test_tokenizers_of_runs_that_are_there_fit() -> None:
    for path in FILES:
        config = load_config(str(path), [])
        tokenizer = ROOT / (config.data.tokenizer or "none")
        if tokenizer.is_file():
            size = config.ctc.vocab_size if config.task == "ctc" else config.model.vocab_size
            assert len(Tokenizer(tokenizer)) == size


def test_variables_come_from_the_environment_or_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.yaml", "{preset: debug}")
    with open(path, "a") as file:
        file.write("variables: {FOLDER: from-file}\ninit: ['${FOLDER}/x', '${FOLDER}/y']\n")
    monkeypatch.delenv("FOLDER", raising=False)
    assert load_config(path, []).init == ("from-file/x", "from-file/y")
    monkeypatch.setenv("FOLDER", "from-environment")
    assert load_config(path, []).init == ("from-environment/x", "from-environment/y")
    with open(path, "a") as file:
        file.write("cache: ${SURELY_NOT_SET}\n")
    with pytest.raises(UserError, match=r"\$\{SURELY_NOT_SET\} has no value: set the environment variable"):
        load_config(path, [])


def test_settings_of_earlier_versions_are_read_under_their_new_names(tmp_path: Path) -> None:
    model = (
        "{vocab_size: 9, delays: [0, 1], encoder: {kind: waveform, layers: 1, dim: 16, heads: 2, ffn: 16, "
        "right_chunks: 1, delayed_chunks: 1}, decoder: {frame_chunks: 4}}"
    )
    path = write(tmp_path / "a.yaml", model)
    with open(path, "a") as file:
        file.write("stray: 0.1\nteacher: t\nteacher_share: 0.7\npiece_noise: 0.2\n")
    config = load_config(path, [])
    assert config.model.encoder.right_context == (1, 2)
    assert (config.model.decoder.kind, config.model.decoder.cross_attention_chunks) == ("cross-attention", 4)
    assert (config.perturbation_prob, config.piece_noise_prob) == (0.1, 0.2)
    assert (config.distillation_teacher, config.soft_label_weight) == ("t", 0.7)
    with open(path, "a") as file:
        file.write("perturbation_prob: 0.3\n")
    with pytest.raises(UserError, match="stray is the earlier name of perturbation_prob"):
        load_config(path, [])


def documented(cls: type) -> set[str]:
    """Settings that the docstring of a configuration explains, and those of the classes below it."""
    text = " ".join(c.__doc__ or "" for c in cls.__mro__)
    return {f.name for f in dataclasses.fields(cls) if re.search(rf"\b{f.name}\b", text)}


@pytest.mark.parametrize("cls", [*task_configs().values(), *CONFIGS], ids=lambda c: c.__name__)
def test_help_explains_every_setting(cls: type) -> None:
    assert {f.name for f in dataclasses.fields(cls)} == documented(cls)
