"""A server for the tests that change nothing about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from serving import Running

from speech_reallm import Recognizer


@pytest.fixture(scope="session")
def server(recognizer: Recognizer) -> Iterator[Running]:
    running = Running(recognizer, per_minute=0)
    yield running
    running.stop()


@pytest.fixture
def start(recognizer: Recognizer) -> Iterator[Callable[..., Running]]:
    """Start servers with settings of one's own."""
    running: list[Running] = []

    def start(**settings: Any) -> Running:
        running.append(Running(recognizer, **settings))
        return running[-1]

    yield start
    for one in running:
        if one.thread.is_alive():
            one.stop()
