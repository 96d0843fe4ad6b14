"""Which words go wrong, and what is recognised in their place."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import zip_longest
from typing import Any

from .wer import EditAlignment

WORST = 100
ALTERNATIVES = 3


def worst_words(scored: Iterable[tuple[str, str, EditAlignment]], count: int = WORST) -> list[dict[str, Any]]:
    """The words with the most errors, most first, from (reference, hypothesis, alignment), both normalised.

    Each is a dict of `word`, `occurrences`, `errors`, and `recognised_as`: what came most often in its place, with how
    often; "" where nothing did. Between two words that are right, the first wrong one stands for the first, and so on.
    """
    occurrences: Counter[str] = Counter()
    recognised: dict[str, Counter[str]] = defaultdict(Counter)
    for reference, hypothesis, alignment in scored:
        words, others = reference.split(), hypothesis.split()
        occurrences.update(words)
        r = h = 0
        for next_r, next_h in (*alignment.correct, (len(words), len(others))):
            for word, other in zip_longest(words[r:next_r], others[h:next_h]):
                if word is not None:
                    recognised[word][other or ""] += 1
            r, h = next_r + 1, next_h + 1
    wrong = sorted(recognised, key=lambda w: (-recognised[w].total(), w))
    return [
        {
            "word": word,
            "occurrences": occurrences[word],
            "errors": recognised[word].total(),
            "recognised_as": [[other, times] for other, times in recognised[word].most_common(ALTERNATIVES)],
        }
        for word in wrong[:count]
    ]
