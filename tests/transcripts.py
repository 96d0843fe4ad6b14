"""Transcripts for tests: given ones, and whatever hypothesis thinks of."""

from __future__ import annotations

from hypothesis import strategies as st

from speech_reallm.events import Final, Transcript, Word


def transcript(*segments: list[tuple[str, float, float]], file: str | None = "a b/my talk.wav") -> Transcript:
    finals = []
    for segment in segments:
        words = tuple(Word(w, start, end, 0.875, end + 0.5) for w, start, end in segment)
        finals.append(Final(" ".join(w.word for w in words), words, words[0].start, words[-1].end))
    return Transcript.of(finals, duration=10.0, seconds=0.5, file=file)


words = st.tuples(
    st.text("abcdefghij'.,?", min_size=1, max_size=50), st.floats(0.0, 1.5), st.floats(0.01, 1.0)
)


@st.composite
def transcripts(draw: st.DrawFn) -> Transcript:
    """Words with gaps and lengths as they may be, in segments."""
    now, segments = 0.0, []
    for segment in draw(st.lists(st.lists(words, min_size=1, max_size=30), max_size=4)):
        timed = []
        for word, gap, length in segment:
            start, now = now + gap, now + gap + length
            timed.append((word, start, now))
        segments.append(timed)
    return transcript(*segments)
