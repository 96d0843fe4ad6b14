"""The ReaLLM model: streaming encoder, stacker, decoder-only LM, BLANK. (Seide et al., Interspeech 2024.)"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...engine.ring import ring_slot, sink_ring_slot
from ...tokenizer import START
from ..config import ModelConfig
from .decoders.cross_attention import Reading
from .decoders.llama import LlamaDecoder
from .encoders import build_encoder
from .encoders.block_attention import write_ring
from .stacker import Stacker


@dataclass(kw_only=True, slots=True)
class State:
    """A batch of streams: the encoder's state, the decoder's rings by layer (LlamaDecoder.init_cache), positions
    remembered [B] int64.

    Of a reading decoder also the rings of what it reads of the frames (LlamaDecoder.init_cross), the number of the
    current chunk [B], and how many chunks were heard since the one in which the last piece was written, or since the
    start [B].
    """

    encoder: dict[str, Tensor]
    cache: dict[str, Tensor]
    cross: dict[str, Tensor]
    position: Tensor
    chunk: Tensor
    waited: Tensor

    def remember(self, new: dict[str, Tensor], rows: Tensor, reads: bool) -> None:
        """Write the new keys and values of `rows` into their rings, and count the positions."""
        ring = self.cache["0.v"].shape[2]
        slot = (sink_ring_slot if reads else ring_slot)(self.position[rows], ring)
        for name, value in new.items():
            if name.endswith("k"):
                self.cache[name][rows, :, :, slot] = value[rows, :, :, 0].float()
            else:
                self.cache[name][rows, :, slot] = value[rows, :, 0].float()
        self.position[rows] += 1

    def read(self, new: dict[str, Tensor], rows: Tensor, chunks: int) -> None:
        """Write what the decoder reads of the current chunks' frames into the rings of `rows`, of `chunks` chunks."""
        for name, value in new.items():
            ring = self.cross[name]
            ring[rows] = write_ring(ring[rows], value.float(), self.chunk[rows] % chunks)


# a reading decoder that has waited for longer than this many chunks need not know how long
LONGEST_WAIT = 11
# up to so many chunks after a piece, config.blank_bias holds for BLANK; from then on what is in doubt is said as it is
HESITATION = 2


