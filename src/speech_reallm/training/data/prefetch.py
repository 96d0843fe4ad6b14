"""Loading ahead in threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import torch


def prefetch(items: Sequence, load: Callable, depth: int = 4, workers: int | None = None) -> Iterator:
    """load(item) for each, in order, computed ahead in threads: one beside a CPU that trains, 8 to feed a GPU.

    What load raises is raised here.
    """
    workers = workers or (8 if torch.cuda.is_available() else 1)
    pool = ThreadPoolExecutor(workers, "prefetch")
    rest = iter(items)
    try:
        waiting = deque(pool.submit(load, item) for item in islice(rest, depth + workers - 1))
        while waiting:
            value = waiting.popleft().result()
            waiting.extend(pool.submit(load, item) for item in islice(rest, 1))
            yield value
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
