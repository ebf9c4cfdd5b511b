"""All replicas of this broker, and the one place that changes a leader's state and wakes the requests that wait for it.

Owned by the replica manager; its parts (produce, fetch, metadata, ISR keeping) share it on one event loop, and none of
them keeps a state across an `await`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kraft.protocol.errors import (
    FencedLeaderEpoch,
    KafkaError,
    KafkaStorageError,
    NotLeaderOrFollower,
    UnknownLeaderEpoch,
    UnknownTopicId,
    UnknownTopicOrPartition,
)
from metadata.environment import Environment
from metadata.events import Events
from metadata.image import MetadataImage, TopicIdPartition
from metadata.records import NO_LEADER
from metadata.settings import BrokerSettings, TopicSettings
from replication.partition.leader import with_end_offset, with_high_watermark
from replication.partition.replica import Replica
from replication.partition.states import FollowerState, LeaderState, OfflineState
from replication.purgatory import Purgatory

WAITING_PRODUCE_MAX = 10_000
"""Produce requests that wait for replicas; one more is refused with 89 before anything is appended."""

WAITING_FETCH_MAX = 10_000
"""Fetch requests that wait for bytes; one more is answered at once with the available bytes."""

WAITING_DELETE_MAX = 1_000
"""DeleteRecords requests that wait for replicas; one more is refused with 7."""

ANY_EPOCH = -1


class Registry:
    def __init__(
        self,
        *,
        node_id: int,
        environment: Environment,
        events: Events,
        settings: Callable[[], BrokerSettings],
        topic_settings: Callable[[str], TopicSettings],
    ) -> None:
        self.node_id = node_id
        self.environment = environment
        self.clock = environment.clock
        self.events = events
        self.settings = settings
        self.topic_settings = topic_settings
        self.image = MetadataImage()
        self.replicas: dict[TopicIdPartition, Replica] = {}
        self.offline: dict[TopicIdPartition, OfflineState] = {}
        self.read_only: dict[TopicIdPartition, str] = {}
        """Replicas whose disk is full -> the error of the disk."""
        self.behind: set[TopicIdPartition] = set()
        """Partitions whose role here is still the one of an older image than `image`."""
        self.produces: Purgatory[Replica] = Purgatory(environment.clock, waiting_max=WAITING_PRODUCE_MAX)
        self.fetches: Purgatory[Replica] = Purgatory(environment.clock, waiting_max=WAITING_FETCH_MAX)
        self.deletes: Purgatory[Replica] = Purgatory(environment.clock, waiting_max=WAITING_DELETE_MAX)

    @property
    def broker_epoch(self) -> int:
        broker = self.image.brokers.get(self.node_id)
        return -1 if broker is None else broker.broker_epoch

    def led(self) -> Iterator[tuple[Replica, LeaderState]]:
        for replica in self.replicas.values():
            state = replica.state
            if isinstance(state, LeaderState):
                yield replica, state

    def replica_or_raise(self, key: TopicIdPartition) -> Replica:
        """A replica. Raises UnknownTopicId 100, UnknownTopicOrPartition 3, KafkaStorageError 56, NotLeaderOrFollower
        6."""
        replica = self.replicas.get(key)
        if replica is None:
            raise self._absence(key)
        return replica

    def leader_or_raise(self, key: TopicIdPartition, *, leader_epoch: int = ANY_EPOCH) -> tuple[Replica, LeaderState]:
        """A leader and its state (R1). Raises also FencedLeaderEpoch 74, UnknownLeaderEpoch 75."""
        replica = self.replicas.get(key)
        if replica is None:
            raise self._absence(key)
        state = replica.state
        if leader_epoch != ANY_EPOCH and leader_epoch != state.image.leader_epoch:
            raise _wrong_epoch(replica, leader_epoch)
        if key in self.behind:
            self._check_epoch_is_current(replica)
        if not isinstance(state, LeaderState):
            raise NotLeaderOrFollower(
                f"broker {self.node_id} does not lead {replica.name}; its leader is {state.image.leader}"
            )
        return replica, state

    def reader_or_raise(
        self, key: TopicIdPartition, *, leader_epoch: int
    ) -> tuple[Replica, LeaderState | FollowerState]:
        """A replica that can answer a consumer that may read from followers (KIP-392). Raises as `leader_or_raise`."""
        replica = self.replicas.get(key)
        if replica is None:
            raise self._absence(key)
        state = replica.state
        if leader_epoch != ANY_EPOCH and leader_epoch != state.image.leader_epoch:
            raise _wrong_epoch(replica, leader_epoch)
        if key in self.behind:
            self._check_epoch_is_current(replica)
        return replica, state

    def _check_epoch_is_current(self, replica: Replica) -> None:
        """Refuse if known metadata names another leader or epoch, and the replica has not taken its role yet: it would
        answer as a former leader. Raises NotLeaderOrFollower 6."""
        image = self.image.partition(replica.key.topic_id, replica.key.partition)
        if image is not None and image.leader_epoch != replica.state.leader_epoch:
            raise NotLeaderOrFollower(
                f"broker {self.node_id} is about to take its role in leader epoch {image.leader_epoch} of "
                f"{replica.name}; its leader is {image.leader}"
            )

    def _absence(self, key: TopicIdPartition) -> KafkaError:
        offline = self.offline.get(key)
        if offline is not None and offline.image.leader in (self.node_id, NO_LEADER):
            return KafkaStorageError(f"partition {key.partition} of {key.topic_id} is offline here: {offline.reason}")
        topic = self.image.topics.get(key.topic_id)
        if topic is None:
            return UnknownTopicId(f"no topic has the id {key.topic_id}")
        if key.partition not in topic.partitions:
            return UnknownTopicOrPartition(f"topic {topic.name!r} has no partition {key.partition}")
        has = "has no replica" if offline is None else "has only an offline replica"
        return NotLeaderOrFollower(f"broker {self.node_id} {has} of {topic.name}-{key.partition}")

    def set_leader_state(self, replica: Replica, state: LeaderState) -> None:
        """Set the next state of a leader, move the high watermark, and wake the requests that wait for it."""
        old = replica.state
        if state.high_watermark < state.end_offset:
            moved = with_high_watermark(
                state,
                brokers=self.image.brokers,
                lag_ms_max=self.settings().replica_lag_time_max_ms,
                now_ms=self.clock.monotonic_ms(),
            )
        else:
            moved = state
        replica.enter(moved)
        if not isinstance(old, LeaderState) or moved.high_watermark != old.high_watermark:
            # In Kafka's order (DelayedOperations.checkAndCompleteAll): a consumer needs longer than an acknowledgement.
            self.fetches.check(replica)
            self.produces.check(replica)

    def advance(self, replica: Replica) -> None:
        """Count the own log, which has grown or was fsynced."""
        state = replica.state
        if isinstance(state, LeaderState):
            self.set_leader_state(replica, with_end_offset(state, replica.counted_end_offset))

    def log_changed(self, replica: Replica) -> None:
        """Wake the fetches of a leader whose log has grown, or begins later."""
        replica.stir()
        self.fetches.check(replica)

    def wake_all(self, replica: Replica) -> None:
        """Wake all waiting requests of this replica after a change of its role."""
        replica.stir()
        self.produces.check(replica)
        self.fetches.check(replica)
        self.deletes.check(replica)


def _wrong_epoch(replica: Replica, leader_epoch: int) -> KafkaError:
    current = replica.state.leader_epoch
    error = FencedLeaderEpoch if leader_epoch < current else UnknownLeaderEpoch
    return error(f"request carries leader epoch {leader_epoch} of {replica.name}; here it is {current}")
