"""The encoder of recordings: all of a large block is context, as of an utterance for an offline encoder.

Latency is of no concern there: chunks are encoded many at once, with seconds of context on either side.
Architecture and shapes are those of WaveformEncoder, with weights of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ...config import ModelConfig
from .waveform import EPSILON, HIGH_PASS_TAPS, OVERLAP, PAST, RECENT, SILENCE, WEAK, WaveformEncoder

# chunks on either side, whose strongest one bounds what a chunk is normalised by
AROUND = RECENT - 1


class BlockEncoder(WaveformEncoder):
    """See the module's docstring."""

    def __init__(self, config: ModelConfig):
        assert config.file_blocks is not None
        super().__init__(config.encoder.offline(config.encoder.high_pass), config.chunk_ms)

    def block(self, audio: Tensor, inside: Tensor) -> Tensor:
        """audio [B, C * S] in [-1, 1], inside [B, C] -> frames [B, C * F, D].

        inside: 1 for the chunks of the recording, 0 for those before its start; nothing attends to these, and their
        frames are zeros. The shapes may differ from call to call, in ONNX, too.
        """
        per = self.frames_per_chunk
        if self.high_pass is not None:
            audio = self._filtered(F.pad(audio, (HIGH_PASS_TAPS - 1, 0)))
        y = torch.tanh(self.conv1(F.pad(audio, (PAST, 0)).unsqueeze(1)))
        chunk = y[:, :, OVERLAP:].unflatten(2, (-1, 6 * per))
        gain, offset = self._gains(chunk.mean((1, 3)), chunk.square().mean((1, 3)), inside)
        y = torch.addcmul(self._over_time(offset), y, self._over_time(gain))
        x = F.gelu(self.conv3(F.gelu(self.conv2(y)))).transpose(1, 2)
        valid = inside.repeat_interleave(per, 1) > 0
        for layer in self.layers:
            x = layer.forward_full(x, valid)
        return torch.where(valid[..., None], self.norm(x), 0.0)

    def _gains(self, mean: Tensor, square: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and mean square of each chunk, [B, C], inside [B, C] -> what the normalisation multiplies with and
        adds, [B, D, C].

        By the rules of the stream, but with what comes after: a chunk counts if it is not silent, nor much weaker than
        the others; and none is normalised by more than the strongest of those around it, so that a loud sound does not
        make speech small.
        """
        count = inside * (square > SILENCE)
        average = (count * square).sum(1, keepdim=True) / count.sum(1, keepdim=True).clamp(min=1)
        count = count * (square >= WEAK * average)
        total = count.sum(1, keepdim=True).clamp(min=1)
        mean = (count * mean).sum(1, keepdim=True) / total
        average = (count * square).sum(1, keepdim=True) / total
        strongest = F.max_pool1d(square.unsqueeze(1), 2 * AROUND + 1, 1, AROUND).squeeze(1)
        scale = torch.rsqrt((torch.minimum(average, strongest) - mean.square()).clamp(min=0) + EPSILON)
        gain = scale.unsqueeze(1) * self.norm_weight[:, None]
        return gain, self.norm_bias[:, None] - mean.unsqueeze(1) * gain

    def _over_time(self, value: Tensor) -> Tensor:
        """[B, D, C] -> one for each output of the first convolution, [B, D, OVERLAP + 6 F C]"""
        return F.pad(value.repeat_interleave(6 * self.frames_per_chunk, 2), (OVERLAP, 0), mode="replicate")
