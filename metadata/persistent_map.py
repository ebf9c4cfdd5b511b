"""Immutable mappings whose next version shares everything that did not change: an image has thousands of topics, and a
change touches one.

The entries lie in a fixed number of buckets. A new version copies the list of buckets and the buckets that it writes
to, and two versions differ only in buckets that are not the same object: so changing one entry, or finding out what
changed, does not need a look at each entry. Iteration follows the order of buckets, and within one bucket the order of
insertion. It depends on keys and history alone: `spread` must not be Python's `hash`, which differs from process to
process for strings. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, MutableMapping, ValuesView
from itertools import chain
from typing import Generic, TypeVar, overload
from zlib import crc32

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")

BUCKETS = 256
"""A change of one of N entries costs as much as a copy of this many pointers and N / 256 entries."""
SMALL_MAX = 64
"""A copy of so many entries takes no more time than one of `BUCKETS` pointers, and a tenth of the memory."""


def spread_text(key: str) -> int:
    """The number of a text, for any text that a client may look for, also with lone surrogates."""
    return crc32(key.encode(errors="surrogatepass"))


class PersistentMap(Mapping[K, V]):
    """`spread` returns the number of a key; equal keys have equal ones. One bucket is right for a few entries."""

    __slots__ = ("_buckets", "_mask", "_size", "_spread")

    def __init__(self, entries: Mapping[K, V], *, spread: Callable[[K], int], buckets: int = BUCKETS) -> None:
        assert buckets.bit_count() == 1, f"{buckets} is no power of two"
        empty: dict[K, V] = {}
        made = [empty] * buckets
        for key, value in entries.items():
            at = spread(key) & buckets - 1
            if made[at] is empty:
                made[at] = {}
            made[at][key] = value
        self._take(made, spread=spread, size=len(entries))

    def _take(self, buckets: list[dict[K, V]], *, spread: Callable[[K], int], size: int) -> None:
        self._buckets, self._spread, self._size = buckets, spread, size
        self._mask = len(buckets) - 1

    @classmethod
    def _of(cls, buckets: list[dict[K, V]], *, spread: Callable[[K], int], size: int) -> PersistentMap[K, V]:
        made = cls.__new__(cls)
        made._take(buckets, spread=spread, size=size)
        return made

    def __getitem__(self, key: K) -> V:
        return self._buckets[self._spread(key) & self._mask][key]

    @overload
    def get(self, key: K, /) -> V | None: ...
    @overload
    def get(self, key: K, default: V | T, /) -> V | T: ...
    def get(self, key: K, default: V | T | None = None, /) -> V | T | None:
        return self._buckets[self._spread(key) & self._mask].get(key, default)

    def __contains__(self, key: object) -> bool:
        try:
            return key in self._buckets[self._spread(key) & self._mask]  # type: ignore[arg-type]
        except (AttributeError, TypeError):
            return False  # nothing that could be a key

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[K]:
        return chain.from_iterable(self._buckets)

    def neighbours(self, key: K) -> Iterable[K]:
        """The keys in the bucket of this one: all those of the same number, and a few others."""
        return self._buckets[self._spread(key) & self._mask]

    def keys(self) -> KeysView[K]:
        return KeysView(self)

    def values(self) -> ValuesView[V]:
        return _Values(self)

    def items(self) -> ItemsView[K, V]:
        return _Items(self)

    def __repr__(self) -> str:
        return f"PersistentMap({dict(self.items())!r})"

    def draft(self) -> MapDraft[K, V]:
        return MapDraft(self)

    def resized(self) -> PersistentMap[K, V]:
        """The same map with one bucket for few entries, else with many. A map that has shrunk keeps its buckets."""
        if len(self._buckets) > 1 or self._size <= SMALL_MAX:
            return self
        return PersistentMap(self, spread=self._spread)

    def differences(self, newer: PersistentMap[K, V]) -> dict[K, tuple[V | None, V | None]]:
        """Before and after of every entry that is not equal in both; None where it is missing."""
        changes: dict[K, tuple[V | None, V | None]] = {}
        if self is newer:
            return changes
        if len(self._buckets) != len(newer._buckets) or self._spread is not newer._spread:
            return differences(self, newer)
        for old, new in zip(self._buckets, newer._buckets, strict=True):
            if old is not new:
                changes.update(differences(old, new))
        return changes


class _Values(ValuesView[V]):
    _mapping: PersistentMap[object, V] | MapDraft[object, V]

    def __iter__(self) -> Iterator[V]:
        return chain.from_iterable(map(dict.values, filter(None, self._mapping._buckets)))


class _Items(ItemsView[K, V]):
    _mapping: PersistentMap[K, V] | MapDraft[K, V]

    def __iter__(self) -> Iterator[tuple[K, V]]:
        return chain.from_iterable(map(dict.items, filter(None, self._mapping._buckets)))  # most buckets are empty


class MapDraft(MutableMapping[K, V], Generic[K, V]):
    """The next version in the making: reads like a dict, and copies the buckets that are written to. Not used after
    `frozen`."""

    def __init__(self, origin: PersistentMap[K, V]) -> None:
        self._origin = origin
        self._buckets = origin._buckets
        self._spread = origin._spread
        self._mask, self._size = origin._mask, origin._size
        self._owned: set[int] = set()

    def __getitem__(self, key: K) -> V:
        return self._buckets[self._spread(key) & self._mask][key]

    @overload
    def get(self, key: K, /) -> V | None: ...
    @overload
    def get(self, key: K, default: V | T, /) -> V | T: ...
    def get(self, key: K, default: V | T | None = None, /) -> V | T | None:
        return self._buckets[self._spread(key) & self._mask].get(key, default)

    def __contains__(self, key: object) -> bool:
        return key in self._buckets[self._spread(key) & self._mask]  # type: ignore[arg-type]

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[K]:
        return chain.from_iterable(self._buckets)

    def values(self) -> ValuesView[V]:
        return _Values(self)

    def items(self) -> ItemsView[K, V]:
        return _Items(self)

    def __setitem__(self, key: K, value: V) -> None:
        bucket = self._own(key)
        self._size += key not in bucket
        bucket[key] = value

    def copy(self) -> MapDraft[K, V]:
        """A second draft: both continue from here, each with its own writes. The copy does not look at the entries."""
        self._origin, self._owned = self.frozen().resized(), set()
        self._buckets, self._mask = self._origin._buckets, self._origin._mask
        return MapDraft(self._origin)

    def change_each(self, change: Callable[[V], V]) -> None:
        """Change every value at once, which costs a third of changing one by one."""
        self._buckets = [{key: change(value) for key, value in bucket.items()} for bucket in self._buckets]
        self._owned = set(range(len(self._buckets)))

    def __delitem__(self, key: K) -> None:
        del self._own(key)[key]
        self._size -= 1

    def _own(self, key: K) -> dict[K, V]:
        at = self._spread(key) & self._mask
        if at not in self._owned:
            if not self._owned:
                self._buckets = list(self._buckets)
            self._buckets[at] = dict(self._buckets[at])
            self._owned.add(at)
        return self._buckets[at]

    def frozen(self) -> PersistentMap[K, V]:
        """The finished map: the one that the draft was made from, if nothing was written."""
        if not self._owned:
            return self._origin
        return PersistentMap._of(self._buckets, spread=self._spread, size=self._size)


def text_map(entries: Mapping[str, V]) -> PersistentMap[str, V]:
    """A map with keys of text, and with as many buckets as its size needs."""
    return PersistentMap(entries, spread=spread_text, buckets=1).resized()


def text_draft(entries: Mapping[str, V]) -> MapDraft[str, V]:
    """A draft of the next version of a mapping; costs a copy if the mapping is not persistent yet."""
    return (entries if isinstance(entries, PersistentMap) else text_map(entries)).draft()


def differences(old: Mapping[K, V], new: Mapping[K, V]) -> dict[K, tuple[V | None, V | None]]:
    """Before and after of every entry that differs in two mappings of any kind; looks at each entry."""
    if old is new:
        return {}
    changes: dict[K, tuple[V | None, V | None]] = {}
    for key, after in new.items():
        before = old.get(key)
        if before is not after and before != after:
            changes[key] = (before, after)
    for key, before in old.items():
        if key not in new:
            changes[key] = (before, None)
    return changes
