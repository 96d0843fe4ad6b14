"""Every script beside the package starts: it is imported and its --help is shown."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("benchmarks", "recipes", "scripts", "examples")
    for path in (ROOT / folder).rglob("*.py")
)
# imports every module that a script imports, then shows its help
START = """
import runpy, sys
sys.argv = [sys.argv[1], "--help"]
runpy.run_path(sys.argv[0], run_name={name!r})
"""


def start(script: str, name: str) -> subprocess.CompletedProcess[str]:
    """Run a script as a person does, from the root; name: "__main__", or another to import it only."""
    path = [str((ROOT / script).parent), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, path))}
    command = [sys.executable, "-c", START.format(name=name), script]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)


def offers_help(script: str) -> bool:
    return "ArgumentParser(" in (ROOT / script).read_text(encoding="utf-8")


@pytest.mark.parametrize("script", [s for s in SCRIPTS if offers_help(s)])
def test_help(script: str) -> None:
    done = start(script, "__main__")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")
    assert Path(script).name in done.stdout


@pytest.mark.parametrize(
    "script", [s for s in SCRIPTS if not offers_help(s) and not s.startswith("examples/")]
)
def test_import(script: str) -> None:
    """What scripts share: imported, it does nothing."""
    done = start(script, "shared")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_shell_scripts_parse() -> None:
    scripts = [*(ROOT / "recipes").rglob("*.sh"), ROOT / ".ci/run"]
    assert len(scripts) > 1
    for script in scripts:
        done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
