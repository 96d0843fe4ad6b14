"""A transducer's decoder: the lattice, a path through it, and single steps agree; and it streams as it is trained."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from speech_reallm.errors import UserError
from speech_reallm.training.config import DecoderConfig, EncoderConfig, ModelConfig
from speech_reallm.training.model.decoders import Path
from speech_reallm.training.model.decoders.transducer import TransducerDecoder
from speech_reallm.training.model.greedy import greedy
from speech_reallm.training.model.reallm import ReaLLM
from speech_reallm.training.targets.interleaving import interleave

CONFIG = ModelConfig(
    encoder=EncoderConfig(kind="waveform", layers=1, dim=16, heads=2, ffn=16, left_chunks=2),
    decoder=DecoderConfig(kind="transducer", layers=2, dim=24),
    vocab_size=20,
)
BLANK = CONFIG.blank_id


def decoder(seed: int = 0) -> TransducerDecoder:
    torch.manual_seed(seed)
    return TransducerDecoder(CONFIG).eval()


def stepwise(model: TransducerDecoder, speech: Tensor, path: list[int]) -> Tensor:
    """Log-probabilities [steps, V] along a path of pieces and BLANKs, the state kept as in streaming."""
    state, found, row = model.init_state(1), [], torch.zeros(1, dtype=torch.int64)
    chunk = 0
    model.next_chunk(state, row, row, speech[:1], speech)
    for symbol in path:
        log_probs, update = model.step(state)
        found.append(log_probs[0])
        model.commit(state, row, torch.tensor([symbol]), update)
        if symbol == BLANK:
            chunk += 1
            if chunk < len(speech):
                model.next_chunk(state, row, row + chunk, speech[chunk : chunk + 1], speech)
    return torch.stack(found)


@settings(max_examples=25, deadline=None)
@given(
    pieces=st.lists(st.integers(4, 19), max_size=8),
    chunks=st.integers(1, 5),
    delay=st.integers(0, 2),
    seed=st.integers(0, 99),
)
def test_lattice_path_and_steps_agree(pieces: list[int], chunks: int, delay: int, seed: int) -> None:
    model = decoder(seed)
    speech = torch.randn(chunks + delay, 24)
    ends = sorted(torch.randint(0, chunks, (len(pieces),)).tolist())
    path = interleave(pieces, ends, chunks, delay, BLANK)
    tensors = Path(pieces=torch.tensor(path.pieces)[None], chunks=torch.tensor(path.chunks)[None])
    with torch.no_grad():
        along = model(speech[None], speech[None], tensors)[0].log_softmax(-1)
        steps = stepwise(model, speech, path.targets.tolist())
        lattice = model.lattice_logits(speech[None], torch.tensor([pieces], dtype=torch.int64))[0]
    torch.testing.assert_close(along, steps, atol=1e-4, rtol=1e-4)
    emitted = (path.pieces >= 0).cumsum()
    nodes = lattice[(path.chunks >= 0).cumsum() - 1, emitted]
    torch.testing.assert_close(along, nodes.log_softmax(-1), atol=1e-4, rtol=1e-4)


def test_text_alone_is_the_lattice_without_speech() -> None:
    model, pieces = decoder(), torch.randint(4, 20, (2, 6))
    with torch.no_grad():
        lattice = model.lattice_logits(torch.zeros(2, 1, 24), pieces)[:, 0, 1:]
        torch.testing.assert_close(model.text_logits(pieces), lattice)


def test_streaming_equals_the_whole_utterance() -> None:
    """Audio chunk by chunk through encoder and decoder gives the pieces that all of it at once gives."""
    torch.manual_seed(1)
    model = ReaLLM(CONFIG).eval()
    # random weights that emit something: BLANK is made less likely
    with torch.no_grad():
        model.decoder.head.bias[BLANK] -= 1.0  # type: ignore[union-attr,operator]
        audio = torch.randn(1, 6 * CONFIG.chunk_samples)
        delay = torch.tensor([0])
        (expected,) = greedy(model, model.encoder(audio), torch.tensor([6]), delay)
        assert len(expected) > 3
        state, frames = model.encoder.init_state(1), []
        for chunk in audio.split(CONFIG.chunk_samples, 1):
            _, made, state = model.step(chunk, state, delay)
            frames.append(made)
            (found,) = greedy(model, torch.cat(frames, 1), torch.tensor([len(frames)]), delay)
            # what is written stays
            assert expected[: len(found)] == found
    assert found == expected


@pytest.mark.parametrize("change", [{"blank_bias": 0.5}, {"decoder": {"tie_embeddings": True}}])
def test_settings_of_other_decoders_are_refused(change: dict) -> None:
    if "decoder" in change:
        change = {"decoder": dataclasses.replace(CONFIG.decoder, **change["decoder"])}
    with pytest.raises(UserError, match="transducer"):
        TransducerDecoder(dataclasses.replace(CONFIG, **change))
