"""`reallm models`: what is built in, and what a folder holds."""

from __future__ import annotations

import argparse
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError

if TYPE_CHECKING:
    from ..modelfolder import ModelFolder

NAME = "models"
HELP = "show the built-in models, or what a folder of models holds; get models from elsewhere"
EPILOG = """examples:
  reallm models
  reallm models out/model
  reallm models out/ --json
  reallm models pull OWNER/NAME                        a Hugging Face repository; then: --model OWNER/NAME
  reallm models pull https://example.org/my-model --out my-model

Checks the files against their checksums; what is pulled, too, which goes on where a connection broke. Licence and
figures are what the model's card says.
"""
# a card is a page of text; of more only the beginning is looked at
MAX_CARD = 1 << 18


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folders",
        nargs="*",
        metavar="FOLDER",
        help="models, or folders with models in them; or: pull, and a repository's name, an address or a folder",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="with pull: where to put the model (default: a cache)"
    )
    parser.add_argument("--anew", action="store_true", help="with pull: get it even if it is there")
    parser.add_argument("--json", action="store_true", help="one JSON object a line and model")


def run(args: argparse.Namespace) -> int:
    import json

    from ..modelfolder import built_in_models, find_model, open_folder

    if args.folders[:1] == ["pull"]:
        return _pull(args)
    if args.out or args.anew:
        raise UserError("--out and --anew go with: reallm models pull WHAT")
    paths = (
        [model for name in args.folders for model in _within(Path(name))]
        or [*built_in_models().values()]
        or [find_model(None)]
    )
    code = 0
    for number, path in enumerate(paths):
        try:
            model = describe(open_folder(path), built_in=not args.folders)
        except UserError as err:
            # the other models may be good
            print(f"reallm: error: {err}", file=sys.stderr)
            code = 2
            continue
        if args.json:
            print(json.dumps(model, ensure_ascii=False))
        else:
            print(("\n" if number else "") + _page(model))
    return code


def _pull(args: argparse.Namespace) -> int:
    from ..pull import pull

    if len(args.folders) != 2:
        raise UserError("name one model: reallm models pull OWNER/NAME, an address or a folder")
    display = _Bytes()
    try:
        folder = pull(args.folders[1], args.out, display.show, anew=args.anew)
    finally:
        display.close()
    print(f"{folder}")
    return 0


class _Bytes:
    """How much of a file has come and the time that is left, where standard error is a terminal."""

    def __init__(self) -> None:
        self._on = sys.stderr.isatty()
        self._name, self._first, self._began, self._shown = "", 0, 0.0, 0.0

    def show(self, done: int, total: int, name: str) -> None:
        from ._terminal import clock

        now = time.monotonic()
        if name != self._name:
            self._name, self._first, self._began = name, done, now
        if not self._on or now - self._shown < 0.2:
            return
        self._shown = now
        text = f"{name} {done / 1e6:.1f} of {total / 1e6:.1f} MB"
        if done > self._first and total:
            text += f", {clock((total - done) * (now - self._began) / (done - self._first))} left"
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()

    def close(self) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")


def _within(folder: Path) -> list[Path]:
    """The folder itself if it is a model, else the models directly below it."""
    from ..modelfolder import find_model

    if not folder.is_dir():
        # the name of one that was pulled, or there is none
        return [find_model(folder)]
    if (folder / "config.json").is_file():
        # what is wrong with it shows when it is opened
        return [folder]
    found = sorted(path.parent for path in folder.glob("*/config.json"))
    if not found:
        raise UserError(f"no model in {folder}; a model is a folder with config.json, made by: reallm export")
    return found


def describe(folder: ModelFolder, built_in: bool = False) -> dict[str, Any]:
    """What there is to know of a model; times in ms, size in bytes, figures as its card words them.

    `delays_ms`: for each label delay, how long after its last sound a word may take to be shown, without
    the computing.
    """
    from ..engine.step_decoder import step_decoder

    card = read_card(folder.path / "README.md")
    wait = [(1 + folder.lookahead_chunks + delay) * folder.chunk_ms for delay in folder.delays]
    return {
        "name": folder.name,
        "built_in": built_in,
        "language": folder.language,
        "folder": str(folder.path),
        "bytes": sum(path.stat().st_size for path in folder.path.iterdir() if path.is_file()),
        "chunk_ms": folder.chunk_ms,
        "lookahead_chunks": folder.lookahead_chunks,
        **step_decoder(folder).describe(),
        "delays": list(folder.delays),
        "default_delay": folder.default_delay,
        "delays_ms": wait,
        "vocab_size": folder.vocab_size,
        "licence": licence_of(card),
        "figures": figures_of(card),
    }


def _page(model: dict[str, Any]) -> str:
    chunk = model["chunk_ms"]
    delays = [
        f"{delay}{' (default)' if delay == model['default_delay'] else ''}: "
        f"a word is shown at most {wait} ms after its last sound, and the computing"
        for delay, wait in zip(model["delays"], model["delays_ms"], strict=True)
    ]
    decoder, frames = model["decoder"], model["cross_attention_chunks"]
    if frames:
        decoder += f", the frames of the last {frames} chunks ({frames * chunk} ms)"
    rows = [
        ("language", model["language"]),
        ("folder", model["folder"]),
        ("size", f"{model['bytes'] / 1e6:.1f} MB"),
        ("chunk", f"{chunk} ms"),
        ("look-ahead", f"{model['lookahead_chunks']} chunks ({model['lookahead_chunks'] * chunk} ms)"),
        ("decoder", decoder),
        *(("--delay" if i == 0 else "", text) for i, text in enumerate(delays)),
        ("pieces", f"{model['vocab_size']:,}"),
        ("licence", model["licence"] or "its card does not say"),
    ]
    for i, (name, value) in enumerate(model["figures"].items()):
        rows.append(("its card" if i == 0 else "", f"{name}: {value}"))
    if not model["figures"]:
        rows.append(("its card", "gives no figures"))
    head = model["name"] + (" (built in)" if model["built_in"] else "")
    return "\n".join([head, *(f"  {name:<11} {value}" for name, value in rows)])


def read_card(path: Path) -> str:
    """The model card, empty if there is none. It may come from anywhere: control characters are left out."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            text = file.read(MAX_CARD)
    except OSError:
        return ""
    return "".join(c for c in text if c.isprintable() or c == "\n")


def licence_of(card: str) -> str:
    """The first paragraph under the heading "Licence" or "License", as one line; empty if there is none."""
    match = re.search(r"^#+ +licen[cs]e\b[^\n]*\n+((?:[^\n#][^\n]*\n?)+)", card, re.IGNORECASE | re.MULTILINE)
    return " ".join(match[1].split())[:300] if match else ""


def figures_of(card: str) -> dict[str, str]:
    """The first row of the card's first table of two rows or more, by column; empty if there is none.

    By custom that is the row of the default delay.
    """
    lines = [line.strip() for line in card.splitlines()]
    for i in range(len(lines) - 2):
        if all(line.startswith("|") for line in lines[i : i + 3]) and set(lines[i + 1]) <= set("|-: "):
            names, values = (_cells(lines[i]), _cells(lines[i + 2]))
            if len(names) == len(values) and any(names):
                return {name: value for name, value in zip(names, values, strict=True) if name}
    return {}


def _cells(line: str) -> list[str]:
    return [cell.strip().replace("`", "").replace("**", "") for cell in line.strip("|").split("|")]
