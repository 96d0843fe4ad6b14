"""The whole model: streaming equals forward(); a batch of streams out of step equals the streams one by one."""

from __future__ import annotations

import pytest
import torch

from speech_reallm.errors import UserError
from speech_reallm.training.config import DecoderConfig, EncoderConfig, ModelConfig
from speech_reallm.training.model.decoders import Decoder, Path
from speech_reallm.training.model.greedy import greedy
from speech_reallm.training.model.reallm import ReaLLM
from speech_reallm.training.targets.interleaving import interleave

ENCODERS = {
    "waveform": EncoderConfig(
        kind="waveform", layers=2, dim=16, heads=2, ffn=32, left_chunks=2, right_context=(1, 2)
    ),
    "conformer": EncoderConfig(
        kind="conformer", layers=2, dim=16, heads=2, ffn=32, left_chunks=2, lookahead=(1,)
    ),
}

ATTENDING = ["cross-attention", "joint-attention"]
ZERO_AT_FIRST = (
    ".chunk_age",
    ".speech.down.weight",
    "stacker.project.weight",
    "label_delay_embedding.weight",
    "chunks_since_piece.weight",
)


def tiny(
    encoder: str,
    chunk_ms: int = 240,
    blank: str = "blank",
    window: int = 64,
    cap: int = 4,
    frame_chunks: int = 0,
    blank_bias: float = 0.0,
    kind: str | None = None,
) -> ReaLLM:
    torch.manual_seed(1)
    config = ModelConfig(
        encoder=ENCODERS[encoder],
        decoder=DecoderConfig(
            kind=kind,
            speech_ffn=24 if kind == "joint-attention" else 0,
            layers=2,
            dim=32,
            heads=2,
            ffn=48,
            window=window,
            cross_attention_chunks=frame_chunks,
            mlp_bias=bool(frame_chunks),
        ),
        vocab_size=30,
        chunk_ms=chunk_ms,
        blank=blank,
        max_pieces_per_chunk=cap,
        blank_bias=blank_bias,
    )
    model = ReaLLM(config).eval()
    # what is zero at first counts too
    for name, weight in model.named_parameters():
        if name.endswith(ZERO_AT_FIRST):
            torch.nn.init.normal_(weight, std=0.3)
    return model


def by_steps(model: ReaLLM, audio: torch.Tensor, delay: int, path: Path) -> torch.Tensor:
    """Log-probabilities [1, T, V] along a path, step by step from raw audio [1, N]."""
    one, decoder = torch.tensor([0]), model.decoder
    state, encoder_state = decoder.init_state(1), model.encoder.init_state(1)
    ready = []
    for chunk in audio.split(model.config.chunk_samples, dim=1):
        embedding, frames, encoder_state = model.step(chunk, encoder_state, torch.tensor([delay]))
        ready.append((embedding, frames))
    ready = ready[model.encoder.lookahead_chunks :]
    found = []
    for t in range(path.pieces.shape[1]):
        index = path.chunks[:, t]
        if index >= 0:
            decoder.next_chunk(state, one, index, *ready[int(index)])
        log_probs, update = decoder.step(state)
        found.append(log_probs)
        # the last symbol of a path is BLANK
        following = path.pieces[:, t + 1] if t + 1 < path.pieces.shape[1] else torch.tensor([-1])
        symbol = torch.where(following >= 0, following, model.config.blank_id)
        decoder.commit(state, one, symbol, update)
    return torch.stack(found, 1)


