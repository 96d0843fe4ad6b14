"""An hour of everything at once: live speakers, uploads, half-open and abusive clients, kills and restarts.

    python benchmarks/soak.py                         # an hour, 20 speakers, the demo recording
    python benchmarks/soak.py --seconds 120 --json soak.json
    python benchmarks/soak.py --recording talk.flac --restart-every 600

`reallm serve` runs in a process of its own. Honest speakers send a recording in real time, over and over; each time
all their words must be those of the file. Where the server is killed or drained, they connect anew and begin the
recording again. Meanwhile others upload, send garbage, hang up in the middle, leave half-open sockets and read nothing.
Every few seconds memory, file handles and threads of the server are noted. At the end there is a table for each life
of the server, and the exit code is 1 if a word was wrong or if memory, handles or threads grew.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import math
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from speech_reallm import Final, Recognizer
from speech_reallm.audio import SAMPLE_RATE, read_audio

DEMO = Path(__file__).parents[1] / "examples/demo.opus"
PACKET = SAMPLE_RATE // 10
UPLOAD_SECONDS = 6
# what a server may grow by within one life, after its first tenth: MB (ONNX Runtime's arenas follow the largest batch),
# handles and threads
MOST_MB, MOST_HANDLES, MOST_THREADS = 60.0, 20, 4


@dataclass
class Life:
    """One process of the server: (seconds, MB, handles, threads, sessions) as they were."""

    started: float
    notes: list[tuple[float, float, int, int, int]] = field(default_factory=list)
    end: str = ""


@dataclass
class Soak:
    args: argparse.Namespace
    audio: bytes
    expected: list[str]
    uploaded: bytes
    uploaded_text: str
    until: float = math.inf
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)
    process: subprocess.Popen[bytes] = field(init=False)
    port: int = 0

    @property
    def over(self) -> bool:
        return time.monotonic() > self.until

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    # the server

    async def start_server(self) -> None:
        command = [
            sys.executable,
            "-m",
            "speech_reallm",
            "serve",
            "--port",
            str(self.port),
            "--per-minute",
            "0",
        ]
        command += ["--sessions", str(3 * self.args.speakers + 10), "--idle", "10", "--drain", "20"]
        command += ["--model", str(self.args.model)] if self.args.model else []
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment)
        assert self.process.stderr is not None
        line = await asyncio.to_thread(self.process.stderr.readline)
        try:
            self.port = json.loads(line)["port"]
        except (ValueError, KeyError):
            sys.exit(f"the server did not start: {line.decode().strip()}")
        # the rest of its log: a full pipe would stop it, and a traceback in it is a fault
        threading.Thread(target=self._read_log, args=(self.process.stderr,), daemon=True).start()
        self.lives.append(Life(time.monotonic()))

    def _read_log(self, log: io.BufferedReader) -> None:
        for line in log:
            if b'"exception"' in line:
                self.wrong.append(f"the server's log: {line[:300]!r}")

    async def watch(self) -> None:
        while not self.over:
            await asyncio.sleep(self.args.every)
            with contextlib.suppress(OSError, ValueError):
                life, pid = self.lives[-1], self.process.pid
                memory = (
                    int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
                )
                handles = len(os.listdir(f"/proc/{pid}/fd"))
                threads = len(os.listdir(f"/proc/{pid}/task"))
                status = await asyncio.to_thread(self._get, "/v1/status")
                life.notes.append(
                    (time.monotonic() - life.started, memory, handles, threads, status["sessions"])
                )

    def _get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
            status: dict[str, Any] = json.loads(answer.read())
        return status

    async def restart(self) -> None:
        """Kill and drain the server in turn."""
        kill = False
        while not self.over:
            await asyncio.sleep(min(self.args.restart_every, max(0.1, self.until - time.monotonic())))
            if self.over:
                return
            kill = not kill
            self.lives[-1].end = "killed" if kill else "drained"
            self.process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            await asyncio.to_thread(self.process.wait)
            if not kill and self.process.returncode:
                self.wrong.append(f"the server was told to end and exited with {self.process.returncode}")
            await self.start_server()

    # honest clients

    async def speak(self) -> None:
        """The recording over and over; every time its words are checked."""
        await asyncio.sleep(random.random() * 3)
        while not self.over:
            life = len(self.lives)
            finals: list[str] = []
            code = 1006
            try:
                async with connect(
                    f"{self.url}/v1/stream?endpoint_ms=0", compression=None, ping_interval=None
                ) as ws:
                    sending = asyncio.ensure_future(self._send(ws))
                    try:
                        async for message in ws:
                            event = json.loads(message)
                            if event["type"] == "final":
                                finals.append(event["text"])
                        code = ws.close_code or 1006
                    except ConnectionClosed as closed:
                        code = closed.rcvd.code if closed.rcvd else 1006
                    finally:
                        sending.cancel()
            except (OSError, EOFError, WebSocketException):
                pass
            if code == 1000 and finals == self.expected:
                self.counts["recordings, every word right"] += 1
            elif code == 1000:
                self.wrong.append(f"a speaker: {finals} instead of {self.expected}")
            elif code == 1013:
                self.counts["speakers refused: busy"] += 1
                await asyncio.sleep(1)
            elif len(self.lives) == life and self.process.poll() is None and not self.over and code != 1012:
                self.wrong.append(f"a speaker was closed with {code}, and the server was not restarted")
            else:
                self.counts["recordings interrupted by a restart"] += 1
                await asyncio.sleep(1)

    async def _send(self, ws: Any) -> None:
        start, step = time.monotonic(), 2 * PACKET
        for number, begin in enumerate(range(0, len(self.audio), step)):
            await asyncio.sleep(max(0.0, start + number * 0.1 - time.monotonic()))
            await ws.send(self.audio[begin : begin + step])
        await ws.send(json.dumps({"type": "finish"}))

    async def upload(self) -> None:
        while not self.over:
            await asyncio.sleep(random.uniform(2, 6))
            life = len(self.lives)
            try:
                text = await asyncio.to_thread(self._upload)
            except (OSError, ValueError, KeyError):
                if len(self.lives) == life and self.process.poll() is None:
                    self.counts["uploads refused"] += 1
                continue
            if text == self.uploaded_text:
                self.counts["uploads, every word right"] += 1
            else:
                self.wrong.append(f"an upload: {text!r} instead of {self.uploaded_text!r}")

    def _upload(self) -> str:
        head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.flac"\r\n\r\n'
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/audio/transcriptions",
            head + self.uploaded + b"\r\n--b--\r\n",
            {"Content-Type": "multipart/form-data; boundary=b"},
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            return str(json.loads(answer.read())["text"])

    # the others

    async def abuse(self) -> None:
        ways = [self._garbage, self._vanish, self._half_open, self._read_nothing, self._nonsense, self._mute]
        while not self.over:
            await asyncio.sleep(random.uniform(0.2, 1.5))
            way = random.choice(ways)
            with contextlib.suppress(OSError, EOFError, WebSocketException, asyncio.TimeoutError):
                await asyncio.wait_for(way(), 30)
            self.counts[f"abusive: {way.__name__.strip('_').replace('_', ' ')}"] += 1

    async def _garbage(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(os.urandom(random.randrange(1, 20000)))
        await writer.drain()
        await asyncio.wait_for(reader.read(), 10)
        writer.close()

    async def _vanish(self) -> None:
        ws = await connect(f"{self.url}/v1/stream", compression=None)
        await ws.send(self.audio[: random.randrange(2, 200000)])
        sock = ws.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        ws.transport.abort()

    async def _half_open(self) -> None:
        """Opened and left: nothing is sent, pings are not answered."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(
            b"GET /v1/stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(reader.read(), 20)
        writer.close()

    async def _read_nothing(self) -> None:
        async with connect(f"{self.url}/v1/stream", compression=None, max_queue=1) as ws:
            for _ in range(20):
                await ws.send(self.audio[:64000])
            await asyncio.sleep(2)

    async def _nonsense(self) -> None:
        async with connect(f"{self.url}/v1/realtime", compression=None) as ws:
            append = '{"type": "input_audio_buffer.append", "audio": "*"}'
            for message in (
                "{",
                "[]",
                '{"type": 1}',
                append,
                "x" * 100000,
            ):
                await ws.send(message)
            await ws.recv()

    async def _mute(self) -> None:
        """Audio, then none: the clock ends the turn."""
        async with connect(f"{self.url}/v1/stream?endpoint_ms=300", compression=None) as ws:
            await ws.send(self.audio[:64000])
            await asyncio.sleep(3)

    async def run(self) -> None:
        await self.start_server()
        self.until = time.monotonic() + self.args.seconds
        tasks = [self.watch(), self.restart(), self.upload(), self.upload()]
        tasks += [self.speak() for _ in range(self.args.speakers)]
        tasks += [self.abuse() for _ in range(self.args.abusers)]
        try:
            await asyncio.gather(*tasks)
        finally:
            self.lives[-1].end = self.lives[-1].end or "end"
            self.process.terminate()
            await asyncio.to_thread(self.process.wait)

    def judge(self) -> list[str]:
        """What went wrong."""
        faults = list(self.wrong)
        if not self.counts["recordings, every word right"]:
            faults.append("no speaker came to the end of the recording")
        for number, life in enumerate(self.lives, 1):
            steady = life.notes[max(1, len(life.notes) // 10) :]
            if len(steady) < 4:
                continue
            # the peaks of the first and the last third of what is left
            third = max(1, len(steady) // 3)
            for name, column, most in (
                ("MB", 1, MOST_MB),
                ("handles", 2, MOST_HANDLES),
                ("threads", 3, MOST_THREADS),
            ):
                grown = max(n[column] for n in steady[-third:]) - max(n[column] for n in steady[:third])
                if grown > most:
                    faults.append(f"life {number}: {grown:.0f} {name} more at its end")
        return faults

    def report(self) -> None:
        print("| life | seconds | ended | MB first, last, most | handles | threads | sessions, most |")
        print("| ---: | ---: | --- | --- | --- | --- | ---: |")
        for number, life in enumerate(self.lives, 1):
            if not life.notes:
                continue
            columns = list(zip(*life.notes, strict=True))

            def figures(column: int, columns: list[tuple[float, ...]] = columns) -> str:
                values = columns[column]
                return f"{values[0]:.0f}, {values[-1]:.0f}, {max(values):.0f}"

            print(
                f"| {number} | {columns[0][-1]:.0f} | {life.end} | {figures(1)} | {figures(2)} | {figures(3)} | "
                f"{max(columns[4]):.0f} |"
            )
        for what, count in sorted(self.counts.items()):
            print(f"{what}: {count}")


def prepare(args: argparse.Namespace) -> Soak:
    recognizer = Recognizer.load(args.model)
    samples = read_audio(args.recording)[: round(args.clip * SAMPLE_RATE)]
    audio = (np.clip(samples, -1, 1) * 32767).round().astype("<i2")
    # without end-points: where this machine stalls, silence by the clock would end a turn in the middle of a word
    stream = recognizer.stream(endpoint_silence=None)
    events = [*stream.accept(audio), *stream.finish().events]
    clip = audio[: UPLOAD_SECONDS * SAMPLE_RATE]
    flac = io.BytesIO()
    soundfile.write(flac, clip, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    stream = recognizer.stream(history=float("inf"))
    stream.feed(clip)
    expected = [event.text for event in events if isinstance(event, Final)]
    return Soak(
        args,
        audio.tobytes(),
        expected,
        flac.getvalue(),
        stream.finish().text,
        time.monotonic() + args.seconds,
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3600.0, help="default: %(default)g")
    parser.add_argument("--speakers", type=int, default=20, help="live at a time (default: %(default)s)")
    parser.add_argument("--abusers", type=int, default=6, help="default: %(default)s")
    parser.add_argument("--restart-every", type=float, default=300.0, help="seconds (default: %(default)g)")
    parser.add_argument(
        "--every", type=float, default=5.0, help="seconds between two notes (default: %(default)g)"
    )
    parser.add_argument("--recording", type=Path, default=DEMO, help="default: the demo")
    parser.add_argument("--clip", type=float, default=30.0, help="seconds of it (default: %(default)g)")
    parser.add_argument("--model", type=Path, help="a model folder; default: the built-in one")
    parser.add_argument("--json", type=Path, help="write all notes there")
    args = parser.parse_args(argv)
    soak = prepare(args)
    asyncio.run(soak.run())
    soak.report()
    faults = soak.judge()
    if args.json:
        notes = [{"end": life.end, "notes": life.notes} for life in soak.lives]
        args.json.write_text(json.dumps({"counts": soak.counts, "lives": notes, "faults": faults}))
    for fault in faults[:20]:
        print(f"wrong: {fault[:500]}")
    print("all well" if not faults else f"{len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
