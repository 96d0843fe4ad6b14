"""Configuration of training data and its augmentation."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ...errors import UserError


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentConfig:
    """Augmentation of audio, each kind with its probability; all off by default.

    speeds: factors to draw from. volume_db: gain drawn from minus to plus this.
    noise, noise_prob, noise_snr_db: manifest of noises, and the range of the signal-to-noise ratio.
    equaliser_prob, equaliser_db: a smooth random equaliser, as of another microphone or line; standard deviation in dB.
    reverb, reverb_prob: manifest of room impulse responses.
    codec_prob: once through MP3, at 43 to 86 kbit/s.
    band_stop_prob: a random band of frequencies weakened by 15 to 40 dB.
    hum_prob: mains hum or low-frequency noise, up to 18 dB louder than the speech.
    time_masks, time_mask_frames, feature_masks, feature_mask_bins: SpecAugment on the encoder's input frames, so many
        masks of at most this width.
    time_mask_share: instead of time_masks, as many as it takes to mask this share of the frames: a fixed number masks
        half of a short utterance and nothing of a long one.
    """

    RENAMED: ClassVar[dict[str, str]] = {"colour_prob": "equaliser_prob", "colour_db": "equaliser_db"}

    speeds: tuple[float, ...] = ()
    volume_db: float = 0.0
    noise: str | None = None
    noise_prob: float = 0.0
    noise_snr_db: tuple[float, float] = (5.0, 25.0)
    equaliser_prob: float = 0.0
    equaliser_db: float = 6.0
    reverb: str | None = None
    reverb_prob: float = 0.0
    codec_prob: float = 0.0
    band_stop_prob: float = 0.0
    hum_prob: float = 0.0
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
    """What is trained on.

    train: manifests. weights: how often an epoch takes each (2.0: twice; 0.5: a random half).
    speaker_balance: utterances of speakers with many are taken less often; 0: all alike, 1: every speaker alike.
    dev, dev_utterances: manifests that training is watched on, and how many examples of them.
    tokenizer: tokenizer.model.
    batch_seconds: audio of a global batch, padding included; text counts as read speech.
    min_seconds, max_seconds: utterances of other durations are left out.
    augment: see AugmentConfig.
    concatenate_prob: probability of joining several utterances, mostly of a speaker, up to max_seconds.
    shuffle_prob: distill only. Probability of cutting an example into stretches and shuffling these.
    """

    train: tuple[str, ...]
    dev: tuple[str, ...] = ()
    weights: tuple[float, ...] | None = None
    speaker_balance: float = 0.0
    tokenizer: str | None = None
    batch_seconds: float = 90.0
    max_seconds: float = 20.0
    min_seconds: float = 0.4
    dev_utterances: int = 100
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    concatenate_prob: float = 0.0
    shuffle_prob: float = 0.0

    def of_dev(self, **changes: Any) -> DataConfig:
        """The dev utterances in the place of those to train on, each once and as it is."""
        plain = DataConfig(
            train=self.dev, batch_seconds=self.batch_seconds, max_seconds=self.max_seconds,
            min_seconds=self.min_seconds, dev_utterances=self.dev_utterances,
        )  # fmt: skip
        return dataclasses.replace(plain, **changes)
