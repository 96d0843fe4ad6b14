"""The waveform encoder: step() over the chunks equals forward()."""

from __future__ import annotations

import dataclasses

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_reallm.training.config import EncoderConfig
from speech_reallm.training.model.encoders.waveform import MEMORY, WaveformEncoder

TINY = EncoderConfig(kind="waveform", layers=3, dim=16, heads=2, ffn=32, left_chunks=2)


def stream(encoder: WaveformEncoder, audio: torch.Tensor, delay: torch.Tensor | None = None) -> torch.Tensor:
    """Frames of all chunks, by step()."""
    state, frames = encoder.init_state(len(audio)), []
    for chunk in audio.split(encoder.chunk_samples, dim=1):
        out, state = encoder.step(chunk, state, delay)
        frames.append(out)
    return torch.cat(frames[encoder.lookahead_chunks :], 1)


@settings(max_examples=15, deadline=None)
@given(
    left=st.integers(0, 4),
    right=st.integers(0, 2),
    delayed=st.integers(0, 2),
    chunk_ms=st.sampled_from([120, 240, 480]),
    chunks=st.integers(1, 9),
    delays=st.lists(st.integers(0, 3), min_size=1, max_size=3),
    high_pass=st.booleans(),
    seed=st.integers(0, 99),
)
def test_step_over_any_chunking_equals_forward(
    left, right, delayed, chunk_ms, chunks, delays, high_pass, seed
):
    """Streams of any delays in one batch."""
    torch.manual_seed(seed)
    config = dataclasses.replace(
        TINY,
        left_chunks=left,
        right_context=tuple(range(right, right + delayed + 1)),
        high_pass=high_pass,
    )
    encoder = WaveformEncoder(config, chunk_ms).eval()
    per, extra = encoder.frames_per_chunk, max(delays)
    total = chunks + extra + encoder.lookahead_chunks
    # levels that leap up and down by up to 60 dB
    level = 10 ** (-3 * torch.rand(len(delays), total, 1))
    audio = (torch.randn(len(delays), total, encoder.chunk_samples) * level).flatten(1)
    with torch.no_grad():
        streamed = stream(encoder, audio, torch.tensor(delays))
        assert streamed.shape == (len(delays), (chunks + extra) * per, 16)
        for row, delay in enumerate(delays):
            whole = encoder(audio[row : row + 1], delay=delay)
            assert whole.shape == (1, (chunks + extra) * per, 16)
            torch.testing.assert_close(streamed[row : row + 1], whole, atol=2e-5, rtol=1e-4)
            assert not whole[:, : min(delay, delayed) * per].any()


def test_unlimited_context_is_that_of_the_offline_encoder():
    """With all of an utterance to the right of every chunk, frames are the offline ones (but for the statistics)."""
    torch.manual_seed(0)
    encoder = WaveformEncoder(dataclasses.replace(TINY, right_context=(5,))).eval()
    offline = WaveformEncoder(TINY.offline()).eval()
    offline.load_state_dict(encoder.state_dict())
    audio = torch.randn(1, 6 * encoder.chunk_samples) * 0.1
    with torch.no_grad():
        # the same front for both
        front = offline._front(audio, torch.tensor([6]))
        encoder._front = lambda audio: front
        first = encoder(audio)
        torch.testing.assert_close(first, offline(audio)[:, : first.shape[1]], atol=1e-5, rtol=1e-4)


def test_frames_use_no_audio_beyond_the_lookahead():
    torch.manual_seed(0)
    encoder = WaveformEncoder(dataclasses.replace(TINY, right_context=(1,))).eval()
    size, frames = encoder.chunk_samples, encoder.frames_per_chunk
    audio = torch.randn(1, 9 * size) * 0.1
    other = audio.clone()
    other[:, 5 * size :] = torch.randn(1, 4 * size)
    with torch.no_grad():
        a, b = encoder(audio), encoder(other)
    # chunk 3 sees chunk 4 and no more; chunk 4 sees chunk 5
    torch.testing.assert_close(a[:, : 4 * frames], b[:, : 4 * frames])
    assert not torch.allclose(a[:, 4 * frames : 5 * frames], b[:, 4 * frames : 5 * frames])


