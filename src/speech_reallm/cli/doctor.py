"""`reallm doctor`: what works on this machine, what is missing for the rest, and how to install that."""

from __future__ import annotations

import argparse
import platform
import sys
from importlib import metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ..errors import UserError
from ..extras import EXTRAS, install_command, is_missing, pip_command

if TYPE_CHECKING:
    from ._machine import Speed

NAME = "doctor"
HELP = "check this installation and the speed of this machine"
EPILOG = """examples:
  reallm doctor
  reallm doctor --verbose
  reallm doctor --no-speed
  reallm doctor --model out/model

Three lines say what works here: recordings, the microphone, the server; a fourth is for those who train models. Takes
about five seconds. Exits with 2 if speech cannot be recognised here.
"""
RUNTIME = ("numpy", "onnxruntime", "soundfile", "soxr", "sentencepiece")
# seconds of measuring, all in all
SECONDS = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="FOLDER", help="measure this model (default: the built-in one)")
    parser.add_argument("--no-speed", action="store_true", help="do not measure the speed")
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="versions, the processor, and the speed for one thread and for all",
    )


def run(args: argparse.Namespace) -> int:
    details: list[str] = []
    problem = _runtime(details)
    speeds: list[Speed] = []
    if not problem:
        cores = _processor(details)
        problem = _model(args, cores, details, speeds)
    if problem:
        _line("recordings", problem)
    else:
        video = _missing("media")
        speed = f"ready, {1 / speeds[0].rtf:.0f} times faster than they last" if speeds else "ready"
        _line(
            "recordings", f"{speed}; for video and M4A: {video}" if video else f"{speed}; video and M4A, too"
        )
    _line("microphone", problem or _microphone(speeds))
    _line("server", problem or _extra("serve"))
    training = [_extra("train"), _extra("evaluate")]
    both = "ready" if training == ["ready", "ready"] else f"training {training[0]}; evaluation {training[1]}"
    _line("training", "ready, evaluation too" if both == "ready" else both)
    if args.verbose:
        print("\n".join(["", *details]))
    return 2 if problem else 0


def _line(name: str, text: str) -> None:
    print(f"{name:<11} {text}")


def _runtime(details: list[str]) -> str:
    """What the recogniser lacks, empty if nothing."""
    from .. import __version__

    missing = [name for name in RUNTIME if not find_spec(name)]
    details.append(
        f"reallm {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    )
    details.append(", ".join(f"{name} {_version(name)}" for name in RUNTIME if name not in missing))
    return f"{', '.join(missing)} missing: {pip_command(*missing)}" if missing else ""


def _processor(details: list[str]) -> int:
    from ._machine import processor

    found = processor()
    details.append(f"{found.name}, {found.cores} usable {'core' if found.cores == 1 else 'cores'}")
    details.append(f"instructions: {', '.join(found.instructions) or 'not known'}")
    if found.load > found.cores / 2:
        details.append(f"it is busy (load {found.load:.1f}): what is measured is slow and uneven")
    return found.cores


def _model(args: argparse.Namespace, cores: int, details: list[str], speeds: list[Speed]) -> str:
    """Why there is no model that runs, empty if there is one; its speed on one thread, and on all if that is asked."""
    from ..recognizer import Recognizer
    from ._machine import measure

    try:
        recognizer = Recognizer.load(args.model)
    except UserError as err:
        return str(err)
    chunk = recognizer.model.chunk_ms
    details.append(f"model {recognizer.model.name}: loaded, its files are whole")
    threads = [1, cores] if args.verbose and cores > 1 else [1]
    for count in [] if args.no_speed else threads:
        if count > 1:
            recognizer = Recognizer.load(args.model, threads=count)
        result = measure(recognizer, SECONDS / len(threads))
        details.append(
            f"{count} {'thread' if count == 1 else 'threads'}: real-time factor {result.rtf:.3f}; a chunk of "
            f"{chunk} ms takes {result.typical:.0f} ms (p50), {result.worst:.0f} ms (p99)"
        )
        speeds.append(result)
    return ""


def _microphone(speeds: list[Speed]) -> str:
    """What stands between us and live speech."""
    from ..microphone import devices

    missing = _missing("listen")
    if missing:
        return f"needs sounddevice: {missing}"
    try:
        state = "ready" if devices() else "no microphone is connected"
    except UserError as err:
        state = str(err)
    if speeds and speeds[0].rtf >= 1:
        return f"{state}; this machine is too slow for live speech"
    if speeds and speeds[0].worst > 1000 * speeds[0].chunk_seconds:
        return f"{state}; words will come late at times, for this machine is slow or busy"
    return state


def _extra(name: str) -> str:
    """`ready`, or what to install."""
    missing = [module for module in EXTRAS[name] if is_missing(module)]
    if not missing:
        return "ready"
    return f"needs {', '.join(missing)}: {install_command(missing[0])}"


def _missing(extra: str) -> str:
    """The command that installs what an extra lacks; empty if it lacks nothing."""
    missing = [module for module in EXTRAS[extra] if is_missing(module)]
    return install_command(missing[0]) if missing else ""


def _version(module: str) -> str:
    try:
        return metadata.version(module)
    except metadata.PackageNotFoundError:
        return str(getattr(sys.modules.get(module), "__version__", "(version not known)"))
