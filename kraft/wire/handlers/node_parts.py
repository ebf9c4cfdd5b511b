"""The parts of a node that answer clients and other nodes.

A handler asks them and answers as Kafka's `KafkaApis` does: a partition that this broker does not lead is
NOT_LEADER_OR_FOLLOWER 6, never forwarded; administrative requests are forwarded to the active controller.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from kraft.broker.answer_budget import AnswerBudget
from kraft.broker.gateway import Gateway
from kraft.broker.local_partition_client import LocalPartitionClient
from kraft.broker.lost_brokers import LostBrokers
from kraft.broker.transactional_produce import TransactionalProduce
from kraft.broker.txn_markers import TxnMarkers
from kraft.config.models import ClusterConfig
from kraft.coordinators.groups.coordinator import GroupCoordinator
from kraft.coordinators.groups.routing import Groups
from kraft.coordinators.shares.coordinator import ShareCoordinator
from kraft.coordinators.shares.leaders import ShareLeaders
from kraft.coordinators.shares.routing import SharePersister
from kraft.coordinators.transactions.coordinator import TransactionCoordinator
from kraft.coordinators.transactions.routing import Transactions
from kraft.protocol.errors import KafkaError, NotCoordinator, NotLeaderOrFollower
from kraft.wire.metadata_fetches import MetadataFetches
from metadata.controller.requests import OfflineReplicas, Request
from metadata.environment import Environment
from replication.manager.manager import ReplicaManager
from replication.storage.log_manager import LogManager

Reply = TypeVar("Reply")


class ProducerIdSource(Protocol):
    async def next_id(self) -> int: ...


class Controller(Protocol):
    async def submit(self, request: Request[Reply], *, timeout_ms: int) -> Reply:
        """Raises NotController 41 when this controller is not the active one."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeParts:
    """The parts of a node with the broker role; on a node without it `NoBroker` stands in their place."""

    environment: Environment
    config: ClusterConfig
    gateway: Gateway
    """Metadata, settings, and the way to the active controller (`gateway.control`)."""
    replicas: ReplicaManager
    partitions: LocalPartitionClient
    """Leads partitions here, as the gateway asks it: for a produce in a transaction that another node forwards."""
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
    share_coordinator: ShareCoordinator
    """The state of share partitions, as far as this broker keeps it."""
    share_leaders: ShareLeaders
    """The share partitions of the topic partitions that this broker leads."""
    share_persister: SharePersister
    """The way to the coordinator of a share partition; their topic comes into being here."""
    answers: AnswerBudget
    """Memory for what is read for answers."""
    offline_replicas: Callable[[], OfflineReplicas]
    """Whose logs have failed on brokers that live, as the controller told last."""
    controller: Controller | None = None
    """This node's own; None on a node without the controller role."""
    metadata_fetches: MetadataFetches | None = None
    """None on a node that is no voter of the metadata quorum."""


class NoBroker:
    """In place of the parts of a broker, on a node without that role, or in no node at all. Partitions have no leader
    there, and groups and transactional ids no coordinator."""

    def __init__(
        self,
        refusal: type[KafkaError] = NotCoordinator,
        *,
        controller: Controller | None = None,
        metadata_fetches: MetadataFetches | None = None,
        **parts: object,
    ) -> None:
        """`parts` are the others that the node has."""
        self.controller, self.metadata_fetches = controller, metadata_fetches
        self._refusal = refusal
        vars(self).update(parts)

    def __getattr__(self, name: str) -> Any:
        return NoBroker(NotLeaderOrFollower) if name in ("replicas", "partitions") else self

    def __call__(self, *arguments: object, **further: object) -> Any:
        raise self._refusal("this node has no broker role; ask a broker")
