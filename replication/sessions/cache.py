"""Incremental fetch sessions on the leader's side (KIP-227): requests and answers have only partitions that changed.

The cache holds at most `slots_max` sessions, and one of each follower: unlike Kafka's brokers, which fetch in several
threads, a node has one loop for each leader. A full cache drops a session that was not used for EVICTION_MS; else one
that is worth less than the new one, if it has lived that long or is a consumer's and the new one a follower's.
Followers are worth more than consumers, then more partitions are worth more. Else the client gets no session and sends
full requests: so a client that opens one session after the other replaces none that is in use. A session's partitions
are kept in the order in which they are served: a partition that returned records moves to the end.

A round looks only at partitions that are awake. A partition idles while the follower asks at its log end and nothing
happens; its replica ends that with the next event. Retention sends no event; it is found out at intervals.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from kraft.protocol.errors import FetchSessionIdNotFound, FetchSessionTopicIdError, InvalidFetchSessionEpoch
from kraft.values import new
from metadata.environment import Clock
from metadata.image import MetadataImage, TopicIdPartition
from replication.partition.replica import Replica
from replication.partition.states import FollowerState, Idling, LeaderState, Rounds
from replication.requests import (
    CONSUMER,
    FINAL_EPOCH,
    INITIAL_EPOCH,
    NO_SESSION,
    NO_TOPIC_ID,
    FetchedPartition,
    FetchPartition,
    FetchRequest,
    FetchResponse,
    PartitionKey,
)

EVICTION_MS = 120_000
"""min.incremental.fetch.session.eviction.ms"""

CONSUMED_PARTITIONS_MAX = 500_000
"""Limit of all consumers' sessions together. Kafka has no such limit, and any client may name millions of partitions
that do not exist. A session that would exceed it is not opened, or is closed, and its client sends full requests."""

SESSION_EPOCH_MAX = 2**31 - 1

IDLE_LOOK_MS = 1_000
"""Interval in which a session looks at all partitions that idle: the start of a log may have moved."""


class LongPoll(Protocol):
    def woken(self, partition: SessionPartition, replica: Replica, /) -> None:
        """A partition that idled when the poll began does not idle any more."""
        ...


@dataclass(slots=True, eq=False)
class SessionPartition:
    """One session's state of one partition: the question, and the last answer."""

    asked: PartitionKey
    """Name of the partition in the session's requests."""
    key: TopicIdPartition
    """The partition that has this name now."""
    fetch: FetchPartition
    session: FetchSession
    reported_high_watermark: int = -1
    reported_log_start_offset: int = -1
    must_answer: bool = True
    """Answer in any case: true until the first answer without an error."""
    replica: Replica | None = None
    """The replica at which its follower idles; None while it does not."""
    settled: LeaderState | None = None
    """The latest state of that replica of which the follower has everything that answers contain."""
    idling: Idling | None = None

    def resolve(self, topic_id: UUID) -> None:
        """Set the partition that the name means now: a topic was created, perhaps after one of that name was
        deleted."""
        if topic_id != self.key.topic_id:
            self.key = TopicIdPartition(topic_id, self.fetch.partition)
            self.must_answer = True

    def idle(self, replica: Replica, state: LeaderState, idling: Idling) -> None:
        self.replica, self.settled, self.idling = replica, state, idling
        replica.idlers[self] = None
        del self.session.awake[self.asked]

    def stir(self) -> None:
        """End the idling: the next round of the session does not count as a fetch, and looks at the partition."""
        if self.idling is not None:
            replica = self.replica
            assert replica is not None
            self.idling.end()
            del replica.idlers[self]
            self.replica = self.settled = self.idling = None
            self.session.woken(self, replica)

    def on_state(self) -> None:
        if not self.is_idle():
            self.stir()

    def is_idle(self) -> bool:
        """The question is the same, and nothing new can be answered: neither from the log nor from the leader's
        state."""
        replica = self.replica
        if replica is None:
            return False
        log = replica.log
        if log.log_end_offset != self.fetch.fetch_offset or log.log_start_offset != self.reported_log_start_offset:
            return False
        return replica.state is self.settled or self._has_only_others_changed(replica.state)

    def _has_only_others_changed(self, state: LeaderState | FollowerState) -> bool:
        settled = self.settled
        if not isinstance(state, LeaderState) or settled is None:
            return False
        if state.image is not settled.image or state.high_watermark != settled.high_watermark:
            return False
        if not any(progress.idling is self.idling for progress in state.followers.values()):
            return False
        self.settled = state
        return True


