"""Initialize-, Read-, Write-, DeleteShareGroupState and ReadShareGroupStateSummary (83 to 87).

Leaders of partitions and group coordinators ask the share coordinator. Each partition has a result of its own.

Where there is an authorizer, clients need CLUSTER_ACTION: it is checked before these handlers
(`kraft.wire.access_table`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

from kraft.coordinators.shares.coordinator import ShareCoordinator
from kraft.coordinators.shares.decide import Write
from kraft.coordinators.shares.state import ShareKey
from kraft.protocol.encoding import TopLevel
from kraft.protocol.errors import KafkaError, NotCoordinator
from kraft.protocol.messages import delete_share_group_state_response as deletion
from kraft.protocol.messages import initialize_share_group_state_response as initialization
from kraft.protocol.messages import read_share_group_state_response as reading
from kraft.protocol.messages import read_share_group_state_summary_response as summary
from kraft.protocol.messages import write_share_group_state_response as writing
from kraft.protocol.messages.delete_share_group_state_request import DeleteShareGroupStateRequestData
from kraft.protocol.messages.initialize_share_group_state_request import InitializeShareGroupStateRequestData
from kraft.protocol.messages.read_share_group_state_request import ReadShareGroupStateRequestData
from kraft.protocol.messages.read_share_group_state_summary_request import ReadShareGroupStateSummaryRequestData
from kraft.protocol.messages.write_share_group_state_request import WriteShareGroupStateRequestData
from kraft.wire.api_handler import ApiHandler, Call
from kraft.wire.node_parts import NodeParts
from replication.shares.states import NO_COUNT, NO_OFFSET, StateBatch

Partitions = Callable[[ShareKey, Any], Awaitable[Any]]
"""Key and partition of a request -> its result. Raises KafkaError."""
Topic = Callable[[UUID, list[Any]], Any]
Failed = Callable[[int, KafkaError], Any]


def apis(broker: NodeParts) -> Sequence[ApiHandler]:
    """The handlers of this module."""
    served = _State(broker)
    return [
        _api(
            InitializeShareGroupStateRequestData,
            initialization,
            served.initialize,
            topic=initialization.InitializeStateResult.make,
            make=initialization.InitializeShareGroupStateResponseData,
        ),
        _api(
            ReadShareGroupStateRequestData,
            reading,
            served.read,
            topic=reading.ReadStateResult.make,
            make=reading.ReadShareGroupStateResponseData,
        ),
        _api(
            WriteShareGroupStateRequestData,
            writing,
            served.write,
            topic=writing.WriteStateResult.make,
            make=writing.WriteShareGroupStateResponseData,
        ),
        _api(
            DeleteShareGroupStateRequestData,
            deletion,
            served.delete,
            topic=deletion.DeleteStateResult.make,
            make=deletion.DeleteShareGroupStateResponseData,
        ),
        _api(
            ReadShareGroupStateSummaryRequestData,
            summary,
            served.summary,
            topic=summary.ReadStateSummaryResult.make,
            make=summary.ReadShareGroupStateSummaryResponseData,
        ),
    ]


def _api(request: type[TopLevel], messages: Any, handle: Partitions, *, topic: Any, make: Any) -> ApiHandler:
    """All five have the same shape: topics, partitions, and a result for each partition."""

    def failure(number: int, error: KafkaError) -> Any:
        return messages.PartitionResult.make(partition=number, error_code=error.code, error_message=error.message)

    async def result(key: ShareKey, partition: Any) -> Any:
        try:
            return await handle(key, partition)
        except KafkaError as error:
            return failure(key.partition, error)

    async def answer(call: Call[Any]) -> TopLevel:
        response: TopLevel = make.make(
            results=[
                topic(
                    topic_id=each.topic_id,
                    partitions=[
                        await result(ShareKey(call.message.group_id, each.topic_id, partition.partition), partition)
                        for partition in each.partitions
                    ],
                )
                for each in call.message.topics
            ]
        )
        return response

    def refuse(message: Any, version: int, error: KafkaError) -> TopLevel:
        response: TopLevel = make.make(
            results=[
                topic(
                    topic_id=each.topic_id,
                    partitions=[failure(partition.partition, error) for partition in each.partitions],
                )
                for each in message.topics
            ]
        )
        return response

    return ApiHandler(request=request, response=make, handle=answer, refuse=refuse)


class _State:
    def __init__(self, broker: NodeParts) -> None:
        self._broker = broker

    @property
    def _coordinator(self) -> ShareCoordinator:
        return self._broker.broker_or(NotCoordinator).shares.coordinator

    async def initialize(self, key: ShareKey, asked: Any) -> Any:
        await self._coordinator.initialize(key, state_epoch=asked.state_epoch, start_offset=asked.start_offset)
        return initialization.PartitionResult.make(partition=key.partition)

    async def read(self, key: ShareKey, asked: Any) -> Any:
        found = await self._coordinator.read(key, leader_epoch=asked.leader_epoch)
        return reading.PartitionResult.make(
            partition=key.partition,
            state_epoch=found.state_epoch,
            start_offset=found.start_offset,
            state_batches=[
                reading.StateBatch.make(
                    first_offset=first,
                    last_offset=last,
                    delivery_state=state,
                    delivery_count=delivery_count,
                    not_before_ms=not_before_ms,
                )
                for first, last, state, delivery_count, not_before_ms in found.batches
            ],
        )

    async def write(self, key: ShareKey, asked: Any) -> Any:
        write = Write(
            state_epoch=asked.state_epoch,
            leader_epoch=asked.leader_epoch,
            start_offset=asked.start_offset,
            delivery_complete_count=asked.delivery_complete_count,
            batches=[
                StateBatch(
                    batch.first_offset,
                    batch.last_offset,
                    batch.delivery_state,
                    batch.delivery_count,
                    batch.not_before_ms,
                )
                for batch in asked.state_batches
            ],
        )
        await self._coordinator.write(key, write)
        return writing.PartitionResult.make(partition=key.partition)

    async def delete(self, key: ShareKey, asked: Any) -> Any:
        await self._coordinator.delete(key)
        return deletion.PartitionResult.make(partition=key.partition)

    async def summary(self, key: ShareKey, asked: Any) -> Any:
        found = await self._coordinator.summary(key)
        return summary.PartitionResult.make(
            partition=key.partition,
            state_epoch=found.state_epoch,
            leader_epoch=found.leader_epoch,
            start_offset=found.start_offset,
            delivery_complete_count=NO_COUNT if found.start_offset == NO_OFFSET else found.delivery_complete_count,
        )
