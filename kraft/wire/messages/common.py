"""What the messages of all APIs share: one RPC as a pair of encoders and decoders, error details, grouping by topic."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar
from uuid import UUID

from kraft.protocol.apis import Api, request_type
from kraft.protocol.codec import Malformed
from kraft.protocol.encoding import TopLevel
from kraft.protocol.errors import BY_CODE, KafkaError
from kraft.wire.api_handler import Answer, ApiHandler, Call
from metadata.controller.requests import ErrorDetail
from metadata.undecodable import UNDECODABLE

RequestT = TypeVar("RequestT")
ReplyT = TypeVar("ReplyT")
RequestData = TypeVar("RequestData", bound=TopLevel)
ResponseData = TypeVar("ResponseData", bound=TopLevel)
Key = TypeVar("Key")
Item = TypeVar("Item")

READ_UNCOMMITTED, READ_COMMITTED = 0, 1
"""Isolation levels (KIP-98): all up to the high watermark, or what was committed, up to the last stable offset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rpc(Generic[RequestT, ReplyT, RequestData, ResponseData]):
    """How a node asks another one: our request as Kafka's message, and our reply from its response, for one API."""

    api: Api
    response: type[ResponseData]
    to_request: Callable[[RequestT, int], RequestData]
    """(request, timeout in ms) -> message."""
    from_reply: Callable[[RequestT, ResponseData], ReplyT]
    has_error_in_reply: bool = False
    """Our reply carries the error code of the response as a whole; otherwise the caller gets it raised."""

    def replied(self, request: RequestT, message: ResponseData) -> ReplyT:
        """What a peer answers. Raises Malformed for an answer that no peer gives, KafkaError for a refusal."""
        try:
            return self.from_reply(request, message)
        except UNDECODABLE as error:
            raise Malformed(f"{self.api.name} answer: {type(error).__name__} {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedRpc(Rpc[RequestT, ReplyT, RequestData, ResponseData]):
    """The same, and how a request of a node is read and answered, for an API that clients do not ask in this form."""

    from_request: Callable[[RequestData], RequestT]
    to_reply: Callable[[RequestT, ReplyT], ResponseData]
    refuse: Callable[[RequestData, int], ResponseData]
    """(request message, error code) -> the response that Kafka gives when a request fails as a whole."""

    def served(self, handle: Callable[[Call[Any]], Answer]) -> ApiHandler:
        """The API with the handler that serves it to nodes."""
        return ApiHandler(
            request=request_type(self.api),
            response=self.response,
            handle=handle,
            refuse=lambda message, version, error: self.refuse(message, error.code),
        )

    def requested(self, message: RequestData) -> RequestT:
        """What a peer asks. Raises Malformed for a message that no peer sends, KafkaError for what is refused."""
        try:
            return self.from_request(message)
        except UNDECODABLE as error:
            raise Malformed(f"{self.api.name} request: {type(error).__name__} {error}") from error


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


def detail_code(detail: object) -> int:
    """The error code of an outcome: that of its ErrorDetail, or 0."""
    return detail.error.code if isinstance(detail, ErrorDetail) else 0


def detail_message(detail: object) -> str | None:
    """The error message of an outcome: that of its ErrorDetail, or None."""
    return detail.message if isinstance(detail, ErrorDetail) else None


def to_detail(code: int, message: str | None) -> ErrorDetail | None:
    """The ErrorDetail of a code and message of the wire; None for code 0."""
    if code == 0:
        return None
    return ErrorDetail(BY_CODE.get(code, KafkaError), message or "")