def compare(model: ReaLLM, pieces: list[int], ends: list[int], chunks: int, delay: int) -> None:
    """Teacher-forced over one interleaving: forward() over all of it, and step by step."""
    ahead = model.encoder.lookahead_chunks
    audio = torch.randn(1, (chunks + delay + ahead) * model.config.chunk_samples) * 0.1
    made = interleave(pieces, ends, chunks, delay, model.config.blank_id)
    path = Path(pieces=torch.from_numpy(made.pieces)[None], chunks=torch.from_numpy(made.chunks)[None])
    with torch.no_grad():
        logits = model(model.encoder(audio, delay=delay), torch.tensor([delay]), path)
        found = by_steps(model, audio, delay, path)
    torch.testing.assert_close(found, torch.log_softmax(logits, -1), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("chunk_ms", [120, 240, 480])
@pytest.mark.parametrize("kind", ENCODERS)
def test_streaming_equals_forward(kind, chunk_ms):
    compare(tiny(kind, chunk_ms), [7, 8, 9, 10, 11], [0, 0, 2, 5, 5], 6, 2)


@pytest.mark.parametrize("kind", ATTENDING)
@pytest.mark.parametrize("window", [3, 5, 64])
@pytest.mark.parametrize("frame_chunks", [1, 3, 16])
def test_streaming_equals_forward_for_a_decoder_that_attends_to_frames(frame_chunks, window, kind):
    """The same; frames come in a ring, and only steps that emit a piece are kept."""
    model = tiny("waveform", window=window, frame_chunks=frame_chunks, kind=kind)
    compare(model, [7, 8, 9, 10, 11, 12], [0, 0, 2, 5, 5, 7], 8, 1)


@pytest.mark.parametrize("kind", ATTENDING)
def test_a_decoder_that_attends_to_frames_does_not_use_what_is_to_come(kind):
    model = tiny("waveform", frame_chunks=4, kind=kind)
    made = interleave([7, 8, 9], [0, 2, 5], 8, 0, model.config.blank_id)
    path = Path(pieces=torch.from_numpy(made.pieces)[None], chunks=torch.from_numpy(made.chunks)[None])
    frames = torch.randn(1, 80, 16)
    other = torch.cat((frames[:, :40], torch.randn(1, 40, 16)), 1)
    with torch.no_grad():
        a, b = (model(f, torch.tensor([0]), path) for f in (frames, other))
    until = int((path.chunks[0] == 4).nonzero())
    torch.testing.assert_close(a[:, :until], b[:, :until])
    assert not torch.allclose(a[:, until:], b[:, until:])


@pytest.mark.parametrize(("frame_chunks", "kind"), [(0, None), (3, None), (3, "joint-attention")])
@pytest.mark.parametrize("blank", ["blank", "eos"])
def test_a_batch_of_streams_out_of_step_equals_the_same_streams_one_by_one(blank, frame_chunks, kind):
    model = tiny("waveform", blank=blank, window=12, frame_chunks=frame_chunks, kind=kind)
    # a model that emits something: BLANK less likely
    with torch.no_grad():
        model.decoder.head.weight[model.config.blank_id] *= 0.5
    frames = torch.randn(4, 10 * 10, 16)
    lengths, delay = torch.tensor([10, 3, 7, 1]), torch.tensor([0, 1, 2, 1])
    together = greedy(model, frames, lengths, delay)
    alone = [greedy(model, frames[i : i + 1], lengths[i : i + 1], delay[i : i + 1])[0] for i in range(4)]
    assert together == alone
    assert any(together), "the model emitted nothing: this test shows nothing"


def test_pieces_per_chunk_are_capped():
    model = tiny("waveform", cap=3)
    with torch.no_grad():
        model.decoder.head.weight[model.config.blank_id] = 0
        model.decoder.norm.weight.fill_(1)
        model.decoder.head.weight[5] = 100 * torch.sign(torch.randn(32))
    (emitted,) = greedy(model, torch.randn(1, 40, 16), torch.tensor([4]), torch.tensor([0]))
    assert len(emitted) <= 3 * 4


def test_blank_is_favoured_for_the_first_chunks_after_a_piece():
    plain, biased = (tiny("waveform", frame_chunks=3, blank_bias=bias) for bias in (0.0, 1.5))
    blank, other = plain.config.blank_id, plain.config.blank_id + 1
    state = plain.decoder.init_state(5)
    state["waited"], state["piece"] = torch.arange(5), torch.full((5,), 7)
    with torch.no_grad():
        a, b = (model.decoder.step(state)[0] for model in (plain, biased))
    more = (b[:, blank] - b[:, other]) - (a[:, blank] - a[:, other])
    torch.testing.assert_close(more, torch.tensor([1.5, 1.5, 1.5, 0, 0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(b.exp().sum(-1), torch.ones(5))


def test_settings_of_one_kind_of_decoder_are_refused_for_the_other():
    with pytest.raises(UserError, match="blank_bias: an interleaving decoder"):
        tiny("waveform", blank_bias=1.0)
    with pytest.raises(UserError, match=r"decoder\.window must be at least 3"):
        tiny("waveform", frame_chunks=3, window=2)
    with pytest.raises(UserError, match=r"decoder\.kind: interleaving with cross_attention_chunks 3"):
        DecoderConfig(kind="interleaving", cross_attention_chunks=3)
    with pytest.raises(UserError, match=r"decoder\.kind: joint-attention with cross_attention_chunks 0"):
        DecoderConfig(kind="joint-attention")


@pytest.mark.parametrize("frame_chunks", [0, 3])
def test_decoders_keep_the_protocol(frame_chunks):
    decoder = tiny("waveform", frame_chunks=frame_chunks).decoder
    for name, value in vars(Decoder).items():
        if callable(value) and not name.startswith("_"):
            assert callable(getattr(decoder, name)), name
    for name in Decoder.__annotations__:
        assert hasattr(decoder, name), name
    state = decoder.init_state(3)
    assert list(decoder.graph_inputs(3)) == list(state)
    assert all(len(value) == 3 for value in state.values())
    assert not any(value.any() for name, value in state.items() if name != "piece")


def test_the_label_delay_reaches_the_embeddings():
    model = tiny("waveform")
    frames = torch.randn(1, 20, 16)
    with torch.no_grad():
        a, b = (model.embed_speech(frames, torch.tensor([d])) for d in (0, 2))
    assert not torch.allclose(a, b)
