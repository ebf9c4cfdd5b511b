"""A consumer's fetch of one partition, and the result of its answer. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kraft.broker.gateway import Records
from kraft.protocol.batches.header import BatchHeader, whole_batches
from kraft.protocol.errors import CorruptMessage, KafkaStorageError, for_code
from kraft.protocol.primitives import Buffer
from metadata.image import PartitionImage, TopicIdPartition
from replication.partition.log import AbortedTransaction
from replication.requests import (
    CONSUMER,
    FetchedPartition,
    FetchPartition,
    FetchRequest,
    FetchResponse,
    ReadOptions,
)


def consumer_fetch(
    partition: TopicIdPartition, offset: int, options: ReadOptions, *, wait_ms_max: int = 0
) -> FetchRequest:
    """Fetch of one partition. The leader waits `wait_ms_max` for a byte, whatever the reader itself waits for."""
    asked = FetchPartition(
        topic_id=partition.topic_id,
        partition=partition.partition,
        current_leader_epoch=-1,
        fetch_offset=offset,
        last_fetched_epoch=-1,
        log_start_offset=-1,
        bytes_max=options.bytes_max,
    )
    return FetchRequest(
        replica_id=CONSUMER,
        replica_epoch=-1,
        wait_ms_max=wait_ms_max,
        bytes_min=1,
        bytes_max=options.bytes_max,
        partitions=(asked,),
        is_read_committed=options.is_read_committed,
    )


def readable_batches(
    data: Buffer, aborted: Sequence[AbortedTransaction] = ()
) -> Iterator[tuple[int, BatchHeader, bool]]:
    """Position and header of each whole batch, and whether its records are for people: those of control batches are
    not, nor are those of the aborted transactions (T8).

    A transaction is aborted from its first offset to the next control batch of its producer, which is its marker: a
    Kafka consumer finds it the same way, for an answer of Fetch has no more (KIP-98).
    """
    coming = sorted(aborted, key=lambda each: each.first_offset, reverse=True)
    dropped: set[int] = set()
    for position, header in whole_batches(data):
        while coming and coming[-1].first_offset <= header.last_offset:
            dropped.add(coming.pop().producer_id)
        if header.is_control:
            dropped.discard(header.producer_id)
            yield position, header, False
        else:
            yield position, header, not (header.is_transactional and header.producer_id in dropped)


def records_of(response: FetchResponse, state: PartitionImage, *, is_read_committed: bool) -> Records:
    """Raises the KafkaError of the answer."""
    if response.error_code:
        raise for_code(response.error_code)
    fetched: FetchedPartition = response.partitions[0]
    if fetched.error_code:
        raise for_code(fetched.error_code, _explain(fetched))
    return Records(
        data=fetched.records,
        high_watermark=fetched.high_watermark,
        last_stable_offset=fetched.last_stable_offset,
        is_read_committed=is_read_committed,
        aborted=fetched.aborted,
        log_start_offset=fetched.log_start_offset,
        leader_id=state.leader,
        leader_epoch=state.leader_epoch,
    )


def _explain(fetched: FetchedPartition) -> str:
    if fetched.error_code == CorruptMessage.code:
        return "the leader's log is damaged at this offset; another replica may have it whole"
    if fetched.error_code == KafkaStorageError.code:
        return "the leader cannot read its log of this partition; see the events of that node"
    if fetched.error_code == 1:
        return (
            f"the offset is out of range: the log starts at {fetched.log_start_offset} "
            f"and its high watermark is {fetched.high_watermark}"
        )
    return ""
