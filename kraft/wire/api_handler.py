"""One API as a node serves it: a handler between a decoded request and its response, and how a request is refused.

A handler sees the version of a request, for the same field may mean other things in other versions, and its connection:
the principal, fetch sessions, throttling and the listener's address belong to that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

from kraft.broker.permissions import Permissions
from kraft.broker.principal import ANONYMOUS, NodePrincipal, Principal, UserPrincipal, host_of
from kraft.protocol.encoding import TopLevel
from kraft.protocol.errors import KafkaError
from kraft.values import value
from kraft.wire.client_login import ClientLogin
from metadata.authorizer import Authorizer

RequestData = TypeVar("RequestData", bound=TopLevel)


@dataclass(slots=True, kw_only=True, eq=False)
class ClientConnection:
    """What is known of the peer: its connection, and the software that its ApiVersions request names (KIP-511)."""

    peer: str
    """`host:port`."""
    listener: str
    """Name of the listener that it came through: its address is what Metadata names."""
    principal: Principal = ANONYMOUS
    login: ClientLogin | None = None
    """Where clients of the listener log in."""
    software_name: str = "unknown"
    software_version: str = "unknown"
    is_node: bool = field(init=False)
    """Asked for each request."""
    permissions: tuple[Authorizer, dict[str, Permissions | None]] | None = None
    """What the client may do by these ACLs, by what it asks; other ACLs are another authorizer."""
    on_ended: dict[object, Callable[[], object]] = field(default_factory=dict)
    """What is called once the connection has ended, by the part that wants to know it."""

    def __post_init__(self) -> None:
        self.is_node = isinstance(self.principal, NodePrincipal)

    @property
    def host(self) -> str:
        """The host with a slash before it, as DescribeGroups names that of a member."""
        return "/" + host_of(self.peer)


@value(kw_only=True)
class Call(Generic[RequestData]):
    """One decoded request, its version and its connection."""

    message: RequestData
    version: int
    client_id: str | None
    connection: ClientConnection
    timeout_ms: int | None = None
    """How long the sender waits, where it is a node that sends its timeout."""
    asker: UserPrincipal | None = None
    """The user for whom a node asks, where it asks for one."""

    @property
    def is_from_node(self) -> bool:
        """Whether a node of this cluster asks, which may ask for what no client may."""
        return self.connection.is_node

    @property
    def principal(self) -> Principal:
        """The principal on whose behalf the request is made: the asker of a node's request, else the peer itself."""
        return self.asker or self.connection.principal


@value()
class Later:
    """A response that is made once something has happened, without a task that waits for it."""

    future: asyncio.Future[Any]
    """Cancelled when the connection has ended."""
    render: Callable[[Any], TopLevel | None]
    """Makes the response of what the future brings. May raise KafkaError, which refuses the request as a whole."""


Waiting: TypeAlias = "Coroutine[Any, Any, TopLevel | None]"
Answer: TypeAlias = "TopLevel | Later | Waiting | None"
"""The response; None when nothing is answered (acks=0, P8). A coroutine runs in a task: what can be answered
at once is returned as it is, and costs no task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiHandler:
    """The handler may raise, or its coroutine end with, KafkaError: the request is refused as a whole then. With
    CloseConnection the connection is closed instead."""

    request: type[TopLevel]
    response: type[TopLevel]
    handle: Callable[[Call[Any]], Answer]
    refuse: Callable[[Any, int, KafkaError], TopLevel]
    """(request, version, error) -> what Kafka's `AbstractRequest.getErrorResponse` answers. Raises CloseConnection
    where that is nothing."""


class CloseConnection(Exception):
    """To close the connection is all that can be answered, as after a failed Produce with acks=0 (P8)."""
