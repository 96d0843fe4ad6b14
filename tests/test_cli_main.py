"""Every verb reaches its own code, whatever its arguments are called."""

from __future__ import annotations

import argparse
import re
import shlex
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


def examples() -> list[tuple[str, str]]:
    """(verb, command) for every example of every --help."""
    found = []
    for module in cli.verbs():
        for line in module.EPILOG.splitlines():
            # after two spaces there may be a remark; before the command another program and a pipe
            command = re.match(r"  (?:[^#]*\| )?reallm (.*?)(?:  .*)?$", line)
            if command:
                found.append((module.NAME, command[1]))
    return found


@pytest.mark.parametrize("module", cli.verbs(), ids=lambda module: module.NAME)
def test_every_verb_has_examples(module: ModuleType) -> None:
    assert "examples:\n" in module.EPILOG
    assert module.NAME in {verb for verb, _ in examples()}


@pytest.mark.parametrize(("verb", "command"), examples())
def test_examples_of_help_are_commands(verb: str, command: str) -> None:
    arguments = shlex.split(re.split(r" [|>] ", command)[0])
    parsed = cli._parser().parse_args(arguments)
    assert arguments[0] == parsed.verb.NAME
