"""Archives: the recordings of a manifest, a share of them on each machine, one process a core.

Every recording becomes files of its own below one folder, written whole or not at all, and what is there is not done
again. So a run that was killed, or lost its machine, is started once more and goes on; several machines share the work
by their shares of the manifest alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import signal
import time
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import quote

import numpy as np

from .batch import transcribe_files
from .errors import UserError
from .formats import FORMATS, SUFFIXES, to_ctm
from .hotwords import DEFAULT_STRENGTH
from .jsonl import json_object, text_lines
from .media import open_audio
from .modelfolder import open_folder
from .options import StreamOptions
from .recognizer import Recognizer
from .storage import Folder, Watched, join, open_binary, read_text, write_whole

# reports and settings, beside the transcripts; no recording gets this name
REPORTS = "_archive"
# longest part of a name, in bytes: suffixes and the name while it is written must find room beside it
_LONGEST = 180
# times that a recording is begun when the process that had it is lost
_TRIES = 2
# processes that end before they have loaded the model, one after another
_STARTS = 3
# seconds between two reports of how far a recording is
_REPORT = 1.0


@dataclass(frozen=True, slots=True)
class ArchiveItem:
    """A row of the manifest.

    `name`: of its transcripts, without suffix; `audio`: as the manifest has it; `source`: where that is; `duration`:
    seconds, 0 if the manifest does not say.
    """

    name: str
    audio: str
    source: str
    duration: float = 0.0

    def __str__(self) -> str:
        return self.audio


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How recordings are recognised, and where transcripts go. `formats`: of `formats.FORMATS`."""

    out: str
    formats: tuple[str, ...] = ("json",)
    model: str | None = None
    delay: int | None = None
    channel: str | None = None
    track: int | None = None
    numbers: str | None = None
    hotwords: tuple[str, ...] = ()
    hotwords_strength: float = DEFAULT_STRENGTH

    @property
    def options(self) -> StreamOptions:
        """Raises UserError for values out of range."""
        return StreamOptions(
            numbers=self.numbers, hotwords=self.hotwords, hotwords_strength=self.hotwords_strength
        )

    def paths(self, recording: ArchiveItem) -> list[str]:
        return [join(self.out, recording.name + SUFFIXES[name]) for name in self.formats]


@dataclass(slots=True)
class Tally:
    """How far a share of an archive is. `total` recordings, of which `present` were there before; `done` in this run,
    `failed` of them; `seconds` of audio recognised; `work` of `work_total`, in seconds where the manifest gives them;
    `failures`: number of the recording and what was wrong."""

    total: int
    present: int = 0
    done: int = 0
    seconds: float = 0.0
    work: float = 0.0
    work_total: float = 0.0
    failures: dict[int, str] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        return len(self.failures)


def parse_shard(text: str) -> tuple[int, int]:
    """`3/8` -> (3, 8): the fourth of eight shares. Raises UserError."""
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and 1 <= int(count) <= 10**6):
        raise UserError(f"--shard {text}: write i/N, as 0/8 for the first of eight shares")
    if int(index) >= int(count):
        raise UserError(f"--shard {text}: shares count from 0, so the last one is {int(count) - 1}/{count}")
    return int(index), int(count)


def read_recordings(manifest: str, shard: tuple[int, int] = (0, 1)) -> list[ArchiveItem]:
    """The share `shard` of a manifest: of N shares, every N-th row.

    Rows are JSON objects with `audio` (a path relative to the manifest, or a URL) and perhaps `id` and `duration`
    (seconds). Raises UserError for a manifest that cannot be read, and for two rows whose transcripts would have one
    name, in whatever share they are.
    """
    folder = manifest.rpartition("/")[0] if "://" in manifest else str(Path(manifest).resolve().parent)
    recordings = []
    # eight bytes a row of the names: manifests may be long
    names, numbers = array("Q"), array("Q")
    for number, line in text_lines(manifest):
        try:
            recording = _recording(line, folder)
        except ValueError as err:
            raise UserError(f"{manifest}, line {number}: {err}") from None
        digest = hashlib.blake2b(recording.name.encode(), digest_size=8).digest()
        if len(names) % shard[1] == shard[0]:
            recordings.append(recording)
        names.append(int.from_bytes(digest, "little"))
        numbers.append(number)
    if not names:
        raise UserError(f"{manifest} has no rows")
    values = np.frombuffer(names, np.uint64)
    order = np.argsort(values, kind="stable")
    same = np.flatnonzero(values[order[1:]] == values[order[:-1]])
    if len(same):
        first, second = (numbers[order[same[0] + step]] for step in (0, 1))
        raise UserError(
            f"{manifest}, lines {first} and {second} name the same recording; give them an `id` each"
        )
    return recordings


