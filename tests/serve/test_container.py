"""The container image, where there is an engine to build it with."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def engine() -> str | None:
    """podman or docker, if it answers; a client without an engine does not."""
    for name in ("podman", "docker"):
        if shutil.which(name) and not subprocess.run([name, "info"], capture_output=True).returncode:
            return name
    return None


@pytest.mark.timeout(1800)
def test_the_image_can_be_built() -> None:
    name = engine()
    if name is None:
        pytest.skip("no container engine")
    subprocess.run([name, "build", "-t", "speech-reallm-test", str(ROOT)], check=True)
    run = [name, "run", "--rm", "speech-reallm-test", "--version"]
    # the entry point is `reallm serve`: an unknown option is its own error, not the engine's
    asked = subprocess.run(run, capture_output=True, text=True)
    assert asked.returncode == 2 and "reallm" in asked.stderr
