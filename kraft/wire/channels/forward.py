"""What this node asks the leader of a partition for its own clients: Produce (0), Fetch (1), ListOffsets (2),
DeleteRecords (21) and DescribeProducers (61)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kraft.protocol import apis
from kraft.protocol.acks import ACKS_NONE
from kraft.protocol.errors import RecordError, for_code
from kraft.protocol.messages.delete_records_request import (
    DeleteRecordsPartition,
    DeleteRecordsRequestData,
    DeleteRecordsTopic,
)
from kraft.protocol.messages.delete_records_response import DeleteRecordsResponseData
from kraft.protocol.messages.describe_producers_request import DescribeProducersRequestData, TopicRequest
from kraft.protocol.messages.describe_producers_response import DescribeProducersResponseData
from kraft.protocol.messages.list_offsets_request import ListOffsetsPartition, ListOffsetsRequestData, ListOffsetsTopic
from kraft.protocol.messages.list_offsets_response import ListOffsetsResponseData
from kraft.protocol.messages.produce_request import PartitionProduceData, ProduceRequestData, TopicProduceData
from kraft.protocol.messages.produce_response import (
    PartitionProduceResponse,
    ProduceResponseData,
)
from kraft.protocol.primitives import Buffer
from kraft.values import new
from kraft.wire.channels.replicas import FETCH
from kraft.wire.grouping import by_topic
from kraft.wire.peers import Lane, Peers
from kraft.wire.rpc import ANSWER_SLACK_MS, REPLICA_TIMEOUT_MS, Rpc
from kraft.wire.terms import READ_COMMITTED, READ_UNCOMMITTED, name_of
from metadata.image import TopicIdPartition
from replication.requests import (
    CONSUMER,
    ActiveProducer,
    FetchRequest,
    FetchResponse,
    OffsetAnswer,
    ProduceOptions,
    ProduceOutcome,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOffset:
    """A question for the offset of a timestamp in one partition."""

    partition: TopicIdPartition
    timestamp: int
    timeout_ms: int
    is_read_committed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteRecords:
    """A request to move the log start of one partition."""

    partition: TopicIdPartition
    offset: int
    timeout_ms: int


# --- ListOffsets, one partition at a time ---------------------------------------------------------------------------


def _list_request(request: ListOffset, timeout_ms: int) -> ListOffsetsRequestData:
    question = ListOffsetsPartition.make(partition_index=request.partition.partition, timestamp=request.timestamp)
    return ListOffsetsRequestData.make(
        replica_id=CONSUMER,
        isolation_level=READ_COMMITTED if request.is_read_committed else READ_UNCOMMITTED,
        topics=(ListOffsetsTopic.make(name=name_of(request.partition.topic_id), partitions=(question,)),),
        timeout_ms=request.timeout_ms,
    )


def _list_from_reply(request: ListOffset, message: ListOffsetsResponseData) -> OffsetAnswer:
    ((item,),) = [topic.partitions for topic in message.topics]
    if item.error_code:
        raise for_code(item.error_code)
    return OffsetAnswer(offset=item.offset, timestamp=item.timestamp, leader_epoch=item.leader_epoch)


LIST_OFFSETS: Rpc[ListOffset, OffsetAnswer, ListOffsetsRequestData, ListOffsetsResponseData] = Rpc(
    api=apis.LIST_OFFSETS,
    response=ListOffsetsResponseData,
    to_request=_list_request,
    from_reply=_list_from_reply,
)


# --- DeleteRecords, one partition at a time ---------------------------------------------------------------------------


def _delete_request(request: DeleteRecords, timeout_ms: int) -> DeleteRecordsRequestData:
    partition = DeleteRecordsPartition.make(partition_index=request.partition.partition, offset=request.offset)
    topic = DeleteRecordsTopic.make(name=name_of(request.partition.topic_id), partitions=(partition,))
    return DeleteRecordsRequestData.make(topics=(topic,), timeout_ms=request.timeout_ms)


def _low_watermark(request: DeleteRecords, message: DeleteRecordsResponseData) -> int:
    ((item,),) = [topic.partitions for topic in message.topics]
    if item.error_code:
        raise for_code(item.error_code)
    return item.low_watermark


DELETE_RECORDS: Rpc[DeleteRecords, int, DeleteRecordsRequestData, DeleteRecordsResponseData] = Rpc(
    api=apis.DELETE_RECORDS,
    response=DeleteRecordsResponseData,
    to_request=_delete_request,
    from_reply=_low_watermark,
)


# --- Produce --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ProduceRequest:
    batches: Mapping[TopicIdPartition, Buffer]
    options: ProduceOptions


Outcomes = Mapping[TopicIdPartition, ProduceOutcome]


def _produce_request(request: ProduceRequest, timeout_ms: int) -> ProduceRequestData:
    return ProduceRequestData.make(
        transactional_id=request.options.transactional_id,
        acks=request.options.acks,
        timeout_ms=request.options.timeout_ms,
        topic_data=[
            TopicProduceData.make(
                topic_id=topic_id,
                partition_data=[
                    PartitionProduceData.make(index=key.partition, records=request.batches[key]) for key in keys
                ],
            )
            for topic_id, keys in by_topic(tuple(request.batches))
        ],
    )


def _outcomes(request: ProduceRequest, message: ProduceResponseData) -> Outcomes:
    return {
        TopicIdPartition(topic.topic_id, item.index): _outcome(item)
        for topic in message.responses
        for item in topic.partition_responses
    }


def _outcome(item: PartitionProduceResponse) -> ProduceOutcome:
    made = new(ProduceOutcome)
    ProduceOutcome.__init__(
        made,
        error_code=item.error_code,
        message=item.error_message or "",
        base_offset=item.base_offset,
        last_offset=item.last_offset,
        log_append_time_ms=item.log_append_time_ms,
        log_start_offset=item.log_start_offset,
        leader_id=item.current_leader.leader_id,
        leader_epoch=item.current_leader.leader_epoch,
        is_appended=item.is_appended,
        isr=tuple(item.isr),
        min_isr=item.min_isr,
        record_errors=tuple(
            [RecordError(each.batch_index, each.batch_index_error_message or "") for each in item.record_errors]
        ),
    )
    return made


PRODUCE: Rpc[ProduceRequest, Outcomes, ProduceRequestData, ProduceResponseData] = Rpc(
    api=apis.PRODUCE,
    response=ProduceResponseData,
    to_request=_produce_request,
    from_reply=_outcomes,
)


def _producers_request(request: TopicIdPartition, timeout_ms: int) -> DescribeProducersRequestData:
    topic = TopicRequest.make(name=name_of(request.topic_id), partition_indexes=(request.partition,))
    return DescribeProducersRequestData.make(topics=(topic,))


def _producers(request: TopicIdPartition, message: DescribeProducersResponseData) -> Sequence[ActiveProducer]:
    ((partition,),) = [topic.partitions for topic in message.topics]
    if partition.error_code:
        raise for_code(partition.error_code, partition.error_message or "")
    return tuple(
        ActiveProducer(
            producer_id=each.producer_id,
            producer_epoch=each.producer_epoch,
            last_sequence=each.last_sequence,
            last_timestamp_ms=each.last_timestamp,
            coordinator_epoch=each.coordinator_epoch,
            transaction_start_offset=each.current_txn_start_offset,
        )
        for each in partition.active_producers
    )


DESCRIBE_PRODUCERS: Rpc[
    TopicIdPartition, Sequence[ActiveProducer], DescribeProducersRequestData, DescribeProducersResponseData
] = Rpc(
    api=apis.DESCRIBE_PRODUCERS,
    response=DescribeProducersResponseData,
    to_request=_producers_request,
    from_reply=_producers,
)


LOOKUP_MS = 5_000
"""For a leader to find an offset in its log: a lookup by timestamp may have to read a segment's headers."""
READ_BYTES_PER_MS_MIN = 1_000
"""A leader that hands out a client's records more slowly than this is taken for silent."""


