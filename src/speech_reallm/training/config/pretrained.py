"""The shape of a published language model, for `model.decoder.pretrained: FOLDER` in a training file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...errors import UserError

# kinds of Hugging Face's whose layers are Llama's, one and all
ARCHITECTURES = ("llama", "mistral")


def with_pretrained(model: dict[str, Any]) -> dict[str, Any]:
    """The `model` of a training file as plain data, with the shape of the language model that its decoder names.

    What the file itself says of the decoder stands. Raises UserError for a folder without a model that our layers can
    hold.
    """
    decoder = model.get("decoder")
    if not isinstance(decoder, dict) or "pretrained" not in decoder:
        return model
    shape, pieces = decoder_shape(decoder["pretrained"])
    own = {key: value for key, value in decoder.items() if key != "pretrained"}
    # BLANK comes last, behind the model's own pieces
    added = {"vocab_size": pieces + 1, "blank": "added"}
    return added | model | {"decoder": shape | own}


def decoder_shape(folder: Any) -> tuple[dict[str, Any], int]:
    """The decoder's settings as plain data, and how many pieces it has, from the config.json of a Hugging Face folder.

    Pieces are those of the tokenizer: the model may have more rows, which stand for nothing. Raises UserError.
    """
    path = Path(str(folder)) / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        kind = config.get("model_type")
        if kind not in ARCHITECTURES:
            raise UserError(
                f"{path}: {kind} models cannot be decoders; those of {', '.join(ARCHITECTURES)} can"
            )
        _refuse_what_we_lack(config, path)
        heads, dim = config["num_attention_heads"], config["hidden_size"]
        theta = (config.get("rope_parameters") or config).get("rope_theta", 10000.0)
        shape = {
            "kind": "pretrained",
            "layers": config["num_hidden_layers"],
            "dim": dim,
            "heads": heads,
            "kv_heads": config.get("num_key_value_heads") or heads,
            "ffn": config["intermediate_size"],
            "rope_theta": float(theta),
            "norm_eps": float(config.get("rms_norm_eps", 1e-6)),
            "tie_embeddings": bool(config.get("tie_word_embeddings", False)),
        }
    except OSError as err:
        raise UserError(
            f"cannot read {path}: {err.strerror}; name a folder of a Hugging Face causal LM"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path} is not the configuration of a causal LM") from None
    from ...tokenizer import open_tokenizer

    return shape, open_tokenizer(path.with_name("tokenizer.json")).vocab_size - 1


def _refuse_what_we_lack(config: dict[str, Any], path: Path) -> None:
    scaling = (config.get("rope_parameters") or {}).get("rope_type", "default")
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    lacks = {
        "attention_bias": config.get("attention_bias"),
        "mlp_bias": config.get("mlp_bias"),
        "rope_scaling": scaling != "default" or config.get("rope_scaling"),
        "head_dim": head_dim * config["num_attention_heads"] != config["hidden_size"],
        "hidden_act": config.get("hidden_act", "silu") != "silu",
    }
    for name, found in lacks.items():
        if found:
            raise UserError(f"{path}: our layers have no such {name}: choose another model")