class ReaLLM(nn.Module):
    """`encoder`, `stacker`, `decoder`, and a vector for each label delay."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.encoder = build_encoder(config.encoder, config.chunk_ms)
        self.reads = bool(config.decoder.frame_chunks)
        self.decoder = LlamaDecoder(
            config.decoder, config.vocab_size, self.encoder.dim, self.encoder.frames_per_chunk
        )
        self.stacker = Stacker(self.encoder.frames_per_chunk, self.encoder.dim, self.decoder.dim)
        self.delay = nn.Embedding(max(config.delays) + 1, self.decoder.dim)
        nn.init.normal_(self.delay.weight, std=0.02)
        if self.reads:
            # how long it has waited tells where in the frames it stopped reading
            self.wait = nn.Embedding(LONGEST_WAIT + 1, self.decoder.dim)
            # a decoder that could read before starts as it was: embeddings come to it as something new
            new = self.stacker.project
            for weight in (self.delay.weight, self.wait.weight, new.weight, new.bias):
                nn.init.zeros_(weight)

    def embed_speech(self, frames: Tensor, delay: Tensor) -> Tensor:
        """frames [B, C * F, D], delay [B] chunks -> speech embeddings [B, C, decoder width]"""
        return self.stacker(frames) + self.delay(delay)[:, None]

    def mix(self, speech: Tensor, pieces: Tensor, chunks: Tensor) -> Tensor:
        """Decoder input [B, T, W] from speech [B, C, W] and an interleaving (pieces, chunks [B, T], -1: not this)."""
        gathered = speech.gather(1, chunks.clamp(min=0)[..., None].expand(-1, -1, speech.shape[-1]))
        text = self.decoder.embed(pieces.clamp(min=0)).to(gathered.dtype)
        return torch.where((pieces >= 0)[..., None], text, gathered)

    def read(self, speech: Tensor, frames: Tensor, pieces: Tensor, chunks: Tensor) -> tuple[Tensor, Reading]:
        """Input [B, T, W] of a reading decoder, and what it reads, from an interleaving.

        Every position takes the last piece, how long ago that was, and the embedding of the last chunk.
        """
        steps = torch.arange(pieces.shape[1], device=pieces.device)
        said = pieces >= 0
        last = torch.where(said, steps, -1).cummax(1).values
        piece = torch.where(last >= 0, pieces.gather(1, last.clamp(min=0)), START)
        chunk = chunks.cummax(1).values
        waited = chunk - torch.where(last >= 0, chunk.gather(1, last.clamp(min=0)), -1)
        reading = Reading(
            frames=frames,
            chunk=chunk,
            position=said.cumsum(1),
            written=torch.nn.functional.pad(said[:, 1:], (0, 1)),
        )
        heard = speech.gather(1, chunk[..., None].expand(-1, -1, speech.shape[-1]))
        return self._input(heard, piece, waited), reading

    def _input(self, embedding: Tensor, piece: Tensor, waited: Tensor) -> Tensor:
        """Input of a reading decoder. embedding [..., W], piece and waited [...] -> [..., W]"""
        return embedding + self.decoder.embed(piece) + self.wait(waited.clamp(max=LONGEST_WAIT))

    def forward(self, frames: Tensor, delay: Tensor, pieces: Tensor, chunks: Tensor) -> Tensor:
        """Encoder frames [B, C * F, D], delay [B], interleaving [B, T] -> logits [B, T, V]."""
        speech = self.embed_speech(frames, delay)
        if self.reads:
            return self.decoder(*self.read(speech, frames, pieces, chunks))
        return self.decoder(self.mix(speech, pieces, chunks))

    # -- streaming

    def init_state(self, batch: int) -> State:
        return State(
            encoder=self.encoder.init_state(batch),
            cache=self.decoder.init_cache(batch),
            cross=self.decoder.init_cross(batch),
            position=torch.zeros(batch, dtype=torch.int64),
            chunk=torch.zeros(batch, dtype=torch.int64),
            waited=torch.zeros(batch, dtype=torch.int64),
        )

    def step(self, embedding: Tensor, piece: Tensor, state: State) -> tuple[Tensor, dict[str, Tensor]]:
        """One micro-step -> log probs [B, V], new keys and values (State.remember).

        embedding [B, W]: of the current chunk. piece [B]: the last one; an interleaving decoder takes the piece, and
        the embedding where that is -1; a reading one takes both, START where there is none yet.
        """
        if self.reads:
            x = self._input(embedding, piece, state.waited)
            logits, new = self.decoder.step(x, state.position, state.cache, state.cross, state.chunk)
            if self.config.blank_bias:
                blank = torch.zeros(logits.shape[-1], device=logits.device)
                blank[self.config.blank_id] = self.config.blank_bias
                logits = logits + (state.waited <= HESITATION).to(logits.dtype)[:, None] * blank
        else:
            text = self.decoder.embed(piece.clamp(min=0))
            x = torch.where((piece >= 0)[:, None], text, embedding)
            logits, new = self.decoder.step(x, state.position, state.cache)
        return torch.log_softmax(logits.float(), -1), new

    @torch.no_grad()
    def greedy(self, frames: Tensor, lengths: Tensor, delay: Tensor) -> list[list[int]]:
        """Greedy streaming decoding of a batch from encoder frames, as the runtime does it, for use in training.

        frames [B, C * F, D]; lengths [B] chunks to decode (flush included); delay [B]. Returns the pieces of each row.
        """
        batch, per = len(frames), self.encoder.frames_per_chunk
        blank, cap = self.config.blank_id, self.config.max_pieces_per_chunk
        speech = self.embed_speech(frames, delay).float()
        by_chunk = frames.float().unflatten(1, (-1, per))
        state = self.init_state(batch)
        state.waited += 1
        rows = torch.arange(batch)
        # an interleaving decoder forgets the last piece once it hears the next embedding
        first = START if self.reads else -1
        piece = torch.full((batch,), first)
        result: list[list[int]] = [[] for _ in range(batch)]
        # after the embedding at hand
        said: list[list[int]] = [[] for _ in range(batch)]
        moved = torch.ones(batch, dtype=torch.bool)
        while bool((active := state.chunk < lengths).any()):
            now = state.chunk.clamp(max=speech.shape[1] - 1)
            here = rows[moved & active]
            if self.reads and len(here):
                keys = self.decoder.read_frames(by_chunk[here, now[here]])
                state.read(keys, here, self.config.decoder.frame_chunks)
            log_probs, new = self.step(speech[rows, now], piece, state)
            best = log_probs.argmax(-1)
            for row, ids in enumerate(said):
                if len(ids) >= cap or int(best[row]) in ids:
                    best[row] = blank
            remembered = rows[active & ((best != blank) | (not self.reads))]
            state.remember(new, remembered, self.reads)
            moved = best == blank
            for row in rows[active].tolist():
                symbol = int(best[row])
                if symbol == blank:
                    state.chunk[row] += 1
                    state.waited[row] += 1
                    said[row] = []
                    piece[row] = piece[row] if self.reads else first
                else:
                    result[row].append(symbol)
                    piece[row], state.waited[row] = symbol, 0
                    said[row].append(symbol)
        return result
