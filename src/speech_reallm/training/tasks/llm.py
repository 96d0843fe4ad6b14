"""Training a published language model to be the recogniser's decoder: the projection of speech alone, LoRA, or all.

Targets, batches and loss are those of `task: reallm`. The pieces are the language model's own, cased and punctuated as
the manifest's words are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...errors import UserError
from ...extras import install_command
from ...text import clean_cased
from ..model.decoders.pretrained import PretrainedDecoder
from .base import Content
from .reallm import ReaLLMConfig, ReaLLMTask

# the matrices of a layer that LoRA is added to
LORA_TARGETS = ("q", "k", "v", "out", "gate", "up", "down")
# of peft's names of weights
_BASE, _ADAPTER = ".base_layer.", ".lora_"


@dataclass(frozen=True, kw_only=True, slots=True)
class LLMConfig(ReaLLMConfig):
    """A run of `task: llm`. See ReaLLMConfig; `model.decoder.pretrained` and `init` name the language model's folder.

    tune: what of the decoder is trained besides BLANK's row: nothing (`projector`: the stacker and the label delays are
        new and always trained), low-rank additions to all matrices of its layers (`lora`, Hu et al., ICLR 2022), or
        `full`.
    lora_rank, lora_alpha: rank of the additions; they are scaled by alpha / rank.
    """

    tune: Literal["projector", "lora", "full"] = "lora"
    lora_rank: int = 16
    lora_alpha: int = 32

    def __post_init__(self) -> None:
        # a dataclass with slots is made anew, so that super() without arguments would ask for the old class
        ReaLLMConfig.__post_init__(self)
        if self.tune == "lora" and self.lora_rank < 1:
            raise UserError("lora_rank must be at least 1")


class LLMTask(ReaLLMTask):
    """task: llm"""

    config: LLMConfig
    clean_text = staticmethod(clean_cased)

    def __init__(self, config: LLMConfig):
        super().__init__(config)
        decoder = self.model.decoder
        if not isinstance(decoder, PretrainedDecoder):
            raise UserError("an llm run needs `model.decoder.pretrained`: the folder of a language model")
        if config.tune == "projector":
            decoder.requires_grad_(False)
        elif config.tune == "lora":
            add_lora(decoder, config.lora_rank, config.lora_alpha)
        decoder.head.blank.requires_grad_(True)

    def evaluate(self) -> dict[str, float]:
        with merged(self.model.decoder):
            return super().evaluate()

    def artifacts(self) -> dict[str, Content]:
        with merged(self.model.decoder):
            weights = {
                name.replace(_BASE, "."): value.clone()
                for name, value in self.model.state_dict().items()
                if _ADAPTER not in name
            }
        return super().artifacts() | {"model.safetensors": weights}


def add_lora(decoder: nn.Module, rank: int, alpha: int) -> None:
    """Freeze the decoder and add low-rank matrices to those of its layers. Raises UserError where peft is missing."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise UserError(f"`tune: lora` needs peft: {install_command('peft')}") from None
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(LORA_TARGETS), bias="none")
    inject_adapter_in_model(config, decoder)


@contextmanager
def merged(decoder: nn.Module) -> Iterator[None]:
    """With what LoRA adds in the matrices themselves, as step() and the export take them; taken out again at the end.

    Nothing is changed where there is no LoRA. The matrices are restored to the last bit.
    """
    kept: list[tuple[Any, Tensor]] = []
    with torch.no_grad():
        for module in decoder.modules():
            if hasattr(module, "get_delta_weight"):
                adapted: Any = module
                weight = adapted.get_base_layer().weight
                kept.append((adapted, weight.clone()))
                weight += adapted.get_delta_weight("default")
                # what is in the matrix must not be added a second time
                adapted.enable_adapters(False)
    try:
        yield
    finally:
        with torch.no_grad():
            for adapted, before in kept:
                adapted.get_base_layer().weight.copy_(before)
                adapted.enable_adapters(True)
