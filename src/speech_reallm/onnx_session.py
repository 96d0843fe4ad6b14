"""A graph in ONNX Runtime: opened without telemetry, usable after a fork."""

from __future__ import annotations

import ctypes
import os
import threading
import warnings
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from . import _TELEMETRY_MAY_RUN
from .errors import UserError


class OnnxSession:
    """One graph on the CPU. `run` may be called from several threads at once.

    A child process that was forked has none of the threads of its parent. A session that needs them, or that was
    running at the moment of the fork, is opened again in the child at its first use there.
    """

    def __init__(self, path: Path, threads: int) -> None:
        """threads: CPU threads of one call. Raises UserError for a file that is not a graph that can be run."""
        self._path, self._threads = path, threads
        self._lock = threading.Lock()
        self._calls = 0
        self._session: ort.InferenceSession | None = _open(path, threads)
        _sessions.add(self)

    def run(self, outputs: Sequence[str] | None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        """The named outputs (None: all) for `inputs`."""
        with self._lock:
            if self._session is None:
                self._session = _open(self._path, self._threads)
            session = self._session
            self._calls += 1
        try:
            arrays: list[np.ndarray] = session.run(outputs, inputs)
            return arrays
        finally:
            with self._lock:
                self._calls -= 1

    def get_inputs(self) -> list[Any]:
        """Name, type and shape of each input."""
        nodes: list[Any] = self._opened().get_inputs()
        return nodes

    def get_outputs(self) -> list[Any]:
        """Name, type and shape of each output."""
        nodes: list[Any] = self._opened().get_outputs()
        return nodes

    def _opened(self) -> ort.InferenceSession:
        if self._session is None:
            self._session = _open(self._path, self._threads)
        return self._session

    def _after_fork(self) -> None:
        """In the child. The destructor of a thread pool would wait for threads that do not exist here."""
        busy = self._calls > 0 or self._lock.locked()
        self._lock, self._calls = threading.Lock(), 0
        if self._session is not None and (busy or self._threads > 1):
            # never destroyed: one reference too many
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._session))
            self._session = None


_sessions: weakref.WeakSet[OnnxSession] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for session in list(_sessions):
        session._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _open(path: Path, threads: int) -> ort.InferenceSession:
    if _TELEMETRY_MAY_RUN:
        ort.disable_telemetry_events()
        warnings.warn(
            "onnxruntime was imported before speech_reallm and may send usage data to Microsoft; import speech_reallm "
            "first, or set ORT_DISABLE_TELEMETRY=1",
            stacklevel=2,
        )
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # waiting threads sleep: a live stream leaves the CPU idle most of the time
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    except Exception as err:
        reason = " ".join(str(err).split())[:160]
        raise UserError(f"{path} cannot be loaded ({reason}); get the model again") from None
