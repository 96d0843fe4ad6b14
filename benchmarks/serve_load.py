"""How many people can speak to `reallm serve` at once, and what a quiet connection costs.

    python benchmarks/serve_load.py --find                # the largest number that is served in time
    python benchmarks/serve_load.py --find --separate     # the same with one process for each session
    python benchmarks/serve_load.py --sessions 20         # one trial
    python benchmarks/serve_load.py --idle 1000           # memory of quiet sessions

Each session sends a recording in real time over loopback, in packets of 100 ms, from a place of its own. A partial
says how much audio it needed (its `time`); the moment that audio was sent is known; what passes from then until
the partial arrives is the server's lateness: waiting, batching, computing, sending. The model's own emission delay
(look-ahead, label delay) is not in it. Served in time is a trial whose lateness stays under --limit-ms for 95 % of
partials and that loses no session. Clients run in this process, on the same machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import random
import re
import resource
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from websockets.asyncio.client import connect

from speech_reallm.audio import SAMPLE_RATE, read_audio

PACKET = SAMPLE_RATE // 10
DEMO = Path(__file__).parents[1] / "examples/demo.opus"


class Server:
    """`reallm serve` in a process of its own."""

    def __init__(self, sessions: int, args: argparse.Namespace) -> None:
        command = [sys.executable, "-m", "speech_reallm", "serve", "--port", "0", "--per-minute", "0"]
        command += ["--sessions", str(sessions), "--threads", str(args.threads), "--idle", "600"]
        command += ["--model", args.model] if args.model else []
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        try:
            self.port = json.loads(line)["port"]
        except (ValueError, KeyError):
            sys.exit(f"the server did not start: {line.strip()}")
        # the rest of its log is not needed, and a full pipe would stop it
        self._drain = subprocess.Popen(["cat"], stdin=self.process.stderr, stdout=subprocess.DEVNULL)

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self) -> float:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def recognised(self) -> float:
        """Seconds of audio so far."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics") as answer:
            figure = re.search(rb"^reallm_audio_seconds_total (\S+)", answer.read(), re.MULTILINE)
        return float(figure[1]) if figure else 0.0

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self._drain.wait()


@contextlib.contextmanager
def servers(count: int, sessions: int, args: argparse.Namespace) -> Iterator[list[Server]]:
    started: list[Server] = []
    try:
        for _ in range(count):
            started.append(Server(sessions, args))
        yield started
    finally:
        for server in started:
            server.stop()


async def speaker(port: int, audio: np.ndarray, start: float, lateness: list[float]) -> bool:
    """One session in real time, from the moment `start` on; was it served to its end?"""
    url = f"ws://127.0.0.1:{port}/v1/stream?rate={SAMPLE_RATE}"
    clock = asyncio.get_running_loop().time
    try:
        async with connect(url, compression=None, ping_interval=None, open_timeout=60) as socket:
            ready = json.loads(await socket.recv())
            if ready["type"] != "ready":
                return False
            await asyncio.sleep(start - clock())
            begun = clock()

            async def send() -> None:
                for begin in range(0, len(audio), PACKET):
                    packet = audio[begin : begin + PACKET]
                    # a packet can be sent once its last sample has been spoken
                    await asyncio.sleep(begun + (begin + len(packet)) / SAMPLE_RATE - clock())
                    await socket.send(packet.tobytes())

            sending = asyncio.create_task(send())
            while not sending.done():
                try:
                    message = json.loads(await asyncio.wait_for(socket.recv(), 1))
                except asyncio.TimeoutError:
                    continue
                if message["type"] == "partial":
                    # the audio up to `time` left with the packet that its last sample is in
                    packets = math.ceil(round(message["time"] * SAMPLE_RATE) / PACKET)
                    lateness.append(clock() - begun - packets * PACKET / SAMPLE_RATE)
                elif message["type"] == "error":
                    return False
            await sending
            return True
    except Exception as err:
        print(f"a session was lost: {err!r}", file=sys.stderr)
        return False


async def speak(ports: list[int], audio: np.ndarray, seconds: float) -> tuple[list[float], int]:
    """All sessions at once; lateness of every partial in seconds, and how many sessions were lost."""
    chance = random.Random(1)
    lateness: list[float] = []
    begin = asyncio.get_running_loop().time() + 1 + len(ports) / 100
    sessions = []
    for port in ports:
        turned = np.roll(audio, -chance.randrange(len(audio)))
        copies = int(np.ceil(seconds * SAMPLE_RATE / len(turned)))
        own = np.tile(turned, copies)[: int(seconds * SAMPLE_RATE)]
        # chunks of different speakers are complete at different times
        sessions.append(speaker(port, own, begin + chance.random(), lateness))
    served = await asyncio.gather(*sessions)
    return lateness, served.count(False)


