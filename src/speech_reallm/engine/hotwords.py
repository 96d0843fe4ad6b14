"""Hot words in greedy decoding: a prefix trie over the spellings of terms, with a bonus that grows with depth.

Greedy decoding cannot take a piece back, so that a term is helped while it is being written: a piece that goes on with
one gets a bonus, the larger the more of the term is there with it. The trie is over characters, and its edges are
pieces, for a name that is new to the model is seldom written in the pieces that the tokenizer cuts it into.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np

from ..tokenizer import SPACE, Tokenizer

# nodes of the trie that the last pieces lead to: 0 is the root, where a term may begin at any time
Matches = tuple[int, ...]
NO_MATCH: Matches = (0,)


class HotWords:
    """Terms and their bonus, for one vocabulary. Immutable, so that streams may share it."""

    def __init__(self, tokenizer: Tokenizer, terms: Iterable[str], strength: float, blank_id: int) -> None:
        """terms: spelled as they are to be written; what begins with a small letter may begin with a capital, too.

        strength: nats for each character of a term. A term that the vocabulary cannot spell has no effect.
        """
        self._pieces = tokenizer.ids_by_text
        self._longest = max(map(len, self._pieces), default=0)
        self._blank_id = blank_id
        self._nodes = {"": 0}
        # for each node: pieces that go on with a term, and where to
        self._edges: list[dict[int, int]] = [{}]
        self._depths = [0]
        for term in terms:
            for spelling in dict.fromkeys((term, term[:1].upper() + term[1:])):
                self._add(SPACE + spelling.replace(" ", SPACE))
        self._bonus = [strength * depth for depth in self._depths]
        # most terms are at their beginning most of the time
        self._first_pieces = np.fromiter(self._edges[0], np.int64)
        self._first_bonus = np.array([self._bonus[node] for node in self._edges[0].values()], np.float32)
        del self._nodes, self._pieces

    def __bool__(self) -> bool:
        """Is there a term to be written?"""
        return len(self._edges) > 1

    def _add(self, text: str) -> None:
        """All ways to write `text` in pieces."""
        end = len(text)
        # positions, last to first, that the rest can be written from, and the pieces that do it: (id, end)
        ways: dict[int, list[tuple[int, int]]] = {end: []}
        for start in range(end - 1, -1, -1):
            found = [
                (self._pieces[text[start:stop]], stop)
                for stop in range(start + 1, min(end, start + self._longest) + 1)
                if stop in ways and text[start:stop] in self._pieces
            ]
            if found:
                ways[start] = found
        reached = {0} if 0 in ways else set()
        for start in range(end):
            if start in reached:
                node = self._node(text[:start])
                for piece, stop in ways[start]:
                    self._edges[node][piece] = self._node(text[:stop])
                    reached.add(stop)

    def best(self, log_probs: np.ndarray, matches: Matches, emitted: Collection[int]) -> int:
        """The best symbol of a step, the bonus counted.

        log_probs: float32 [V]. emitted: pieces of this chunk so far; they get no bonus, for a rule forbids them.
        """
        best = int(log_probs.argmax())
        if best == self._blank_id:
            # whether there is something to be written is for the model to say
            return best
        found, most = best, float(log_probs[best])
        scores = log_probs[self._first_pieces] + self._first_bonus
        for place in scores.argsort()[::-1]:
            piece = int(self._first_pieces[place])
            if piece not in emitted:
                if scores[place] > most:
                    found, most = piece, float(scores[place])
                break
        for match in matches[1:]:
            for piece, node in self._edges[match].items():
                score = float(log_probs[piece]) + self._bonus[node]
                if score > most and piece not in emitted:
                    found, most = piece, score
        return found

    def advance(self, matches: Matches, piece: int) -> Matches:
        """The matches after one more piece."""
        edges = self._edges
        return (0, *(node for match in matches if (node := edges[match].get(piece)) is not None))

    def _node(self, text: str) -> int:
        # both spellings of a term go on alike
        text = text[:2].lower() + text[2:]
        if text not in self._nodes:
            self._nodes[text] = len(self._edges)
            self._edges.append({})
            self._depths.append(len(text))
        return self._nodes[text]
