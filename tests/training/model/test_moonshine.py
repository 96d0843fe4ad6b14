"""Published Moonshine weights give in our encoder and our reading decoder what they give in their own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from speech_reallm.training.config import DecoderConfig, EncoderConfig
from speech_reallm.training.model.decoders.cross_attention import Reading
from speech_reallm.training.model.decoders.llama import LlamaDecoder
from speech_reallm.training.model.encoders.waveform import WaveformEncoder
from speech_reallm.training.model.pretrained.moonshine import load_moonshine

MOONSHINE = Path(__file__).parents[4] / "shared" / "models" / "moonshine-tiny-en"
VOCABULARY = 32768

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not MOONSHINE.is_dir(), reason=f"no published weights in {MOONSHINE}"),
]


@pytest.fixture(scope="module")
def published():
    """Their model with their weights."""
    transformers = pytest.importorskip("transformers")
    from safetensors.torch import load_file

    raw, full = load_file(MOONSHINE / "model.u8.safetensors"), {}
    for name, value in raw.items():
        if name.endswith(".q"):
            lo, step = raw[name[:-2] + ".lo_step"]
            full[name[:-2]] = lo + step * value.float()
        elif not name.endswith(".lo_step"):
            full[name] = value.float()
    model = transformers.MoonshineForConditionalGeneration(
        transformers.MoonshineConfig.from_pretrained(str(MOONSHINE))
    )
    missing, unexpected = model.load_state_dict(full, strict=False)
    assert not unexpected and set(missing) <= {"proj_out.weight"}
    model.tie_weights()
    return model.eval()


@pytest.fixture(scope="module")
def ours() -> dict[str, torch.Tensor]:
    return load_moonshine(MOONSHINE, range(VOCABULARY))


def part(weights: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    return {k[len(name) + 1 :]: v for k, v in weights.items() if k.startswith(name + ".")}


def test_frames(published, ours):
    config = EncoderConfig(kind="waveform", layers=6, dim=288, heads=8, ffn=1152, full_context=True)
    encoder = WaveformEncoder(config).eval()
    encoder.load_state_dict(part(ours, "encoder"))
    torch.manual_seed(0)
    audio = torch.randn(1, 12 * 3840) * 0.1
    with torch.no_grad():
        expected = published.model.encoder(torch.nn.functional.pad(audio, (511, 0))).last_hidden_state
        got = encoder(audio)
    # the group normalisation's statistics leave out the first 7 of 727 convolution frames
    assert (got - expected).abs().mean() < 0.02 * expected.abs().mean()


def test_answers(published, ours):
    config = DecoderConfig(
        layers=6, dim=288, heads=8, ffn=1152, window=64, rotary_fraction=0.9, mlp_bias=True, frame_chunks=8
    )
    decoder = LlamaDecoder(config, VOCABULARY, 288, 10).eval()
    weights = part(ours, "decoder")
    ages = {k for k in decoder.state_dict() if k.endswith(".age")}
    assert set(weights) == set(decoder.state_dict()) - ages
    decoder.load_state_dict(weights, strict=False)
    torch.manual_seed(0)
    ids = torch.randint(3, VOCABULARY, (2, 12))
    ids[:, 0] = 1
    frames = torch.randn(2, 50, 288)
    steps = torch.arange(12).expand(2, -1)
    reading = Reading(
        frames=frames,
        chunk=torch.full((2, 12), 4),
        position=steps,
        written=torch.ones(2, 12, dtype=torch.bool),
    )
    with torch.no_grad():
        got = decoder(decoder.embed(ids), reading)
        heard = published.model.decoder(input_ids=ids, encoder_hidden_states=frames).last_hidden_state
        expected = published.proj_out(heard)
    torch.testing.assert_close(got, expected, atol=2e-3, rtol=2e-3)