def trial(count: int, audio: np.ndarray, args: argparse.Namespace) -> dict[str, Any]:
    """`count` speakers; the figures, printed and returned."""
    with servers(count if args.separate else 1, count, args) as running:
        ports = [s.port for s in running] * (1 if args.separate else count)
        memory = sum(s.memory_mb() for s in running)
        cpu, own = sum(s.cpu_seconds() for s in running), time.process_time()
        lateness, lost = asyncio.run(speak(ports, audio, args.seconds))
        cpu = (sum(s.cpu_seconds() for s in running) - cpu) / args.seconds
        memory = sum(s.memory_mb() for s in running) - (0 if args.separate else memory)
    late = sorted(lateness) or [float("nan")]
    cuts = statistics.quantiles(late, n=100) if len(late) > 1 else late * 99
    figures = {
        "sessions": count,
        "processes": count if args.separate else 1,
        "partials": len(lateness),
        "lost": lost,
        "p50_ms": round(1000 * cuts[49]),
        "p95_ms": round(1000 * cuts[94]),
        "p99_ms": round(1000 * cuts[98]),
        "memory_mb_per_session": round(memory / count, 1),
        "server_cores": round(cpu, 2),
        "client_cores": round((time.process_time() - own) / args.seconds, 2),
        "load_before": round(os.getloadavg()[0], 2),
    }
    figures["in_time"] = lost == 0 and 1000 * cuts[94] < args.limit_ms
    print(json.dumps(figures), flush=True)
    return figures


def find(audio: np.ndarray, args: argparse.Namespace) -> int:
    """The largest number of sessions that is served in time, to within a twentieth."""
    good, bad = 0, args.sessions or 8
    while trial(bad, audio, args)["in_time"]:
        good, bad = bad, bad * 2
    while bad - good > max(1, good // 20):
        middle = (good + bad) // 2
        if trial(middle, audio, args)["in_time"]:
            good = middle
        else:
            bad = middle
    return good


async def hold(server: Server, count: int, audio: np.ndarray | None) -> float:
    """MB of the server with `count` sessions that say nothing, after `audio` if any has been recognised."""
    before = server.recognised()
    async with contextlib.AsyncExitStack() as stack:
        url = f"ws://127.0.0.1:{server.port}/v1/stream?rate={SAMPLE_RATE}"
        options: dict[str, Any] = {"compression": None, "ping_interval": None, "open_timeout": 60}
        for _ in range(count):
            socket = await stack.enter_async_context(connect(url, **options))
            assert json.loads(await socket.recv())["type"] == "ready"
            if audio is not None:
                await socket.send(audio.tobytes())
        # but for the last second of each, which may wait for a chunk to be whole
        enough = before + count * (len(audio) / SAMPLE_RATE - 1) if audio is not None else 0
        while server.recognised() < enough:
            await asyncio.sleep(0.2)
        return server.memory_mb()


def idle(args: argparse.Namespace, audio: np.ndarray) -> None:
    """Memory of sessions that have said nothing yet, and of those that have spoken for some seconds."""
    for name, spoken, count in (
        ("silent from the start", None, args.idle),
        ("silent after 10 s of speech", audio[: 10 * SAMPLE_RATE], max(1, args.idle // 10)),
    ):
        with servers(1, args.idle, args) as (server,):
            # what the first session brings about, all share
            before = asyncio.run(hold(server, 1, audio[: 10 * SAMPLE_RATE]))
            grown = asyncio.run(hold(server, count, spoken)) - before
        print(json.dumps({"idle": name, "sessions": count, "kb_per_session": round(1000 * grown / count, 1)}))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, help="of the one trial, or of the first with --find")
    parser.add_argument("--find", action="store_true", help="look for the largest number in time")
    parser.add_argument("--separate", action="store_true", help="a process for each session")
    parser.add_argument("--idle", type=int, metavar="N", help="memory of N quiet sessions")
    parser.add_argument("--seconds", type=float, default=30, help="of a trial (default: %(default)s)")
    parser.add_argument("--limit-ms", type=float, default=300, help="p95 of lateness (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of the server (default: %(default)s)")
    parser.add_argument("--audio", type=Path, default=DEMO)
    parser.add_argument("--model")
    args = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    audio = (read_audio(args.audio) * 32767).astype("<i2")
    if args.idle:
        idle(args, audio)
    elif args.find:
        print(json.dumps({"largest": find(audio, args), "limit_ms": args.limit_ms, "cores": os.cpu_count()}))
    else:
        trial(args.sessions or 8, audio, args)


if __name__ == "__main__":
    main()
