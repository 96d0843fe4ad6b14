"""The command `reallm`: finds the verbs, runs one, and turns what goes wrong into one line and an exit code.

A verb is a module of this package with `NAME`, `HELP`, `add_arguments(parser)` and `run(args) -> int`, and
perhaps `EPILOG` (the end of its --help: examples). It imports what is heavy inside `run`.
"""

from __future__ import annotations

import argparse
import contextlib
import pkgutil
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from .. import __version__
from ..errors import UserError
from ..extras import install_command
from ._console import OutputLost, standard_streams
from ._signals import ending_signals, exit_code

EXIT_ERROR = 2
# what a shell reports of a program whose reader went away
EXIT_BROKEN_PIPE = 141

# the order of --help; verbs that are not named here follow
ORDER = (
    "transcribe",
    "listen",
    "serve",
    "models",
    "doctor",
    "prepare",
    "shard",
    "tokenizer",
    "align",
    "train",
    "finetune",
    "evaluate",
    "export",
    "card",
)

EPILOG = """examples:
  reallm transcribe talk.mp3
  reallm transcribe talk.mp3 --format srt --out subtitles/
  reallm listen
  reallm doctor
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    before = warnings.showwarning
    warnings.showwarning = _show_warning
    try:
        with standard_streams(), ending_signals():
            return _run(argv)
    finally:
        warnings.showwarning = before


def _run(argv: Sequence[str] | None) -> int:
    try:
        args = _parse(argv)
        if args.verb is None:
            _parser().print_help()
            return EXIT_ERROR
        code = args.verb.run(args)
        sys.stdout.flush()
        return code or 0
    except UserError as err:
        return _error(str(err))
    except KeyboardInterrupt:
        print("reallm: interrupted", file=sys.stderr)
        return exit_code()
    except OutputLost as err:
        # `| head` has what it wanted
        return EXIT_BROKEN_PIPE if err.reader_left else _error(str(err))
    except ModuleNotFoundError as err:
        if (err.name or "speech_reallm").split(".")[0] == "speech_reallm":
            raise
        package = (err.name or str(err)).split(".")[0]
        return _error(f"this command needs {package}: {install_command(package)}")
    except OSError as err:
        # a disk that is full, a file that vanished: nothing that a traceback would explain
        return _error(": ".join(str(part) for part in (err.filename, err.strerror or err) if part))
    except MemoryError:
        return _error("out of memory")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    try:
        return _parser().parse_args(argv)
    finally:
        # --help may have been written to a disk that is full
        sys.stdout.flush()


def verbs() -> list[ModuleType]:
    """The modules of this package that are verbs."""
    import speech_reallm.cli as package

    names = [info.name for info in pkgutil.iter_modules(package.__path__) if info.name != "main"]
    names.sort(key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    modules = [import_module(f"{package.__name__}.{name}") for name in names if not name.startswith("_")]
    return [module for module in modules if hasattr(module, "NAME")]


def _parser() -> argparse.ArgumentParser:
    # wide enough for the longest verb
    def formatter(prog: str) -> argparse.HelpFormatter:
        return argparse.RawDescriptionHelpFormatter(prog, max_help_position=18)

    parser = argparse.ArgumentParser(
        prog="reallm",
        description="Real-time streaming speech recognition with decoder-only language models.",
        epilog=EPILOG,
        formatter_class=formatter,
    )
    parser.add_argument("--version", action="version", version=f"reallm {__version__}")
    parser.set_defaults(verb=None)
    subparsers = parser.add_subparsers(metavar="VERB", title="verbs")
    for module in verbs():
        verb = subparsers.add_parser(
            module.NAME,
            help=module.HELP,
            description=module.HELP[:1].upper() + module.HELP[1:].rstrip(".") + ".",
            epilog=getattr(module, "EPILOG", None),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(verb)
        # the whole module, so that a verb may name its arguments as it likes
        verb.set_defaults(verb=module)
    return parser


def _error(message: str) -> int:
    with contextlib.suppress(OutputLost):
        sys.stdout.flush()
    print(f"reallm: error: {message}", file=sys.stderr)
    return EXIT_ERROR


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    print(f"reallm: {getattr(category, 'label', 'warning')}: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
