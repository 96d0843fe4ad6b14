"""Archives on a real Ray cluster of two workers, one of which is killed in mid-run."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_archive import contents, finished, make, transcripts

from speech_reallm import UserError
from speech_reallm.archive import REPORTS, Archive, Settings, transcribe_archive

# half a minute where the machine is free, minutes where it is not: starting a cluster is most of it
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    # Ray's own: it warns of its own settings
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A cluster with two cores on this machine; its address."""
    pytest.importorskip("ray", reason="Ray is not installed (extra `ray`)")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    # not behind everything else that this machine does
    monkeypatch.setenv("RAY_worker_niceness", "0")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    import ray

    context = ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield context.address_info["gcs_address"]
    ray.shutdown()


def test_a_killed_worker_and_the_same_bytes(cluster: str, model_folder: Path, tmp_path: Path) -> None:
    from speech_reallm.ray_jobs import transcribe_with_ray

    (tmp_path / "bad.wav").write_bytes(b"no sound")
    manifest = str(make(tmp_path, 24, seconds=2.0, bad="bad.wav"))
    settings = {"formats": ("json", "srt"), "model": str(model_folder)}
    alone = Archive(manifest, Settings(out=str(tmp_path / "alone"), **settings))
    transcribe_archive(alone, 1)
    # a URL of a storage that all workers share
    archive = Archive(f"file://{manifest}", Settings(out=f"file://{tmp_path}/ray", **settings))
    killed: list[int] = []

    def kill() -> None:
        """As soon as there are transcripts, end one of the two actors."""
        ends = time.monotonic() + 600
        while time.monotonic() < ends:
            actors = actor_processes()
            if len(actors) == 2 and finished(tmp_path / "ray"):
                os.kill(actors[0], signal.SIGKILL)
                killed.append(len(finished(tmp_path / "ray")))
                return
            time.sleep(0.02)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    progress: list[int] = []
    said: list[str] = []

    def on_progress(tally, work: float, seconds: float) -> None:
        progress.append(tally.done)

    transcribe_with_ray(archive, None, 2, on_progress=on_progress, on_message=said.append)
    thread.join(60)
    # in mid-run: some of the 24 recordings were done
    assert len(killed) == 1 and 0 < killed[0] < 24
    assert contents(tmp_path / "ray") == contents(tmp_path / "alone")
    assert len(transcripts(tmp_path / "ray")) == 48 and archive.tally.done == 25
    assert archive.tally.failed == 1 and said == [archive.tally.failures[24]]
    assert len(set(progress)) > 2 and progress == sorted(progress)
    failure = json.loads((tmp_path / "ray" / REPORTS / "failures-0-of-1.jsonl").read_text())
    assert failure["audio"] == "bad.wav"


def test_without_a_cluster_at_the_address(model_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed (extra `ray`)")
    from speech_reallm.ray_jobs import transcribe_with_ray

    settings = Settings(out=str(tmp_path / "out"), model=str(model_folder))
    archive = Archive(str(make(tmp_path, 1)), settings)
    with pytest.raises(UserError, match="cannot reach the Ray cluster"):
        transcribe_with_ray(archive, "127.0.0.1:1")


def actor_processes() -> list[int]:
    """The processes of Ray's actors, by their titles, and not those that they have started themselves."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            title = path.read_bytes()
        except OSError:
            continue
        if title.startswith(b"ray::") and b"_Actor" in title:
            found.append(int(path.parent.name))
    return sorted(found)