def _recording(line: str, folder: str) -> ArchiveItem:
    """Raises ValueError saying what is wrong."""
    row = json_object(line)
    audio, name, duration = row.get("audio"), row.get("id"), row.get("duration")
    if not isinstance(audio, str) or not audio or "\0" in audio:
        raise ValueError("`audio` must be the path of an audio file")
    if name is not None and (not isinstance(name, (str, int)) or isinstance(name, bool) or name == ""):
        raise ValueError("`id` must be a string")
    seconds = 0.0
    if duration is not None:
        known = isinstance(duration, (int, float)) and not isinstance(duration, bool)
        if not known or not 0 < duration < 1e9:
            raise ValueError("`duration` must be a number of seconds above 0")
        seconds = float(duration)
    source = audio if "://" in audio or audio.startswith("/") else join(folder, audio)
    label = audio.partition("://")[2] or audio if name is None else str(name)
    return ArchiveItem(output_name(label), audio, source, seconds)


def output_name(label: str) -> str:
    """The name of a recording's transcripts below the folder of the archive: a relative path that stays in it.

    What is no plain character of a file name is written as %XX; folders in the label stay folders.
    """
    parts = [_part(part) for part in label.replace("\\", "/").split("/") if part]
    if parts and parts[0] == REPORTS:
        parts[0] = "%5F" + REPORTS[1:]
    return "/".join(parts) or "%2F"


def _part(part: str) -> str:
    # letters of all languages stay as they are
    safe = "".join(
        c if c.isalnum() or c in " ._-+=,@()[]~" else quote(c, safe="", errors="replace") for c in part
    )
    # neither hidden nor a folder above; Windows takes no point or space at the end
    if safe[0] in ". ":
        safe = f"%{ord(safe[0]):02X}{safe[1:]}"
    if safe[-1] in ". ":
        safe = f"{safe[:-1]}%{ord(safe[-1]):02X}"
    data = safe.encode()
    if len(data) <= _LONGEST:
        return safe
    digest = hashlib.blake2b(data, digest_size=8).hexdigest()
    return f"{data[: _LONGEST - 17].decode(errors='ignore')}-{digest}"


