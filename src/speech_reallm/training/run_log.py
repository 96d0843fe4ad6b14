"""What a run reports: JSON lines, TensorBoard and a progress bar."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path


class RunLog:
    """JSON lines, TensorBoard and a progress bar; silent on all processes but the first."""

    def __init__(self, out: Path, enabled: bool, total: int, start: int):
        self.enabled = enabled
        if not enabled:
            return
        from torch.utils.tensorboard import SummaryWriter
        from tqdm import tqdm

        out.mkdir(parents=True, exist_ok=True)
        self.file = (out / "log.jsonl").open("a", encoding="utf-8")
        self.board = SummaryWriter(str(out / "tensorboard"))
        self.bar = tqdm(
            total=total,
            initial=start,
            unit="step",
            dynamic_ncols=True,
            mininterval=2 if sys.stderr.isatty() else 60,
        )

    def write(self, step: int, kind: str, values: dict[str, float]) -> None:
        if not self.enabled:
            return
        text = "  ".join(f"{k} {v:.4g}" for k, v in values.items() if isinstance(v, (int, float)))
        if kind == "train":
            self.bar.set_postfix_str(text, refresh=False)
        else:
            self.bar.write(f"step {step} {kind}: {text}", file=sys.stderr)
        try:
            self.file.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
            self.file.flush()
            for name, value in values.items():
                if isinstance(value, (int, float)):
                    self.board.add_scalar(f"{kind}/{name}", value, step)
        except OSError as err:
            self.warn(f"cannot write the log: {err.strerror or err}")

    def warn(self, message: str) -> None:
        if self.enabled:
            self.bar.write(f"warning: {message}", file=sys.stderr)

    def advance(self, step: int, total: int) -> None:
        if self.enabled:
            self.bar.total = total
            self.bar.update(step - self.bar.n)

    def close(self) -> None:
        if self.enabled:
            self.bar.close()
            with suppress(OSError):
                self.board.close()
            with suppress(OSError):
                self.file.close()
