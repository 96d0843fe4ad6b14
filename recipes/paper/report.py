"""The tables and plots of docs/paper.md, from the results of recipes/paper/results and nothing else.

    python recipes/paper/report.py

Replaces what stands between the two markers in docs/paper.md, and docs/paper-lengths.png; prose is left as it is.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BEGIN, END = "<!-- results: made by recipes/paper/run.sh --report -->", "<!-- end of results -->"
SETS = ("librispeech-dev", "various-dev")
PLOT = "paper-lengths.png"


def load(folder: Path) -> list[dict[str, Any]]:
    """The results by row and name."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    return sorted(found, key=lambda result: (result["row"], result["name"]))


def tables(results: list[dict[str, Any]]) -> str:
    """Markdown: a table of training, one of error rates for each set, one of failure signatures."""
    if not results:
        return "No results yet: `recipes/paper/run.sh` makes them."
    lines = [
        "| system | began as | training steps | audio trained on, h | minutes | loss: first, last | seed | commit |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for r in results:
        t = r["training"]
        cells = ["0", "0", "0", "-", "-"] if t is None else [
            str(t["steps"]), f"{t['audio_hours']:.2f}", f"{t['minutes']:g}",
            f"{t['loss'][0]:.2f}, {t['loss'][-1]:.2f}" if t["loss"] else "-", str(t["seed"]),
        ]  # fmt: skip
        lines.append("| " + " | ".join([r["name"], r["start"] or "-", *cells, r["commit"] or "-"]) + " |")
    for name in SETS:
        rows = [(r["name"], r["sets"][name]) for r in results if name in r["sets"]]
        if rows:
            lines += ["", *_rates(name, rows)]
    notes = [f"- {r['name']}: {r['note']}" for r in results if r["note"]]
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def _rates(name: str, rows: list[tuple[str, dict[str, Any]]]) -> list[str]:
    lines = [
        f"`{name}`, true streaming, 8-bit:",
        "",
        "| system | utterances | WER, % (95 %) | sub / del / ins | emission delay p50 / p90, ms "
        "| processor s per s of audio | words before the first true one | mute stretches over 2 s | repeats |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for system, s in rows:
        low, high = s["wer_95"]
        delay = s["emission_delay_ms"]
        shown = "-" if delay["p50"] is None else f"{delay['p50']} / {delay['p90']}"
        if shown != "-" and s["delay_utterances"] < s["utterances"]:
            shown += f" ({s['delay_utterances']} utterances)"
        lines.append(
            f"| {system} | {s['utterances']} | {s['wer']:.1f} ({low:.1f} to {high:.1f}) | {s['substitutions']} / "
            f"{s['deletions']} / {s['insertions']} of {s['words']:,} | {shown} | {s['cpu_per_audio_second']:.3f} | "
            f"{s['leading_insertions']} | {s['mute_stretches']} | {s['repeats']} |"
        )
    return lines


def page(text: str, results: list[dict[str, Any]]) -> str:
    """The page with the results between its markers. Raises ValueError where it lacks them."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"it has no {BEGIN if not begin else END}")
    plot = f"\n\n![Word error rate by the length of the utterance]({PLOT})" if _curves(results) else ""
    return f"{before}{BEGIN}\n\n{tables(results)}{plot}\n\n{END}{after}"


def _curves(results: list[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    return [
        (r["name"], r["sets"][SETS[0]]["wer_by_length"])
        for r in results
        if SETS[0] in r["sets"] and len(r["sets"][SETS[0]]["wer_by_length"]) > 1
    ]


def plot(results: list[dict[str, Any]], path: Path) -> None:
    """Error rate by length of the utterance; nothing where there are no results."""
    curves = _curves(results)
    if not curves:
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.6))
    for name, classes in curves:
        axes.plot([c["seconds"] for c in classes], [c["wer"] for c in classes], marker="o", label=name)
    axes.set_xlabel("length of the utterance, s")
    axes.set_ylabel("WER, %")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=ROOT / "recipes/paper/results")
    parser.add_argument("--page", type=Path, default=ROOT / "docs/paper.md")
    args = parser.parse_args()
    try:
        results = load(args.results)
        args.page.write_text(page(args.page.read_text(encoding="utf-8"), results), encoding="utf-8")
        plot(results, args.page.parent / PLOT)
    except (OSError, ValueError, KeyError) as err:
        sys.exit(f"error: {args.page}: {err}")
    print(f"wrote {args.page}: {len(results)} results")


if __name__ == "__main__":
    main()
