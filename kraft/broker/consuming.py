"""A consumer's fetch of one partition, and what its answer says. Pure."""

from __future__ import annotations

from kraft.broker.gateway import Records
from kraft.protocol.errors import CorruptMessage, KafkaStorageError, for_code
from metadata.image import PartitionImage, TopicIdPartition
from replication.requests import FetchedPartition, FetchPartition, FetchResponse


def consumer_fetch(partition: TopicIdPartition, *, offset: int, bytes_max: int) -> FetchPartition:
    return FetchPartition(
        topic_id=partition.topic_id,
        partition=partition.partition,
        current_leader_epoch=-1,
        fetch_offset=offset,
        last_fetched_epoch=-1,
        log_start_offset=-1,
        bytes_max=bytes_max,
    )


def records_of(response: FetchResponse, state: PartitionImage) -> Records:
    """Raises the KafkaError of the answer."""
    if response.error_code:
        raise for_code(response.error_code)
    fetched: FetchedPartition = response.partitions[0]
    if fetched.error_code:
        raise for_code(fetched.error_code, _explain(fetched))
    return Records(
        data=fetched.records,
        high_watermark=fetched.high_watermark,
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
