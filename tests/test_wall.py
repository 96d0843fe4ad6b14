"""The wall is a path: outside `training/` nothing imports what only training needs, not even inside a function."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src/speech_reallm"
TRAINING = PACKAGE / "training"
HEAVY = {"torch", "lhotse", "safetensors", "onnx", "transformers", "peft"}


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Every module that a file imports, absolute, and whether it does so inside a function `run`."""
    package = path.relative_to(PACKAGE.parent).with_suffix("").parts
    package = package[:-1]

    def walk(node: ast.AST, within: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            inside = within or (isinstance(child, ast.FunctionDef) and child.name == "run")
            if isinstance(child, ast.Import):
                yield from ((alias.name, within) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = package[: len(package) - child.level + 1] if child.level else ()
                module = ".".join((*base, *([child.module] if child.module else [])))
                yield module, within
                yield from ((f"{module}.{alias.name}", within) for alias in child.names)
            yield from walk(child, inside)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), False)


def outside() -> list[Path]:
    return [p for p in PACKAGE.rglob("*.py") if TRAINING not in p.parents]


def test_nothing_outside_training_imports_its_libraries() -> None:
    files = outside()
    assert len(files) > 40
    found = {
        (path.relative_to(PACKAGE).as_posix(), module)
        for path in files
        for module, _ in imports(path)
        if module.split(".")[0] in HEAVY
    }
    assert not found


def test_only_verbs_import_training_and_only_when_they_run() -> None:
    found = {
        (path.relative_to(PACKAGE).as_posix(), within)
        for path in outside()
        for module, within in imports(path)
        if module.startswith("speech_reallm.training")
    }
    assert found and all(path.startswith("cli/") and within for path, within in found)


def test_the_walk_sees_imports_inside_functions() -> None:
    heavy = {m.split(".")[0] for p in TRAINING.rglob("*.py") for m, _ in imports(p)} & HEAVY
    assert {"torch", "lhotse", "safetensors", "onnx"} <= heavy