class FetchSession:
    def __init__(self, request: FetchRequest, *, now_ms: int) -> None:
        self.session_id = NO_SESSION
        self.replica_id = request.replica_id
        self.names_topics = request.names_topics
        self.created_ms = now_ms
        self.replica_epoch = request.replica_epoch
        """Broker epoch of the follower in its latest request (KIP-903)."""
        self.next_epoch = 1
        self.used_ms = now_ms
        """Time of its latest request."""
        self.is_incremental = False
        """Whether the current request may be answered with changes only."""
        self.has_grown = False
        """Whether the current request has partitions that earlier ones did not have."""
        self.partitions: dict[PartitionKey, SessionPartition] = {}
        self.awake: dict[PartitionKey, SessionPartition] = {}
        """Partitions that do not idle, in the order in which they are served."""
        self.poll: LongPoll | None = None
        """The session's request that waits."""
        self.rounds = Rounds()
        self._looked_ms = now_ms
        self._image: MetadataImage | None = None
        """The image in which the names of its topics were last looked up; None when there are new names."""

    @property
    def is_follower(self) -> bool:
        return self.replica_id != CONSUMER

    def update(self, request: FetchRequest) -> None:
        if request.replica_epoch != self.replica_epoch:
            self.replica_epoch = request.replica_epoch
            self.stir_all()
        for key in request.forgotten:
            forgotten = self.partitions.pop(key, None)
            if forgotten is not None:
                forgotten.stir()
                del self.awake[key]
        self.has_grown = False
        for fetch in request.partitions:
            asked = fetch.key
            known = self.partitions.get(asked)
            if known is None:
                key = asked if isinstance(asked, TopicIdPartition) else TopicIdPartition(NO_TOPIC_ID, fetch.partition)
                self.partitions[asked] = self.awake[asked] = SessionPartition(asked, key, fetch, self)
                self.has_grown = True
            else:
                known.stir()
                known.fetch = fetch
        if self.has_grown:
            self._image = None

    def resolve_names(self, image: MetadataImage) -> None:
        """Look the names up: in a session with topic names, each name means the topic that has it when a request
        arrives."""
        if self.names_topics and self._image is not image:
            self._image = image
            for partition in self.partitions.values():
                topic = image.topics_by_name.get(partition.fetch.topic)
                partition.resolve(NO_TOPIC_ID if topic is None else topic.topic_id)

    def stir_all(self) -> None:
        for partition in self.partitions.values():
            partition.stir()

    def maybe_look_at_idle(self) -> None:
        if self.used_ms - self._looked_ms >= IDLE_LOOK_MS:
            self._looked_ms = self.used_ms
            for partition in self.partitions.values():
                partition.on_state()

    def woken(self, partition: SessionPartition, replica: Replica) -> None:
        self.awake[partition.asked] = partition
        if self.poll is not None:
            self.poll.woken(partition, replica)

    def respond(self, fetched: Iterable[tuple[SessionPartition, FetchedPartition]]) -> FetchResponse:
        """Build the answer, and remember its content."""
        answered = []
        for partition, answer in fetched:
            answered.append(answer)
            partition.reported_high_watermark = answer.high_watermark
            partition.reported_log_start_offset = answer.log_start_offset
            partition.must_answer = answer.error_code != 0 or answer.diverging_epoch is not None
            if len(answer.records) and self.awake.pop(partition.asked, None) is not None:
                self.awake[partition.asked] = partition
        if self.session_id == NO_SESSION and not self.is_follower:
            self.partitions.clear()  # nobody asks again: each has the session, which would wait for a collection
            self.awake.clear()
        made = new(FetchResponse)
        FetchResponse.__init__(made, session_id=self.session_id, partitions=answered)
        return made


