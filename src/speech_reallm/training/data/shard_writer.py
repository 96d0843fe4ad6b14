"""Writing the utterances of a manifest as Lhotse Shar."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from lhotse.audio import AudioSource, Recording
from lhotse.cut import MonoCut
from lhotse.shar.writers import JsonlShardWriter, TarWriter

from ...audio import SAMPLE_RATE
from ...errors import UserError
from ...storage import Folder, join, put_file
from .manifests import load_audio, load_manifest
from .shards import PLACE

# tar: headers and data in blocks of 512 bytes; in the end two empty blocks, and what fills up 10 KiB
_BLOCK, _END = 512, 1024 + 10240


def write_shards(
    manifest: str,
    out: str,
    max_bytes: int,
    *,
    skip_bad: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[int, int, int]:
    """Write a manifest as shards of at most `max_bytes` bytes of audio each, as FLAC of 16 bits at 16 kHz.

    out: a folder or a URL, empty. A single utterance that is larger has a shard of its own. A shard appears when it is
    whole. on_progress(utterances done, of all). Returns the numbers of shards, of utterances and of bytes. Raises
    UserError for a manifest or audio that cannot be read, and for a folder that is not empty or cannot be written.
    """
    if Folder(out).names:
        raise UserError(f"{out} is not empty; name another folder, or remove what is in it")
    cuts = list(load_manifest(manifest, skip_bad=skip_bad, require_text=False))
    shards = total = done = 0
    while done < len(cuts):
        with tempfile.TemporaryDirectory() as folder:
            tar, rows = Path(folder, "recording.tar"), Path(folder, "cuts.jsonl.gz")
            size = begin = 0
            with (
                TarWriter(str(tar), shard_size=None) as audio,
                JsonlShardWriter(str(rows), shard_size=None) as lines,
            ):
                while done < len(cuts):
                    cut, members = _members(cuts[done])
                    # three headers where a name is long or not ASCII
                    needed = sum(3 * _BLOCK + len(data) + -len(data) % _BLOCK for _, data in members)
                    if size and size + needed + _END > max_bytes:
                        break
                    for index, (name, data) in enumerate(members):
                        audio.write(name, io.BytesIO(data), count=index == 0)
                        if index == 0:
                            # the member's data are the last that was written
                            begin = audio.tarstream.offset - len(data) - -len(data) % _BLOCK
                            cut.custom = {**(cut.custom or {}), PLACE: [begin, len(data)]}
                    size = audio.tarstream.offset
                    lines.write(cut)
                    done += 1
                    if on_progress:
                        on_progress(done, len(cuts))
            # the manifest last: where it is, the tar is
            put_file(tar, join(out, f"recording.{shards:06}.tar"))
            put_file(rows, join(out, f"cuts.{shards:06}.jsonl.gz"))
            total += tar.stat().st_size
            shards += 1
    return shards, done, total


def _members(cut: MonoCut) -> tuple[MonoCut, list[tuple[str, bytes]]]:
    """The cut as a shard has it, and what goes into the tar: audio, and the description of its recording."""
    samples = load_audio(cut)
    file = io.BytesIO()
    # as libsndfile reads 16 bits: what was 16 bits stays the same to the last one
    levels = np.clip(np.round(samples * 32768), -32768, 32767).astype(np.int16)
    soundfile.write(file, levels, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    recording = Recording(
        id=cut.id,
        sources=[AudioSource(type="shar", channels=[0], source="")],
        sampling_rate=SAMPLE_RATE,
        num_samples=len(samples),
        duration=len(samples) / SAMPLE_RATE,
    )
    sharded = MonoCut(
        id=cut.id,
        start=0.0,
        duration=recording.duration,
        channel=0,
        supervisions=cut.supervisions,
        recording=recording,
        custom=cut.custom,
    )
    described = (json.dumps(recording.to_dict()) + "\n").encode()
    return sharded, [(f"{cut.id}.flac", file.getvalue()), (f"{cut.id}.json", described)]
