"""The parts of a node that answer clients and other nodes.

A handler asks them and answers as Kafka's `KafkaApis` does: a partition that this broker does not lead is
NOT_LEADER_OR_FOLLOWER 6, never forwarded; administrative requests are forwarded to the active controller.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

from kraft.broker.answer_budget import AnswerBudget
from kraft.broker.gateway import Gateway
from kraft.broker.lifecycle import BrokerLifecycle
from kraft.broker.local_partition_client import LocalPartitionClient
from kraft.broker.lost_brokers import LostBrokers
from kraft.broker.node_facts import FactsOfNode
from kraft.broker.producer_ids import ProducerIds
from kraft.broker.registered_metadata import RegisteredMetadata
from kraft.broker.transactional_produce import TransactionalProduce
from kraft.broker.txn_markers import TxnMarkers
from kraft.config.models import ClusterConfig
from kraft.coordinators.delayed.forwarder import DelayForwarders
from kraft.coordinators.groups.coordinator import GroupCoordinator
from kraft.coordinators.groups.routing import Groups
from kraft.coordinators.shares.coordinator import ShareCoordinator
from kraft.coordinators.shares.leaders import ShareLeaders
from kraft.coordinators.shares.routing import SharePersister
from kraft.coordinators.transactions.coordinator import TransactionCoordinator
from kraft.coordinators.transactions.routing import Transactions
from kraft.protocol.errors import KafkaError
from kraft.wire.metadata_fetches import MetadataFetches
from metadata.controller.requests import OfflineReplicas, Request
from metadata.delta import MetadataDelta
from metadata.environment import Environment
from metadata.image import MetadataImage
from replication.manager.manager import ReplicaManager
from replication.storage.log_manager import LogManager

Reply = TypeVar("Reply")


class Controller(Protocol):
    async def submit(self, request: Request[Reply], *, timeout_ms: int) -> Reply:
        """Raises NotController 41 when this controller is not the active one."""
        ...


@dataclass(frozen=True, slots=True)
class ShareParts:
    """What a broker does for share groups: their state, and their records."""

    coordinator: ShareCoordinator
    leaders: ShareLeaders

    def on_metadata(self, delta: MetadataDelta, image: MetadataImage) -> None:
        """Takes over another image."""
        self.coordinator.on_metadata(delta, image)
        self.leaders.on_metadata(image)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerParts:
    """The parts that a node has because of the broker role."""

    logs: LogManager
    replicas: ReplicaManager
    lifecycle: BrokerLifecycle
    metadata: RegisteredMetadata
    producer_ids: ProducerIds
    group_coordinator: GroupCoordinator
    transaction_coordinator: TransactionCoordinator
    shares: ShareParts
    delayed: DelayForwarders
    markers: TxnMarkers
    transactional_produce: TransactionalProduce
    client: LocalPartitionClient
    """Requests to the partitions that this broker leads, as the router sends them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeParts:
    """The parts of a node that answer requests; those of its roles exist or not."""

    environment: Environment
    config: ClusterConfig
    gateway: Gateway
    """Metadata, settings, and requests to the active controller (`gateway.control`)."""
    groups: Groups
    """Finds the coordinator of a group; creates the topic of the groups when it is missing."""
    lost: LostBrokers
    """Leaders that have just died: a client that asks for a leader waits for the election."""
    transactions: Transactions
    """Finds the coordinator of a transactional id; creates their topic when it is missing."""
    share_persister: SharePersister
    """Sends requests to the coordinator of a share partition; creates their topic when it is missing."""
    answers: AnswerBudget
    """Memory for what is read for answers."""
    facts: FactsOfNode
    """What this node knows, for those who watch the cluster."""
    broker: BrokerParts | None
    """None on a node without the broker role."""
    controller: Controller | None
    """The controller of this node; None on a node without the controller role."""
    metadata_fetches: MetadataFetches | None
    """None on a node that is no voter of the metadata quorum."""

    @property
    def offline_replicas(self) -> OfflineReplicas:
        """The replicas whose logs have failed on brokers that are alive, as the controller has reported them."""
        return {} if self.broker is None else self.broker.lifecycle.offline_replicas

    def broker_or(self, refusal: type[KafkaError]) -> BrokerParts:
        """The broker of this node. Raises `refusal` on a node without the broker role: partitions have no leader there,
        and groups and transactional ids no coordinator."""
        if self.broker is None:
            raise refusal("this node has no broker role; ask a broker")
        return self.broker
