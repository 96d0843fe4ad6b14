"""The whole model: streaming equals forward(); a batch of streams out of step equals the streams one by one."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from speech_reallm.errors import UserError
from speech_reallm.tokenizer import START
from speech_reallm.training.config import DecoderConfig, EncoderConfig, ModelConfig
from speech_reallm.training.model.reallm import ReaLLM
from speech_reallm.training.targets.interleaving import interleave

ENCODERS = {
    "waveform": EncoderConfig(
        kind="waveform", layers=2, dim=16, heads=2, ffn=32, left_chunks=2, right_chunks=1, delayed_chunks=1
    ),
    "conformer": EncoderConfig(
        kind="conformer", layers=2, dim=16, heads=2, ffn=32, left_chunks=2, lookahead=(1,)
    ),
}


def tiny(
    encoder: str,
    chunk_ms: int = 240,
    blank: str = "blank",
    window: int = 64,
    cap: int = 4,
    frame_chunks: int = 0,
) -> ReaLLM:
    torch.manual_seed(1)
    config = ModelConfig(
        encoder=ENCODERS[encoder],
        decoder=DecoderConfig(
            layers=2,
            dim=32,
            heads=2,
            ffn=48,
            window=window,
            frame_chunks=frame_chunks,
            mlp_bias=bool(frame_chunks),
        ),
        vocab_size=30,
        chunk_ms=chunk_ms,
        blank=blank,
        max_pieces_per_chunk=cap,
    )
    model = ReaLLM(config).eval()
    # what is zero at first counts too
    for name, weight in model.named_parameters():
        if name.endswith((".age", "stacker.project.weight", "delay.weight", "wait.weight")):
            torch.nn.init.normal_(weight, std=0.3)
    return model


@pytest.mark.parametrize("chunk_ms", [120, 240, 480])
@pytest.mark.parametrize("kind", ENCODERS)
def test_streaming_equals_forward(kind, chunk_ms):
    """Teacher-forced over one interleaving: forward() over all of it, and step() by step() from raw audio."""
    model = tiny(kind, chunk_ms)
    size, chunks, delay = model.config.chunk_samples, 6, 2
    ahead = model.encoder.lookahead_chunks
    audio = torch.randn(1, (chunks + delay + ahead) * size) * 0.1
    made = interleave([7, 8, 9, 10, 11], [0, 0, 2, 5, 5], chunks, delay, model.config.blank_id)
    pieces, where = torch.from_numpy(made.pieces)[None], torch.from_numpy(made.chunks)[None]
    with torch.no_grad():
        whole = torch.log_softmax(
            model(model.encoder(audio, delay=delay), torch.tensor([delay]), pieces, where), -1
        )
        state = model.init_state(1)
        embeddings = []
        for chunk in audio.split(size, dim=1):
            frames, state.encoder = model.encoder.step(chunk, state.encoder, torch.tensor([delay]))
            embeddings.append(model.embed_speech(frames, torch.tensor([delay]))[:, 0])
        embeddings = embeddings[ahead:]
        for t in range(pieces.shape[1]):
            here = embeddings[max(int(where[0, t]), 0)]
            log_probs, new = model.step(here, pieces[:, t], state)
            state.remember(new, torch.tensor([0]), False)
            torch.testing.assert_close(log_probs, whole[:, t], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("window", [3, 5, 64])
@pytest.mark.parametrize("frame_chunks", [1, 3, 16])
def test_streaming_equals_forward_for_a_decoder_that_reads_frames(frame_chunks, window):
    """The same; frames come in a ring, and only positions that write a piece are remembered."""
    model = tiny("waveform", window=window, frame_chunks=frame_chunks)
    size, chunks, delay = model.config.chunk_samples, 8, 1
    ahead = model.encoder.lookahead_chunks
    blank = model.config.blank_id
    audio = torch.randn(1, (chunks + delay + ahead) * size) * 0.1
    made = interleave([7, 8, 9, 10, 11, 12], [0, 0, 2, 5, 5, 7], chunks, delay, blank)
    pieces, where = torch.from_numpy(made.pieces)[None], torch.from_numpy(made.chunks)[None]
    with torch.no_grad():
        whole = torch.log_softmax(
            model(model.encoder(audio, delay=delay), torch.tensor([delay]), pieces, where), -1
        )
        state = model.init_state(1)
        heard = []
        for chunk in audio.split(size, dim=1):
            frames, state.encoder = model.encoder.step(chunk, state.encoder, torch.tensor([delay]))
            heard.append(frames)
        heard = heard[ahead:]
        piece, row = torch.tensor([START]), torch.tensor([0])
        for t in range(pieces.shape[1]):
            if where[0, t] >= 0:
                state.chunk[:] = where[0, t]
                state.waited += 1
                here = model.embed_speech(heard[state.chunk], torch.tensor([delay]))[:, 0]
                state.read(model.decoder.read_frames(heard[state.chunk]), row, frame_chunks)
            else:
                piece = pieces[:, t]
                state.waited[:] = 0
            log_probs, new = model.step(here, piece, state)
            torch.testing.assert_close(log_probs, whole[:, t], atol=1e-4, rtol=1e-3)
            if made.targets[t] != blank:
                state.remember(new, row, True)


def test_a_reading_decoder_does_not_hear_what_is_to_come():
    model = tiny("waveform", frame_chunks=4)
    made = interleave([7, 8, 9], [0, 2, 5], 8, 0, model.config.blank_id)
    pieces, where = torch.from_numpy(made.pieces)[None], torch.from_numpy(made.chunks)[None]
    frames = torch.randn(1, 80, 16)
    other = torch.cat((frames[:, :40], torch.randn(1, 40, 16)), 1)
    with torch.no_grad():
        a, b = (model(f, torch.tensor([0]), pieces, where) for f in (frames, other))
    until = int((where[0] == 4).nonzero())
    torch.testing.assert_close(a[:, :until], b[:, :until])
    assert not torch.allclose(a[:, until:], b[:, until:])


@pytest.mark.parametrize("frame_chunks", [0, 3])
@pytest.mark.parametrize("blank", ["blank", "eos"])
def test_a_batch_of_streams_out_of_step_equals_the_same_streams_one_by_one(blank, frame_chunks):
    model = tiny("waveform", blank=blank, window=12, frame_chunks=frame_chunks)
    # a model that says something: BLANK less likely
    with torch.no_grad():
        model.decoder.head.weight[model.config.blank_id] *= 0.5
    frames = torch.randn(4, 10 * 10, 16)
    lengths, delay = torch.tensor([10, 3, 7, 1]), torch.tensor([0, 1, 2, 1])
    together = model.greedy(frames, lengths, delay)
    alone = [model.greedy(frames[i : i + 1], lengths[i : i + 1], delay[i : i + 1])[0] for i in range(4)]
    assert together == alone
    assert any(together), "the model said nothing: this test shows nothing"


def test_pieces_per_chunk_are_capped():
    model = tiny("waveform", cap=3)
    with torch.no_grad():
        model.decoder.head.weight[model.config.blank_id] = 0
        model.decoder.norm.weight.fill_(1)
        model.decoder.head.weight[5] = 100 * torch.sign(torch.randn(32))
    (said,) = model.greedy(torch.randn(1, 40, 16), torch.tensor([4]), torch.tensor([0]))
    assert len(said) <= 3 * 4


def test_a_reading_decoder_hesitates_at_first():
    model = tiny("waveform", frame_chunks=3)
    blank, other = model.config.blank_id, model.config.blank_id + 1
    state = model.init_state(5)
    state.waited = torch.arange(5)
    with torch.no_grad():
        plain = model.step(torch.zeros(5, 32), torch.full((5,), 7), state)[0]
        model.config = dataclasses.replace(model.config, blank_bias=1.5)
        biased = model.step(torch.zeros(5, 32), torch.full((5,), 7), state)[0]
    more = (biased[:, blank] - biased[:, other]) - (plain[:, blank] - plain[:, other])
    torch.testing.assert_close(more, torch.tensor([1.5, 1.5, 1.5, 0, 0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(biased.exp().sum(-1), torch.ones(5))


def test_only_a_reading_decoder_hesitates():
    with pytest.raises(UserError, match="blank_bias: only a reading decoder"):
        dataclasses.replace(tiny("waveform").config, blank_bias=1.0)


def test_the_delay_is_heard():
    model = tiny("waveform")
    frames = torch.randn(1, 20, 16)
    with torch.no_grad():
        a, b = (model.embed_speech(frames, torch.tensor([d])) for d in (0, 2))
    assert not torch.allclose(a, b)
