"""The command `reallm`: finds the verbs, runs one, and turns what goes wrong into one line and an exit code.

A verb is a module of this package with `NAME`, `HELP`, `add_arguments(parser)` and `run(args) -> int`, and
perhaps `EPILOG` (the end of its --help: examples). It imports what is heavy inside `run`.
"""

from __future__ import annotations

import argparse
import os
import pkgutil
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from .. import __version__
from ..errors import UserError

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130
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
    "tokenizer",
    "align",
    "train",
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

# optional dependencies, and the extra that brings them
EXTRAS = {
    "evaluate": ("jiwer", "pocketsphinx", "whisper_normalizer", "matplotlib"),
    "listen": ("sounddevice",),
    "llm": ("transformers", "peft"),
    "serve": ("starlette", "uvicorn", "websockets", "multipart", "prometheus_client"),
    "media": ("av",),
    "train": ("torch", "lhotse", "scipy", "urllib3", "safetensors", "yaml", "tqdm", "tensorboard", "onnx"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    warnings.showwarning = _show_warning
    try:
        args = _parser().parse_args(argv)
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
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Python would complain once more when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except ModuleNotFoundError as err:
        if (err.name or "speech_reallm").split(".")[0] == "speech_reallm":
            raise
        return _error(_advice(err.name or str(err)))
    except MemoryError:
        return _error("out of memory")


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
    sys.stdout.flush()
    print(f"reallm: error: {message}", file=sys.stderr)
    return EXIT_ERROR


def _advice(module: str) -> str:
    name = module.split(".")[0]
    for extra, modules in EXTRAS.items():
        if name in modules:
            return f"this command needs {name}: pip install 'speech-reallm[{extra}]'"
    return f"this command needs {name}: pip install {name}"


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    print(f"reallm: warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
