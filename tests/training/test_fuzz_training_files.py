"""Training files that are broken in every way: one line that says what is wrong, and nothing else."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from fuzzing import FINDINGS, LENGTHS, damaged, rounds, shown

from speech_reallm.errors import UserError
from speech_reallm.training.config.files import read_config
from speech_reallm.training.tasks.base import task_configs

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*/*.yaml"))
SCALARS = (
    "2026-99-99", "!!int x", "!!float x", "!!binary 'Ω'", "!!python/object/apply:os.system [true]", "&a [*a]", "*a",
    "&a", "<<: *a", "? [a]: b", "{", "]", "'", "|", "---", "...", "\t", "%YAML 9", "!!set {a, a}", "0b_", "0x_",
    "1:60:60", ".inf", "-.NaN", "1e400", "9" * 5000, "~", "${HOME}", "${NO_SUCH}", "${", "extends: .",
    "extends: '\\0'", "variables: []", "variables: {a: [1]}", "task: []", "!!timestamp x", "!!omap [a]", "!!pairs x",
    "[" * 600, "- " * 500, "a: " * 3,
)  # fmt: skip


def check(path: Path) -> None:
    try:
        read_config(path, task_configs())
    except UserError as err:
        assert str(err) and "\n" not in str(err)


def test_findings() -> None:
    files = sorted((FINDINGS / "training-files").glob("*.yaml"))
    for path in files:
        shown(path.name, lambda path=path: check(path))
    assert files


@pytest.mark.parametrize("seconds", LENGTHS)
def test_broken_training_files(
    seconds: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OUT", "SPEECH", "TEXT", "MOONSHINE"):
        monkeypatch.setenv(name, "somewhere")
    for recipe in RECIPES:
        (tmp_path / recipe.name).write_bytes(recipe.read_bytes())
    for chance in rounds(seconds, 50):
        text = broken(chance.choice(RECIPES).read_bytes(), chance)
        path = tmp_path / "broken.yaml"
        path.write_bytes(text)
        shown(text, lambda path=path: check(path))


def broken(text: bytes, chance: Random) -> bytes:
    lines = text.splitlines(keepends=True)
    for _ in range(chance.choice((1, 2, 5))):
        kind = chance.randrange(6)
        at = chance.randrange(len(lines) + 1)
        if kind == 0 and at < len(lines):
            del lines[at]
        elif kind == 1 and at < len(lines):
            head, colon, _ = lines[at].partition(b":")
            lines[at] = head + colon + b" " + chance.choice(SCALARS).encode() + b"\n"
        elif kind == 2:
            lines.insert(at, b" " * chance.randrange(6) + chance.choice(SCALARS).encode() + b"\n")
        elif kind == 3 and lines:
            lines.insert(at, chance.choice(lines))
        elif kind == 4 and at < len(lines):
            lines[at] = b" " * chance.randrange(4) + lines[at].lstrip()
        else:
            return damaged(b"".join(lines), chance)
    return b"".join(lines)
