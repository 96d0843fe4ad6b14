"""Broken input made from good input: the same every time in the tests, another for a minute with `-m slow`.

What a minute has found is kept below `findings/` and tried each time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

FINDINGS = Path(__file__).parent / "findings"
# how long: None for so many inputs as a test can do in seconds; FUZZ_SECONDS for longer than the minute
LENGTHS = [
    None,
    pytest.param(float(os.environ.get("FUZZ_SECONDS", 60)), marks=[pytest.mark.slow, pytest.mark.timeout(0)]),
]


def rounds(seconds: float | None, count: int) -> Iterator[Random]:
    """A generator of chance for each input; what fails names its `seed`."""
    if seconds is None:
        for seed in range(count):
            yield Random(seed)
        return
    begun, seed = time.monotonic(), time.time_ns()
    while time.monotonic() - begun < seconds:
        print(f"seed {seed}", flush=True)
        yield Random(seed)
        seed += 1


def damaged(data: bytes, chance: Random) -> bytes:
    """Bytes changed, cut out, put in twice, cut off."""
    result = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 5, 20))):
        at = chance.randrange(len(result) + 1)
        length = chance.choice((1, 2, 4, 16, 200))
        kind = chance.randrange(5)
        if kind == 0 and at < len(result):
            result[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            result[at : at + length] = chance.randbytes(length)
        elif kind == 2:
            del result[at : at + length]
        elif kind == 3:
            result[at:at] = result[at : at + length]
        elif chance.random() < 0.2:
            del result[at:]
    return bytes(result)


def odd_value(chance: Random) -> Any:
    """What nobody expects in JSON or YAML."""
    return chance.choice(
        (
            None, True, False, 0, 1, -1, 3, 2**31, 2**64, 10**400, 0.5, -0.0, 1e308, float("inf"), float("nan"), "",
            "a", "0", "1e3", "../../etc/passwd", "\0", "\ud800", "x" * 300, "😀" * 20, [], {}, [None], [[[]]], {"": {}},
            {"type": []}, [0] * 50,
        )
    )  # fmt: skip


def altered(value: Any, chance: Random) -> Any:
    """A copy of plain data with something in it changed, taken away or added."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        copy = dict(value)
        key = chance.choice(list(copy))
        kind = chance.randrange(8)
        if kind == 0:
            del copy[key]
        elif kind == 1:
            copy[str(odd_value(chance))] = copy[key]
        else:
            copy[key] = altered(copy[key], chance)
        return copy
    if isinstance(value, list) and value and chance.random() < 0.8:
        items = list(value)
        at = chance.randrange(len(items))
        kind = chance.randrange(5)
        if kind == 0:
            del items[at]
        elif kind == 1:
            items.insert(at, items[at])
        else:
            items[at] = altered(items[at], chance)
        return items
    return odd_value(chance)


def shown(given: object, call: Callable[[], None]) -> None:
    """Call; what fails is printed with its input."""
    try:
        call()
    except BaseException:
        print(f"input: {given!r}")
        raise
