"""Java's hashing of strings, where Kafka's behaviour hangs on it: the partition of a group, the order of a HashMap."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from struct import unpack
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

_CAPACITY = 16
_MASK = 0xFFFFFFFF


def string_hash(text: str) -> int:
    """String.hashCode over UTF-16 units, as 32 bits without sign."""
    value = 0
    data = text.encode("utf-16-be", "surrogatepass")
    for unit in unpack(f">{len(data) // 2}H", data):
        value = (31 * value + unit) & _MASK
    return value


def abs_hash(text: str) -> int:
    """String.hashCode made positive as Kafka's Utils.abs does (the smallest integer becomes 0)."""
    value = string_hash(text)
    signed = value - (1 << 32) if value >> 31 else value
    return 0 if signed == -(1 << 31) else abs(signed)


def partition_hash(partition: tuple[str, int]) -> int:
    """TopicPartition.hashCode."""
    topic, number = partition
    return (31 * (31 + number) + string_hash(topic)) & _MASK


class HashOrder(Generic[Key]):
    """A set that iterates as a HashSet to which the same keys were added and from which the same were removed."""

    def __init__(self, hash_of: Callable[[Key], int], keys: Iterable[Key] = ()) -> None:
        self._hash_of = hash_of
        self._keys: dict[Key, int] = {}
        self._capacity = _CAPACITY
        for key in keys:
            self.add(key)

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, key: Key) -> None:
        value = self._hash_of(key)
        self._keys.setdefault(key, value ^ value >> 16)
        if len(self._keys) > self._capacity * 3 // 4:
            self._capacity *= 2

    def remove(self, key: Key) -> None:
        del self._keys[key]

    def keys(self) -> list[Key]:
        """Table slots one after the other; within a slot in the order of adding, which resizing keeps."""
        mask = self._capacity - 1
        return sorted(self._keys, key=lambda key: self._keys[key] & mask)


def hash_ordered(texts: Iterable[str]) -> list[str]:
    """The keys of a HashMap<String, ?> into which they were put in this order."""
    return HashOrder(string_hash, texts).keys()
