"""The field's words: identifiers of a private dialect must not come back. Names that are a file format are strings."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src/speech_reallm"
# what is said instead
FORBIDDEN = {
    "Reading": "CrossAttention, Memory",
    "FrameAttention": "CrossAttention",
    "reads": "ask for a capability of the decoder",
    "frame_chunks": "cross_attention_chunks",
    "waited": "chunks_since_piece",
    "LONGEST_WAIT": "MAX_CHUNKS_SINCE_PIECE",
    "HESITATION": "BLANK_BIAS_CHUNKS",
    "stray": "perturbation_prob",
    "strayed": "perturb",
    "opinion": "soft labels, prediction",
    "taught": "knowledge distillation",
    "teacher_share": "soft_label_weight",
    "teacher_frames": "frame_distillation_weight",
    "teacher_mix": "weight_interpolation",
    "teacher_tail": "teacher_padding_seconds",
    "anchor": "l2_sp",
    "Anchors": "L2SP",
    "fast_lr_scale": "new_parameters_lr_scale",
    "piece_sampling": "scheduled_sampling_prob",
    "piece_noise": "piece_noise_prob",
    "follows": "soft_label_mask",
    "lone_words": "isolated words",
    "recase": "restore case",
    "Turn": "Rotation",
    "State": "StreamState, DecoderState, EncoderState",
    "REACH": "SINK_DISTANCE",
    "delayed_chunks": "right_context",
    "right_chunks": "right_context",
    "coloured": "equalised",
    "colour_prob": "equaliser_prob",
    "colour_db": "equaliser_db",
    "micro_step": "step",
}
# in the training code and the engine these too; elsewhere some have another meaning
FORBIDDEN_IN_MODELS = {
    "heard": "received, input, padded audio",
    "said": "emitted, written, spoken",
    "due": "dynamic oracle",
    "PATIENCE": "MAX_OVERDUE_CHUNKS",
    "world": "world_size",
    "watched": "dev",
    "mix": "interleave, interpolate",
    "shift": "frame_offset, offset",
    "wordless": "non-speech",
    "Segment": "SpeechUnit",
}


def identifiers(path: Path) -> Iterator[tuple[str, int]]:
    """Names of variables, attributes, arguments, functions and classes, without leading underscores, and lines."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for field in ("id", "attr", "arg", "name"):
            name = getattr(node, field, None)
            if isinstance(name, str):
                yield name.lstrip("_"), getattr(node, "lineno", 0)


@pytest.mark.parametrize(
    ("folders", "words"),
    [(("",), FORBIDDEN), (("training", "engine"), FORBIDDEN_IN_MODELS)],
    ids=["everywhere", "training and engine"],
)
def test_no_identifier_is_of_the_private_dialect(folders: tuple[str, ...], words: dict[str, str]) -> None:
    paths = [path for folder in folders for path in (PACKAGE / folder).rglob("*.py")]
    assert len(paths) > 30
    found = [
        f"{path.relative_to(PACKAGE)}:{line}: {name}, say: {words[name]}"
        for path in paths
        for name, line in identifiers(path)
        if name in words
    ]
    assert not found, "\n".join(found)


def test_at_most_two_files_branch_on_the_kind_of_decoder() -> None:
    """Comparisons and truth tests of what names the kind; the configuration settles which it is."""

    def asks(test: ast.expr) -> bool:
        # `decoder.kind == ...`, or the bare truth of the number of chunks
        if isinstance(test, ast.Compare):
            test = test.left
            return isinstance(test, ast.Attribute) and test.attr == "kind" and "decoder" in ast.unparse(test)
        return isinstance(test, ast.Attribute) and test.attr == "cross_attention_chunks"

    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.If, ast.IfExp)) and asks(node.test)
    }
    assert found - {"training/config/model.py"} == {
        "engine/step_decoder.py",
        "training/model/decoders/__init__.py",
    }
