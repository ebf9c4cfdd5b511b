"""One API as the server serves it: a handler between a decoded request and its response, and how to refuse."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias

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


@value()
class Later:
    """A response that is made once something has happened, without a task that waits for it."""

    future: asyncio.Future[Any]
    """Cancelled when the peer has gone."""
    render: Callable[[Any], Any]
    """Makes the response of what the future brings. May raise KafkaError, which refuses the request as a whole."""


Reply: TypeAlias = "TopLevel | NoResponse | Later | Coroutine[Any, Any, TopLevel | NoResponse]"
"""A coroutine becomes a task: what can be answered at once is returned as it is, and costs none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One API and the handler that serves it to nodes."""

    api: Api
    handle: Callable[[Call[Any]], Reply]
    """It, or its coroutine, raises KafkaError to refuse the request as a whole, CloseConnection to close instead."""
    refuse: Callable[[Any, int], TopLevel]


class CloseConnection(Exception):
    """A Produce with acks=0 failed: closing the connection is all that can be told (P8)."""
