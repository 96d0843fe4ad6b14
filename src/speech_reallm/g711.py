"""G.711, the eight bits a sample of telephony: mu-law and A-law to 16-bit PCM."""

from __future__ import annotations

import numpy as np

RATE = 8000


def _mu_law() -> np.ndarray:
    """[256] int16: sign, three bits of exponent, four of mantissa, all inverted; biased by 132."""
    code = ~np.arange(256, dtype=np.int32) & 0xFF
    exponent, mantissa = code >> 4 & 7, code & 15
    magnitude = ((mantissa << 3) + 132 << exponent) - 132
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _a_law() -> np.ndarray:
    """[256] int16: every other bit is inverted; the lowest of the segments is linear."""
    code = np.arange(256, dtype=np.int32) ^ 0x55
    exponent, mantissa = code >> 4 & 7, code & 15
    linear = (mantissa << 4) + 8
    magnitude = np.where(exponent == 0, linear, linear + 256 << np.maximum(exponent - 1, 0))
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


_TABLES = {"pcmu": _mu_law(), "pcma": _a_law()}


def decode(data: bytes, law: str) -> np.ndarray:
    """Bytes of `law`, pcmu or pcma, as int16 [n]."""
    return _TABLES[law][np.frombuffer(data, np.uint8)]
