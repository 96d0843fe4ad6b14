"""Training files: YAML with `extends`, `variables` and changes from the command line."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import UserError
from .presets import with_preset
from .pretrained import with_pretrained
from .reader import T, build, merge, to_dict

# of a training file, aliases written out
MAX_DEPTH, MAX_VALUES = 50, 100_000
_VARIABLE = re.compile(r"\$\{(\w+)\}")


def read_yaml(path: str | Path) -> Any:
    """The plain data of a training file.

    `extends: FILE`, a path from the file's own folder, names one that this file says the differences from. `${NAME}`
    in a string is the environment's NAME, or else what the mapping `variables` gives. Raises UserError for an
    unreadable or malformed file, for files that extend each other in a circle, and for a variable that nothing gives.
    """
    data = _extended(Path(path), ())
    if not isinstance(data, dict):
        return data
    variables = data.pop("variables", {})
    if not isinstance(variables, dict):
        raise UserError(f"{path}: variables: expected a mapping of names to values")
    known = {str(name): str(value) for name, value in variables.items()} | dict(os.environ)
    return _substituted(data, known, path)


def _extended(path: Path, within: tuple[Path, ...]) -> Any:
    """within: the files that extend this one."""
    data = _plain(path)
    if not isinstance(data, dict) or "extends" not in data:
        return data
    base = data.pop("extends")
    if not isinstance(base, str):
        raise UserError(f"{path}: extends: expected a file, got {base!r}")
    if path.resolve() in within:
        raise UserError(f"{path} extends itself")
    return merge(_extended(path.parent / base, (*within, path.resolve())), data)


def _plain(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as err:
        raise UserError(f"cannot read {path}: {err.strerror}") from None
    except ValueError as err:
        # not UTF-8, or a path with a NUL
        raise UserError(f"{path} cannot be read as a training file: {err}") from None
    try:
        return _parsed(text)
    except ValueError as err:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(err).split())[:200]}") from None


def _parsed(text: str) -> Any:
    """The plain data of a text in YAML. Raises ValueError."""
    import yaml

    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as err:
        raise ValueError(str(err)) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except (ArithmeticError, AttributeError, LookupError, TypeError) as err:
        # PyYAML lets through what the constructors of numbers and dates raise
        raise ValueError(f"{type(err).__name__}: {err}") from None
    _check_size(data)
    return data


def _check_size(data: Any) -> None:
    """Aliases may make an endless mapping of a few lines, or one that fills the memory. Raises ValueError."""
    values = 0
    waiting = [(data, 0)]
    while waiting:
        value, depth = waiting.pop()
        values += 1
        if depth > MAX_DEPTH or values > MAX_VALUES:
            raise ValueError(f"more than {MAX_DEPTH} levels or {MAX_VALUES} values")
        if isinstance(value, dict):
            waiting += [(member, depth + 1) for member in value.values()]
        elif isinstance(value, (list, tuple, set)):
            waiting += [(member, depth + 1) for member in value]


def _substituted(value: Any, known: dict[str, str], path: str | Path) -> Any:
    if isinstance(value, dict):
        return {k: _substituted(v, known, path) for k, v in value.items()}
    if isinstance(value, list):
        return [_substituted(v, known, path) for v in value]
    if not isinstance(value, str):
        return value

    def one(match: re.Match[str]) -> str:
        if match[1] not in known:
            raise UserError(
                f"{path}: ${{{match[1]}}} has no value: set the environment variable {match[1]}, or `variables`"
            )
        return known[match[1]]

    return _VARIABLE.sub(one, value)


def read_config(path: str | Path, kinds: dict[str, type[T]], changes: Sequence[str] = ()) -> T:
    """The configuration of a training file, of the class in `kinds` that its `task` names.

    changes: `a.b=value` each, values in YAML. Raises UserError.
    """
    data = read_yaml(path)
    try:
        task = data.get("task") if isinstance(data, dict) else None
        if not isinstance(task, str) or task not in kinds:
            raise UserError(f"task: {task!r} is not one of {', '.join(kinds)}")
        if isinstance(data.get("model"), dict):
            data["model"] = with_pretrained(with_preset(data["model"]))
        config = build(kinds[task], data)
    except UserError as err:
        raise UserError(f"{path}: {err}") from None
    return build(kinds[task], changed(to_dict(config), changes)) if changes else config


def changed(data: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """The plain data with `a.b=value` each put in. Raises UserError for a key that there is not."""
    for item in changes:
        key, _, value = item.partition("=")
        node: Any = data
        *parents, last = key.split(".")
        for name in parents:
            node = node.get(name) if isinstance(node, dict) else None
        if not isinstance(node, dict) or last not in node:
            raise UserError(f"--set {item}: no such key")
        try:
            parsed = _parsed(value)
        except ValueError:
            raise UserError(f"--set {item}: the value is not valid YAML") from None
        # YAML reads 1e-4 as a string
        node[last] = float(parsed) if isinstance(parsed, str) and isinstance(node[last], float) else parsed
    return data
