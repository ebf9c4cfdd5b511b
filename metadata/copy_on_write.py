"""One mapping of an image while the next image is made from it: copied when first written to, else shared. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class CopyOnWrite(Generic[K, V]):
    """A mapping of the old image until somebody writes to it. Untouched mappings stay the same object."""

    def __init__(self, mapping: Mapping[K, V]) -> None:
        self.now = mapping
        self._own: dict[K, V] | None = None

    def own(self) -> dict[K, V]:
        if self._own is None:
            self._own = dict(self.now)
            self.now = self._own
        return self._own

    def frozen(self) -> Mapping[K, V]:
        return self.now if self._own is None else MappingProxyType(self._own)
