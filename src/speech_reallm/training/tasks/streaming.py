"""What the tasks that train a streaming recogniser share: encoder frames of a batch, evaluation, the files of best/."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from ...tokenizer import Tokenizer
from ..config import ModelConfig, RunConfig, to_dict
from ..data.spec_augment import SpecAugment
from ..model.reallm import ReaLLM
from ..streaming_dev import StreamingDev
from .base import Content, Task


class SpeechBatch(Protocol):
    """Frames [B, T, D] or audio [B, N], and the label delay as the encoder needs it."""

    frames: Tensor | None
    audio: Tensor | None
    encoder_delay: int


class StreamingTask(Task):
    """A task whose model is a ReaLLM."""

    model: ReaLLM
    model_config: ModelConfig
    tokenizer: Tokenizer
    augment: SpecAugment
    dev: StreamingDev | None

    @staticmethod
    def dev_set(config: RunConfig, tokenizer: Tokenizer, frozen: bool) -> StreamingDev | None:
        """The dev set of the configuration, None where it names none. frozen: the encoder is not trained."""
        if not config.data.dev:
            return None
        return StreamingDev(config.data, tokenizer, frozen=frozen, bf16=config.optim.bf16)

    def frames_of(self, batch: SpeechBatch) -> Tensor:
        """Encoder frames [B, T, D] of audio or of a cache, with SpecAugment in training."""
        augment = self.augment if self.augment and self.training else None
        if batch.audio is not None:
            frames: Tensor = self.model.encoder(batch.audio, augment=augment, delay=batch.encoder_delay)
            return frames
        assert batch.frames is not None
        return augment(batch.frames) if augment else batch.frames

    def evaluate(self) -> dict[str, float]:
        if self.dev is None:
            return {"score": 0.0}
        rates = self.dev.error_rate(self.model)
        return {"score": rates["wer"], **rates}

    def artifacts(self) -> dict[str, Content]:
        return {
            "model.safetensors": dict(self.model.state_dict()),
            "model.json": to_dict(self.model_config),
            self.tokenizer.file_name: self.tokenizer.path.read_bytes(),
        }
