"""Configuration of models. The settings of earlier versions stay readable: `RENAMED` and `upgrade` of each class."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ...audio import SAMPLE_RATE
from ...errors import UserError


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderConfig:
    """The streaming encoder.

    kind: `waveform` (strided convolutions and a rotary transformer on raw audio) or `conformer` (on log-mel features).
    layers, dim, heads, ffn: number and width of the layers, heads of attention, width of the feed-forward.
    left_chunks: attention reaches this many chunks back; None is the whole past.
    right_context: waveform only. Chunks of right context, which every layer sees, for each label delay from 0 on;
        longer delays have the last entry. Each entry is one more than the one before: a stream that waits longer may
            look further.
    lookahead: Conformer only. Chunks of look-ahead of each layer, first layer first; layers not named have none.
    full_context: attention over the whole utterance, for offline models; such an encoder has no step().
    rotary_fraction: share of each head's dimensions that rotate with the position.
    high_pass: waveform only. A high-pass filter at 100 Hz before everything else.
    conv_kernel, subsampling, mel_bins: Conformer only. Width of the convolution in frames, hops of 10 ms in a frame,
        bins.
    dropout: probability, in training.
    """

    kind: Literal["waveform", "conformer"]
    layers: int
    dim: int
    heads: int
    ffn: int
    left_chunks: int | None = 16
    right_context: tuple[int, ...] = (0,)
    lookahead: tuple[int, ...] = ()
    full_context: bool = False
    rotary_fraction: float = 0.9
    high_pass: bool = False
    conv_kernel: int = 9
    subsampling: int = 4
    mel_bins: int = 80
    dropout: float = 0.0

    @staticmethod
    def upgrade(data: dict[str, Any]) -> dict[str, Any]:
        """right_chunks and delayed_chunks, of earlier versions, are today's right_context."""
        if not {"right_chunks", "delayed_chunks"} & data.keys():
            return data
        first, extra = data.get("right_chunks", 0), data.get("delayed_chunks", 0)
        if not all(isinstance(n, int) and 0 <= n <= 16 for n in (first, extra)):
            raise UserError("encoder.right_chunks and encoder.delayed_chunks must be from 0 to 16")
        rest = {k: v for k, v in data.items() if k not in ("right_chunks", "delayed_chunks")}
        return {"right_context": list(range(first, first + extra + 1))} | rest

    def __post_init__(self) -> None:
        if len(self.lookahead) > self.layers or any(a not in (0, 1) for a in self.lookahead):
            raise UserError("encoder.lookahead: one 0 or 1 for each of the first layers")
        first = self.right_context[0] if self.right_context else -1
        if not 0 <= first <= 16 or self.right_context != tuple(range(first, first + len(self.right_context))):
            raise UserError(
                "encoder.right_context: from 0 to 16 chunks for a label delay of 0, then one more each"
            )
        if self.lookahead if self.kind == "waveform" else self.right_context != (0,):
            raise UserError("encoder: `lookahead` is the Conformer's, `right_context` the waveform encoder's")
        if self.dim % self.heads:
            raise UserError("encoder.dim must be a multiple of encoder.heads")

    @property
    def lookahead_chunks(self) -> int:
        """Chunks that the frames of a chunk wait for, without label delay."""
        return 0 if self.full_context else self.right_context[0] + sum(self.lookahead)

    @property
    def frames_depend_on_delay(self) -> bool:
        """Whether streams of different label delays get different frames."""
        return len(self.right_context) > 1

    def right_context_at(self, delay: int) -> int:
        """Chunks of right context of a stream with this label delay."""
        return self.right_context[min(delay, len(self.right_context) - 1)]

    def offline(self, high_pass: bool = False) -> EncoderConfig:
        """The same encoder with all of an utterance as its context."""
        return dataclasses.replace(
            self, full_context=True, lookahead=(), right_context=(0,), high_pass=high_pass, dropout=0.0
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockConfig:
    """Recordings in large blocks: an encoder of its own weights, for which all of a block is context.

    Where latency is of no concern, a block costs less than its chunks one by one, and every frame has seconds of right
    context. A recording is cut where it is most silent.

    chunks: of a block, at most.
    """

    chunks: int = 100

    def __post_init__(self) -> None:
        if not 1 <= self.chunks <= 256:
            raise UserError("file_blocks.chunks must be from 1 to 256")


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderConfig:
    """A Llama-style decoder, or a transducer's.

    kind: `interleaving` (the paper's), `cross-attention`, `joint-attention` (decoder-only, a speech position for each
        frame), `transducer`, or `pretrained`, a published language model as the paper's decoder, whose shape
        `pretrained: FOLDER` fills in; where it is not given, cross_attention_chunks says which of the first two. Of a
        transducer `layers` are those of the LSTM that reads the text, `dim` is its width and that of the joint network;
        heads, ffn, window and rotary positions are not used.
    layers, dim, heads, kv_heads, ffn: number and width of the layers, heads of queries and of keys, feed-forward.
    rope_theta, rotary_fraction: base of the rotary positions, share of each head's dimensions that rotate.
    window: positions that a query attends to, itself included.
    norm_eps: `pretrained` only. What its normalisations add to the mean square.
    mlp_bias: whether the feed-forward has biases.
    cross_attention_chunks: every layer attends to the encoder's frames of this many last chunks; 0 for an
        interleaving one. For joint attention: the speech positions of this many chunks.
    speech_ffn: joint attention only. Width of the feed-forward of speech positions; 0 for none.
    tie_embeddings: one matrix for both ends; the embedding of a piece is its row of the output layer, less its mean.
        Of a `pretrained` one, as it is.
    dropout: probability, in training.
    """

    RENAMED: ClassVar[dict[str, str]] = {"frame_chunks": "cross_attention_chunks"}

    kind: Literal["interleaving", "cross-attention", "joint-attention", "transducer", "pretrained"] | None = (
        None
    )
    layers: int = 4
    dim: int = 384
    heads: int = 6
    kv_heads: int | None = None
    ffn: int = 1024
    rope_theta: float = 10000.0
    window: int = 256
    norm_eps: float = 1e-5
    rotary_fraction: float = 1.0
    mlp_bias: bool = False
    cross_attention_chunks: int = 0
    speech_ffn: int = 0
    tie_embeddings: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.kind != "transducer" and (self.dim % self.heads or self.heads % self.kv):
            raise UserError("decoder.dim must be a multiple of decoder.heads, and these of decoder.kv_heads")
        if not 0 <= self.cross_attention_chunks <= 256:
            raise UserError("decoder.cross_attention_chunks must be from 0 to 256")
        by_chunks = "cross-attention" if self.cross_attention_chunks else "interleaving"
        attends = self.kind in ("cross-attention", "joint-attention")
        if self.kind is not None and attends != bool(self.cross_attention_chunks):
            raise UserError(
                f"decoder.kind: {self.kind} with cross_attention_chunks {self.cross_attention_chunks}"
            )
        # a file without it is read by the rule of earlier versions
        object.__setattr__(self, "kind", self.kind or by_chunks)

    @property
    def kv(self) -> int:
        """Heads of keys and values."""
        return self.kv_heads or self.heads


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """One ReaLLM model.

    encoder, decoder: its two parts.
    vocab_size: pieces, those of the tokenizer.
    chunk_ms: audio for one embedding.
    blank: the symbol for "wait for more audio": `blank`, a piece of its own, id 3; `eos`, the end-of-sequence, id 2; or
        `added`, the last id, behind the pieces of a published vocabulary.
    delays: label delays, in chunks, that training draws from and a user may choose from; default_delay is one of them.
    file_delay: the label delay for recordings, where latency is of no concern; by default that of live streams.
    file_blocks: where given, recordings are encoded in large blocks, by an encoder with weights of its own.
    max_pieces_per_chunk: BLANK is forced after so many.
    max_same_piece_per_chunk: and where a piece has been written so many times after one embedding.
    blank_bias: cross-attending decoders only. Added to BLANK's logit in decoding (nats) for the first chunks after a
        piece, so that a doubtful piece is decided one chunk later.
    language: of the texts, as a code.
    """

    encoder: EncoderConfig
    decoder: DecoderConfig
    vocab_size: int
    chunk_ms: Literal[120, 240, 480] = 240
    blank: Literal["blank", "eos", "added"] = "blank"
    delays: tuple[int, ...] = (0, 1, 2)
    default_delay: int = 1
    file_delay: int | None = None
    file_blocks: BlockConfig | None = None
    max_pieces_per_chunk: int = 16
    max_same_piece_per_chunk: int = 1
    blank_bias: float = 0.0
    language: str = "en"

    def __post_init__(self) -> None:
        if self.default_delay not in self.delays:
            raise UserError("model.default_delay must be one of model.delays")
        if self.file_delay is not None and self.file_delay not in self.delays:
            raise UserError("model.file_delay must be one of model.delays")
        if self.file_blocks and self.encoder.kind != "waveform":
            raise UserError("model.file_blocks is for the waveform encoder")

    @property
    def chunk_samples(self) -> int:
        return SAMPLE_RATE * self.chunk_ms // 1000

    @property
    def blank_id(self) -> int:
        return {"blank": 3, "eos": 2, "added": self.vocab_size - 1}[self.blank]


@dataclass(frozen=True, kw_only=True, slots=True)
class CTCConfig:
    """A CTC model, the alignment teacher: a full-context encoder, a few layers of its own, and a CTC output.

    encoder, vocab_size, chunk_ms: as of a ReaLLM model; the encoder has full_context.
    head_layers: transformer layers between encoder and output, trained from scratch.
    """

    encoder: EncoderConfig
    vocab_size: int
    chunk_ms: Literal[120, 240, 480] = 240
    head_layers: int = 0
