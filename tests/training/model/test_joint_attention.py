"""One attention over speech and text: what it begins as, and from which weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from speech_reallm.training.checkpoint import save_folder
from speech_reallm.training.config import DecoderConfig, EncoderConfig, ModelConfig
from speech_reallm.training.model.decoders import Path as Interleaving
from speech_reallm.training.model.decoders import joint_attention
from speech_reallm.training.model.decoders.joint_attention import joint_weights
from speech_reallm.training.model.reallm import ReaLLM
from speech_reallm.training.targets.interleaving import interleave
from speech_reallm.training.weights import init_from

CONFIG = ModelConfig(
    encoder=EncoderConfig(kind="waveform", layers=1, dim=16, heads=2, ffn=32, left_chunks=2),
    decoder=DecoderConfig(
        layers=2, dim=32, heads=2, ffn=48, window=16, mlp_bias=True, cross_attention_chunks=3
    ),
    vocab_size=30,
)


def models(speech_ffn: int = 8) -> tuple[ReaLLM, ReaLLM]:
    """A cross-attending recogniser with norms that are not all ones, and one with joint attention."""
    torch.manual_seed(2)
    cross = ReaLLM(CONFIG).eval()
    for name, weight in cross.named_parameters():
        if "norm" in name and name.startswith("decoder.") and weight.ndim == 1:
            torch.nn.init.uniform_(weight, 0.5, 1.5)
        elif name.endswith(("chunk_age", "project.weight", "since_piece.weight")):
            torch.nn.init.normal_(weight, std=0.3)
    decoder = dataclasses.replace(CONFIG.decoder, kind="joint-attention", speech_ffn=speech_ffn)
    return cross, ReaLLM(dataclasses.replace(CONFIG, decoder=decoder)).eval()


def logits(model: ReaLLM, frames: torch.Tensor) -> torch.Tensor:
    made = interleave([7, 8, 9, 10], [0, 1, 2, 3], 5, 0, model.config.blank_id)
    path = Interleaving(
        pieces=torch.from_numpy(made.pieces)[None], chunks=torch.from_numpy(made.chunks)[None]
    )
    with torch.no_grad():
        return model(frames, torch.tensor([0]), path)


def test_each_half_of_the_heads_begins_as_an_attention_of_the_cross_attending_decoder(monkeypatch):
    """Where a layer writes nothing after its attention to text, one after another and both at once are the same."""
    monkeypatch.setattr(joint_attention, "SPEECH_BIAS", 60.0)
    for silent in ("out.weight", "cross_attention.out.weight"):
        cross, joint = models()
        weights = cross.state_dict()
        for i in range(2):
            # what is written into the stream by one of the two attentions alone
            weights[f"decoder.blocks.{i}.{silent}"].zero_()
        cross.load_state_dict(weights)
        missing = joint.load_state_dict(joint_weights(weights), strict=False)
        assert not missing.unexpected_keys
        assert all(".speech." in key for key in missing.missing_keys)
        frames = torch.randn(1, 50, 16)
        torch.testing.assert_close(logits(joint, frames), logits(cross, frames), atol=1e-4, rtol=1e-3)


def test_every_head_may_attend_to_speech_and_to_text():
    """The numbers that part the heads at the start are learned, and the softmax runs over both kinds of positions."""
    _, joint = models()
    frames = torch.randn(1, 50, 16)
    block = joint.decoder.blocks[0]
    before = logits(joint, frames)
    with torch.no_grad():
        block.speech.bias[0] += 8
    assert not torch.allclose(before, logits(joint, frames))
    assert block.speech.bias.requires_grad


def test_speech_positions_go_through_the_layers():
    _, joint = models()
    frames = torch.randn(1, 50, 16)
    first = joint.decoder.blocks[0]
    torch.testing.assert_close(first.next_frames(frames), frames)
    before = logits(joint, frames)
    torch.nn.init.normal_(first.speech.down.weight)
    assert not torch.allclose(before, logits(joint, frames))
    assert logits(models(speech_ffn=0)[1], frames).shape == before.shape


def test_a_run_begins_with_the_weights_of_a_cross_attending_one(tmp_path: Path):
    cross, joint = models()
    save_folder(tmp_path / "best", {"model.safetensors": dict(cross.state_dict())})
    loaded = init_from(joint, tmp_path)
    assert "decoder.blocks.1.speech.k.weight" in loaded
    torch.testing.assert_close(
        joint.decoder.blocks[1].speech.chunk_age, cross.decoder.blocks[1].cross_attention.chunk_age
    )
    # a run of its own kind goes on as it is
    again = joint_weights(joint.state_dict())
    assert again.keys() == joint.state_dict().keys()