class RemotePartitionClient:
    """`kraft.broker.leaders.PartitionClient` of another broker; at most one hop.

    Produces, reads and waits for records have a connection each: none of them stands in another's queue.
    """

    def __init__(self, peers: Peers, node_id: int) -> None:
        self._peers = peers
        self._node_id = node_id

    async def produce(
        self, batches: Mapping[TopicIdPartition, Buffer], options: ProduceOptions
    ) -> Mapping[TopicIdPartition, ProduceOutcome]:
        """Appends one RecordBatch, or several, to each partition. With acks=0 nothing is answered, and each outcome is
        an empty one.
        """
        request = ProduceRequest(batches=batches, options=options)
        answer_ms = options.timeout_ms + ANSWER_SLACK_MS
        if options.acks != ACKS_NONE:
            return await self._peers.call(self._node_id, "forward", PRODUCE, request, timeout_ms=answer_ms)
        connection = await self._peers.connection(self._node_id, "forward", timeout_ms=answer_ms)
        await connection.send(PRODUCE.api, PRODUCE.to_request(request, options.timeout_ms))
        return {partition: ProduceOutcome() for partition in batches}

    async def fetch(self, request: FetchRequest) -> FetchResponse:
        """One read of a consumer. A leader that sends nothing holds it for the time that its bytes may take, no longer:
        it may be paused or cut off, and the cluster finds another one meanwhile.
        """
        transfer_ms = ANSWER_SLACK_MS + request.bytes_max // READ_BYTES_PER_MS_MIN
        timeout_ms = request.wait_ms_max + min(transfer_ms, REPLICA_TIMEOUT_MS)
        lane: Lane = "waits" if request.wait_ms_max > 0 else "reads"
        return await self._peers.call(self._node_id, "forward", FETCH, request, timeout_ms=timeout_ms, lane=lane)

    async def list_offset(
        self, partition: TopicIdPartition, timestamp: int, *, is_read_committed: bool = False
    ) -> OffsetAnswer:
        """The offset for a timestamp in ms, or for one of Kafka's special timestamps (-1 latest, -2 earliest ...);
        `is_read_committed` makes the last stable offset the latest one."""
        request = ListOffset(
            partition=partition, timestamp=timestamp, timeout_ms=LOOKUP_MS, is_read_committed=is_read_committed
        )
        return await self._peers.call(
            self._node_id, "forward", LIST_OFFSETS, request, timeout_ms=LOOKUP_MS, lane="reads"
        )

    async def producers(self, partition: TopicIdPartition) -> Sequence[ActiveProducer]:
        """What the leader knows of the partition's producers. Raises as `list_offset`."""
        return await self._peers.call(
            self._node_id, "forward", DESCRIBE_PRODUCERS, partition, timeout_ms=LOOKUP_MS, lane="reads"
        )

    async def delete_records(self, partition: TopicIdPartition, *, offset: int, timeout_ms: int) -> int:
        """Moves the log start to `offset` and returns it once all live replicas have done so (KIP-107)."""
        request = DeleteRecords(partition=partition, offset=offset, timeout_ms=timeout_ms)
        answer_ms = timeout_ms + ANSWER_SLACK_MS
        return await self._peers.call(self._node_id, "forward", DELETE_RECORDS, request, timeout_ms=answer_ms)
