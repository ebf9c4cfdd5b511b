"""The parts of a broker that answer clients.

A handler asks them and answers as Kafka's `KafkaApis` does: a partition that this broker does not lead is
NOT_LEADER_OR_FOLLOWER 6, never forwarded; administrative requests are forwarded to the active controller.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from kraft.broker.answer_budget import AnswerBudget
from kraft.broker.gateway import Gateway
from kraft.broker.lost_brokers import LostBrokers
from kraft.broker.transactional_produce import TransactionalProduce
from kraft.broker.txn_markers import TxnMarkers
from kraft.config.models import ClusterConfig
from kraft.coordinators.groups.coordinator import GroupCoordinator
from kraft.coordinators.groups.routing import Groups
from kraft.coordinators.transactions.coordinator import TransactionCoordinator
from kraft.coordinators.transactions.routing import Transactions
from metadata.controller.requests import OfflineReplicas
from metadata.environment import Environment
from replication.manager.manager import ReplicaManager
from replication.storage.log_manager import LogManager


class ProducerIdSource(Protocol):
    async def next_id(self) -> int: ...


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
    answers: AnswerBudget
    """Memory for what is read for answers."""
    offline_replicas: Callable[[], OfflineReplicas]
    """Whose logs have failed on brokers that live, as the controller told last."""
