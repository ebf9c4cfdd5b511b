"""What this node reports of itself, and of one partition, as evidence for explanations: see `kraft.explain`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from kraft.events import EventRing, KeptEvent
from kraft.explain.clients import CLIENT_EVENTS
from kraft.explain.facts import FollowerFacts, KnownPartition, NodeEvidence, ReplicaFacts
from kraft.node.assembly import Node
from metadata.image import BrokerImage, PartitionImage, TopicIdPartition
from metadata.records import LeaderRecovery
from replication.manager.status import ReplicaDetail

EVENTS_MAX: Final = 60
"""Events of the partition, and as many of the node."""
CLIENT_EVENTS_MAX: Final = 500
NODE_EVENTS: Final = frozenset(
    {
        "broker_fenced", "broker_unfenced", "broker_shutting_down", "broker_registered", "quorum_leadership",
        "leader_unreachable", "log_directory_offline", "log_directory_online", "main_loop_hangs", "node_starting",
        "node_awaits", "node_serves", "alter_partition_failed", "metadata_fetch_failed", "controller_resigned",
        "quorum_suspended", "quorum_resumed",
    }
)  # fmt: skip


class OwnEvidence:
    """Reads the parts of the node; changes nothing."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def __call__(self, topic: str | None = None, partition: int = 0) -> NodeEvidence:
        """Without a topic only what concerns the node."""
        node = self._node
        image, settings, leadership = node.publisher.image, node.publisher.settings, node.publisher.leadership
        found, replica, failure = None, None, ""
        if topic is not None and (known := image.topic(topic)) is not None and partition in known.partitions:
            found = self._partition(topic, known.partitions[partition])
            detail = None if node.broker is None else node.broker.replicas.detail(
                TopicIdPartition(known.topic_id, partition)
            )  # fmt: skip
            if detail is not None:
                replica, failure = self._replica(detail), detail.failure
        events, forgotten = _events(node.events.ring, topic, partition)
        return NodeEvidence(
            node_id=node.node.id,
            at_ms=node.environment.clock.wall_ms(),
            awaits=node.awaiting.service(),
            metadata_offset=image.offset,
            controller_id=leadership.leader_id,
            term=leadership.term,
            voters=sorted(voter.id for voter in node.config.voters),
            brokers={broker.broker_id: _state(broker) for broker in image.brokers.values()},
            heartbeats_ms_ago={} if node.controller is None else node.controller.active.heard_ms_ago(),
            lag_ms_max=settings.replica_lag_time_max_ms,
            session_ms=settings.broker_session_timeout_ms,
            partition=found,
            replica=replica,
            failure=failure,
            failed_directories={} if node.broker is None else node.broker.logs.failed_directories(),
            events=events,
            clients=[] if topic is not None else _of_clients(node.events.ring),
            forgotten=forgotten,
        )

    def _partition(self, topic: str, image: PartitionImage) -> KnownPartition:
        settings = self._node.publisher.topic_settings(topic)
        return KnownPartition(
            leader=image.leader,
            leader_epoch=image.leader_epoch,
            partition_epoch=image.partition_epoch,
            replicas=list(image.replicas),
            isr=list(image.isr),
            adding=list(image.adding_replicas),
            removing=list(image.removing_replicas),
            is_recovering=image.leader_recovery is LeaderRecovery.RECOVERING,
            min_isr=min(settings.min_insync_replicas, len(image.replicas)),
            is_unclean_allowed=settings.unclean_leader_election_enable,
        )

    def _replica(self, detail: ReplicaDetail) -> ReplicaFacts | None:
        status = detail.status
        if status is None:
            return None
        transactions = detail.transactions
        return ReplicaFacts(
            role="leader" if status.is_leader else "follower",
            leader_epoch=status.leader_epoch,
            log_start_offset=status.log_start_offset,
            log_end_offset=status.log_end_offset,
            latest_epoch=detail.latest_epoch,
            high_watermark=status.high_watermark,
            last_stable_offset=detail.last_stable_offset,
            isr=list(status.isr),
            maximal_isr=list(status.maximal_isr),
            followers={
                follower: FollowerFacts(
                    end_offset=marks.log_end_offset,
                    fetched_ms_ago=_age(marks.fetched_ms_ago),
                    caught_up_ms_ago=_age(marks.caught_up_ms_ago),
                )
                for follower, marks in detail.followers.items()
            },
            open_transactions=0 if transactions is None else transactions.count,
            oldest_transaction_ms=0 if transactions is None else transactions.oldest_ms,
        )


def _age(ms_ago: int) -> int | None:
    return None if ms_ago < 0 else ms_ago


def _state(broker: BrokerImage) -> Any:
    return "fenced" if broker.fenced else "shutting down" if broker.in_controlled_shutdown else "active"


def _events(ring: EventRing, topic: str | None, partition: int) -> tuple[list[dict[str, Any]], int]:
    page = ring.read(limit=EVENTS_MAX, events=NODE_EVENTS)
    kept = list(page.events)
    if topic is not None:
        kept += ring.read(limit=EVENTS_MAX, topic=topic, partition=partition).events
    kept.sort(key=lambda each: each.position)
    return _fields(kept), page.forgotten


def _of_clients(ring: EventRing) -> list[dict[str, Any]]:
    return _fields(ring.read(limit=CLIENT_EVENTS_MAX, events=CLIENT_EVENTS).events)


def _fields(events: Iterable[KeptEvent]) -> list[dict[str, Any]]:
    return [each.fields() | {"position": each.position} for each in events]
