"""Changes of metadata that count for a quota (KIP-599): how many by topic, and what is left of a request. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, Final, Generic, TypeVar, cast

from metadata.controller.requests import (
    CreatePartitions,
    CreateTopics,
    DeleteTopics,
    ErrorDetail,
    NewTopic,
    Request,
    TopicCreated,
)
from metadata.image import MetadataImage

Reply = TypeVar("Reply")
UNCHECKED: Final[Mapping[Any, object]] = {}
"""Nobody has asked the controller what it would answer."""

WAIT: ContextVar[list[int] | None] = ContextVar("WAIT", default=None)
"""Where the waits of the request that the current task answers are noted."""


def note_wait(wait_ms: int) -> None:
    """The client of the current request has to wait, although it was done, or a part of it was."""
    noted = WAIT.get()
    if wait_ms and noted is not None:
        noted.append(wait_ms)


def noted_wait_ms() -> int:
    """How long the client of the current request has to wait by what was noted."""
    return max(WAIT.get() or (0,))


@dataclass(frozen=True, slots=True)
class Drawn(Generic[Reply]):
    """What of a request may be done, and the topics that are refused."""

    request: Request[Reply]
    refused: Mapping[Any, ErrorDetail] = field(default_factory=dict)

    def complete(self, reply: Reply) -> Reply:
        """The reply, with the topics that were refused."""
        if not self.refused:
            return reply
        assert isinstance(reply, Mapping), reply
        return cast(Reply, {**reply, **self.refused})


def as_check(request: Request[Any]) -> Request[Any] | None:
    """The request as one that only validates; None for one of a kind that cannot."""
    return replace(request, validate_only=True) if isinstance(request, CreateTopics | CreatePartitions) else None


def mutations(request: Request[Any], image: MetadataImage, checked: Mapping[Any, object] = UNCHECKED) -> dict[Any, int]:
    """Partitions that a request creates or deletes, by the topics in its order; nothing for other requests. `checked`:
    the reply to the request as one that only validates. A request that only validates counts as one that does it."""
    match request:
        case CreateTopics():
            return {new.name: _created(new, checked.get(new.name)) for new in request.topics}
        case CreatePartitions():
            topics = {grown.topic: (image.topic(grown.topic), grown.count) for grown in request.topics}
            return {
                name: 0
                if topic is None or isinstance(checked.get(name), ErrorDetail)
                else max(0, count - len(topic.partitions))
                for name, (topic, count) in topics.items()
            }
        case DeleteTopics():
            found = {
                each: image.topic(each) if isinstance(each, str) else image.topics.get(each) for each in request.topics
            }
            return {each: 0 if topic is None else len(topic.partitions) for each, topic in found.items()}
    return {}


def _created(new: NewTopic, checked: object) -> int:
    match checked:
        case ErrorDetail():
            return 0
        case TopicCreated():
            return checked.partitions
    return max(1, len(new.assignment or ()) or new.partitions)


def without(request: Request[Reply], refused: Collection[Any]) -> Request[Reply]:
    """The request for the topics that are left."""
    left: Request[Any] = request
    match request:
        case CreateTopics():
            left = replace(request, topics=tuple(each for each in request.topics if each.name not in refused))
        case CreatePartitions():
            left = replace(request, topics=tuple(each for each in request.topics if each.topic not in refused))
        case DeleteTopics():
            left = replace(request, topics=tuple(each for each in request.topics if each not in refused))
    return left
