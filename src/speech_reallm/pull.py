"""Model folders from elsewhere: a Hugging Face repository, an address, or another folder, into a cache or a folder.

config.json comes first. It names the other files and their checksums, and nothing else is fetched but the card and the
licences. What has come stays when the connection breaks, and the next attempt goes on behind it; a folder gets its name
when it is complete and its checksums are right. Nothing is unpickled, and nothing is run.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from .errors import UserError
from .files import sha256
from .modelfolder import MAX_CONFIG_BYTES, REPOSITORY, cache_folder, digest_of, open_folder, read_folder

HUB = "https://huggingface.co"
_LICENCE = re.compile(r"\bLICENSE[\w.-]{0,60}")
# what a model of today could have; more is a fault
MAX_FILE_BYTES = 8 << 30
MAX_CARD_BYTES = 1 << 20
BLOCK = 1 << 18
# seconds that a server may be silent; attempts running that bring nothing, and the seconds before each
TIMEOUT = 30.0
WAITS = (1.0, 3.0, 9.0, 27.0)

# bytes that are there, bytes in all (0 where that is not known), name of the file
OnBytes = Callable[[int, int, str], None]


def pull(
    what: str, out: str | Path | None = None, on_bytes: OnBytes | None = None, *, anew: bool = False
) -> Path:
    """Get a model; returns its folder, which `Recognizer.load` takes.

    what: OWNER/NAME of a Hugging Face repository (HF_ENDPOINT names another hub), perhaps with @REVISION; the address
    (http, https) of a folder; or a folder. out: where to put it; None: the cache, where `--model OWNER/NAME` finds it.
    anew: get it even if it is there. Raises UserError for what is no model, and a connection that keeps breaking: what
    has come is kept then, and the same call goes on.
    """
    source = Path(what)
    if "://" not in what and source.is_dir():
        name = re.sub(r"[^\w.-]", "-", source.resolve().name).lstrip(".") or "model"
        return _copy(source, Path(out) if out else cache_folder() / "local" / name)
    address, name = _address(what)
    target = Path(out) if out else cache_folder() / name
    if not anew and (target / "config.json").is_file():
        # complete, or it would not have its name; that nothing has been damaged since is checked
        return open_folder(target).path
    part = target.with_name(f".{target.name}.part")
    try:
        part.mkdir(parents=True, exist_ok=True)
        _fetch_all(address, part, on_bytes)
        _replace(part, target)
    except OSError as err:
        raise UserError(f"cannot write {target}: {err.strerror or err}") from None
    return target


def _address(what: str) -> tuple[str, str]:
    """The address of the folder, ending in /, and the name in the cache. Raises UserError."""
    if re.match(r"https?://[^/]", what):
        address = what.split("#")[0].split("?")[0].rstrip("/") + "/"
        address = address.replace("/tree/", "/resolve/") if address.startswith(f"{HUB}/") else address
        host, *parts = re.sub(r"^https?://", "", address).rstrip("/").split("/")
        name = re.sub(r"[^\w.-]", "-", "-".join(parts) or "model").lstrip(".")
        return address, f"{re.sub(r'[^0-9A-Za-z.-]', '-', host)}/{name}"
    match = REPOSITORY.fullmatch(what)
    if not match:
        raise UserError(
            f"{what[:100]}: neither a folder, nor an address (https://...), nor OWNER/NAME of a Hugging Face repository"
        )
    hub = os.environ.get("HF_ENDPOINT", HUB).rstrip("/")
    return f"{hub}/{match[1]}/resolve/{match[2] or 'main'}/", what


def _fetch_all(address: str, part: Path, on_bytes: OnBytes | None) -> None:
    try:
        _fetch_small(address + "config.json", part / "config.json", MAX_CONFIG_BYTES)
    except _Missing:
        raise UserError(f"{address}: no model there, for it has no config.json") from None
    folder, sums = read_folder(part)
    for name in folder.files:
        _fetch_checked(address + name, part / name, digest_of(folder, sums, name), on_bytes)
    card = part / "README.md"
    with contextlib.suppress(_Missing):
        _fetch_small(address + "README.md", card, MAX_CARD_BYTES)
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    for name in dict.fromkeys(["LICENSE", *(found.rstrip(".") for found in _LICENCE.findall(text)[:10])]):
        with contextlib.suppress(_Missing):
            _fetch_small(address + name, part / name, MAX_CARD_BYTES)
    keep = {"config.json", "README.md", *folder.files}
    for file in part.iterdir():
        if file.name not in keep and not file.name.startswith("LICENSE"):
            file.unlink()
    open_folder(part)


class _Missing(Exception):
    """The server has no such file."""


def _fetch_small(address: str, path: Path, most: int) -> None:
    """A file without a checksum, from its beginning."""
    path.unlink(missing_ok=True)
    _fetch(address, path, most, None)


def _fetch_checked(address: str, path: Path, digest: str, on_bytes: OnBytes | None) -> None:
    """A file with this checksum. What has come of it is kept under a name that holds the checksum."""
    if path.is_file() and sha256(path) == digest:
        return
    begun = path.with_name(f"{path.name}.{digest[:16]}.part")
    try:
        _fetch(address, begun, MAX_FILE_BYTES, on_bytes)
    except _Missing:
        raise UserError(f"{address}: there is no such file; the model there is not complete") from None
    if sha256(begun) != digest:
        begun.unlink()
        raise UserError(
            f"{address}: its checksum is not that of config.json; try again, or tell who published it"
        )
    begun.replace(path)


def _fetch(address: str, path: Path, most: int, on_bytes: OnBytes | None) -> None:
    """Get a file, behind what is there of it. Raises UserError, _Missing."""
    failures = 0
    while True:
        before = path.stat().st_size if path.exists() else 0
        try:
            if _attempt(address, path, before, most, on_bytes):
                return
            problem = "the connection broke off"
        except urllib.error.HTTPError as err:
            if err.code in (404, 410):
                raise _Missing from None
            if err.code < 500 and err.code not in (408, 429):
                raise UserError(f"{address}: {err.code} {err.reason}") from None
            problem = f"{err.code} {err.reason}"
        except (OSError, http.client.HTTPException) as err:
            if isinstance(err, OSError) and err.filename is not None:
                raise
            if isinstance(getattr(err, "reason", None), socket.gaierror):
                raise UserError(f"{address}: this machine finds no such host; is it connected?") from None
            problem = str(getattr(err, "reason", err)) or type(err).__name__
        grown = path.exists() and path.stat().st_size > before
        failures = 0 if grown else failures + 1
        if failures > len(WAITS):
            raise UserError(
                f"{address}: {problem}; what has come is kept, and the same command goes on from there"
            )
        time.sleep(WAITS[max(0, failures - 1)])


def _attempt(address: str, path: Path, before: int, most: int, on_bytes: OnBytes | None) -> bool:
    """One request; whether the file is complete now. Raises what urllib raises, and UserError."""
    request = urllib.request.Request(
        address, headers={"User-Agent": "speech-reallm", "Accept-Encoding": "identity"}
    )
    if before:
        request.add_header("Range", f"bytes={before}-")
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as err:
        if err.code != 416 or not before:
            raise
        # nothing is behind what is there: it is the whole, or another file's
        err.close()
        return True
    with response:
        if response.status != 206 or not str(response.headers.get("Content-Range", "")).startswith(
            f"bytes {before}-"
        ):
            before = 0
        length = response.headers.get("Content-Length", "")
        total = before + int(length) if length.isdigit() else 0
        if total > most:
            raise UserError(f"{address}: {total} bytes are more than a model's file has")
        with path.open("r+b" if before else "wb") as file:
            file.seek(before)
            count = before
            while block := response.read(BLOCK):
                count += len(block)
                if count > most:
                    raise UserError(
                        f"{address}: more than {most} bytes, which is more than a model's file has"
                    )
                file.write(block)
                if on_bytes:
                    on_bytes(count, total, address.rpartition("/")[2])
    return not total or count >= total


def _copy(source: Path, target: Path) -> Path:
    """A folder, checked before and after."""
    folder = open_folder(source)
    if source.resolve() == target.resolve():
        return target
    part = target.with_name(f".{target.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for name in ("config.json", *folder.files):
            shutil.copyfile(source / name, part / name)
        for file in (*source.glob("README.md"), *source.glob("LICENSE*")):
            shutil.copyfile(file, part / file.name)
        open_folder(part)
        _replace(part, target)
    except OSError as err:
        raise UserError(f"cannot write {target}: {err.strerror or err}") from None
    return target


def _replace(part: Path, target: Path) -> None:
    if target.exists() and not (target / "config.json").is_file() and any(target.iterdir()):
        raise UserError(f"{target} is there and no model; name another folder with --out")
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.replace(old)
    part.replace(target)
    shutil.rmtree(old, ignore_errors=True)
