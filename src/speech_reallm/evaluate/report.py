"""What was measured, for machines (a dict) and for people (a table, the worst, a page with plots)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from .bootstrap import interval
from .latency import percentiles
from .run import Utterance
from .times import describe_source
from .wer import by_length, total
from .words import worst_words
from .writing import score_writing

WORST = 20


def summarize(utterances: Sequence[Utterance]) -> dict[str, Any]:
    """The figures of an evaluation.

    `wer` is in percent, `wer_95` are the ends of its 95 % interval (bootstrap over utterances); `rtf` is
    computing time by audio time, `rtf_cpu` processor time by audio time; `..._ms` are percentiles in ms:
    `emission_delay` over the words that are right (`delay_words` of them; `delay_words_late` of all words
    came only after the end of the audio), `chunk_compute` over 240 ms feeds, `finalize` over utterances; `writing` is
    the result of score_writing(). None stands for what is not known.
    """
    counts = total(u.alignment.counts for u in utterances)
    streamed = [u.streamed for u in utterances]
    seconds = sum(s.duration for s in streamed)
    delays = [d for u in utterances for d in u.delays or ()]
    return {
        "wer": _round(counts.wer, 3),
        "wer_95": _interval(utterances),
        "words": counts.words,
        "substitutions": counts.substitutions,
        "deletions": counts.deletions,
        "insertions": counts.insertions,
        "leading_insertions": sum(u.alignment.leading_insertions for u in utterances),
        "utterances": len(utterances),
        "hours": _round(seconds / 3600, 4),
        "rtf": _ratio(sum(sum(s.compute) + s.finalize for s in streamed), seconds),
        "rtf_cpu": _ratio(sum(s.cpu for s in streamed), seconds),
        "emission_delay_ms": _rounded(percentiles(delays, 50, 90, 99)),
        "delay_words": len(delays),
        "delay_words_late": sum(s.late for s in streamed),
        "delay_utterances": sum(u.delays is not None for u in utterances),
        "chunk_compute_ms": _rounded(percentiles([1000 * c for s in streamed for c in s.compute], 50, 99)),
        "finalize_ms": _rounded(percentiles([1000 * s.finalize for s in streamed], 50, 99)),
        "wer_by_length": [
            {**row, "wer": _round(row["wer"], 3)}
            for row in by_length((u.streamed.duration, u.alignment.counts) for u in utterances)
        ],
        "writing": score_writing((u.row.text, u.streamed.text) for u in utterances),
        "worst": worst(utterances),
        "worst_words": worst_words((u.reference, u.hypothesis, u.alignment) for u in utterances),
    }


def worst(utterances: Sequence[Utterance], count: int = WORST) -> list[dict[str, Any]]:
    """The utterances with the most errors, most first; none without errors."""
    wrong = [u for u in utterances if u.alignment.counts.errors]
    wrong.sort(key=lambda u: (-u.alignment.counts.errors, u.alignment.counts.words, u.row.id))
    return [
        {
            "id": u.row.id,
            "errors": u.alignment.counts.errors,
            "words": u.alignment.counts.words,
            "reference": u.reference,
            "hypothesis": u.hypothesis,
        }
        for u in wrong[:count]
    ]


def hypothesis_row(u: Utterance) -> dict[str, Any]:
    """One line of a hypotheses file."""
    counts = u.alignment.counts
    return {
        "id": u.row.id,
        "text": u.streamed.text,
        "reference": u.row.text,
        "words": [{"word": w.word, "shown": round(w.shown, 3)} for w in u.streamed.shown],
        "errors": {"sub": counts.substitutions, "del": counts.deletions, "ins": counts.insertions},
    }


def table(summary: dict[str, Any]) -> str:
    """The figures as aligned lines of text."""
    delay, chunk, final = (summary[k] for k in ("emission_delay_ms", "chunk_compute_ms", "finalize_ms"))
    interval = summary["wer_95"]
    minutes = 60 * summary["hours"]
    lines = [
        ("utterances", f"{summary['utterances']} ({minutes:.1f} min, {summary['words']} words)"),
        (
            "WER",
            f"{_text(summary['wer'], '{:.2f} %')}"
            + (f"  (95 %: {interval[0]:.2f} to {interval[1]:.2f})" if interval else "")
            + f"  {summary['substitutions']} sub, {summary['deletions']} del, {summary['insertions']} ins",
        ),
        ("words made up before the first", str(summary["leading_insertions"])),
        (
            "real-time factor",
            f"{_text(summary['rtf'], '{:.3f}')}  (processor time {_text(summary['rtf_cpu'], '{:.3f}')}; "
            f"threads: {summary.get('threads', '?')})",
        ),
        (
            "emission delay",
            _percentile_text(delay) + f"  ({summary['delay_words']} words; {_source_text(summary)})",
        ),
        ("computing a 240 ms feed", _percentile_text(chunk)),
        ("end of audio to final text", _percentile_text(final)),
    ]
    if writing := summary["writing"]:
        lines.append(
            (
                "capitals, punctuation",
                f"F1 {_text(writing['capitals_f1'], '{:.1f} %')}, {_text(writing['punctuation_f1'], '{:.1f} %')}  "
                f"(over {writing['words']} words recognised right)",
            )
        )
    width = max(len(name) for name, _ in lines)
    out = [f"{name:<{width}}  {value}" for name, value in lines]
    for row in summary["wer_by_length"]:
        out.append(
            f"{'  WER at ' + row['seconds'] + ' s':<{width}}  {_text(row['wer'], '{:.2f} %')}  "
            f"(utterances: {row['utterances']}, words: {row['words']})"
        )
    return "\n".join(out)


def write_report(folder: str | Path, summary: dict[str, Any], utterances: Sequence[Utterance]) -> None:
    """Write `report.md` and its plots into `folder`. Raises UserError when that cannot be."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        plots = _plot(folder, summary, utterances)
        lines = ["# Evaluation", "", f"Model `{summary.get('model')}` on `{summary.get('manifest')}`.", ""]
        lines += ["```", table(summary), "```", ""]
        for name, caption in plots:
            lines += [f"![{caption}]({name})", ""]
        if summary["worst"]:
            lines += ["## Most errors", ""]
        for u in summary["worst"]:
            lines += [f"- `{u['id']}`: {u['errors']} errors in {u['words']} words"]
            lines += [f"  - spoken: {u['reference']}", f"  - recognised: {u['hypothesis']}"]
        if summary["worst_words"]:
            lines += [
                "",
                "## Words that go wrong most often",
                "",
                "| word | errors | occurrences | recognised as |",
            ]
            lines += ["| --- | ---: | ---: | --- |"]
        for w in summary["worst_words"]:
            others = ", ".join(f"{other or '(nothing)'} {times}" for other, times in w["recognised_as"])
            lines += [f"| {w['word']} | {w['errors']} | {w['occurrences']} | {others} |"]
        (folder / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as err:
        raise UserError(f"cannot write the report to {folder}: {err.strerror or err}") from None


def _plot(folder: Path, summary: dict[str, Any], utterances: Sequence[Utterance]) -> list[tuple[str, str]]:
    """Names and captions of the plots made; none without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        return []
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    made = []
    rows = [row for row in summary["wer_by_length"] if row["wer"] is not None]
    if rows:
        figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
        bars = axes.bar([row["seconds"] for row in rows], [row["wer"] for row in rows])
        axes.bar_label(bars, [f"{row['words']} words" for row in rows], fontsize=7)
        axes.set(xlabel="length of the utterance (s)", ylabel="WER (%)")
        figure.savefig(folder / "wer_by_length.png", dpi=120)
        plt.close(figure)
        made.append(("wer_by_length.png", "WER by length"))
    delays = [d for u in utterances for d in u.delays or ()]
    if delays:
        figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
        # a word or two far off must not squeeze the rest into one bar
        low, high = np.percentile(delays, [0.5, 99.5])
        axes.hist(np.clip(delays, low, high), bins=50)
        for q, style in ((50, "-"), (90, "--"), (99, ":")):
            value = summary["emission_delay_ms"][f"p{q}"]
            axes.axvline(value, color="black", linestyle=style, label=f"p{q}: {value:.0f} ms")
        axes.legend()
        axes.set(xlabel="emission delay (ms)", ylabel="words")
        figure.savefig(folder / "emission_delay.png", dpi=120)
        plt.close(figure)
        made.append(("emission_delay.png", "Emission delay"))
    return made


def _interval(utterances: Sequence[Utterance]) -> list[float] | None:
    """95 % interval of the WER in percent; None where there are too few utterances or words to tell."""
    counts = [u.alignment.counts for u in utterances]
    words = [c.words for c in counts]
    if len(counts) < 2 or not all(words):
        return None
    return [round(end, 3) for end in interval([c.errors for c in counts], words)]


def _source_text(summary: dict[str, Any]) -> str:
    source = describe_source(summary.get("delay_source"))
    return f"word times: {source}" if source else summary.get("delay_note") or "no word times"


def _percentile_text(values: dict[str, float | None]) -> str:
    if any(v is None for v in values.values()):
        return "unknown"
    return ", ".join(f"{name} {value:.0f} ms" for name, value in values.items())


def _text(value: float | None, form: str) -> str:
    return "unknown" if value is None else form.format(value)


def _round(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _rounded(values: dict[str, float | None]) -> dict[str, float | None]:
    return {k: _round(v, 1) for k, v in values.items()}


def _ratio(value: float, seconds: float) -> float | None:
    return round(value / seconds, 4) if seconds else None
