"""Weights between those of two training runs, as a run's folder that can be evaluated and exported.

    python recipes/tools/interpolate.py out/joint out/mixed --share 0.5 --out out/mean
    python recipes/tools/interpolate.py out/joint moonshine-tiny-en --share 0 --group encoder.=0.5 --out out/half
    python recipes/tools/interpolate.py out/joint out/mixed --share 0 0.25 0.5 0.75 1 --out out/curve

Where training has led from one place to another, weights in between are often better than both ends: what either has
learnt is kept ("model soups", Wortsman et al., ICML 2022; WiSE-FT, Wortsman et al., CVPR 2022). The second folder may
hold published weights. Writes OUT/best, or OUT/SHARE/best for each of several shares: model.safetensors, and the first
run's model.json and tokenizer.model.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from torch import Tensor

from speech_reallm.errors import UserError
from speech_reallm.tokenizer import Tokenizer
from speech_reallm.training.checkpoint import save_folder
from speech_reallm.training.model.ctc import best_of
from speech_reallm.training.weights import load_weights

# the parts of a run's best/ that are not weights
OTHERS = ("model.json", "tokenizer.model")


def interpolated(
    start: dict[str, Tensor], end: dict[str, Tensor], share: float, groups: dict[str, float]
) -> dict[str, Tensor]:
    """Each tensor of `start`, moved by a share (0 to 1) of the way to that of the same name and shape in `end`.

    groups: other shares, by how a name begins; the longest beginning counts. What `end` lacks stays as it is. Raises
    UserError where nothing in `end` fits, or no name begins like a group.
    """
    fitting = {k: v for k, v in end.items() if k in start and start[k].shape == v.shape}
    if not fitting:
        raise UserError("the two are not the same model: no tensor of the second fits the first")
    unknown = [g for g in groups if not any(k.startswith(g) for k in fitting)]
    if unknown:
        raise UserError(f"no tensor's name begins with {unknown[0]!r}")
    result = {}
    for name, value in start.items():
        if name in fitting:
            named = max((g for g in groups if name.startswith(g)), key=len, default=None)
            part = share if named is None else groups[named]
            value = value.float().lerp(fitting[name].float(), part).to(value.dtype)
        result[name] = value
    return result


def interpolate(start: Path, end: Path, share: float, groups: dict[str, float], out: Path) -> None:
    """Write `out`/best. Raises UserError for folders without weights, or that do not go together; OSError."""
    files = {name: (best_of(start) / name).read_bytes() for name in OTHERS}
    tokenizer = Tokenizer(best_of(start) / "tokenizer.model")
    weights = interpolated(load_weights(start), load_weights(end, tokenizer), share, groups)
    save_folder(out / "best", {"model.safetensors": weights} | files)


def _group(text: str) -> tuple[str, float]:
    name, _, share = text.rpartition("=")
    if not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=SHARE")
    return name, float(share)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("start", type=Path, help="folder of a training run")
    parser.add_argument("end", type=Path, help="folder of another run, or of published weights")
    parser.add_argument(
        "--share", type=float, nargs="+", default=[0.5], help="of the way, 0 to 1 (default: 0.5)"
    )
    parser.add_argument(
        "--group", type=_group, action="append", default=[], metavar="NAME=SHARE",
        help="another share for the tensors whose names begin so, such as encoder.=0.5",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    try:
        for share in args.share:
            out = args.out / f"{share:g}" if len(args.share) > 1 else args.out
            interpolate(args.start, args.end, share, dict(args.group), out)
            print(f"wrote {out}")
    except (UserError, OSError) as err:
        sys.exit(f"error: {err}")


if __name__ == "__main__":
    main()