def test_a_row_of_a_batch_equals_the_row_alone():
    torch.manual_seed(0)
    encoder = WaveformEncoder(dataclasses.replace(TINY, right_context=(1,))).eval()
    audio = torch.randn(3, 6 * encoder.chunk_samples) * torch.tensor([[0.01], [0.1], [0.5]])
    with torch.no_grad():
        together = encoder(audio)
        for row in range(3):
            torch.testing.assert_close(
                together[row : row + 1], encoder(audio[row : row + 1]), atol=1e-5, rtol=1e-4
            )


def test_statistics_beyond_their_memory_agree_and_stay_bounded():
    torch.manual_seed(0)
    encoder = WaveformEncoder(dataclasses.replace(TINY, layers=1), 120).eval()
    audio = torch.randn(1, (MEMORY + 5) * encoder.chunk_samples) * 0.1
    with torch.no_grad():
        torch.testing.assert_close(stream(encoder, audio), encoder(audio), atol=2e-5, rtol=1e-4)


def test_digital_silence_does_not_dilute_the_statistics():
    encoder = WaveformEncoder(TINY).eval()
    torch.manual_seed(0)
    state = encoder.init_state(1)
    with torch.no_grad():
        for _ in range(20):
            frames, state = encoder.step(torch.zeros(1, encoder.chunk_samples), state)
    assert torch.isfinite(frames).all()
    assert state["norm"][0, 0] == 0


def test_full_context_ignores_what_lies_beyond_the_length():
    torch.manual_seed(0)
    encoder = WaveformEncoder(dataclasses.replace(TINY, full_context=True)).eval()
    audio = torch.randn(1, 4 * encoder.chunk_samples) * 0.1
    longer = torch.nn.functional.pad(audio, (0, 3 * encoder.chunk_samples))
    lengths = torch.tensor([audio.shape[1]])
    with torch.no_grad():
        short, long = encoder(audio, lengths), encoder(longer, lengths)
    torch.testing.assert_close(long[:, : short.shape[1]], short, atol=1e-5, rtol=1e-4)


def encoded(encoder: WaveformEncoder, audio: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return encoder(audio)


def test_frames_do_not_depend_on_the_level():
    torch.manual_seed(0)
    encoder = WaveformEncoder(TINY).eval()
    audio = torch.randn(1, 10 * encoder.chunk_samples) * 0.02
    normal = encoded(encoder, audio)
    for decibels in (-30, -10):
        changed = encoded(encoder, audio * 10 ** (decibels / 20))
        torch.testing.assert_close(changed, normal, atol=0.05, rtol=0.05)


def test_frames_recover_soon_after_a_loud_sound():
    torch.manual_seed(0)
    encoder = WaveformEncoder(dataclasses.replace(TINY, left_chunks=0)).eval()
    size, per = encoder.chunk_samples, encoder.frames_per_chunk
    speech = torch.randn(1, 16 * size) * 0.005
    loud = torch.randn(1, 4 * size) * 0.1
    after = encoded(encoder, torch.cat((loud, speech), 1))[:, 4 * per :]
    alone = encoded(encoder, speech)

    def apart(chunk: int) -> float:
        rows = slice(chunk * per, (chunk + 1) * per)
        return float((after[:, rows] - alone[:, rows]).square().mean() / alone[:, rows].square().mean())

    assert apart(1) > 0.1
    assert apart(10) < 0.02 and apart(15) < 0.02


def test_hum_is_filtered_out_and_speech_is_not():
    time = torch.arange(16000) / 16000
    encoder = WaveformEncoder(dataclasses.replace(TINY, high_pass=True))

    def gain(hertz: float) -> float:
        tone = torch.sin(2 * torch.pi * hertz * time)
        kept = encoder._filtered(torch.nn.functional.pad(tone, (960, 0))[None, : 960 + 15960])
        return float(kept[0, 8000:].std() / tone[8000:].std())

    assert gain(50) < 0.1
    assert gain(60) < 0.15
    for hertz in (200, 1000, 4000):
        assert abs(gain(hertz) - 1) < 0.1
