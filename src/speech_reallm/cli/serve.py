"""`reallm serve`: live recognition for browsers and programs, over WebSockets and HTTP."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ..errors import UserError

NAME = "serve"
HELP = "serve live recognition: a web page, WebSockets, uploads"
EPILOG = """examples:
  reallm serve                                      the page is at http://127.0.0.1:8000
  reallm serve --host 0.0.0.0 --api-key-file keys   for others, who need one of the keys
  reallm serve --sessions 200 --threads 2
  reallm serve --wyoming 0.0.0.0:10300              speech-to-text for Home Assistant
  reallm serve --tls-cert cert.pem --tls-key key.pem --log-file server.log

One key a line in the file; REALLM_API_KEY holds one, too. With --tls-cert, or behind a proxy that adds TLS, browsers
can use the microphone from other machines. SIGTERM and Ctrl-C send all that was recognised, then end.
Programs talk to it as docs/websocket.md says, or with OpenAI's clients: base_url http://HOST:PORT/v1.
"""
KEY_VARIABLE = "REALLM_API_KEY"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--model", metavar="FOLDER", help="a model folder (default: the built-in one)")
    parser.add_argument("--delay", type=int, metavar="CHUNKS", help="label delay of sessions that name none")
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        metavar="N",
        help="streams at once, each on a CPU thread (default: %(default)s)",
    )
    parser.add_argument(
        "--sessions",
        type=int,
        default=64,
        metavar="N",
        help="at a time; more are refused (default: %(default)s)",
    )
    parser.add_argument("--api-key-file", metavar="FILE", help="who has one of these keys may come in")
    parser.add_argument(
        "--origin",
        action="append",
        default=[],
        metavar="URL",
        help="pages of this other site may connect, as https://example.org; * for all; may be repeated",
    )
    parser.add_argument(
        "--per-minute",
        type=int,
        default=600,
        metavar="N",
        help="sessions and uploads from one address; 0 for any number (default: %(default)s)",
    )
    parser.add_argument(
        "--idle",
        type=float,
        default=60,
        metavar="S",
        help="end sessions without audio after (default: %(default)g)",
    )
    parser.add_argument(
        "--drain",
        type=float,
        default=30,
        metavar="S",
        help="at the end, wait this long (default: %(default)g)",
    )
    parser.add_argument(
        "--max-upload-mb",
        type=int,
        default=200,
        metavar="MB",
        help="size of an uploaded file (default: %(default)s)",
    )
    parser.add_argument(
        "--hotwords",
        metavar="FILE",
        help="names and terms that all sessions prefer, one a line; sessions may add their own",
    )
    parser.add_argument(
        "--numbers",
        type=str.lower,
        choices=("words", "digits"),
        help="write all numbers alike, where a session does not say how (default: as the model writes them)",
    )
    parser.add_argument(
        "--wyoming",
        metavar="[ADDRESS:]PORT",
        help="speak Home Assistant's protocol at this port, too (needs the extra wyoming)",
    )
    parser.add_argument(
        "--tls-cert", metavar="FILE", help="serve https and wss with this certificate (PEM, with its chain)"
    )
    parser.add_argument(
        "--tls-key", metavar="FILE", help="its private key, where the certificate's file has none"
    )
    parser.add_argument(
        "--log-file",
        metavar="FILE",
        help="append JSON lines to it; without: to standard error, unless that is a terminal",
    )
    parser.add_argument("--log-transcripts", action="store_true", help="log what was said, too")
    parser.add_argument(
        "--log-level",
        type=str.lower,
        choices=("debug", "info", "warning", "error"),
        default="info",
        help="default: %(default)s",
    )


def run(args: argparse.Namespace) -> int:
    from ..hotwords import read_hotwords
    from ..recognizer import Recognizer
    from ..serve import log, server
    from ..serve.guard import read_origin
    from ..serve.settings import Settings

    settings = Settings(
        sessions=args.sessions,
        idle_seconds=args.idle,
        drain_seconds=args.drain,
        upload_bytes=args.max_upload_mb << 20,
        per_minute=args.per_minute,
        keys=read_keys(args.api_key_file),
        origins=tuple(dict.fromkeys(origin for text in args.origin for origin in read_origin(text))),
        log_transcripts=args.log_transcripts,
        numbers=args.numbers,
        hotwords=read_hotwords(args.hotwords, share=0.5) if args.hotwords else (),
    )
    wyoming = read_address(args.wyoming, args.host) if args.wyoming else None
    tls = server.tls_context(args.tls_cert, args.tls_key)
    log.set_up(args.log_level, args.log_file)
    recognizer = Recognizer.load(args.model, threads=args.threads, delay=args.delay)
    return server.run(recognizer, settings, args.host, args.port, tls, wyoming)


def read_address(text: str, host: str) -> tuple[str, int]:
    """PORT or ADDRESS:PORT; host: the address where none is given. Raises UserError."""
    address, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit()):
        raise UserError(f"--wyoming {text}: a port, as 10300, or an address and a port, as 0.0.0.0:10300")
    return address.strip("[]") or host, int(port)


def read_keys(file: str | None) -> tuple[str, ...]:
    """The keys of a file and of the environment; none lets everyone in. Raises UserError for an empty file."""
    keys = [os.environ[KEY_VARIABLE].strip()] if os.environ.get(KEY_VARIABLE, "").strip() else []
    if file:
        try:
            lines = Path(file).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as err:
            raise UserError(
                f"cannot read the keys in {file}: {getattr(err, 'strerror', 'not text')}"
            ) from None
        found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not found:
            raise UserError(f"{file} holds no keys; write one a line")
        keys += found
    return tuple(keys)
