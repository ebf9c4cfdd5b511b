"""Fetch and epoch requests between replicas (and from consumers) as plain frozen data.

The wire protocol turns Kafka's RPCs into these and back; the simulator passes them as they are.
Sources: KIP-101/279/320/595 (epochs, diverging epoch), KIP-227 (incremental fetch sessions), KIP-903 (broker epoch).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias
from uuid import UUID

from kraft.protocol.errors import RecordError
from kraft.protocol.primitives import Buffer
from kraft.values import value
from metadata.image import TopicIdPartition
from replication.partition.log import AbortedTransaction, EpochEnd

CONSUMER = -1
"""`replica_id` of a consumer."""

FINAL_EPOCH = -1
INITIAL_EPOCH = 0
NO_SESSION = 0


NO_TOPIC_ID = UUID(int=0)

PartitionKey: TypeAlias = TopicIdPartition | tuple[str, int]
"""Name of a partition in a request: with a topic id, or with a topic name (Fetch before version 13)."""


@value(kw_only=True)
class FetchPartition:
    topic_id: UUID
    """NO_TOPIC_ID in a request that names topics."""
    partition: int
    current_leader_epoch: int
    """-1: not checked (R1)."""
    fetch_offset: int
    last_fetched_epoch: int
    """-1: no divergence check (R2)."""
    log_start_offset: int
    """Log start offset of the follower; -1 for consumers."""
    bytes_max: int
    topic: str = ""
    """Topic name, in a request that names topics."""

    @property
    def key(self) -> PartitionKey:
        return (self.topic, self.partition) if self.topic else TopicIdPartition(self.topic_id, self.partition)


@value(kw_only=True)
class FetchRequest:
    """A fetch. A session request has only partitions that changed, and those to forget (KIP-227)."""

    replica_id: int
    replica_epoch: int
    """Broker epoch of the follower (R10); -1 for consumers."""
    wait_ms_max: int
    bytes_min: int
    bytes_max: int
    session_id: int = NO_SESSION
    session_epoch: int = FINAL_EPOCH
    partitions: tuple[FetchPartition, ...] = ()
    forgotten: Sequence[PartitionKey] = ()
    names_topics: bool = False
    """True before version 13. It does not change within a session."""
    reads_followers: bool = False
    """True for a consumer that may read from a follower (KIP-392)."""
    rack: str = ""
    """Rack of such a consumer; empty when it is not known."""
    room: Callable[[], int] | None = None
    """Called before each read: the bytes that it may take; with 0 nothing is read. None: no limit but the request's."""
    is_read_committed: bool = False
    """True for a consumer that gets no undecided records, and a list of aborted transactions (T8)."""
    may_read: Callable[[str], bool] | None = None
    """Whether the reader may read a topic, asked at every fetch of the session. None: it may read all."""


@value(kw_only=True)
class FetchedPartition:
    topic_id: UUID
    partition: int
    error_code: int = 0
    high_watermark: int = -1
    last_stable_offset: int = -1
    log_start_offset: int = -1
    aborted: Sequence[AbortedTransaction] = ()
    """Aborted transactions with offsets in `records`, ascending by first offset; for read_committed consumers."""
    diverging_epoch: EpochEnd | None = None
    """R2. With error 1 to a replica: the latest epoch and the end of the leader's log (R6)."""
    current_leader: tuple[int, int] | None = None
    """(leader id, leader epoch) with errors 6, 74, 75."""
    records: Buffer = b""
    topic: str = ""
    """Topic name, if the request has names."""
    preferred_read_replica: int = -1
    """The replica that this consumer should read from instead (KIP-392)."""


@value(kw_only=True)
class FetchResponse:
    error_code: int = 0
    session_id: int = NO_SESSION
    partitions: Sequence[FetchedPartition] = ()


class LeaderChannel(Protocol):
    """A follower's connection to one leader broker, with purpose `fetch`."""

    async def fetch(self, request: FetchRequest, *, timeout_ms: int) -> FetchResponse:
        """Raises OSError/ConnectionClosed/TimeoutError when the leader cannot be reached, KafkaError when refused.

        TimeoutError after `timeout_ms`. When the caller is cancelled, a late answer is dropped.
        """
        ...

    async def close(self) -> None: ...


@value()
class ProduceOptions:
    """How the batches of one produce request are to be written."""

    acks: int
    timeout_ms: int
    """How long the leader waits for replicas."""
    transactional_id: str | None = None
    """The producer of transactional batches; the leaders add their partitions to its transaction (KIP-890)."""


@value(kw_only=True)
class ReadOptions:
    """What a consumer takes of a partition, and how long it waits for it."""

    bytes_max: int
    """The first batch is whole, even if it is larger."""
    bytes_min: int = 0
    wait_ms_max: int = 0
    """How long the leader waits for `bytes_min`."""
    is_read_committed: bool = False
    """Nothing from the last stable offset on, and with it what was aborted (T8)."""


@value(kw_only=True)
class ProduceOutcome:
    """The result of one partition's batch. `error_code` 0 means: as durable as `acks` requires."""

    error_code: int = 0
    message: str = ""
    base_offset: int = -1
    last_offset: int = -1
    log_append_time_ms: int = -1
    log_start_offset: int = -1
    leader_id: int = -1
    leader_epoch: int = -1
    is_appended: bool = False
    """With an error: the records are in the leader's log and may survive (P5, P6, P7)."""
    isr: tuple[int, ...] = ()
    """Without an error: the ISR when the records were as durable as `acks` requires. With 19 and 20: the too small
    ISR."""
    min_isr: int = 0
    record_errors: tuple[RecordError, ...] = ()
    """Errors of single records that caused the refusal of the batch (KIP-467)."""


@value(kw_only=True)
class ActiveProducer:
    """The state of one producer on the leader of a partition (DescribeProducers, KIP-664)."""

    producer_id: int
    producer_epoch: int
    last_sequence: int
    last_timestamp_ms: int
    coordinator_epoch: int
    """Coordinator epoch of the last marker; -1 for none."""
    transaction_start_offset: int
    """Start offset of the transaction that is open here; -1 for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetAnswer:
    """Answer to a ListOffsets question; offset -1 when no record qualifies."""

    offset: int
    timestamp: int = -1
    leader_epoch: int = -1


LATEST_TIMESTAMP = -1
EARLIEST_TIMESTAMP = -2
MAX_TIMESTAMP = -3
"""Special timestamps of ListOffsets (KIP-79, KIP-734)."""
