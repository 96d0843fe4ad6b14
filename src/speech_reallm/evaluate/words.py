"""Which words go wrong, and what is heard in their place."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import zip_longest
from typing import Any

from .wer import Alignment

WORST = 100
HEARD = 3


def worst_words(scored: Iterable[tuple[str, str, Alignment]], count: int = WORST) -> list[dict[str, Any]]:
    """The words with the most errors, most first, from (reference, hypothesis, alignment), both normalised.

    Each is a dict of `word`, `said` (how often), `errors`, and `heard`: what came most often in its place, with how
    often; "" where nothing did. Between two words that are right, the first wrong one stands for the first, and so on.
    """
    said: Counter[str] = Counter()
    heard: dict[str, Counter[str]] = defaultdict(Counter)
    for reference, hypothesis, alignment in scored:
        words, others = reference.split(), hypothesis.split()
        said.update(words)
        r = h = 0
        for next_r, next_h in (*alignment.correct, (len(words), len(others))):
            for word, other in zip_longest(words[r:next_r], others[h:next_h]):
                if word is not None:
                    heard[word][other or ""] += 1
            r, h = next_r + 1, next_h + 1
    wrong = sorted(heard, key=lambda w: (-heard[w].total(), w))
    return [
        {
            "word": word,
            "said": said[word],
            "errors": heard[word].total(),
            "heard": [[other, times] for other, times in heard[word].most_common(HEARD)],
        }
        for word in wrong[:count]
    ]