class Transcriber:
    """What a process does: the model is loaded once, and one recording after another recognised on one thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._recognizer = Recognizer.load(settings.model, delay=settings.delay)

    def __call__(
        self, recording: ArchiveItem, on_audio: Callable[[float, float], None] | None = None
    ) -> tuple[float, str | None, tuple[str, ...]]:
        """Recognise a recording and write its transcripts.

        on_audio(seconds received, seconds of the recording or 0). Returns seconds of audio, what went wrong (None:
        nothing; else nothing was written), and warnings. Raises nothing that a recording or a storage could cause.
        """
        warnings: list[str] = []
        try:
            return self._transcribe(recording, on_audio, warnings), None, tuple(warnings)
        except (UserError, OSError) as err:
            return 0.0, _one_line(str(err)), tuple(warnings)
        except Exception as err:
            # libraries of storages raise what they like, and one recording must not end the work
            return 0.0, _one_line(f"{recording.audio}: {type(err).__name__}: {err}"), tuple(warnings)

    def _transcribe(
        self,
        recording: ArchiveItem,
        on_audio: Callable[[float, float], None] | None,
        warnings: list[str],
    ) -> float:
        settings = self._settings
        with Watched(open_binary(recording.source, recording.audio)) as file:

            def open_file(item: ArchiveItem) -> Any:
                return open_audio(
                    cast(BinaryIO, file),
                    name=str(item),
                    channel=settings.channel,
                    track=settings.track,
                    on_warning=lambda text, kind: warnings.append(text),
                )

            def received(index: int, seconds: float, of: float) -> None:
                if on_audio:
                    on_audio(seconds, of)

            (result,) = transcribe_files(
                self._recognizer,
                [recording],
                batch=1,
                open_file=open_file,
                on_audio=received,
                options=settings.options,
            )
            # sound that a storage could not deliver is no damage of the recording: it may come next time
            if file.error is not None:
                raise UserError(f"cannot read {recording.audio}: {file.error}")
        if result.transcript is None:
            raise result.error or UserError(f"{recording.audio} cannot be recognised")
        transcript = result.transcript
        texts = [
            to_ctm(transcript, recording.name) if name == "ctm" else FORMATS[name](transcript)
            for name in settings.formats
        ]
        for path, text in zip(settings.paths(recording), texts, strict=True):
            write_whole(path, text)
        return transcript.duration


def _one_line(text: str) -> str:
    return " ".join(text.split())[:1000]


class Archive:
    """A share of an archive, about to be recognised.

    Attributes: `settings`, `recordings` (of the share), `waiting` (numbers of those that are not there yet), `tally`.
    """

    def __init__(self, manifest: str, settings: Settings, shard: tuple[int, int] = (0, 1)) -> None:
        """Look at what is there. Raises UserError for a manifest or a model that cannot be used, for a folder that
        cannot be written to, and for one with transcripts that were made in another way."""
        self.settings, self._shard = settings, shard
        self.recordings = read_recordings(manifest, shard)
        self._agree()
        self._folders: dict[str, Folder] = {}
        self.waiting = [
            number
            for number, recording in enumerate(self.recordings)
            if not all(self._is_there(path) for path in settings.paths(recording))
        ]
        # what a killed process left behind
        for number in self.waiting:
            for path in settings.paths(self.recordings[number]):
                self._clean(path)
        waiting = [self.recordings[number].duration for number in self.waiting]
        known = [duration for duration in waiting if duration]
        # a recording of unknown length counts as much as the others do
        self._usual = sum(known) / len(known) if known else 1.0
        self.tally = Tally(
            total=len(self.recordings),
            present=len(self.recordings) - len(waiting),
            work_total=sum(duration or self._usual for duration in waiting),
        )

    def _is_there(self, path: str) -> bool:
        return path.rpartition("/")[2] in self._folder(path).names

    def _clean(self, path: str) -> None:
        self._folder(path).remove_parts(path.rpartition("/")[2])

    def _folder(self, path: str) -> Folder:
        """Every folder is listed once, for storages are slow to tell of single files."""
        name = path.rpartition("/")[0]
        if name not in self._folders:
            self._folders[name] = Folder(name)
        return self._folders[name]

    @property
    def failures_path(self) -> str:
        """Where the report of failures goes when the share is done."""
        index, count = self._shard
        return join(self.settings.out, f"{REPORTS}/failures-{index}-of-{count}.jsonl")

    def _agree(self) -> None:
        """All shares and all runs of an archive must be made in the same way."""
        settings = self.settings
        folder = open_folder(settings.model)
        options = settings.options
        if settings.delay is not None and settings.delay not in folder.delays:
            raise UserError(f"delay must be one of {', '.join(map(str, folder.delays))}")
        config = folder.file("config.json").read_bytes()
        fields: dict[str, Any] = {
            "model": hashlib.sha256(config).hexdigest(),
            "model_name": folder.name,
            "delay": settings.delay,
            "channel": settings.channel,
            "track": settings.track,
            "numbers": settings.numbers,
        }
        if options.hotwords:
            fields |= {"hotwords": list(options.hotwords), "hotwords_strength": options.hotwords_strength}
        path = join(settings.out, f"{REPORTS}/settings.json")
        text = read_text(path)
        if text is None:
            # another share may write the same at the same time
            write_whole(path, json.dumps(fields) + "\n")
            return
        try:
            there = json.loads(text)
            keys = dict.fromkeys((*fields, *there))
            different = [key for key in keys if there.get(key) != fields.get(key) and key != "model_name"]
            if "model" not in there:
                raise ValueError
        except (ValueError, AttributeError, TypeError):
            raise UserError(f"{path} is damaged; name another folder with --out") from None
        if different:
            raise UserError(
                f"{settings.out} holds transcripts made with another {' and another '.join(different)} ({path}); "
                "name another folder with --out"
            )

    def check_shared(self) -> None:
        """Raises UserError for transcripts that other processes would write where this one cannot see them."""
        if self.settings.out.startswith("memory://"):
            raise UserError(
                "memory:// is of one process alone; --out needs a folder or a storage that all share"
            )

    def not_there(self) -> list[int]:
        """Numbers of recordings that were waiting and whose transcripts are not all there now."""
        self._folders.clear()
        return [
            number
            for number in self.waiting
            if not all(self._is_there(path) for path in self.settings.paths(self.recordings[number]))
        ]

    def work(self, number: int) -> float:
        """How much of the work a recording is, in the unit of `Tally.work`."""
        return self.recordings[number].duration or self._usual

    def finish(self, number: int, seconds: float, error: str | None) -> None:
        """Count a recording that is done with. error: what was wrong, None for nothing."""
        self.tally.done += 1
        self.tally.seconds += seconds
        self.tally.work += self.work(number)
        if error is not None:
            self.tally.failures[number] = error

    def report(self) -> None:
        """Write the failures, one JSON object a line; an empty file for none. Raises UserError."""
        lines = []
        for number, error in sorted(self.tally.failures.items()):
            recording = self.recordings[number]
            fields = {"audio": recording.audio, "name": recording.name, "error": error}
            lines.append(json.dumps(fields, ensure_ascii=False) + "\n")
        write_whole(self.failures_path, "".join(lines))


class _Process:
    """A process of the pool. `number`: of the recording that it has, None while it has none."""

    def __init__(self, settings: Settings) -> None:
        # spawn: a fork would copy the threads' locks of what the program has loaded
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, settings), daemon=True)
        self._process.start()
        # so that its end is seen, here and there
        theirs.close()
        self.number: int | None = None
        self.ready = False
        self.seconds = self.share = 0.0

    def begin(self, number: int, recording: ArchiveItem) -> None:
        self.number, self.seconds, self.share = number, 0.0, 0.0
        with contextlib.suppress(OSError):
            # if it is lost, that is seen when it should answer
            self.connection.send(recording)

    def why_lost(self) -> str:
        """How it ended."""
        self._process.join(10)
        code = self._process.exitcode
        return f"was ended by signal {-code}" if code is not None and code < 0 else f"ended with code {code}"

    def stop(self) -> None:
        """At once: what it writes is written whole or not at all."""
        self._process.kill()
        self._process.join()
        self.connection.close()


class IsolatedTranscriber:
    """A `Transcriber` in a process of its own, so that a recording can end no other."""

    def __init__(self, settings: Settings) -> None:
        """Raises UserError where the model cannot be loaded."""
        self._settings = settings
        self._process = self._start()

    def _start(self) -> _Process:
        why = ""
        for _ in range(_STARTS):
            process = _Process(self._settings)
            try:
                kind, *values = process.connection.recv()
            except (EOFError, OSError):
                why = process.why_lost()
                process.stop()
                continue
            if kind == "ready":
                return process
            process.stop()
            raise UserError(values[0])
        raise UserError(f"{_STARTS} processes could not be started; the last one {why}")

    def __call__(self, recording: ArchiveItem) -> tuple[float, str | None, tuple[str, ...]]:
        """As `Transcriber` has it; a recording that ends the process is begun once more, and has failed then."""
        why = ""
        for _ in range(_TRIES):
            self._process.begin(0, recording)
            try:
                while True:
                    kind, *values = self._process.connection.recv()
                    if kind == "done":
                        seconds, error, warnings = values
                        return seconds, error, warnings
            except (EOFError, OSError):
                why = self._process.why_lost()
                self._process.stop()
                self._process = self._start()
        return 0.0, f"{recording.audio}: the process that recognised it {why}, {_TRIES} times", ()


def transcribe_archive(
    archive: Archive,
    jobs: int,
    *,
    on_progress: Callable[[Tally, float, float], bool | None] | None = None,
    on_message: Callable[[str], None] | None = None,
) -> None:
    """Recognise what is waiting in `jobs` processes, and write the report of failures.

    on_progress(tally, work done, seconds of audio) is called about twice a second, with recordings that are not
    finished in the last two; if it returns False, the work ends there and no report is written. on_message: called
    with failures and warnings, a line each. A process that is lost is replaced, and its recording begun once more.
    Raises UserError where a model cannot be loaded or no process can be started.
    """
    archive.check_shared()
    waiting = deque(archive.waiting)
    begun: dict[int, int] = {}
    pool: list[_Process] = []
    failed_starts = 0
    say = on_message or (lambda text: None)

    def lose(process: _Process) -> None:
        nonlocal failed_starts
        pool.remove(process)
        why = process.why_lost()
        process.stop()
        if not process.ready:
            failed_starts += 1
            if failed_starts == _STARTS:
                raise UserError(f"{_STARTS} processes could not be started; the last one {why}")
            return
        if process.number is None:
            return
        recording = archive.recordings[process.number]
        if begun[process.number] < _TRIES:
            say(f"{recording.audio}: the process that recognised it {why}; it is begun again")
            waiting.appendleft(process.number)
        else:
            error = f"{recording.audio}: the process that recognised it {why}, {_TRIES} times"
            archive.finish(process.number, 0.0, error)
            say(error)

    def receive(process: _Process) -> None:
        nonlocal failed_starts
        kind, *values = process.connection.recv()
        if kind == "refused":
            raise UserError(values[0])
        if kind == "ready":
            process.ready, failed_starts = True, 0
        elif kind == "received":
            process.seconds, of = values
            process.share = min(1.0, process.seconds / of) if of > 0 else 0.0
        else:
            seconds, error, warnings = values
            for text in (*warnings, *([error] if error else [])):
                say(text)
            assert process.number is not None
            archive.finish(process.number, seconds, error)
            process.number, process.seconds, process.share = None, 0.0, 0.0

    try:
        while waiting or any(process.number is not None for process in pool):
            busy = sum(process.number is not None for process in pool)
            while len(pool) < min(jobs, busy + len(waiting)):
                pool.append(_Process(archive.settings))
            for process in pool:
                if process.ready and process.number is None and waiting:
                    number = waiting.popleft()
                    begun[number] = begun.get(number, 0) + 1
                    process.begin(number, archive.recordings[number])
            answering = wait([process.connection for process in pool], timeout=0.5)
            for process in list(pool):
                if process.connection in answering:
                    try:
                        receive(process)
                    except (EOFError, OSError):
                        lose(process)
            if on_progress:
                busy_ones = [process for process in pool if process.number is not None]
                work = archive.tally.work + sum(
                    process.share * archive.work(process.number)
                    for process in busy_ones
                    if process.number is not None
                )
                seconds = archive.tally.seconds + sum(process.seconds for process in busy_ones)
                if on_progress(archive.tally, work, seconds) is False:
                    return
    finally:
        for process in pool:
            process.stop()
    archive.report()


def _work(connection: Connection, settings: Settings) -> None:
    """What a process of the pool runs: recordings come, results go, until the other end is closed."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        # the terminal and a cluster tell all processes at once; the first process decides
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)

    def send(*message: object) -> None:
        try:
            connection.send(message)
        except OSError:
            # the first process is gone
            os._exit(1)

    try:
        transcriber = Transcriber(settings)
    except UserError as err:
        send("refused", str(err))
        return
    send("ready")
    shown = 0.0

    def on_audio(seconds: float, of: float) -> None:
        nonlocal shown
        if time.monotonic() - shown >= _REPORT:
            shown = time.monotonic()
            send("received", seconds, of)

    while True:
        try:
            recording = connection.recv()
        except (EOFError, OSError):
            return
        send("done", *transcriber(recording, on_audio))
