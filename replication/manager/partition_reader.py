"""Reads of one partition for a fetch: epochs (R1), divergence (R2), bounds (F1, F2), and the follower's progress.

It reads the bytes from the partition's log (`replication.storage.log_reader`).
Source: kafka.server.ReplicaManager.readFromLog, kafka.cluster.Partition.fetchRecords.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kraft.protocol.batches.header import HEADER_BYTES
from kraft.protocol.errors import (
    FencedLeaderEpoch,
    KafkaError,
    NotLeaderOrFollower,
    OffsetOutOfRange,
    TopicAuthorizationFailed,
    UnknownLeaderEpoch,
    UnknownTopicId,
    UnknownTopicOrPartition,
)
from kraft.protocol.primitives import Buffer
from kraft.values import new
from metadata.settings import RACK_AWARE_SELECTOR
from replication.manager.registry import Registry
from replication.partition.isr import may_join
from replication.partition.leader import with_fetch, with_idling
from replication.partition.log import AbortedTransaction, EpochEnd, LogRead, ReplicaLog
from replication.partition.preferred_read_replica import preferred_read_replica
from replication.partition.replica import Replica
from replication.partition.states import FollowerState, Idling, LeaderState
from replication.requests import CONSUMER, FetchedPartition, FetchPartition, FetchRequest
from replication.sessions.cache import SessionPartition

UNKNOWN_TOPIC = (UnknownTopicOrPartition.code, UnknownTopicId.code)
"""A consumer's answer for an unknown topic ends no wait for the others, as in Kafka: it would ask again at once, and
again."""

EMPTIED_BATCHES_MAX = 100
"""Batches without records that one read of a consumer passes by."""

NAMES_LEADER = (NotLeaderOrFollower.code, FencedLeaderEpoch.code, UnknownLeaderEpoch.code)
"""Errors that name the current leader (KIP-951)."""


@dataclass(slots=True, kw_only=True)
class Pass:
    """One pass over the partitions of a request. It holds their common values, such as the time."""

    request: FetchRequest
    now_ms: int
    is_follower: bool
    is_stale: bool
    """R10, KIP-903: the follower has been registered again; this is not its latest incarnation."""
    notes_progress: bool
    answers_all: bool
    """True for a full answer, False for one with changes only (KIP-227)."""
    bytes_max: int
    """Size limit of the answer, whatever the request allows."""
    bytes_left: int
    is_empty: bool = True
    """The first batch of all is returned whatever its size (F3), unless there is no room at all."""
    answers: list[tuple[SessionPartition, FetchedPartition]] = field(default_factory=list)
    size_bytes: int = 0
    is_full: bool = False
    """There is more to read than the limits allow: do not wait."""
    has_news: bool = False
    """There is an error or a divergence: answer without waiting."""
    replicas: dict[Replica, SessionPartition] = field(default_factory=dict)
    """The replicas that were read and can be waited for."""


class PartitionReader:
    def __init__(self, registry: Registry, *, on_join: Callable[[Replica, int], None]) -> None:
        self._registry = registry
        self._on_join = on_join

    def begin(self, request: FetchRequest, *, now_ms: int, notes_progress: bool, answers_all: bool) -> Pass:
        is_follower = request.replica_id != CONSUMER
        bytes_max = min(request.bytes_max, self._registry.settings().fetch_max_bytes)
        is_empty = True
        if request.room is not None:
            room = request.room()
            bytes_max, is_empty = min(bytes_max, room), room > 0
        made = new(Pass)
        Pass.__init__(
            made,
            request=request,
            now_ms=now_ms,
            is_follower=is_follower,
            is_stale=is_follower and self._is_stale(request),
            notes_progress=notes_progress and is_follower,
            answers_all=answers_all,
            bytes_max=bytes_max,
            bytes_left=bytes_max,
            is_empty=is_empty,
        )
        return made

    def _is_stale(self, request: FetchRequest) -> bool:
        broker = self._registry.image.brokers.get(request.replica_id)
        return broker is not None and request.replica_epoch != -1 and broker.broker_epoch > request.replica_epoch

    def read(self, partition: SessionPartition, pass_: Pass) -> None:
        """Add an answer, unless the session's owner already has everything in it."""
        answer = self._read(partition, pass_)
        if answer is not None:
            pass_.answers.append((partition, answer))
            pass_.size_bytes += len(answer.records)
            if answer.diverging_epoch is not None or (
                answer.error_code and (pass_.is_follower or answer.error_code not in UNKNOWN_TOPIC)
            ):
                pass_.has_news = True

    def _read(self, partition: SessionPartition, pass_: Pass) -> FetchedPartition | None:
        fetch, request = partition.fetch, pass_.request
        state: LeaderState | FollowerState
        try:
            if request.may_read is not None and not self.may_read(partition, request.may_read):
                raise TopicAuthorizationFailed("Topic authorization failed.")
            served = self._registry.reader_or_raise if request.reads_followers else self._registry.leader_or_raise
            replica, state = served(partition.key, leader_epoch=fetch.current_leader_epoch)
        except KafkaError as error:
            return self._refusal(partition, error)
        pass_.replicas[replica] = partition
        log, offset = replica.log, fetch.fetch_offset
        end_offset, epoch = log.log_end_offset, fetch.last_fetched_epoch
        records: Buffer = b""
        aborted: Sequence[AbortedTransaction] = ()
        try:
            if isinstance(state, LeaderState):
                if pass_.is_follower and (pass_.is_stale or request.replica_id not in state.followers):
                    raise _unassigned(replica, state, request)
                if request.rack and (preferred := self._preferred(replica, state, fetch, request)) is not None:
                    pass_.has_news = True
                    return _answer(fetch, replica, state, preferred_read_replica=preferred)
            if epoch != -1 and (offset > end_offset or epoch != log.latest_epoch):
                diverging = _divergence(log, fetch)
                if diverging is not None:
                    return _answer(fetch, replica, state, diverging=diverging)
            if not log.log_start_offset <= offset <= end_offset:
                raise OffsetOutOfRange(f"{offset} is outside the log of {replica.name}")
            if pass_.notes_progress:
                assert isinstance(state, LeaderState), state
                state = self._note(replica, state, fetch, pass_)
            bound = end_offset if pass_.is_follower else self.bound(replica, state, request)
            if offset < bound:
                records, aborted = self._records(log, fetch, pass_, bound=bound)
        except OffsetOutOfRange:
            return self._out_of_range(fetch, replica, state, request)
        except KafkaError as error:
            return self._refusal(partition, error)
        if (
            len(records)
            or pass_.answers_all
            or partition.must_answer
            or partition.reported_high_watermark != state.high_watermark
            or partition.reported_log_start_offset != log.log_start_offset
        ):
            return _answer(fetch, replica, state, records=records, aborted=aborted)
        if pass_.notes_progress and offset == end_offset == state.high_watermark:
            assert isinstance(state, LeaderState), state
            self._settle(partition, replica, state, pass_)
        return None

    def may_read(self, partition: SessionPartition, may_read: Callable[[str], bool]) -> bool:
        """Whether the reader may read it now: also asked for the name of a topic that does not exist."""
        topic = self._registry.image.topics.get(partition.key.topic_id)
        name = partition.fetch.topic if topic is None else topic.name
        return not name or may_read(name)

    def _settle(self, partition: SessionPartition, replica: Replica, state: LeaderState, pass_: Pass) -> None:
        """The follower has everything, and needs no answer: until an event nothing has to be done for it (`Idling`). A
        follower that is not in the ISR is looked at in each round, because its broker's state may keep it out."""
        follower = pass_.request.replica_id
        if follower in state.isr.members:
            idling = Idling(partition.session.rounds)
            self._registry.set_leader_state(replica, with_idling(state, follower, idling))
            assert isinstance(replica.state, LeaderState), replica.state
            partition.idle(replica, replica.state, idling)

    def _preferred(
        self, replica: Replica, state: LeaderState, fetch: FetchPartition, request: FetchRequest
    ) -> int | None:
        """KIP-392: the replica in the consumer's rack that it should read from, if the leader is not there."""
        registry = self._registry
        if registry.settings().replica_selector_class != RACK_AWARE_SELECTOR:
            return None
        return preferred_read_replica(
            state,
            rack=request.rack,
            offset=fetch.fetch_offset,
            brokers=registry.image.brokers,
        )

    def bound(self, replica: Replica, state: LeaderState | FollowerState, request: FetchRequest) -> int:
        """F1: followers read up to the log end, consumers up to the high watermark, or to the last stable offset."""
        if request.replica_id != CONSUMER:
            return replica.log.log_end_offset
        return replica.log.last_stable_offset if request.is_read_committed else state.high_watermark

    def available_bytes(self, replica: Replica, fetch: FetchPartition, request: FetchRequest, *, bytes_max: int) -> int:
        state = replica.state
        if not isinstance(state, LeaderState) and not request.reads_followers:
            return 0
        bound = self.bound(replica, state, request)
        if not replica.log.log_start_offset <= fetch.fetch_offset < bound:
            return 0
        limit = min(bytes_max, fetch.bytes_max)
        try:
            read = replica.log.read(fetch.fetch_offset, bytes_max=limit, upper_bound=bound)
            return len(read.data) if read.next_offset >= bound else bytes_max
        except KafkaError:
            return bytes_max  # enough to end the wait: the next read answers with the error

    def _note(self, replica: Replica, state: LeaderState, fetch: FetchPartition, pass_: Pass) -> LeaderState:
        """The follower has everything below its fetch offset: update progress, high watermark, ISR (I2, I4)."""
        registry, request = self._registry, pass_.request
        follower = request.replica_id
        old_log_start = state.followers[follower].log_start_offset
        registry.set_leader_state(
            replica,
            with_fetch(
                state,
                follower,
                fetch_offset=fetch.fetch_offset,
                log_start_offset=fetch.log_start_offset,
                broker_epoch=request.replica_epoch,
                log_end_offset=replica.log.log_end_offset,
                now_ms=pass_.now_ms,
            ),
        )
        if old_log_start != fetch.log_start_offset:
            registry.deletes.check(replica)
        noted = replica.state
        assert isinstance(noted, LeaderState), noted
        if follower not in noted.isr.members and may_join(noted, follower, registry.image.brokers):
            self._on_join(replica, follower)
            noted = replica.state
            assert isinstance(noted, LeaderState), noted
        return noted

    def _records(
        self, log: ReplicaLog, fetch: FetchPartition, pass_: Pass, *, bound: int
    ) -> tuple[Buffer, Sequence[AbortedTransaction]]:
        limit = min(fetch.bytes_max, pass_.bytes_left)
        if limit <= 0 and not pass_.is_empty:
            pass_.is_full = True
            return b"", ()  # F2
        read = log.read(
            fetch.fetch_offset, bytes_max=max(limit, 0), upper_bound=bound, at_least_one_batch=pass_.is_empty
        )
        if len(read.data) == HEADER_BYTES and not pass_.is_follower:
            read = past_emptied(log, read, bytes_max=limit, bound=bound, at_least_one_batch=pass_.is_empty)
        if read.next_offset < bound:
            pass_.is_full = True
        data = read.data
        if len(data):
            pass_.bytes_left -= len(data)
            pass_.is_empty = False
            if pass_.request.is_read_committed:
                return data, log.aborted_transactions(fetch.fetch_offset, read.next_offset)
        return data, ()

    def _out_of_range(
        self, fetch: FetchPartition, replica: Replica, state: LeaderState | FollowerState, request: FetchRequest
    ) -> FetchedPartition:
        """R6: a follower also learns the log start offset and, as its diverging epoch, the log end."""
        end = EpochEnd(replica.log.latest_epoch, replica.log.log_end_offset)
        return _answer(
            fetch,
            replica,
            state,
            diverging=None if request.replica_id == CONSUMER else end,
            error_code=OffsetOutOfRange.code,
        )

    def _refusal(self, partition: SessionPartition, error: KafkaError) -> FetchedPartition:
        leader = None
        if error.code in NAMES_LEADER:
            image = self._registry.image.partition(partition.key.topic_id, partition.key.partition)
            leader = None if image is None else (image.leader, image.leader_epoch)
        code = error.code
        if code == UnknownTopicId.code and partition.session.names_topics:
            code = UnknownTopicOrPartition.code  # a request by name does not know a deleted id
        return FetchedPartition(
            topic_id=partition.key.topic_id,
            partition=partition.key.partition,
            error_code=code,
            current_leader=leader,
            topic=partition.fetch.topic,
        )


