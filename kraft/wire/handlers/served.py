"""One API as the server serves it: a handler between a decoded request and its response, and how to refuse."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic

from kraft.values import value
from kraft.wire.apis import Api
from kraft.wire.messages.common import RequestData
from kraft.wire.primitives import TopLevel
from kraft.wire.principal import Principal


@value(kw_only=True)
class Call(Generic[RequestData]):
    """One request of a peer: what it asks, and who asks."""

    message: RequestData
    principal: Principal
    timeout_ms: int | None
    """How long the sender waits, if it told."""


class NoResponse:
    """What a handler returns when nothing is to be sent (Produce with acks=0, P8)."""


NO_RESPONSE = NoResponse()


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One API and the handler that serves it to nodes."""

    api: Api
    handle: Callable[[Call[Any]], Awaitable[TopLevel | NoResponse]]
    """Raises KafkaError to refuse the request as a whole."""
    refuse: Callable[[Any, int], TopLevel]


class CloseConnection(Exception):
    """A Produce with acks=0 failed: closing the connection is all that can be told (P8)."""
