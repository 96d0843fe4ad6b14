"""A share of an archive on a Ray cluster (extra `ray`): Ray Data hands blocks of recordings to actors."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from .archive import Archive, ArchiveItem, IsolatedTranscriber, Settings, Tally
from .errors import UserError
from .storage import local_path

# recordings that an actor is given at once: what is done again if its machine is lost, and how fine progress is
BLOCK = 4
# seconds that a cluster has to answer
_ANSWER = 20.0


class _Actor:
    """One of Ray's workers: the model is loaded once, and recognises on one thread, in a process of its own.

    So a recording that ends the process does not end the actor, which Ray would start again with the same block, for
    ever.
    """

    def __init__(self, settings: Settings) -> None:
        self._transcribe = IsolatedTranscriber(settings)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Recognise a block: columns `number`, `name`, `audio`, `source`. Returns what became of each."""
        results: dict[str, list[Any]] = {"number": [], "seconds": [], "error": [], "warnings": []}
        rows = zip(batch["number"], batch["name"], batch["audio"], batch["source"], strict=True)
        for number, name, audio, source in rows:
            item = ArchiveItem(str(name), str(audio), str(source))
            seconds, error, warnings = self._transcribe(item)
            results["number"].append(int(number))
            results["seconds"].append(seconds)
            results["error"].append(error or "")
            results["warnings"].append("\n".join(warnings))
        return results


def transcribe_with_ray(
    archive: Archive,
    address: str | None,
    jobs: int | None = None,
    *,
    on_progress: Callable[[Tally, float, float], bool | None] | None = None,
    on_message: Callable[[str], None] | None = None,
) -> None:
    """Recognise what is waiting on a cluster, and write the report of failures.

    address: of the cluster, as `ray.init` takes it; None: a new one on this machine. jobs: the most actors, each with
    one core; None: as many as the cluster has cores. on_progress, on_message: as `archive.transcribe_archive` has them.
    Blocks of lost workers are begun again by others; what an actor has no room for waits in the manifest. Raises
    UserError for a cluster that cannot be reached, and where it fails.
    """
    archive.check_shared()
    # before it is imported: it would report how it is used, write of its own affairs to the terminal, and start a
    # cluster where one that is shut down is asked for something
    for name, value in (
        ("RAY_USAGE_STATS_ENABLED", "0"),
        ("RAY_BACKEND_LOG_LEVEL", "fatal"),
        ("RAY_ENABLE_AUTO_CONNECT", "0"),
    ):
        os.environ.setdefault(name, value)
    import ray.data

    # there is progress of our own, and errors come as exceptions
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)

    cluster: Any = ray
    own = not ray.is_initialized()
    if own:
        _connect(ray, address)
    try:
        cores = int(cluster.cluster_resources().get("CPU", 0))
        if cores < 1:
            raise UserError("the Ray cluster has no processor cores")
        _run(archive, min(jobs or cores, cores), on_progress, on_message or (lambda text: None))
    finally:
        if own:
            # what was running is given up without a word
            logging.getLogger("ray.data").setLevel(logging.CRITICAL)
            ray.shutdown()


def _connect(ray: Any, address: str | None) -> None:
    """Raises UserError for a cluster that cannot be reached."""
    if address is not None:
        _answers(address)
    # "local": a new one, even where the environment names a cluster
    options: dict[str, Any] = {"address": address or "local"}
    if address is None:
        options["include_dashboard"] = False
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(log_to_driver=False, configure_logging=False, **options)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as err:
        where = f"the Ray cluster {address}" if address else "Ray on this machine"
        raise UserError(f"cannot reach {where}: {' '.join(str(err).split())[:300]}") from None
    finally:
        # Ray puts its own handler there, which ends the program on the spot
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _answers(address: str) -> None:
    """Raises UserError where nothing listens at HOST:PORT: Ray itself would try for minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not (colon and port.isdecimal()):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER).close()
    except (OSError, OverflowError) as err:
        why = getattr(err, "strerror", None) or str(err)
        raise UserError(f"cannot reach the Ray cluster {address}: {why}") from None


def _run(
    archive: Archive,
    jobs: int,
    on_progress: Callable[[Tally, float, float], bool | None] | None,
    say: Callable[[str], None],
) -> None:
    results: queue.Queue[tuple[int, float, str, str] | BaseException | None] = queue.Queue()

    def receive() -> None:
        try:
            for row in _results(archive, jobs):
                results.put(row)
            results.put(None)
        except BaseException as err:
            results.put(err)

    if archive.waiting:
        # a thread, for Ray cannot be waited for with a time limit, and a signal must end the waiting
        threading.Thread(target=receive, daemon=True).start()
    else:
        results.put(None)
    while True:
        with contextlib.suppress(queue.Empty):
            result = results.get(timeout=0.5)
            if result is None:
                break
            if isinstance(result, BaseException):
                raise UserError(f"the Ray cluster failed: {' '.join(str(result).split())[:500]}") from result
            number, seconds, error, warnings = result
            for text in (*warnings.splitlines(), *([error] if error else [])):
                say(text)
            archive.finish(number, seconds, error or None)
        if on_progress and on_progress(archive.tally, archive.tally.work, archive.tally.seconds) is False:
            return
    for number in archive.not_there():
        if number not in archive.tally.failures:
            error = (
                f"{archive.recordings[number].audio}: its transcripts are not in {archive.settings.out} as seen from "
                "here; all machines must share that folder"
            )
            archive.tally.failures[number] = error
            say(error)
    archive.report()


def _results(archive: Archive, jobs: int) -> Iterator[tuple[int, float, str, str]]:
    """What becomes of the recordings that are waiting: number, seconds, error, warnings."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # workers have another current folder
    settings = replace(archive.settings, out=_absolute(archive.settings.out))
    if settings.model not in (None, "default"):
        settings = replace(settings, model=_absolute(str(settings.model)))
    rows = [
        {"number": number, "name": item.name, "audio": item.audio, "source": item.source}
        for number in archive.waiting
        for item in (archive.recordings[number],)
    ]
    blocks = -(-len(rows) // BLOCK)
    jobs = min(jobs, blocks)
    # Ray Data starts lost actors again, and what they had begun; transcripts that are written twice are the same
    data = ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
        _Actor,
        fn_constructor_args=(settings,),
        batch_size=None,
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(size=jobs, max_tasks_in_flight_per_actor=2),
    )
    for batch in data.iter_batches(batch_size=None, prefetch_batches=0):
        columns = (batch[name] for name in ("number", "seconds", "error", "warnings"))
        for number, seconds, error, warnings in zip(*columns, strict=True):
            yield int(number), float(seconds), str(error), str(warnings)


def _absolute(path: str) -> str:
    return path if local_path(path) is None or path.startswith("file://") else str(Path(path).absolute())
