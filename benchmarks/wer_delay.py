"""Draw word error rate against emission delay, from what `reallm evaluate --json` has written.

    python benchmarks/wer_delay.py --model "this one" now-0.json now-1.json --model before old-0.json old-1.json \
        --out docs/wer-delay.png

Each --model is a name and its evaluations, one for each label delay. The dot is at the median delay; a line to the
right goes to the 90th percentile, lines up and down to the ends of the 95 % interval of the error rate.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", nargs="+", action="append", required=True, metavar=("NAME", "JSON"))
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    figure, axis = plt.subplots(figsize=(6, 3.6))
    sizes = set()
    for name, *files in args.model:
        rows = [json.loads(Path(file).read_text(encoding="utf-8")) for file in files]
        rows.sort(key=lambda r: r["emission_delay_ms"]["p50"])
        x = [r["emission_delay_ms"]["p50"] for r in rows]
        y = [r["wer"] for r in rows]
        late = [r["emission_delay_ms"]["p90"] - r["emission_delay_ms"]["p50"] for r in rows]
        low, high = zip(*([r["wer"] - r["wer_95"][0], r["wer_95"][1] - r["wer"]] for r in rows), strict=True)
        axis.errorbar(
            x,
            y,
            xerr=[[0] * len(rows), late],
            yerr=[low, high],
            fmt="o-",
            capsize=2,
            elinewidth=0.8,
            label=name,
        )
        sizes.add((Path(rows[0]["manifest"]).stem, rows[0]["utterances"]))
        for row in rows:
            delay = row["emission_delay_ms"]
            print(f"{name}, delay {row['delay']}: WER {row['wer']:.1f} %, p50 {delay['p50']:.0f} ms")
    axis.set_xlim(left=0)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("delay of words behind their ends, p50 (line: to p90), ms")
    axis.set_ylabel("WER, % (95 %)")
    axis.set_title("; ".join(f"{name}, {count} utterances" for name, count in sorted(sizes)), fontsize=9)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(args.out, dpi=110)


if __name__ == "__main__":
    main()
