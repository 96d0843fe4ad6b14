"""Ours and other recognisers side by side: error rate, speed and emission delay on the same audio.

    pip install -e .[evaluate] -r benchmarks/requirements-peers.txt
    python benchmarks/peers.py --manifest ../shared/speech/librispeech-dev.jsonl

One processor core for all. The recognisers take turns on each utterance, so that whatever else the machine is
doing falls on all of them alike. Error rates are counted with one normaliser; word times for the delay come
from one forced alignment.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

# libraries read these when they are loaded
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import numpy as np  # noqa: E402
from contestants import Contestant, Skipped, contestants  # noqa: E402

from speech_reallm.audio import SAMPLE_RATE  # noqa: E402
from speech_reallm.cli._terminal import Progress  # noqa: E402
from speech_reallm.errors import UserError  # noqa: E402
from speech_reallm.evaluate.manifest import read_manifest  # noqa: E402
from speech_reallm.evaluate.report import summarize  # noqa: E402
from speech_reallm.evaluate.run import CLOCKS, Utterance, load_row, score  # noqa: E402
from speech_reallm.evaluate.times import WordTimes, read_alignments  # noqa: E402
from speech_reallm.evaluate.wer import NORMALIZERS, make_normalizer  # noqa: E402

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"
DEFAULT_MANIFEST = SHARED / "speech" / "librispeech-dev.jsonl"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", default=str(DEFAULT_MANIFEST), help="default: %(default)s")
    parser.add_argument("--model", help="our model: a folder or a name (default: the one in the package)")
    parser.add_argument("--delay", type=int, help="our label delay in chunks (default: the model's)")
    parser.add_argument("--limit", type=int, default=40, help="how many, spread evenly; default: %(default)s")
    parser.add_argument("--all", action="store_true", help="all utterances")
    parser.add_argument("--only", action="append", metavar="NAME", help="only this one; may be repeated")
    parser.add_argument("--normalizer", choices=NORMALIZERS, default="whisper", help="default: %(default)s")
    parser.add_argument("--alignments", metavar="FILE", help="aligned manifest to take word times from")
    parser.add_argument(
        "--clock", choices=tuple(CLOCKS), default="wall", help="cpu: on a busy machine; default: %(default)s"
    )
    parser.add_argument("--core", type=int, help="the processor core to use (default: the last)")
    parser.add_argument("--json", metavar="FILE", help="write the figures here")
    return parser.parse_args()


def main() -> int:
    args = parse_arguments()
    core = pin(args.core)
    rows = read_manifest(args.manifest, None if args.all else args.limit)
    times = WordTimes(read_alignments(args.alignments) if args.alignments else None)
    normalize = make_normalizer(args.normalizer)

    taking_part: dict[str, Contestant] = {}
    skipped: dict[str, str] = {}
    for name, make in contestants(args.model, args.delay):
        if args.only and name not in args.only:
            continue
        try:
            taking_part[name] = make()
            taking_part[name].recognize(np.zeros(SAMPLE_RATE, np.float32), CLOCKS[args.clock])
        except Skipped as err:
            skipped[name] = str(err)
    machine = describe_machine(core)
    done: dict[str, list[Utterance]] = {name: [] for name in taking_part}
    lengths, seconds = [row.duration for row in rows if row.duration is not None], 0.0
    progress = Progress("comparing", sum(lengths) if len(lengths) == len(rows) else 0.0)
    interrupted = False
    try:
        for row in rows:
            audio = load_row(row)
            for name, contestant in taking_part.items():
                streamed = contestant.recognize(audio, CLOCKS[args.clock])
                done[name].append(score(row, audio, streamed, normalize, times))
            seconds += len(audio) / SAMPLE_RATE
            progress.update(seconds, label=row.id)
    except KeyboardInterrupt:
        interrupted = True
    progress.close()

    summaries = {}
    for name, utterances in done.items():
        if utterances:
            contestant = taking_part[name]
            summaries[name] = {"name": contestant.name, "mode": contestant.mode, **summarize(utterances)}
    print(f"{machine}\n{len(rows)} utterances of {args.manifest}; {args.normalizer} normaliser")
    print(f"computing time: {args.clock}; word times: {times.description}\n")
    print(table(summaries, skipped))
    if args.json:
        figures = {
            "machine": machine,
            "normalizer": args.normalizer,
            "clock": args.clock,
            "delay_source": times.source,
        }
        figures |= {"systems": summaries, "skipped": skipped, "complete": not interrupted}
        Path(args.json).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 130 if interrupted else 0


def pin(core: int | None) -> str:
    """Confine this process to one core, before any library counts cores; returns what was done, in words."""
    if not hasattr(os, "sched_setaffinity"):
        return "cores not confined: this system cannot"
    allowed = sorted(os.sched_getaffinity(0))
    if core is not None and core not in allowed:
        raise UserError(f"--core must be one of {', '.join(map(str, allowed))}")
    core = allowed[-1] if core is None else core
    os.sched_setaffinity(0, {core})
    return f"confined to core {core} of {len(allowed)}"


def describe_machine(core: str) -> str:
    """The processor, the cores used and how busy the machine is."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    load = f"; load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{model}, 1 thread, {core}{load}; Python {platform.python_version()}"


def table(summaries: dict[str, dict[str, Any]], skipped: dict[str, str]) -> str:
    """Figures in columns; in brackets how many times ours they are."""
    ours = summaries.get("speech-reallm")
    columns = {
        "WER %": ("wer", None, "{:.1f}"),
        "RTF": ("rtf", None, "{:.3f}"),
        "RTF (cpu)": ("rtf_cpu", None, "{:.3f}"),
        "delay p50 ms": ("emission_delay_ms", "p50", "{:.0f}"),
        "delay p90 ms": ("emission_delay_ms", "p90", "{:.0f}"),
        "end to final p50 ms": ("finalize_ms", "p50", "{:.0f}"),
    }
    lines = [["recogniser", "mode", *columns]]
    for name, summary in summaries.items():
        line = [summary["name"], summary["mode"]]
        for key, part, form in columns.values():
            value = _pick(summary, key, part)
            base = _pick(ours, key, part) if ours and name != "speech-reallm" else None
            text = "-" if value is None else form.format(value)
            line.append(f"{text} ({value / base:.2f}x)" if value is not None and base and base > 0 else text)
        lines.append(line)
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    rows = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    rows += [f"SKIPPED {name}: {reason}" for name, reason in skipped.items()]
    if ours:
        rows.append("(in brackets: times ours)")
    return "\n".join(row.rstrip() for row in rows)


def _pick(summary: dict[str, Any], key: str, part: str | None) -> float | None:
    value: float | None = summary[key] if part is None else summary[key][part]
    return value


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        print(f"peers: error: {error}", file=sys.stderr)
        sys.exit(2)
