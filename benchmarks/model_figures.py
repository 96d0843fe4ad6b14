"""Every figure of a model's card by one command: error rates, latency, noise, silence, isolated words, long recordings.

    python benchmarks/model_figures.py default --speech SPEECH --noise held-out-noise.jsonl --out out/figures

SPEECH is a folder with the manifests that --sets names. Each measurement is kept in OUT as JSON and is not made again;
the table is printed from what is there. An hour on one core for the sets of the card.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from speech_reallm.modelfolder import open_folder

HERE = Path(__file__).resolve().parent


def measure(out: Path, name: str, command: list[str]) -> dict[str, Any]:
    """The figures of OUT/NAME.json, made by `command` with that file as its --json where they are not there."""
    path = out / f"{name}.json"
    if not path.exists():
        print(f"measuring {name}", file=sys.stderr, flush=True)
        partial = path.with_suffix(".part")
        done = subprocess.run([*command, "--json", str(partial)], stdout=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise SystemExit(f"error: {' '.join(command)} ended with {done.returncode}")
        partial.replace(path)
    figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="model folder or name")
    parser.add_argument("--speech", type=Path, required=True, help="folder of the manifests")
    parser.add_argument("--sets", nargs="+", default=["librispeech-dev", "various-dev"], metavar="NAME")
    parser.add_argument("--noise", type=Path, help="manifest of noises (default: SPEECH/noise.jsonl)")
    parser.add_argument("--out", type=Path, required=True, help="where the measurements are kept")
    parser.add_argument("--limit", type=int, help="utterances of each set, as a trial")
    args = parser.parse_args()
    folder = open_folder(args.model)
    args.out.mkdir(parents=True, exist_ok=True)
    limit = ["--limit", str(args.limit)] if args.limit else []
    evaluate = [sys.executable, "-m", "speech_reallm", "evaluate", args.model]

    print(
        "| set | label delay | WER, % (95 %) | sub / del / ins | p50 / p90, ms | RTF | chunk p50 / p99, ms |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in args.sets:
        manifest = str(args.speech / f"{name}.jsonl")
        for delay in folder.delays:
            kinds = [
                kind
                for kind, value in (("default", folder.default_delay), ("recordings", folder.file_delay))
                if value == delay
            ]
            command = [*evaluate, manifest, "--clock", "cpu", "--delay", str(delay), *limit]
            found = measure(args.out, f"{name}-delay{delay}", command)
            shown, chunk = found["emission_delay_ms"], found["chunk_compute_ms"]
            low, high = found["wer_95"] or (float("nan"),) * 2
            print(
                f"| {name} | {delay}{' (' + ', '.join(kinds) + ')' if kinds else ''} "
                f"| {found['wer']:.1f} ({low:.1f} to {high:.1f}) "
                f"| {found['substitutions']} / {found['deletions']} / {found['insertions']} of {found['words']:,} "
                f"| {_number(shown['p50'])} / {_number(shown['p90'])} | {found['rtf_cpu']:.3f} "
                f"| {_number(chunk['p50'])} / {_number(chunk['p99'])} |",
                flush=True,
            )

    first = str(args.speech / f"{args.sets[0]}.jsonl")
    noise = str(args.noise or args.speech / "noise.jsonl")
    robustness = [sys.executable, str(HERE / "robustness.py"), "--model", args.model, "--manifest", first]
    found = measure(args.out, "robustness", [*robustness, "--noise", noise, *limit])
    print(f"\n{found['snr_db']:g} dB of noise, {found['utterances']} utterances: {found['wer_noisy']:.1f} % WER "
          f"({found['wer']:.1f} without)")  # fmt: skip
    for key, value in found.items():
        if key.startswith("words in"):
            print(f"{key} ({found['minutes']:g} min): {value}")
    if "isolated_words_lost" in found:
        lost, right = found["isolated_words_lost"], found["isolated_words_right"]
        print(f"isolated words: {lost:.0f} % lost, {right:.0f} % right")

    long_form = [sys.executable, str(HERE / "long_form.py"), "--model", args.model, "--manifest", first]
    found = measure(args.out, "long-form", [*long_form, "--repeats", "4"])
    print("\n| minutes | recordings of | how many | words | WER in one stream, % | one by one, % | ratio |")
    print("| ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    for row in found["rows"]:
        one, short = row["wer_in_one_stream"], row["wer_one_by_one"]
        print(
            f"| {row['minutes']:g} | {row['recordings_of']} | {row['recordings']} | {row['words']:,} "
            f"| {one:.1f} | {short:.1f} | {one / short:.2f} |"
        )
    size = sum(f.stat().st_size for f in folder.path.iterdir() if f.is_file())
    print(f"\non disk: {size / 1e6:.1f} MB; long recordings: RTF {found['rtf']:.3f}, "
          f"memory grows by {found['memory_growth_mb']} MB")  # fmt: skip


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


if __name__ == "__main__":
    main()
