"""What the processor can do, and how fast a model runs on it."""

from __future__ import annotations

import math
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..audio import SAMPLE_RATE, read_audio

if TYPE_CHECKING:
    from ..recognizer import Recognizer

# instruction sets that ONNX Runtime's kernels make use of, as Linux calls them
_KNOWN = (
    "sse4_1 sse4_2 avx f16c fma avx2 avx_vnni avx512f avx512bw avx512_vnni avx512_bf16 avx512_fp16 amx_int8 amx_bf16 "
    "asimd asimdhp asimddp i8mm bf16 sve sve2"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Processor:
    """`cores`: those that this process may use; `load`: processes that want one now, -1 if not known."""

    name: str
    cores: int
    instructions: tuple[str, ...]
    load: float


def processor() -> Processor:
    """What is known of this machine's processor. Never fails: what cannot be found out is left out."""
    info = _read("/proc/cpuinfo")
    fields = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    fields = {key.strip().lower(): value.strip() for key, value in fields.items()}
    flags = set(fields.get("flags", fields.get("features", "")).split())
    try:
        load = os.getloadavg()[0]
    except (AttributeError, OSError):
        load = -1.0
    return Processor(
        name=fields.get("model name") or platform.processor() or platform.machine(),
        cores=usable_cores(),
        instructions=tuple(name for name in _KNOWN.split() if name in flags),
        load=load,
    )


def usable_cores() -> int:
    """Cores that this process may use: by its affinity, and by what a container is allowed."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    quota = _read("/sys/fs/cgroup/cpu.max").split()
    if len(quota) == 2 and quota[0].isdecimal() and quota[1].isdecimal() and int(quota[1]):
        cores = min(cores, max(1, math.ceil(int(quota[0]) / int(quota[1]))))
    return cores


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """`rtf`: seconds of computing per second of audio; `typical`, `worst`: ms of computing a chunk (p50, p99)."""

    rtf: float
    typical: float
    worst: float
    seconds: float
    chunk_seconds: float


def measure(recognizer: Recognizer, seconds: float) -> Speed:
    """Recognise a voice that reads as a live stream, for about so many seconds of this machine's time."""
    chunk = recognizer.model.chunk_samples
    sound = voice()
    stream = recognizer.stream(SAMPLE_RATE, history=0)
    times: list[float] = []
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends:
        start = len(times) * chunk % (len(sound) - chunk)
        before = time.perf_counter()
        stream.accept(sound[start : start + chunk])
        times.append(time.perf_counter() - before)
    # the first steps find memory cold
    times = times[3:] or times
    return Speed(
        rtf=float(np.mean(times)) * SAMPLE_RATE / chunk,
        typical=1000 * float(np.percentile(times, 50)),
        worst=1000 * float(np.percentile(times, 99)),
        seconds=len(times) * chunk / SAMPLE_RATE,
        chunk_seconds=chunk / SAMPLE_RATE,
    )


def voice() -> np.ndarray:
    """Ten seconds of a synthetic voice that reads (examples/make_demo.py), float32 [n] at 16 kHz."""
    return read_audio(Path(__file__).with_name("voice.opus"))
