"""A strict reader: plain data to frozen dataclasses and back.

An unknown key, a missing key or a value of the wrong type is an error that names the key.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from typing import TYPE_CHECKING, Any, Literal

from ...errors import UserError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = typing.TypeVar("T", bound="DataclassInstance")


def build(cls: type[T], data: Any, where: str = "") -> T:
    """Build dataclass `cls` from plain data. Raises UserError naming the offending key."""
    if not isinstance(data, dict):
        raise UserError(f"{where or 'the file'}: expected a mapping, got {type(data).__name__}")
    data = renamed(cls, data, where)
    hints = typing.get_type_hints(cls)
    names = {f.name: f for f in dataclasses.fields(cls)}
    for key in data:
        if key not in names:
            raise UserError(f"unknown key {_join(where, key)}; known: {', '.join(names)}")
    values = {}
    for name, f in names.items():
        if name in data:
            values[name] = _convert(hints[name], data[name], _join(where, name))
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise UserError(f"missing key {_join(where, name)}")
    return cls(**values)


def renamed(cls: type, data: dict[str, Any], where: str) -> dict[str, Any]:
    """The data with the settings of earlier versions under today's names: those of the table `RENAMED` of `cls`.

    Raises UserError where one is given under both names.
    """
    table: dict[str, str] = getattr(cls, "RENAMED", {})
    result = {}
    for key, value in data.items():
        name = table.get(key, key)
        if name in result or (name != key and name in data):
            raise UserError(f"{_join(where, key)} is the earlier name of {name}: give one of the two")
        result[name] = value
    upgrade = getattr(cls, "upgrade", None)
    return upgrade(result) if upgrade else result


def merge(base: Any, changes: Any) -> Any:
    """The data of `base` with `changes`: mappings are merged key by key, anything else is replaced."""
    if not isinstance(base, dict) or not isinstance(changes, dict):
        return changes
    return base | {key: merge(base.get(key), value) for key, value in changes.items()}


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else str(key)


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        inner = [a for a in args if a is not type(None)]
        return _convert(inner[0], value, where)
    if origin is Literal:
        if value not in args:
            raise UserError(f"{where}: {value!r} is not one of {', '.join(map(str, args))}")
        return value
    if origin is tuple:
        if isinstance(value, str) and args == (str, Ellipsis):
            return (value,)
        if not isinstance(value, (list, tuple)):
            raise UserError(f"{where}: expected a list, got {value!r}")
        if args[-1] is Ellipsis:
            return tuple(_convert(args[0], v, f"{where}[{i}]") for i, v in enumerate(value))
        if len(value) != len(args):
            raise UserError(f"{where}: expected {len(args)} values")
        return tuple(
            _convert(a, v, f"{where}[{i}]") for i, (a, v) in enumerate(zip(args, value, strict=True))
        )
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return build(hint, value, where)
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value):
        return float(value)  # YAML 1.1 reads 1e-4 as a string
    if isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise UserError(f"{where}: expected {hint.__name__}, got {value!r}")


def to_dict(config: Any) -> dict[str, Any]:
    """Plain data (lists for tuples) that `build` reads back."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(v) for v in value]
        return value

    return plain(dataclasses.asdict(config))
