"""Every verb reaches its own code, whatever its arguments are called."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import ModuleType

import pytest

from speech_reallm.cli import main as cli


@pytest.mark.parametrize("module", cli.verbs(), ids=lambda module: module.NAME)
def test_no_argument_hides_the_verb(module: ModuleType) -> None:
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    assert "verb" not in {action.dest for action in parser._actions}


def test_export_is_reached(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", str(tmp_path / "nowhere"), str(tmp_path / "out")]) == 2
    assert "nowhere is not a trained recogniser" in capsys.readouterr().err
