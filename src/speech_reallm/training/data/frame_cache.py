"""Encoder frames on disk, so that a decoder trains on a frozen encoder at hundreds of times real time.

A cache is a folder: `frames.f16` (raw float16 [frames, D], appended), `index.jsonl` (a row per utterance and speed),
`about.json` (what made it). A build that is stopped goes on where it was; one made by other weights is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lhotse.cut import Cut
from torch import nn

from ...errors import UserError
from ...jsonl import appended_json_lines
from ..config import DataConfig
from ..distributed import first_process_first
from ..model.encode import encode_batch
from ..model.encoders import Encoder
from .augment import Augmenter
from .collate import pad_audio
from .manifests import load_audio
from .planning import bucket, load_cuts
from .prefetch import prefetch


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One cached utterance: `num_frames` frames from row `offset` on, first those of the speech, then the flush."""

    cut: Cut
    repeat: float
    offset: int
    num_frames: int
    speech_frames: int
    seconds: float

    @classmethod
    def of(cls, cut: Cut, repeat: float, row: dict) -> Entry:
        """row: of the index, whose keys are a file format."""
        return cls(
            cut=cut,
            repeat=repeat,
            offset=row["offset"],
            num_frames=row["frames"],
            speech_frames=row["own"],
            seconds=row["seconds"],
        )


def fingerprint(encoder: nn.Module) -> str:
    """Identifies an encoder's weights."""
    digest = hashlib.sha256()
    for name, value in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


class FrameCache:
    """Frames of all training utterances, each at every configured speed."""

    def __init__(self, folder: str, encoder: Encoder, data: DataConfig, flush_chunks: int, bf16: bool):
        if encoder.config.frames_depend_on_delay:
            raise UserError("`cache`: this encoder (right_context) gives other frames at each label delay")
        self.folder = Path(folder)
        self.dim = encoder.dim
        self.flush_chunks = flush_chunks
        self.frames_per_chunk = encoder.frames_per_chunk
        self.encoder = encoder
        self.full = encoder.config.full_context
        self.config = data
        self.cuts, self.repeats = load_cuts(data)
        self.augmenter = Augmenter(data.augment)
        self.folder.mkdir(parents=True, exist_ok=True)
        about = {"encoder": fingerprint(encoder), "dim": self.dim, "tail_chunks": flush_chunks}
        path = self.folder / "about.json"
        # the first process computes, the others find it done
        with first_process_first():
            if path.exists() and json.loads(path.read_text()) != about:
                raise UserError(
                    f"{self.folder} was made by another encoder: delete it, or name another folder as `cache`"
                )
            path.write_text(json.dumps(about) + "\n")
            known = self._build(bf16)
        self.storage = np.memmap(self.folder / "frames.f16", np.float16, "r").reshape(-1, self.dim)
        self.entries = [
            Entry.of(cut, repeat, known[key]) for key, cut, repeat in self._wanted() if key in known
        ]

    def _wanted(self) -> list[tuple[str, Cut, float]]:
        speeds = sorted(set(self.config.augment.speeds)) or [1.0]
        return [
            (f"{cut.id}@{speed}", cut if speed == 1.0 else cut.perturb_speed(speed), repeat)
            for cut, repeat in zip(self.cuts, self.repeats, strict=True)
            for speed in speeds
        ]

    def _build(self, bf16: bool) -> dict[str, dict]:
        """Compute what is missing; returns the index."""
        from tqdm import tqdm

        index_path, frames_path = self.folder / "index.jsonl", self.folder / "frames.f16"
        known: dict[str, dict] = {}
        end = 0
        if index_path.exists():
            for _, row, _ in appended_json_lines(index_path):
                key = row.pop("key")
                known[key] = row
                end = max(end, row["offset"] + row["frames"])
        missing = [w for w in self._wanted() if w[0] not in known]
        if not missing:
            return known
        # frames beyond the last indexed ones were being written when an earlier build stopped
        with frames_path.open("ab") as frames_file:
            frames_file.truncate(end * self.dim * 2)
        with index_path.open("w") as index_file:
            index_file.writelines(json.dumps({"key": k, **row}) + "\n" for k, row in known.items())
        plan = bucket([c.duration for _, c, _ in missing], 2 * self.config.batch_seconds, 0, 0)

        def load(batch: list[int]) -> list[np.ndarray]:
            audio = []
            for i in batch:
                key, cut, _ = missing[i]
                seed = int(hashlib.sha256(key.encode()).hexdigest()[:8], 16)
                audio.append(self.augmenter.audio(load_audio(cut), np.random.default_rng(seed))[0])
            return audio

        hours = sum(c.duration for _, c, _ in missing) / 3600
        bar = tqdm(
            total=round(hours * 3600),
            unit="s",
            desc="caching frames",
            mininterval=2 if sys.stderr.isatty() else 60,
        )
        with frames_path.open("ab") as frames_file, index_path.open("a") as index_file:
            for batch, audio in zip(plan, prefetch(plan, load), strict=True):
                made = self._encode(audio, bf16)
                rows = []
                for i, (frames, own) in zip(batch, made, strict=True):
                    row = {
                        "offset": end,
                        "frames": len(frames),
                        "own": own,
                        "seconds": missing[i][1].duration,
                    }
                    frames_file.write(frames.tobytes())
                    end += len(frames)
                    known[missing[i][0]] = row
                    rows.append(json.dumps({"key": missing[i][0], **row}) + "\n")
                frames_file.flush()
                os.fsync(frames_file.fileno())
                index_file.writelines(rows)
                index_file.flush()
                bar.update(round(sum(missing[i][1].duration for i in batch)))
        bar.close()
        return known

    @torch.no_grad()
    def _encode(self, audio: list[np.ndarray], bf16: bool) -> list[tuple[np.ndarray, int]]:
        """Frames float16 [T, D] of each utterance, its flush included, and how many are those of the speech."""
        padded, lengths = pad_audio(audio)
        frames = encode_batch(self.encoder, padded, lengths, self.flush_chunks, bf16)
        size, per = self.encoder.chunk_samples, self.encoder.frames_per_chunk
        result = []
        for row, length in zip(frames, lengths.tolist(), strict=True):
            own = -(-length // (size // per)) if self.full else -(-length // size) * per
            keep = own if self.full else own + self.flush_chunks * per
            result.append((row[:keep].half().cpu().numpy(), own))
        return result

    def read(self, entry: Entry) -> np.ndarray:
        """Frames float16 [T, D] of an entry, its flush included."""
        return self.storage[entry.offset : entry.offset + entry.num_frames]
