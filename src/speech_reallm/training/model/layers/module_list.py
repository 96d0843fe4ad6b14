"""nn.ModuleList with the type of its members."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar, cast

from torch import nn

M = TypeVar("M", bound=nn.Module)


class ModuleList(nn.ModuleList, Generic[M]):
    """A list of modules of one class, so that their own methods can be called without a cast."""

    def __init__(self, modules: Iterable[M]):
        super().__init__(modules)

    def __iter__(self) -> Iterator[M]:
        return cast(Iterator[M], super().__iter__())

    def __getitem__(self, index: int) -> M:  # type: ignore[override]  # torch's takes slices too
        return cast(M, super().__getitem__(index))