def _unassigned(replica: Replica, state: LeaderState, request: FetchRequest) -> KafkaError:
    if request.replica_id not in state.followers:
        return NotLeaderOrFollower(f"broker {request.replica_id} is no replica of {replica.name}")
    return NotLeaderOrFollower(f"broker {request.replica_id} fetches under the old epoch {request.replica_epoch}")


def _divergence(log: ReplicaLog, fetch: FetchPartition) -> EpochEnd | None:
    """R2, R3. Raises OffsetOutOfRange when so old an epoch is not known."""
    epoch, offset = fetch.last_fetched_epoch, fetch.fetch_offset
    end = log.end_offset_for_epoch(epoch)
    if end is None:
        raise OffsetOutOfRange(f"the end of epoch {epoch} is not known here")
    return end if end.epoch < epoch or end.end_offset < offset else None


def past_emptied(log: ReplicaLog, read: LogRead, *, bytes_max: int, bound: int, at_least_one_batch: bool) -> LogRead:
    """Compaction leaves the last batch of a segment, without records if need be, and a read ends with its segment. A
    consumer gets what follows: librdkafka ends with MSG_SIZE_TOO_LARGE after ten answers without a record. Followers
    copy such batches."""
    for _ in range(EMPTIED_BATCHES_MAX):
        if len(read.data) != HEADER_BYTES or read.next_offset >= bound:
            return read
        following = log.read(
            read.next_offset, bytes_max=bytes_max, upper_bound=bound, at_least_one_batch=at_least_one_batch
        )
        if not len(following.data):
            return read
        read = following
    return read


def _answer(
    fetch: FetchPartition,
    replica: Replica,
    state: LeaderState | FollowerState,
    *,
    records: Buffer = b"",
    aborted: Sequence[AbortedTransaction] = (),
    diverging: EpochEnd | None = None,
    error_code: int = 0,
    preferred_read_replica: int = -1,
) -> FetchedPartition:
    made = new(FetchedPartition)
    FetchedPartition.__init__(
        made,
        topic_id=fetch.topic_id,
        topic=fetch.topic,
        preferred_read_replica=preferred_read_replica,
        partition=fetch.partition,
        error_code=error_code,
        high_watermark=state.high_watermark,
        last_stable_offset=replica.log.last_stable_offset,
        log_start_offset=replica.log.log_start_offset,
        aborted=aborted,
        diverging_epoch=diverging,
        records=records,
    )
    return made
