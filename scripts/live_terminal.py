"""docs/live.svg: `reallm transcribe FILE --live` in a terminal, recorded and played at its own pace.

    python scripts/live_terminal.py [FILE]

Runs the command in a pseudo-terminal, notes when which characters came, and writes them as an animated SVG of a few
kilobytes: text, no pictures, and still for those who want less motion. Run it on a machine that has nothing else to
do, since what it shows is how fast the words came there.
"""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from dataclasses import dataclass
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
OUT = ROOT / "docs" / "live.svg"
COLUMNS, FONT, CELL, LINE, PAD, BAR = 84, 14, 8.43, 21, 18, 34
# how long the finished text stands before it begins anew, seconds
HOLD = 5.0
# what a terminal is told beside the text: colours, cursor
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass
class Shown:
    """Characters that appeared together. seconds: since the command began."""

    seconds: float
    line: int
    column: int
    text: str


def record(command: list[str]) -> list[tuple[float, str]]:
    """What the command writes, and when."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": str(COLUMNS), "LINES": "24", "PYTHONUNBUFFERED": "1"}
    began = time.monotonic()
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, env=environment)
    os.close(theirs)
    parts: list[tuple[float, str]] = []
    while True:
        ready, _, _ = select.select([ours], [], [], 0.2)
        if ready:
            try:
                data = os.read(ours, 4096)
            except OSError:
                # the other end is closed
                break
            if not data:
                break
            parts.append((time.monotonic() - began, data.decode("utf-8", "replace")))
        elif process.poll() is not None:
            break
    os.close(ours)
    if process.wait():
        raise SystemExit(f"{' '.join(command)} failed:\n{''.join(text for _, text in parts)}")
    return parts


def layout(parts: list[tuple[float, str]], first_line: int) -> list[Shown]:
    """Where on the screen the characters stand."""
    shown: list[Shown] = []
    line, column = first_line, 0
    for seconds, text in parts:
        for piece in re.split(r"(\r?\n|\r)", CONTROL.sub("", text)):
            if piece.endswith("\n"):
                line, column = line + 1, 0
            elif piece == "\r":
                column = 0
            elif piece:
                shown.append(Shown(seconds, line, column, piece))
                column += len(piece)
    return shown


def svg(command: str, shown: list[Shown]) -> str:
    """The animation, once round and again for ever."""
    start = 1.2
    # the model loads before the first word; nobody wants to watch that
    first = min(s.seconds for s in shown)
    total = start + max(s.seconds for s in shown) - first + HOLD
    lines = max(s.line for s in shown) + 1
    width, height = round(COLUMNS * CELL + 2 * PAD), BAR + lines * LINE + PAD
    moments: dict[float, int] = {}
    rules, texts = [], []
    for s in shown:
        at = round(100 * (start + s.seconds - first) / total, 2)
        if at not in moments:
            moments[at] = len(moments)
            rules.append(
                f"@keyframes k{moments[at]}{{{at}%{{opacity:1}}}}.k{moments[at]}{{animation-name:k{moments[at]}}}"
            )
        lead = len(s.text) - len(s.text.lstrip())
        word = s.text.strip()
        if not word:
            continue
        x, y = PAD + (s.column + lead) * CELL, BAR + s.line * LINE + FONT
        texts.append(
            f'<text class="c k{moments[at]}" x="{x:.1f}" y="{y}" textLength="{len(word) * CELL:.1f}">'
            f"{escape(word)}</text>"
        )
    spoken = " ".join(s.text.strip() for s in shown)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
            f' role="img" aria-label="{escape(command)}: {escape(spoken)}">',
            "<style>",
            f"text{{font:{FONT}px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;"
            "white-space:pre;fill:#e9f0ed}.p{fill:#62cdb9}",
            f".c{{opacity:0;animation:{total:.2f}s step-end infinite}}",
            *rules,
            "@media (prefers-reduced-motion:reduce){.c{animation:none;opacity:1}}",
            "</style>",
            f'<rect width="{width}" height="{height}" rx="10" fill="#0f1513"/>',
            *(f'<circle cx="{PAD + 2 + 18 * i}" cy="17" r="5" fill="#2a3531"/>' for i in range(3)),
            f'<text x="{PAD}" y="{BAR + FONT}"><tspan class="p">$</tspan> {escape(command)}</text>',
            *texts,
            "</svg>",
            "",
        ]
    )


def main() -> None:
    file = sys.argv[1] if len(sys.argv) > 1 else "examples/demo.opus"
    parts = record([sys.executable, "-m", "speech_reallm", "transcribe", file, "--live"])
    OUT.write_text(svg(f"reallm transcribe {file} --live", layout(parts, 1)), encoding="utf-8")
    print(f"{OUT.relative_to(ROOT)}: {OUT.stat().st_size / 1024:.0f} KB, {parts[-1][0]:.0f} s")


if __name__ == "__main__":
    main()
