"""Items by topic, as Kafka's messages have them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar
from uuid import UUID

from kraft.protocol.primitives import TopicPartition

Key = TypeVar("Key")
Item = TypeVar("Item")


class OfTopic(Protocol):
    @property
    def topic_id(self) -> UUID: ...


ItemOfTopic = TypeVar("ItemOfTopic", bound=OfTopic)


def by_topic(items: Sequence[ItemOfTopic]) -> Iterable[tuple[UUID, Sequence[ItemOfTopic]]]:
    """The items of each topic, by topic id, in the order in which the topics come first. What a small cluster asks is
    nearly always nothing, or one item.
    """
    if len(items) < 2:
        return [(items[0].topic_id, items)] if items else ()
    groups: dict[int, tuple[UUID, list[ItemOfTopic]]] = {}
    for item in items:
        topic_id = item.topic_id
        found = groups.get(topic_id.int)
        if found is None:
            groups[topic_id.int] = topic_id, [item]
        else:
            found[1].append(item)
    return groups.values()


def group(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """The items by key, keys and items in the order in which they come."""
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def by_name(partitions: Iterable[TopicPartition]) -> Mapping[str, list[int]]:
    """The numbers of the partitions of each topic, topics and numbers in their order."""
    topics: dict[str, list[int]] = {}
    for topic, number in sorted(partitions):
        topics.setdefault(topic, []).append(number)
    return topics
