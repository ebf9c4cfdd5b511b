"""One API as clients are served it: a handler between a decoded request and its response, and how it is refused.

A handler sees the version of the request, for the same field may mean other things in other versions, and the
connection, for fetch sessions, throttling and the listener's address belong to it. It asks the parts of this broker
(`ClientBroker`) and answers as Kafka's `KafkaApis` does: a partition that this broker does not lead is
NOT_LEADER_OR_FOLLOWER 6, never forwarded; administrative requests are forwarded to the active controller.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias

from kraft.broker.gateway import Gateway
from kraft.broker.lost_brokers import LostBrokers
from kraft.broker.transactional_produce import TransactionalProduce
from kraft.broker.txn_markers import TxnMarkers
from kraft.config.models import ClusterConfig
from kraft.coordinators.groups.coordinator import GroupCoordinator
from kraft.coordinators.groups.routing import Groups
from kraft.coordinators.transactions.coordinator import TransactionCoordinator
from kraft.coordinators.transactions.routing import Transactions
from kraft.protocol.errors import KafkaError
from kraft.values import value
from kraft.wire.handlers.producer_ids import ProducerIdSource
from kraft.wire.handlers.served import Later
from kraft.wire.messages.common import RequestData
from kraft.wire.primitives import TopLevel
from metadata.controller.requests import OfflineReplicas
from metadata.environment import Environment
from replication.manager.manager import ReplicaManager
from replication.storage.log_manager import LogManager


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientBroker:
    """The parts of a broker that answer clients."""

    environment: Environment
    config: ClusterConfig
    gateway: Gateway
    """Metadata, settings, and the way to the active controller (`gateway.control`)."""
    replicas: ReplicaManager
    logs: LogManager
    coordinator: GroupCoordinator
    """Of the groups of this broker."""
    groups: Groups
    """Who coordinates a group; the topic of the groups comes into being here."""
    lost: LostBrokers
    """Leaders that have just died: who asks for a leader waits for the election."""
    producer_ids: ProducerIdSource
    transactional_produce: TransactionalProduce
    markers: TxnMarkers
    transaction_coordinator: TransactionCoordinator
    """Of the transactional ids of this broker."""
    transactions: Transactions
    """Who coordinates a transactional id, and the way there; their topic comes into being here."""
    offline_replicas: Callable[[], OfflineReplicas]
    """Whose logs have failed on brokers that live, as the controller told last."""


@dataclass(slots=True, kw_only=True, eq=False)
class ClientConnection:
    """What is known of the client at the other end, from its connection and its ApiVersions request (KIP-511)."""

    peer: str
    """`host:port`."""
    listener: str
    """Name of the client listener that it came through: its address is what Metadata names."""
    software_name: str = "unknown"
    software_version: str = "unknown"
    state: dict[type[Any], Any] = field(default_factory=dict)
    """What a module keeps for a connection, by the class of the thing."""

    @property
    def host(self) -> str:
        """As DescribeGroups names a member's host: with a slash before it."""
        return "/" + self.peer.rpartition(":")[0]


@value(kw_only=True)
class ClientCall(Generic[RequestData]):
    """One decoded request of a client, its version and its connection."""

    message: RequestData
    version: int
    client_id: str | None
    connection: ClientConnection


Answer: TypeAlias = "TopLevel | Later | Awaitable[TopLevel | None] | None"
"""The response; None when nothing is answered (acks=0, P8). An awaitable is waited for in a task: what can be answered
at once is returned as it is, and costs no task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientApi:
    """The handler may raise, or its awaitable end with, KafkaError: the request is refused as a whole then. With
    CloseConnection the connection is closed instead."""

    request: type[TopLevel]
    response: type[TopLevel]
    handle: Callable[[ClientCall[Any]], Answer]
    refuse: Callable[[Any, int, KafkaError], TopLevel]
    """(request, version, error) -> what Kafka's `AbstractRequest.getErrorResponse` answers. Raises CloseConnection
    where that is nothing."""
