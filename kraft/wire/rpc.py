"""How a node asks another one: a request of ours as Kafka's message, and our reply from the answer, for one API.

The other half, from message to answer, is the handler of the API (`kraft.wire.handlers`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from kraft.broker.mutations import note_wait
from kraft.protocol.apis import Api
from kraft.protocol.codec import Malformed
from kraft.protocol.encoding import TopLevel
from metadata.decode_errors import DECODE_ERRORS

RequestT = TypeVar("RequestT")
ReplyT = TypeVar("ReplyT")
RequestData = TypeVar("RequestData", bound=TopLevel)
ResponseData = TypeVar("ResponseData", bound=TopLevel)

ANSWER_SLACK_MS = 2_000
"""Beyond the wait that a request itself allows its server."""
REPLICA_TIMEOUT_MS = 30_000
"""Default of replica.socket.timeout.ms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rpc(Generic[RequestT, ReplyT, RequestData, ResponseData]):
    """One API, as this node asks it."""

    api: Api
    response: type[ResponseData]
    to_request: Callable[[RequestT, int], RequestData]
    """(request, timeout in ms) -> message."""
    from_reply: Callable[[RequestT, ResponseData], ReplyT]
    has_error_in_reply: bool = False
    """Our reply carries the error code of the response as a whole; otherwise the caller gets it raised."""

    def replied(self, request: RequestT, message: ResponseData) -> ReplyT:
        """What a peer answers. Raises Malformed for an answer that no peer gives, KafkaError for a refusal."""
        note_wait(getattr(message, "throttle_time_ms", 0))
        try:
            return self.from_reply(request, message)
        except DECODE_ERRORS as error:
            raise Malformed(f"{self.api.name} answer: {type(error).__name__} {error}") from error
