"""Configuration: frozen, keyword-only dataclasses and a strict YAML reader.

An unknown key, a missing key or a value of the wrong type is an error that names the key.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ...errors import UserError

SAMPLE_RATE = 16000


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderConfig:
    """The streaming encoder: waveform (strided convolutions + rotary transformer) or log-mel Conformer."""

    kind: Literal["waveform", "conformer"]
    layers: int
    dim: int
    heads: int
    ffn: int
    # attention reaches this many chunks back; None is the whole past
    left_chunks: int | None = 16
    # waveform: chunks of right context, which every layer sees, and how many more where the stream's delay gives the
    # time
    right_chunks: int = 0
    delayed_chunks: int = 0
    # Conformer: chunks of look-ahead of each layer, first layer first; layers not named have none
    lookahead: tuple[int, ...] = ()
    # attention over the whole utterance, for teachers only: such an encoder has no step()
    full_context: bool = False
    rotary_fraction: float = 0.9
    # waveform: a high-pass filter at 100 Hz before everything else
    high_pass: bool = False
    # Conformer only
    conv_kernel: int = 9
    subsampling: int = 4
    mel_bins: int = 80
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if len(self.lookahead) > self.layers or any(a not in (0, 1) for a in self.lookahead):
            raise UserError("encoder.lookahead: one 0 or 1 for each of the first layers")
        if not (0 <= self.right_chunks <= 16 and 0 <= self.delayed_chunks <= 16):
            raise UserError("encoder.right_chunks and encoder.delayed_chunks must be from 0 to 16")
        if self.lookahead if self.kind == "waveform" else self.right_chunks or self.delayed_chunks:
            raise UserError("encoder: `lookahead` is the Conformer's, `right_chunks` the waveform encoder's")
        if self.dim % self.heads:
            raise UserError("encoder.dim must be a multiple of encoder.heads")

    @property
    def lookahead_chunks(self) -> int:
        return 0 if self.full_context else self.right_chunks + sum(self.lookahead)

    def offline(self) -> EncoderConfig:
        """The same encoder, hearing all of an utterance."""
        return dataclasses.replace(
            self,
            full_context=True,
            lookahead=(),
            right_chunks=0,
            delayed_chunks=0,
            high_pass=False,
            dropout=0.0,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderConfig:
    """A Llama-style decoder, interleaving (the paper's) or reading (ARCHITECTURE.md, contract "Decoder")."""

    layers: int = 4
    dim: int = 384
    heads: int = 6
    kv_heads: int | None = None
    ffn: int = 1024
    rope_theta: float = 10000.0
    # positions that a query attends to, itself included
    window: int = 256
    # share of each head's dimensions that turn with the position
    rotary_fraction: float = 1.0
    mlp_bias: bool = False
    # a reading decoder: every layer reads the encoder's frames of this many last chunks; 0: none, as in the paper
    frame_chunks: int = 0
    # one matrix for both ends: the embedding of a piece is its row of the output layer, less the mean of that row
    tie_embeddings: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.dim % self.heads or self.heads % self.kv:
            raise UserError("decoder.dim must be a multiple of decoder.heads, and these of decoder.kv_heads")
        if self.frame_chunks and self.window < 3:
            raise UserError("decoder.window must be at least 3 for a decoder that reads frames")
        if not 0 <= self.frame_chunks <= 256:
            raise UserError("decoder.frame_chunks must be from 0 to 256")

    @property
    def kv(self) -> int:
        return self.kv_heads or self.heads


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """One ReaLLM model."""

    encoder: EncoderConfig
    decoder: DecoderConfig
    vocab_size: int
    chunk_ms: Literal[120, 240, 480] = 240
    # the symbol for "nothing more until I hear more"
    blank: Literal["blank", "eos"] = "blank"
    # label delays, in chunks, that training draws from and a user may choose from
    delays: tuple[int, ...] = (0, 1, 2)
    default_delay: int = 1
    # the label delay for recordings, where latency is of no concern; None: the default one
    file_delay: int | None = None
    max_pieces_per_chunk: int = 16
    # reading decoders: added to BLANK's logit in decoding (nats) for the first chunks after a piece, so that what is in
    # doubt is heard to its end first
    blank_bias: float = 0.0
    language: str = "en"

    def __post_init__(self) -> None:
        if self.default_delay not in self.delays:
            raise UserError("model.default_delay must be one of model.delays")
        if self.file_delay is not None and self.file_delay not in self.delays:
            raise UserError("model.file_delay must be one of model.delays")
        if self.blank_bias and not self.decoder.frame_chunks:
            raise UserError(
                "model.blank_bias: only a reading decoder (decoder.frame_chunks) knows how long it waits"
            )

    @property
    def chunk_samples(self) -> int:
        return SAMPLE_RATE * self.chunk_ms // 1000

    @property
    def blank_id(self) -> int:
        return 3 if self.blank == "blank" else 2


@dataclass(frozen=True, kw_only=True, slots=True)
class CTCConfig:
    """The alignment teacher: a full-context encoder, a few layers of its own, and a CTC output."""

    encoder: EncoderConfig
    vocab_size: int
    chunk_ms: Literal[120, 240, 480] = 240
    # transformer layers between encoder and output, trained from scratch
    head_layers: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentConfig:
    """Augmentation of audio, each with its probability; all off by default."""

    speeds: tuple[float, ...] = ()
    volume_db: float = 0.0
    noise: str | None = None
    noise_prob: float = 0.0
    noise_snr_db: tuple[float, float] = (5.0, 25.0)
    # a smooth random colour, as of another microphone or line: decibels up and down, standard deviation
    colour_prob: float = 0.0
    colour_db: float = 6.0
    reverb: str | None = None
    reverb_prob: float = 0.0
    # once through MP3, at 43 to 86 kbit/s
    codec_prob: float = 0.0
    # a random band of frequencies weakened by 15 to 40 dB
    band_stop_prob: float = 0.0
    # mains hum or low-frequency noise, up to 18 dB louder than the speech
    hum_prob: float = 0.0
    # SpecAugment, on the encoder's input frames: so many masks, or as many as it takes to mask this share of the frames
    # (in proportion to the length: a fixed number masks half of a short utterance and nothing of a long one)
    time_masks: int = 0
    time_mask_share: float = 0.0
    time_mask_frames: int = 10
    feature_masks: int = 0
    feature_mask_bins: int = 0

    def __post_init__(self) -> None:
        if self.time_mask_share and (self.time_masks or not self.time_mask_frames):
            raise UserError(
                "augment.time_mask_share needs time_mask_frames, and takes the place of time_masks"
            )
        if not 0 <= self.time_mask_share < 1:
            raise UserError("augment.time_mask_share must be from 0 to below 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """What is trained on. `weights` repeats a manifest (2.0: twice an epoch; 0.5: a random half)."""

    train: tuple[str, ...]
    # manifests that training is watched on
    dev: tuple[str, ...] = ()
    weights: tuple[float, ...] | None = None
    # utterances of speakers with many are taken less often: 0 every utterance of a manifest alike, 1 every speaker
    speaker_balance: float = 0.0
    tokenizer: str | None = None
    batch_seconds: float = 90.0
    max_seconds: float = 20.0
    min_seconds: float = 0.4
    dev_utterances: int = 100
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    # join several utterances, mostly of a speaker, up to max_seconds, with this probability
    concatenate_prob: float = 0.0
    # distill: cut an example into stretches and shuffle these with this probability: an order of sounds never heard yet
    shuffle_prob: float = 0.0

    def watched(self, **changes: Any) -> DataConfig:
        """The dev utterances in the place of those to train on, each once and as it is."""
        plain = DataConfig(
            train=self.dev, batch_seconds=self.batch_seconds, max_seconds=self.max_seconds,
            min_seconds=self.min_seconds, dev_utterances=self.dev_utterances,
        )  # fmt: skip
        return dataclasses.replace(plain, **changes)


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig:
    steps: int
    lr: float
    # learning rate of the encoder relative to lr; 0 freezes it
    encoder_lr_scale: float = 1.0
    warmup_steps: int = 200
    schedule: Literal["cosine", "constant"] = "cosine"
    final_lr_scale: float = 0.02
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    # weights whose names contain one of these learn faster, by this factor: what is new beside what is trained already
    fast: tuple[str, ...] = ()
    fast_lr_scale: float = 5.0
    # weights whose names contain one of these stay as they are
    frozen: tuple[str, ...] = ()
    # what is neither fast nor frozen is pulled to where it began by lr * anchor of the distance, instead of to zero by
    # weight_decay: what a published model knows of many voices is not forgotten on a few (L2-SP, Li et al., ICML 2018)
    anchor: float = 0.0
    clip: float = 1.0
    accumulate: int = 1
    ema: float = 0.0
    bf16: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """One training run."""

    task: Literal["distill", "ctc", "lm", "reallm"]
    out: str
    data: DataConfig
    optim: OptimConfig
    model: ModelConfig | None = None
    ctc: CTCConfig | None = None
    # folders of earlier runs (or published weights) whose matching tensors are loaded, in order
    init: tuple[str, ...] = ()
    # distill: the folder with the teacher's encoder weights; reallm: with those of an offline recogniser
    teacher: str | None = None
    # seconds of silence that the teacher hears after every example: an offline encoder marks how near the end
    # is, which no streaming one can know
    teacher_tail: float = 0.0
    # reallm with `teacher`: how much of a piece's label is the teacher's opinion, and the weight of the squared error
    # to its frames (in parts of their variance) beside the cross-entropy
    teacher_share: float = 0.5
    teacher_frames: float = 0.0
    # reallm with `teacher`: how far from what `init` gave towards the teacher's weights the decoder begins; what it has
    # learnt comes back soon, what it has forgotten is there again (after WiSE-FT, Wortsman et al., CVPR 2022)
    teacher_mix: float = 0.0
    # train on cached encoder frames: what is frozen of the encoder never runs in the loop
    cache: str | None = None
    # reallm: probability of replacing a fed-back piece by a random one (exposure bias)
    piece_noise: float = 0.0
    # reallm: probability of replacing one by what the model itself, asked first, would have written there: where it is
    # in doubt its own mistakes come up, and it learns to go on after them
    piece_sampling: float = 0.0
    # reallm, reading decoders: probability that the path leaves the alignment at a piece, by being some chunks late or
    # one early or, a quarter as often, by writing the last pieces again; what should be said stays what it is, so the
    # decoder learns to find its way back
    stray: float = 0.0
    # reallm: loss weight of BLANK targets
    blank_weight: float = 1.0
    # reallm: share of steps on text alone, so that the decoder keeps its English
    text: tuple[str, ...] = ()
    text_share: float = 0.0
    # reallm with `cache`: share of steps on spliced speech, words of the recordings in the order of `text`
    splice_share: float = 0.0
    label_smoothing: float = 0.0
    seed: int = 1
    eval_minutes: float = 5.0
    save_minutes: float = 2.0
    log_steps: int = 20


T = typing.TypeVar("T")


def build(cls: type[T], data: Any, where: str = "") -> T:
    """Build dataclass `cls` from plain data. Raises UserError naming the offending key."""
    if not isinstance(data, dict):
        raise UserError(f"{where or 'the file'}: expected a mapping, got {type(data).__name__}")
    hints = typing.get_type_hints(cls)
    names = {f.name: f for f in dataclasses.fields(cls)}
    for key in data:
        if key not in names:
            raise UserError(f"unknown key {_join(where, key)}; known: {', '.join(names)}")
    values = {}
    for name, f in names.items():
        if name in data:
            values[name] = _convert(hints[name], data[name], _join(where, name))
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise UserError(f"missing key {_join(where, name)}")
    return cls(**values)


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else str(key)


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        inner = [a for a in args if a is not type(None)]
        return _convert(inner[0], value, where)
    if origin is Literal:
        if value not in args:
            raise UserError(f"{where}: {value!r} is not one of {', '.join(map(str, args))}")
        return value
    if origin is tuple:
        if isinstance(value, str) and args == (str, Ellipsis):
            return (value,)
        if not isinstance(value, (list, tuple)):
            raise UserError(f"{where}: expected a list, got {value!r}")
        if args[-1] is Ellipsis:
            return tuple(_convert(args[0], v, f"{where}[{i}]") for i, v in enumerate(value))
        if len(value) != len(args):
            raise UserError(f"{where}: expected {len(args)} values")
        return tuple(
            _convert(a, v, f"{where}[{i}]") for i, (a, v) in enumerate(zip(args, value, strict=True))
        )
    if dataclasses.is_dataclass(hint):
        return build(hint, value, where)
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value):
        return float(value)  # YAML 1.1 reads 1e-4 as a string
    if isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise UserError(f"{where}: expected {hint.__name__}, got {value!r}")


def read_yaml(path: str | Path, within: tuple[Path, ...] = ()) -> Any:
    """The plain data of a YAML file. One with `extends: FILE`, a path from its own folder, says what differs from that.

    Mappings are merged, anything else is replaced. within: the files that extend this one. Raises UserError for an
    unreadable or malformed file, and for files that extend each other in a circle.
    """
    import yaml

    path = Path(path)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise UserError(f"cannot read {path}: {err.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as err:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(err).split())[:200]}") from None
    if not isinstance(data, dict) or "extends" not in data:
        return data
    base = data.pop("extends")
    if not isinstance(base, str):
        raise UserError(f"{path}: extends: expected a file, got {base!r}")
    if path.resolve() in within:
        raise UserError(f"{path} extends itself")
    return _merged(read_yaml(path.parent / base, (*within, path.resolve())), data)


def _merged(base: Any, changes: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(changes, dict):
        return changes
    return base | {key: _merged(base.get(key), value) for key, value in changes.items()}


def to_dict(config: Any) -> dict[str, Any]:
    """Plain data (lists for tuples) that `build` reads back."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(v) for v in value]
        return value

    return plain(dataclasses.asdict(config))
