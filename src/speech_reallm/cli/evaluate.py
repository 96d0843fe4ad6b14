"""`reallm evaluate`: error rate, speed and delay of a model, measured as a live stream."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._signals import exit_code

if TYPE_CHECKING:
    from ..evaluate.run import Utterance

NAME = "evaluate"
HELP = "measure word error rate, speed and emission delay of a model on a manifest"

EPILOG = """
examples:
  reallm evaluate default dev.jsonl
  reallm evaluate out/model dev.jsonl --delay 0 --json delay0.json --report report/

WER is in percent. The emission delay of a word runs from the end of the word in the audio to the moment its
last letter is shown: look-ahead, label delay and computing time all count.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="model folder or name")
    parser.add_argument("manifest", help="JSON lines with audio, text, duration, id, speaker")
    parser.add_argument("--json", metavar="FILE", help="write the figures here (WER in percent)")
    parser.add_argument("--hyp", metavar="FILE", help="write what was recognised here, as JSON lines")
    parser.add_argument("--report", metavar="DIR", help="write a page with plots here")
    parser.add_argument(
        "--normalizer",
        type=str.lower,
        choices=("librispeech", "whisper"),
        default="librispeech",
        help="how texts are made comparable (default: %(default)s)",
    )
    parser.add_argument("--delay", type=int, metavar="N", help="label delay in chunks (default: the model's)")
    parser.add_argument(
        "--recordings",
        action="store_true",
        help="as recordings, for which latency is of no concern, as `reallm transcribe FILE` does",
    )
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--clock",
        type=str.lower,
        choices=("wall", "cpu"),
        default="wall",
        help="what computing time is measured with; cpu (with one thread): for a machine that is busy with "
        "other things too (default: %(default)s)",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only N utterances, spread over the manifest")
    parser.add_argument(
        "--alignments",
        metavar="FILE",
        help="aligned manifest (.jsonl.gz) to take word times from; else from `words` of the manifest, "
        "else by forced alignment with pocketsphinx",
    )


def run(args: argparse.Namespace) -> int:
    from ..errors import UserError
    from ..evaluate.manifest import read_manifest
    from ..evaluate.run import CLOCKS, evaluate
    from ..evaluate.times import WordTimes, read_alignments
    from ..evaluate.wer import edit_alignment, make_normalizer, total
    from ..recognizer import Recognizer
    from ._terminal import Progress

    # whatever can be wrong is found before minutes of computing
    edit_alignment([], [])
    normalize = make_normalizer(args.normalizer)
    if args.threads < 1:
        raise UserError("--threads must be at least 1")
    if args.clock == "cpu" and args.threads > 1:
        # processor time adds up over threads
        raise UserError("--clock cpu needs --threads 1")
    for name in (args.json, args.hyp):
        if name and not Path(name).resolve().parent.is_dir():
            raise UserError(f"cannot write {name}: its folder does not exist")
    rows = read_manifest(args.manifest, args.limit)
    times = WordTimes(read_alignments(args.alignments) if args.alignments else None)
    if args.recordings and args.delay is not None:
        raise UserError("--recordings has a label delay of its own; leave --delay out")
    options = {} if args.delay is None else {"delay": args.delay}
    recognizer = Recognizer.load(args.model, threads=args.threads, **options)

    done: list[Utterance] = []
    lengths = [row.duration for row in rows if row.duration is not None]
    progress = Progress("evaluating", sum(lengths) if len(lengths) == len(rows) else 0.0)
    interrupted = False
    try:
        clock = CLOCKS[args.clock]
        found = evaluate(recognizer, rows, normalize, times, clock=clock, recordings=args.recordings)
        for utterance in found:
            done.append(utterance)
            so_far = total(u.alignment.counts for u in done).wer
            seconds = sum(u.streamed.duration for u in done)
            progress.update(seconds, label=f"{len(done)}/{len(rows)}, WER {so_far or 0.0:.1f} %")
    except KeyboardInterrupt:
        interrupted = True
    finally:
        progress.close()

    summary = {
        "model": args.model,
        "manifest": args.manifest,
        "normalizer": args.normalizer,
        "recordings": args.recordings,
        "delay": args.delay if args.delay is not None else getattr(recognizer, "delay", None),
        "threads": args.threads,
        "clock": args.clock,
        "complete": not interrupted,
    }
    if interrupted:
        print(f"stopped after {len(done)} of {len(rows)} utterances", file=sys.stderr)
    if done:
        _write(args, summary, done, times)
    return exit_code() if interrupted else 0


def _write(args: argparse.Namespace, head: dict[str, Any], done: list[Utterance], times: Any) -> None:
    """Print the table and write the files that were asked for."""
    import json

    from ..evaluate.report import hypothesis_row, summarize, table, write_report
    from ..files import write_text

    summary = {**head, **summarize(done), "delay_source": times.source, "delay_note": times.note}
    print(table(summary))
    if summary["worst"]:
        print("most errors:")
        for u in summary["worst"][:5]:
            print(f"  {u['id']}: {u['errors']} of {u['words']}")
    if args.json:
        write_text(args.json, json.dumps(summary, indent=2) + "\n")
    if args.hyp:
        write_text(args.hyp, "".join(json.dumps(hypothesis_row(u), ensure_ascii=False) + "\n" for u in done))
    if args.report:
        write_report(args.report, summary, done)
