"""Manifests: what is trained on, aligned and reported on, as lhotse cuts.

Two kinds of file are read, told apart row by row:

- *plain*: JSON lines with `audio` (path relative to the manifest), `text`, `duration` (s), `id`, `speaker`;
  `sample_rate` and `language` if known; whatever else there is goes into the supervision's `custom`;
- *aligned*: lhotse cuts, as `reallm align` writes them.

Either may be gzipped (`.gz`). A folder or URL of shards, as `reallm shard` writes them, is a manifest with its audio
(`shards.py`). No audio is opened for rows that state their duration, so that 30,000 rows
load in seconds; a file that turns out to be other than stated is put right when it is loaded.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from lhotse import CutSet, MonoCut, MultiCut, Recording, SupervisionSegment
from lhotse.audio import AudioSource
from lhotse.audio.utils import AudioLoadingError, DurationMismatchError
from lhotse.cut import Cut, MixedCut, PaddingCut
from lhotse.serialization import deserialize_item

from ...audio import SAMPLE_RATE
from ...errors import UserError
from ...jsonl import json_object, text_lines
from .shards import Shard, is_sharded, shard_files, sharded_audio

log = logging.getLogger(__name__)

_OWN_KEYS = {"audio", "text", "duration", "id", "speaker", "sample_rate", "language"}


class _BadRow(Exception):
    """What is wrong with a row; the caller knows file and line."""


def load_manifest(path: str | Path, *, skip_bad: bool = False, require_text: bool = True) -> CutSet:
    """Read a plain or an aligned manifest, or a folder of shards.

    Every cut is (or is resampled to) 16 kHz, with one supervision.

    With `skip_bad` a bad row is warned of and left out. `require_text=False` takes rows without `text`
    (noise); their cuts have no supervision. Raises UserError naming file, line and fault: unreadable file,
    malformed row, missing audio file, an id that occurs twice, or nothing left.
    """
    cuts: dict[str, Cut] = {}
    rate: int | None = None
    bad = 0
    for name, number, line, shard in _rows(path):
        folder = Path(name).resolve().parent
        try:
            row = _parsed(line)
            if shard is not None:
                cut = _sharded_cut(row, shard, require_text)
            elif "audio" in row:
                if rate is None and "sample_rate" not in row:
                    rate = _probe(_audio_path(row, folder)).samplerate
                cut = _plain_cut(row, folder, rate, require_text)
            else:
                cut = _lhotse_cut(row, folder)
            if cut.id in cuts:
                raise _BadRow(f"the id {cut.id!r} occurs twice")
            cuts[cut.id] = cut
        except _BadRow as err:
            message = f"{name}, line {number}: {err}"
            if not skip_bad:
                raise UserError(message) from None
            bad += 1
            if bad <= 10:
                log.warning("skipped %s", message)
    if bad > 10:
        log.warning("skipped %d bad rows of %s in all", bad, path)
    if not cuts:
        raise UserError(f"{path} has no usable rows")
    return CutSet(list(cuts.values()))


def _rows(path: str | Path) -> Iterator[tuple[str, int, str, Shard | None]]:
    """Manifest, number of the line, the line, and the shard that it is of."""
    if not is_sharded(path):
        for number, line in text_lines(path):
            yield str(path), number, line, None
        return
    for name, tar in shard_files(str(path)):
        shard = Shard(tar)
        for number, line in text_lines(name):
            yield name, number, line, shard


def load_audio(cut: Cut) -> np.ndarray:
    """The samples of a cut: float32 [N], mono (channels are averaged), 16 kHz, augmentations applied.

    A file whose sample rate or channels are not what the manifest says is resampled and mixed down. Raises
    UserError when the file cannot be read or is shorter than the manifest says.
    """
    try:
        audio = np.asarray(_verified(cut).load_audio(), dtype=np.float32)
    except _BadRow as err:
        raise UserError(f"{cut.id}: {err}") from None
    except (AudioLoadingError, DurationMismatchError, soundfile.LibsndfileError, OSError) as err:
        raise UserError(f"{cut.id}: cannot load the audio: {_first_line(err)}") from None
    return audio[0] if audio.shape[0] == 1 else audio.mean(axis=0)


def _parsed(line: str) -> dict[str, Any]:
    try:
        return json_object(line)
    except ValueError as err:
        raise _BadRow(str(err)) from None


def _audio_path(row: dict[str, Any], folder: Path) -> Path:
    audio = row["audio"]
    if not isinstance(audio, str) or not audio:
        raise _BadRow("`audio` must be a path")
    path = folder / audio
    if not path.is_file():
        raise _BadRow(f"audio file {path} does not exist")
    return path


def _probe(path: Path) -> Any:
    try:
        return soundfile.info(str(path))
    except (soundfile.LibsndfileError, RuntimeError, OSError) as err:
        raise _BadRow(f"cannot read audio file {path}: {_first_line(err)}") from None


def _plain_cut(row: dict[str, Any], folder: Path, rate: int | None, require_text: bool) -> MonoCut:
    path = _audio_path(row, folder)
    text = row.get("text")
    if text is None and require_text:
        raise _BadRow("no `text`")
    if text is not None and not isinstance(text, str):
        raise _BadRow("`text` must be a string")
    cut_id = row.get("id") or str(Path(row["audio"]).with_suffix(""))
    if not isinstance(cut_id, str):
        raise _BadRow("`id` must be a string")
    if "sample_rate" in row:
        rate = row["sample_rate"]
        if not isinstance(rate, int) or rate <= 0:
            raise _BadRow("`sample_rate` must be a positive integer")
    duration = row.get("duration")
    if duration is None:
        info = _probe(path)
        rate, samples = info.samplerate, info.frames
    elif isinstance(duration, (int, float)) and not isinstance(duration, bool) and math.isfinite(duration):
        assert rate is not None  # where no row states it, the caller has found it out
        samples = round(duration * rate)
    else:
        raise _BadRow("`duration` must be a number of seconds")
    if samples <= 0:
        raise _BadRow("the audio is empty (`duration` is 0 or less)")
    recording = Recording(
        id=cut_id,
        sources=[AudioSource(type="file", channels=[0], source=str(path))],
        sampling_rate=rate,
        num_samples=samples,
        duration=samples / rate,
    )
    if rate != SAMPLE_RATE:
        recording = recording.resample(SAMPLE_RATE)
    cut = MonoCut(id=cut_id, start=0.0, duration=recording.duration, channel=0, recording=recording)
    if text is not None:
        speaker = row.get("speaker")
        supervision = SupervisionSegment(
            id=cut_id,
            recording_id=cut_id,
            start=0.0,
            duration=cut.duration,
            channel=0,
            text=text,
            language=row.get("language"),
            speaker=None if speaker is None else str(speaker),
            custom={k: v for k, v in row.items() if k not in _OWN_KEYS} or None,
        )
        cut.supervisions = [supervision]
    return cut


def _deserialized(row: dict[str, Any]) -> Cut:
    if not str(row.get("type", "")).endswith("Cut"):
        raise _BadRow("no `audio` (and not a lhotse cut either)")
    try:
        return deserialize_item(row)
    except Exception as err:  # lhotse raises whatever its constructors raise
        raise _BadRow(f"not a lhotse cut: {type(err).__name__}: {_first_line(err)}") from None


def _lhotse_cut(row: dict[str, Any], folder: Path) -> Cut:
    cut = _deserialized(row)
    if isinstance(cut, MonoCut):
        for source in cut.recording.sources if cut.has_recording else ():
            if source.type == "file":
                # an absolute path stays what it is
                path = folder / source.source
                if not path.is_file():
                    raise _BadRow(f"audio file {path} does not exist")
                source.source = str(path)
    if not cut.has_recording:
        raise _BadRow("the cut has no recording")
    return _resampled(cut)


def _sharded_cut(row: dict[str, Any], shard: Shard, require_text: bool) -> Cut:
    cut = _deserialized(row)
    if require_text and not cut.supervisions:
        raise _BadRow("no `text`")
    try:
        return _resampled(shard.placed(cut))
    except ValueError as err:
        raise _BadRow(str(err)) from None


def _resampled(cut: Cut) -> Cut:
    return cut if cut.sampling_rate == SAMPLE_RATE else cut.resample(SAMPLE_RATE)


def _verified(cut: Cut) -> Cut:
    """The cut, or one that describes its file as it is. Raises _BadRow.

    lhotse itself takes a file's rate on trust and fills up to half a second of missing audio with its
    mirror image; a look at the header costs a hundredth of decoding.
    """
    if isinstance(cut, PaddingCut):
        return cut
    if isinstance(cut, MixedCut):
        return replace(cut, tracks=[replace(t, cut=_verified(t.cut)) for t in cut.tracks])
    recording = cut.recording
    source = recording.sources[0]
    if source.type == "shar":
        loaded = replace(source, type="memory", source=sharded_audio(source))
        return replace(cut, recording=replace(recording, sources=[loaded]))
    if len(recording.sources) > 1 or source.type != "file":
        return cut
    info = _probe(Path(source.source))
    transforms = [_transform(t) for t in recording.transforms or ()]
    resampled = (t["source_sampling_rate"] for n, t in transforms if n == "Resample")
    stated = next(resampled, recording.sampling_rate)
    if info.samplerate == stated and info.channels == len(source.channels) == 1:
        # the length before any change of speed
        factor = math.prod(t["factor"] for n, t in transforms if n == "Speed")
        _check_length(source.source, info.frames / info.samplerate, cut.end * factor)
        return cut
    true = Recording.from_file(source.source, recording_id=recording.id)
    true = true.resample(SAMPLE_RATE) if true.sampling_rate != SAMPLE_RATE else true
    for name, settings in transforms:
        if name == "Speed":
            true = true.perturb_speed(settings["factor"])
        elif name == "Volume":
            true = true.perturb_volume(settings["factor"])
        elif name != "Resample":
            raise _BadRow(f"{source.source} is not as the manifest says, and {name} cannot be applied anew")
    _check_length(source.source, true.duration, cut.end)
    if true.num_channels == 1:
        return replace(cut, recording=true)
    # lhotse reads all channels of a file only for a MultiCut; the caller averages them
    return MultiCut(
        id=cut.id, start=cut.start, duration=cut.duration, channel=true.channel_ids, recording=true
    )


def _check_length(path: str, seconds: float, needed: float) -> None:
    # durations in manifests are rounded, and resampling rounds too
    if seconds + 0.02 < needed:
        raise _BadRow(f"{path} has {seconds:.2f} s of audio, the manifest says {needed:.2f} s")


def _transform(transform: Any) -> tuple[str, dict[str, Any]]:
    """Name and settings of a lhotse transform, which is kept as an object or as plain data."""
    data = transform if isinstance(transform, dict) else transform.to_dict()
    return data["name"], data.get("kwargs", {})


def _first_line(err: BaseException) -> str:
    return (str(err).strip().splitlines() or [type(err).__name__])[0][:200]