class SessionCache:
    def __init__(self, *, clock: Clock, rng: random.Random, slots_max: int) -> None:
        self._clock = clock
        self._rng = rng
        self._slots_max = slots_max
        self._sessions: dict[int, FetchSession] = {}
        self._consumed = 0
        """Number of partitions in consumers' sessions."""

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, request: FetchRequest) -> FetchSession:
        """Find or open the session of a request, and update it with the request.

        Raises FetchSessionIdNotFound 70, InvalidFetchSessionEpoch 71, FetchSessionTopicIdError 106.
        """
        now_ms = self._clock.monotonic_ms()
        if request.session_epoch not in (FINAL_EPOCH, INITIAL_EPOCH):
            return self._continue(request, now_ms)
        self._drop(request.session_id)
        self._drop_sessions_of(request.replica_id)
        session = FetchSession(request, now_ms=now_ms)
        session.update(request)
        if request.session_epoch == INITIAL_EPOCH and self._make_room(session, now_ms):
            session.session_id = self._new_id()
            self._sessions[session.session_id] = session
            self._count(session, len(session.partitions))
        return session

    def _count(self, session: FetchSession, more: int) -> None:
        if not session.is_follower:
            self._consumed += more

    def _continue(self, request: FetchRequest, now_ms: int) -> FetchSession:
        session = self._sessions.get(request.session_id)
        if session is None or session.replica_id != request.replica_id:
            raise FetchSessionIdNotFound(f"no fetch session has the id {request.session_id}")
        if session.next_epoch != request.session_epoch:
            raise InvalidFetchSessionEpoch(
                f"fetch session {request.session_id} is at epoch {session.next_epoch}, not {request.session_epoch}"
            )
        if session.names_topics != request.names_topics:
            raise FetchSessionTopicIdError(
                f"fetch session {request.session_id} names topics by {'name' if session.names_topics else 'id'}"
            )
        session.next_epoch = 1 if session.next_epoch == SESSION_EPOCH_MAX else session.next_epoch + 1
        session.used_ms = now_ms
        session.is_incremental = True
        if session.is_follower:
            session.update(request)
            return session
        before = len(session.partitions)
        session.update(request)
        self._count(session, len(session.partitions) - before)
        if self._consumed > CONSUMED_PARTITIONS_MAX:
            self._drop(session.session_id)
            raise FetchSessionIdNotFound(f"fetch session {request.session_id} has grown too large, and is closed")
        if not session.partitions:
            del self._sessions[session.session_id]
            session.session_id = NO_SESSION
        return session

    def _drop_sessions_of(self, replica_id: int) -> None:
        """A follower has one session with each leader. After a restart or a lost answer it does not name its old
        session, which would stay until the cache is full, with its state of thousands of partitions."""
        if replica_id != CONSUMER:
            for old in [each for each in self._sessions.values() if each.replica_id == replica_id]:
                self._drop(old.session_id)

    def _drop(self, session_id: int) -> None:
        session = self._sessions.pop(session_id, None)
        if session is not None:
            self._count(session, -len(session.partitions))
            session.stir_all()  # the replicas have no reference to it any more

    def _make_room(self, newcomer: FetchSession, now_ms: int) -> bool:
        if not newcomer.is_follower and self._consumed + len(newcomer.partitions) > CONSUMED_PARTITIONS_MAX:
            return False
        if len(self._sessions) < self._slots_max:
            return True
        oldest = min(self._sessions.values(), key=lambda s: s.used_ms, default=None)
        if oldest is not None and now_ms - oldest.used_ms > EVICTION_MS:
            self._drop(oldest.session_id)
            return True
        evictable = [
            each
            for each in self._sessions.values()
            if now_ms - each.created_ms > EVICTION_MS or (newcomer.is_follower and not each.is_follower)
        ]
        least = min(evictable, key=_worth, default=None)
        if least is None or _worth(newcomer) <= _worth(least):
            return False
        self._drop(least.session_id)
        return True

    def _new_id(self) -> int:
        while True:
            session_id = self._rng.randrange(1, 2**31)
            if session_id not in self._sessions:
                return session_id


def _worth(session: FetchSession) -> tuple[bool, int]:
    return session.is_follower, len(session.partitions)
