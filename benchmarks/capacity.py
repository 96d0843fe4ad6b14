"""What live sessions and archives cost, and how far that goes: measured here, then simulated for more.

    python benchmarks/capacity.py measure capacity.json      # processor time and memory of this machine, minutes
    python benchmarks/capacity.py simulate capacity.json     # 10,000 sessions, 100,000 hours; seconds

Processor time is measured and not wall time, so that other work on the machine changes the figures little (shared
caches and clock rates still count). One session is one stream, and streams share no computing: a core serves sessions
one after another, a chunk of 240 ms of each in turn, which is what the simulation plays through.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from serve_load import DEMO, Server, servers
from websockets.asyncio.client import connect

from speech_reallm import Recognizer
from speech_reallm.audio import SAMPLE_RATE, read_audio

CHUNK = 0.24
# sessions of a trial, and seconds of speech of each
SESSIONS, SPOKEN = (1, 5, 20, 80), 4.0
# 95 % of the updates come within this, beyond what the model itself waits for
LIMIT = 0.3
# the share of a core that is planned with: the rest is for peaks, for a machine that is lost, for other work
PLANNED = 0.7


def measure(path: Path, sessions: Sequence[int], spoken: float, minutes: int) -> None:
    """Write what this machine needs; after each part, since the whole takes minutes."""
    audio = read_audio(DEMO)
    figures: dict[str, Any] = {
        "cpu": cpu_name(), "cores": os.cpu_count(), "load_before": round(os.getloadavg()[0], 1), "live": [],
        "archive": [],
    }  # fmt: skip

    def note(name: str, value: Any) -> None:
        if isinstance(figures.get(name), list):
            figures[name].append(value)
        else:
            figures[name] = value
        path.write_text(json.dumps(figures, indent=1) + "\n")

    note("steps_ms", steps(audio))
    note("manifest_rows_per_s", manifest_rows())
    note("archive", archive(1, audio, minutes))
    for processes in (1, 2):
        for count in sessions:
            if count >= processes:
                note("live", live(processes, count, audio, spoken))
    note("archive", archive(2, audio, minutes))


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"


def steps(audio: np.ndarray) -> list[float]:
    """Processor time of a chunk of speech in milliseconds: the quantiles 0, 1 %, ... 100 %."""
    stream = Recognizer.load().stream()
    chunk = int(CHUNK * SAMPLE_RATE)
    times = []
    for begin in range(0, len(audio) - chunk, chunk):
        before = time.process_time()
        stream.accept(audio[begin : begin + chunk])
        times.append(1000 * (time.process_time() - before))
    # the first ones set up what later ones find
    return [round(float(q), 2) for q in np.quantile(times[5:], np.linspace(0, 1, 101))]


def live(processes: int, sessions: int, audio: np.ndarray, spoken: float) -> dict[str, Any]:
    """`sessions` open at once, spread over servers; all of what a server does is in its processor time."""
    args = argparse.Namespace(threads=1, model=None)
    pcm = (audio[: int(spoken * SAMPLE_RATE)] * 32767).astype("<i2").tobytes()
    with servers(processes, sessions, args) as running:
        # what the first session brings about, all share
        for server in running:
            asyncio.run(hold([server], 1, pcm[:64000]))
        empty = sum(s.memory_mb() for s in running)
        cpu, memory, seconds = asyncio.run(hold(running, sessions, pcm))
    figures = {
        "processes": processes,
        "sessions": sessions,
        "cores_per_session": round(cpu / seconds, 4),
        "memory_mb_empty": round(empty / processes, 1),
        "memory_mb_per_session": round((memory - empty) / sessions, 2),
    }
    print(json.dumps(figures), flush=True)
    return figures


async def hold(running: list[Server], sessions: int, pcm: bytes) -> tuple[float, float, float]:
    """While all sessions are open, from their first sample until their audio is recognised.

    Returns seconds of processor time of the servers, their MB then, and seconds of audio that were recognised.
    """
    opened = recognised = 0
    begun = used = memory = seconds = 0.0
    all_open, done = asyncio.Event(), asyncio.Event()

    async def speak(number: int) -> None:
        nonlocal opened, recognised, begun, used, memory, seconds
        port = running[number % len(running)].port
        # seldom: what is told is no part of a session's work
        url = f"ws://127.0.0.1:{port}/v1/stream?rate={SAMPLE_RATE}&progress_ms=3000"
        async with connect(url, compression=None, ping_interval=None, open_timeout=600) as socket:
            assert json.loads(await socket.recv())["type"] == "ready"
            opened += 1
            if opened == sessions:
                begun = sum(server.cpu_seconds() for server in running)
                all_open.set()
            await all_open.wait()
            packet = SAMPLE_RATE // 10 * 2
            for begin in range(0, len(pcm), packet):
                await socket.send(pcm[begin : begin + packet])
            # what is left over of a chunk comes with the end
            enough = len(pcm) / 2 / SAMPLE_RATE - 2 * CHUNK
            while True:
                message = json.loads(await socket.recv())
                assert message["type"] != "error", message
                if message["type"] == "progress" and message["time"] >= enough:
                    break
            seconds += message["time"]
            recognised += 1
            if recognised == sessions:
                used = sum(server.cpu_seconds() for server in running) - begun
                memory = sum(server.memory_mb() for server in running)
                done.set()
            await done.wait()
            await socket.send(json.dumps({"type": "finish"}))
            async for _ in socket:
                pass

    await asyncio.gather(*(speak(number) for number in range(sessions)))
    return used, memory, seconds


def archive(jobs: int, audio: np.ndarray, minutes: int) -> dict[str, Any]:
    """`reallm transcribe --manifest` with so many processes, each with so many recordings of a minute."""
    minute = np.tile(audio, 1 + 60 * SAMPLE_RATE // len(audio))[: 60 * SAMPLE_RATE]

    def run(name: str, samples: np.ndarray, count: int, jobs: int) -> float:
        """Processor time of `count` recordings."""
        soundfile.write(Path(folder, f"{name}.flac"), samples, SAMPLE_RATE)
        rows = [{"audio": f"{name}.flac", "id": str(n)} for n in range(count)]
        manifest = Path(folder, f"{name}.jsonl")
        manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
        command = [sys.executable, "-m", "speech_reallm", "transcribe", "--manifest", str(manifest)]
        command += ["--out", str(Path(folder, name)), "--jobs", str(jobs)]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    with tempfile.TemporaryDirectory() as folder:
        # the program and a process that loads the model, with next to nothing to do
        starting = run("start", minute[: SAMPLE_RATE // 4], 1, 1)
        whole = run("minutes", minute, minutes * jobs, jobs)
    figures = {
        "jobs": jobs,
        "start_cpu_s": round(starting, 2),
        "cores_per_stream": round((whole - starting * jobs) / (60 * minutes * jobs), 4),
        "memory_mb_per_job": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000, 1),
    }
    print(json.dumps(figures), flush=True)
    return figures


def manifest_rows() -> int:
    """Rows of a manifest that are read in a second of processor time, as every share does with all of them."""
    from speech_reallm.archive import read_recordings

    count = 50_000
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        for number in range(count):
            file.write(json.dumps({"audio": f"calls/{number:08}.wav", "duration": 360.0}) + "\n")
        file.flush()
        before = time.process_time()
        read_recordings(file.name, (0, 1000))
        return round(count / (time.process_time() - before))


def lateness(sessions: int, service: np.ndarray, seconds: float = 60.0, batch: int = 32) -> np.ndarray:
    """Seconds from a chunk's last sample to its answer, of `sessions` on one core.

    As the server does it: a turn takes one chunk of each session that has one, `batch` of them at most, and its answers
    leave together. service: seconds that a chunk may take.
    """
    chance = np.random.default_rng(sessions)
    chunks = int(seconds / CHUNK)
    due = (chance.uniform(0, CHUNK, (sessions, 1)) + CHUNK * np.arange(chunks)).ravel()
    due.sort()
    costs = chance.choice(service, len(due))
    late, now, begin = [], 0.0, 0
    while begin < len(due):
        now = max(now, due[begin])
        end = min(int(np.searchsorted(due, now, "right")), begin + batch)
        now += float(costs[begin:end].sum())
        late.append(now - due[begin:end])
        begin = end
        if now - due[min(begin, len(due) - 1)] > 10:
            # it will never catch up
            return np.full(1, 10.0)
    return np.concatenate(late)


def most_sessions(service: np.ndarray) -> int:
    """Sessions on one core with 95 % of the answers in time."""
    count = 1
    while np.quantile(lateness(count + 1, service), 0.95) < LIMIT:
        count += 1
    return count


def arrivals(sessions: int, replicas: int, balancers: int, minutes: float = 10.0) -> float:
    """The most sessions that one of `replicas` has at any time, as a multiple of the mean.

    An hour of sessions that come at random and last 10 minutes on average. Each goes where there are fewest: one
    balancer knows that, and of several each counts its own.
    """
    chance = np.random.default_rng(1)
    counts = np.zeros((balancers, replicas), int)
    ends: list[tuple[float, int, int]] = []
    now, most = 0.0, 0

    def begin() -> None:
        balancer = int(chance.integers(balancers))
        # of those that have equally few, any
        fewest = np.flatnonzero(counts[balancer] == counts[balancer].min())
        chosen = int(chance.choice(fewest))
        counts[balancer, chosen] += 1
        heapq.heappush(ends, (now + chance.exponential(minutes), balancer, chosen))

    for _ in range(sessions):
        begin()
    while now < 60:
        now += chance.exponential(minutes / sessions)
        while ends and ends[0][0] < now:
            _, balancer, chosen = heapq.heappop(ends)
            counts[balancer, chosen] -= 1
        begin()
        most = max(most, int(counts.sum(axis=0).max()))
    return most * replicas / sessions


def makespan(hours: float, workers: int, shares: int, longest: float) -> tuple[float, float]:
    """Time until all recordings are done, as a multiple of the mean of the workers: fixed shares, and one queue.

    Recordings of six minutes on average (log-normal), of `longest` hours at most. A share of the manifest has
    workers / shares processes.
    """
    chance = np.random.default_rng(2)
    lengths = chance.lognormal(np.log(0.1) - 0.5, 1.0, round(hours / 0.1)).clip(0, longest)
    mean = lengths.sum() / workers
    worst = max(finish(lengths[share::shares], workers // shares) for share in range(shares))
    return worst / mean, finish(lengths, workers) / mean


def finish(lengths: np.ndarray, workers: int) -> float:
    free = [0.0] * workers
    for length in lengths.tolist():
        heapq.heapreplace(free, free[0] + length)
    return max(free)


def simulate(path: Path) -> None:
    """Print what follows from the figures in `path`."""
    figures = json.loads(path.read_text())
    live, archives = figures["live"], figures["archive"]
    full = [row for row in live if row["sessions"] >= 20]
    cores = float(np.mean([row["cores_per_session"] for row in full]))
    memory = float(np.mean([row["memory_mb_per_session"] for row in full]))
    empty = float(np.mean([row["memory_mb_empty"] for row in live]))
    chunk = np.array(figures["steps_ms"]) / 1000
    # the recogniser's steps, as they vary, and what the server does around each
    service = chunk * (cores * CHUNK / chunk.mean())
    most = most_sessions(service)
    planned = int(PLANNED / cores)
    p50, p95, p99 = 1000 * np.quantile(lateness(planned, service), (0.5, 0.95, 0.99))
    print(f"live: {cores:.4f} cores a session, {memory:.1f} MB each, {empty:.0f} MB a process")
    print(
        f"one core: {most} sessions with p95 below {1000 * LIMIT:.0f} ms (simulated); planned with: {planned}, "
    )
    print(f"  whose p50 / p95 / p99 are {p50:.0f} / {p95:.0f} / {p99:.0f} ms")
    for sessions in (100, 1000, 10_000):
        processes = -(-sessions // planned)
        gigabytes = (processes * empty + sessions * memory) / 1000
        print(
            f"{sessions:,} sessions: {processes:,} cores, {gigabytes:.1f} GB, "
            f"{sessions * 256 / 1e6:.2f} Gbit/s of audio"
        )
    for cores_each in (1, 8):
        replicas = -(-10_000 // (planned * cores_each))
        for balancers in (1, 4):
            peak = arrivals(10_000, replicas, balancers)
            print(
                f"10,000 sessions on {replicas:,} replicas of {cores_each} cores behind {balancers} balancers: "
                f"the fullest has {peak:.2f} times the mean, {int(np.ceil(peak * 10_000 / replicas))} sessions, "
                f"{cores * peak * 10_000 / replicas / cores_each:.0%} of its cores"
            )
    per_hour = float(np.mean([row["cores_per_stream"] for row in archives]))
    job = max(row["memory_mb_per_job"] for row in archives)
    print(f"archive: {per_hour:.4f} core-hours an hour of audio, {job:.0f} MB a process")
    for hours in (1000, 100_000):
        print(f"{hours:,} hours of audio: {hours * per_hour:,.0f} core-hours")
    for workers, shares in ((64, 8), (800, 100), (8000, 1000)):
        fixed, queue = makespan(100_000, workers, shares, 10.0)
        ideal = 100_000 * per_hour / workers
        rows = 1e6 / figures["manifest_rows_per_s"]
        print(
            f"100,000 hours on {workers:,} cores: {ideal * fixed:.1f} h in {shares:,} fixed shares, "
            f"{ideal * queue:.1f} h from one queue, {ideal:.1f} h at best; "
            f"reading a million rows takes each share {rows:.0f} s"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["measure", "simulate"])
    parser.add_argument("file", type=Path, help="the figures, as JSON")
    parser.add_argument(
        "--sessions", type=int, nargs="+", default=SESSIONS, help="of a trial (default: 1 to 80)"
    )
    parser.add_argument("--spoken", type=float, default=SPOKEN, help="seconds of speech of each session")
    parser.add_argument("--minutes", type=int, default=2, help="of recordings for each process of an archive")
    args = parser.parse_args()
    if args.what == "measure":
        measure(args.file, args.sessions, args.spoken, args.minutes)
    simulate(args.file)


if __name__ == "__main__":
    main()
