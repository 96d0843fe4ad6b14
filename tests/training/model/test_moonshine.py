"""Published Moonshine weights give in our encoder and our cross-attending decoder what they give in their own."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from speech_reallm.training.config import DecoderConfig, EncoderConfig, ModelConfig
from speech_reallm.training.model.decoders.cross_attention import CrossAttentionDecoder
from speech_reallm.training.model.encoders.waveform import WaveformEncoder
from speech_reallm.training.model.offline_teacher import STREAMING_ONLY
from speech_reallm.training.model.pretrained.moonshine import load_moonshine

MOONSHINE = Path(__file__).parents[4] / "shared" / "models" / "moonshine-tiny-en"
VOCABULARY = 32768

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not MOONSHINE.is_dir(), reason=f"no published weights in {MOONSHINE}"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights as Hugging Face has them."""
    script = Path(__file__).parents[3] / "recipes/tools/convert_moonshine.py"
    weights = runpy.run_path(str(script), run_name="convert")["unpacked_weights"]
    out = tmp_path_factory.mktemp("moonshine")
    save_file(weights(load_file(MOONSHINE / "model.u8.safetensors")), out / "model.safetensors")
    return out


@pytest.fixture(scope="module")
def published(folder: Path):
    """Their model with their weights."""
    transformers = pytest.importorskip("transformers")
    full = load_file(folder / "model.safetensors")
    model = transformers.MoonshineForConditionalGeneration(
        transformers.MoonshineConfig.from_pretrained(str(MOONSHINE))
    )
    missing, unexpected = model.load_state_dict(full, strict=False)
    assert not unexpected and set(missing) <= {"proj_out.weight"}
    model.tie_weights()
    return model.eval()


@pytest.fixture(scope="module")
def ours(folder: Path) -> dict[str, torch.Tensor]:
    return load_moonshine(folder, range(VOCABULARY))


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
        layers=6,
        dim=288,
        heads=8,
        ffn=1152,
        window=64,
        rotary_fraction=0.9,
        mlp_bias=True,
        cross_attention_chunks=8,
    )
    encoder = EncoderConfig(kind="waveform", layers=6, dim=288, heads=8, ffn=1152)
    whole = ModelConfig(encoder=encoder, decoder=config, vocab_size=VOCABULARY)
    decoder = CrossAttentionDecoder(whole, 288, 10).eval()
    weights = part(ours, "decoder")
    new = {k for k in decoder.state_dict() if k.endswith(STREAMING_ONLY)}
    assert set(weights) == set(decoder.state_dict()) - new
    decoder.load_state_dict(weights, strict=False)
    torch.manual_seed(0)
    ids = torch.randint(3, VOCABULARY, (2, 12))
    ids[:, 0] = 1
    frames = torch.randn(2, 50, 288)
    with torch.no_grad():
        got = decoder.offline_logits(frames, torch.tensor([4, 4]), ids)
        hidden = published.model.decoder(input_ids=ids, encoder_hidden_states=frames).last_hidden_state
        expected = published.proj_out(hidden)
    torch.testing.assert_close(got, expected, atol=2e-3, rtol=2e-3)
