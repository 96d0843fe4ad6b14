"""A published language model in the decoder's place gives what it gives in its own library, text alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import ENCODER, tiny, write_file
from tiny_lm import write_language_model
from tones import Corpus

from speech_reallm.errors import UserError
from speech_reallm.training.config import ModelConfig, build
from speech_reallm.training.config.pretrained import with_pretrained
from speech_reallm.training.model.decoders.llama import cache_of
from speech_reallm.training.model.reallm import ReaLLM
from speech_reallm.training.run import load_config
from speech_reallm.training.weights import init_from


@pytest.mark.parametrize("tied", [True, False], ids=["one matrix", "two matrices"])
def test_equals_hugging_face_on_text_alone(tied: bool, corpus: Corpus, tmp_path: Path) -> None:
    theirs = write_language_model(tmp_path / "lm", corpus.text, tied=tied)
    plain = {"encoder": ENCODER, "decoder": {"pretrained": str(tmp_path / "lm")}}
    config = build(ModelConfig, with_pretrained(plain))
    pieces = theirs.config.vocab_size - 5
    assert (config.vocab_size, config.blank_id) == (pieces + 1, pieces)
    model = ReaLLM(config).eval()
    loaded = init_from(model, tmp_path / "lm")
    new = {name for name in model.state_dict() if name.startswith("decoder.")} - set(loaded)
    assert new == {"decoder.head.blank.weight", "decoder.head.blank.bias"}
    ids = torch.randint(3, pieces, (2, 20))
    with torch.no_grad():
        expected = theirs(ids).logits[..., :pieces]
        torch.testing.assert_close(
            model.decoder.text_logits(ids)[..., :pieces], expected, atol=1e-4, rtol=1e-4
        )
        # and piece by piece, as in streaming
        decoder = model.decoder
        state, rows = decoder.init_state(2), torch.arange(2)
        for t in range(ids.shape[1]):
            state["piece"] = ids[:, t].clone()
            log_probs, update = decoder.step(state)
            reference = torch.cat((expected[:, t], torch.zeros(2, 1)), -1).log_softmax(-1)
            torch.testing.assert_close(log_probs, reference, atol=1e-4, rtol=1e-4)
            decoder.commit(state, rows, ids[:, t], update)
        assert cache_of(state)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"model_type": "gpt2"}, "gpt2 models cannot be decoders; those of llama, mistral can"),
        ({"attention_bias": True}, "no such attention_bias"),
        ({"hidden_act": "gelu"}, "no such hidden_act"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "no such rope_scaling"),
        ({"head_dim": 5}, "no such head_dim"),
        ({"num_hidden_layers": "two"}, "expected int"),
        ({"num_attention_heads": None}, "not the configuration of a causal LM"),
    ],
)
def test_models_that_our_layers_cannot_hold_are_refused(
    change: dict, words: str, corpus: Corpus, tmp_path: Path
) -> None:
    write_language_model(tmp_path / "lm", corpus.text, **change)
    data = tiny("reallm", corpus, tmp_path / "run", model={"encoder": ENCODER, "decoder": {}})
    data["model"]["decoder"]["pretrained"] = str(tmp_path / "lm")
    with pytest.raises(UserError, match=words):
        load_config(write_file(tmp_path / "run.yaml", data), [])


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read "):
        with_pretrained({"decoder": {"pretrained": str(tmp_path)}})
