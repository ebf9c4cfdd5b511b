"""Items of a long answer that are made one at a time, as the answer is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any


class Lazy(Sequence[Any]):
    """The items of an answer, each of which is made as it is written."""

    def __init__(self, size: int, items: Callable[[], Iterable[Any]]) -> None:
        self._size, self._items = size, items

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items())

    def __getitem__(self, index: Any) -> Any:
        return tuple(self)[index]
