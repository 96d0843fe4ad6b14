"""`reallm doctor`: what is installed, what this machine can do, and what is missing for which verb."""

from __future__ import annotations

import argparse
import platform
import sys
from importlib import metadata
from importlib.util import find_spec

from ..errors import UserError

NAME = "doctor"
HELP = "check this installation and the speed of this machine"
EPILOG = """examples:
  reallm doctor
  reallm doctor --no-speed
  reallm doctor --model out/model

Takes about five seconds. Exits with 2 if speech cannot be recognised here.
"""
RUNTIME = ("numpy", "onnxruntime", "soundfile", "soxr", "sentencepiece")
# what each verb needs beside the runtime: extras of this package
NEEDS = {
    "listen": ("listen",),
    "serve": ("serve",),
    "prepare": ("train",),
    "tokenizer": ("train",),
    "align": ("train",),
    "train": ("train",),
    "evaluate": ("evaluate",),
    "export": ("train",),
}
# seconds of measuring, all in all
SECONDS = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="FOLDER", help="measure this model (default: the built-in one)")
    parser.add_argument("--no-speed", action="store_true", help="do not measure the speed")


def run(args: argparse.Namespace) -> int:
    from .. import __version__

    print(
        f"reallm {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    )
    healthy = _runtime()
    cores = _processor() if healthy else 1
    healthy = healthy and _model(args.model, cores, speed=not args.no_speed)
    _verbs()
    return 0 if healthy else 2


def _runtime() -> bool:
    print("\nthe recogniser")
    missing = [name for name in RUNTIME if not find_spec(name)]
    print("  " + ", ".join(f"{name} {_version(name)}" for name in RUNTIME if name not in missing))
    for name in missing:
        print(f"  {name} is missing: pip install --force-reinstall speech-reallm")
    return not missing


def _processor() -> int:
    from ._machine import processor

    found = processor()
    print("\nthe processor")
    print(f"  {found.name}, {found.cores} usable {'core' if found.cores == 1 else 'cores'}")
    print(f"  instructions: {', '.join(found.instructions) or 'not known'}")
    if found.load > found.cores / 2:
        print(f"  it is busy (load {found.load:.1f}): what is measured below will be slow and uneven")
    return found.cores


def _model(name: str | None, cores: int, speed: bool) -> bool:
    """Is there a model that runs? Its speed on one thread, and on all if there are more."""
    from ..recognizer import Recognizer
    from ._machine import measure

    print("\nthe model")
    try:
        recognizer = Recognizer.load(name)
    except UserError as err:
        print(f"  {err}")
        return False
    print(f"  {recognizer.model.name}: loaded, its files are whole")
    if not speed:
        return True
    chunk = recognizer.model.chunk_ms
    threads = [1] if cores == 1 else [1, cores]
    for count in threads:
        if count > 1:
            recognizer = Recognizer.load(name, threads=count)
        result = measure(recognizer, SECONDS / len(threads))
        print(
            f"  {count} {'thread' if count == 1 else 'threads'}: real-time factor {result.rtf:.3f}; a chunk of "
            f"{chunk} ms takes {result.typical:.0f} ms (p50), {result.worst:.0f} ms (p99)"
        )
        if count == 1:
            single = result
    if single.rtf >= 1:
        print("  too slow for live speech; recordings take longer than they last")
    elif single.worst > chunk:
        print("  fast enough for live speech on average, but words will come late at times")
    else:
        print("  fast enough for live speech")
    return True


def _verbs() -> None:
    from .main import EXTRAS, verbs

    print("\nthe commands")
    for verb in verbs():
        extras = NEEDS.get(verb.NAME, ())
        missing = {extra: _missing(EXTRAS[extra]) for extra in extras}
        problems = [
            f"{', '.join(names)} missing: pip install 'speech-reallm[{extra}]'"
            for extra, names in missing.items()
            if names
        ]
        if verb.NAME == "listen" and not problems:
            problems += _microphone()
        if verb.NAME == "transcribe" and _missing(EXTRAS["media"]):
            print(f"  {verb.NAME:<10} ready; for video and M4A: pip install 'speech-reallm[media]'")
            continue
        print(f"  {verb.NAME:<10} {'; '.join(problems) or 'ready'}")


def _microphone() -> list[str]:
    """What stands between us and a microphone."""
    from ..microphone import devices

    try:
        return [] if devices() else ["no microphone is connected"]
    except UserError as err:
        return [str(err)]


def _missing(modules: tuple[str, ...]) -> list[str]:
    return [name for name in modules if not find_spec(name)]


def _version(module: str) -> str:
    try:
        return metadata.version(module)
    except metadata.PackageNotFoundError:
        return str(getattr(sys.modules.get(module), "__version__", "(version not known)"))
