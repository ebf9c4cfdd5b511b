"""DescribeShareGroupOffsets, AlterShareGroupOffsets and DeleteShareGroupOffsets (90 to 92): where share groups stand.

Each goes to the group coordinator in this process; a client asks the right one. What a client has to be allowed is
checked before these handlers (`kraft.wire.access_table`).
Source: KafkaApis.handleDescribeShareGroupOffsetsRequest and the two that follow it, Kafka 4.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

from kraft.broker.principal import Principal
from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.coordinators.groups.audited import audited
from kraft.coordinators.groups.share_offsets import TOPIC_ROW
from kraft.protocol.encoding import ZERO_UUID
from kraft.protocol.errors import KafkaError, NotCoordinator
from kraft.protocol.messages import alter_share_group_offsets_response as altered
from kraft.protocol.messages import delete_share_group_offsets_response as deleted
from kraft.protocol.messages import describe_share_group_offsets_response as described
from kraft.protocol.messages.alter_share_group_offsets_request import AlterShareGroupOffsetsRequestData
from kraft.protocol.messages.delete_share_group_offsets_request import DeleteShareGroupOffsetsRequestData
from kraft.protocol.messages.describe_share_group_offsets_request import (
    DescribeShareGroupOffsetsRequestData,
    DescribeShareGroupOffsetsRequestGroup,
)
from kraft.protocol.primitives import TopicPartition
from kraft.wire.api_handler import ApiHandler, Call
from kraft.wire.node_parts import NodeParts

DescribeResponse = described.DescribeShareGroupOffsetsResponseData
AlterResponse = altered.AlterShareGroupOffsetsResponseData
DeleteResponse = deleted.DeleteShareGroupOffsetsResponseData


def apis(broker: NodeParts) -> Sequence[ApiHandler]:
    """The handlers of this module."""
    offsets = _ShareOffsets(broker)
    return [
        ApiHandler(
            request=DescribeShareGroupOffsetsRequestData,
            response=DescribeResponse,
            handle=offsets.describe,
            refuse=lambda message, version, error: DescribeResponse.make(
                groups=[_undescribed(group.group_id, error) for group in message.groups]
            ),
        ),
        ApiHandler(
            request=AlterShareGroupOffsetsRequestData,
            response=AlterResponse,
            handle=offsets.alter,
            refuse=lambda message, version, error: AlterResponse.make(
                error_code=error.code, error_message=error.message
            ),
        ),
        ApiHandler(
            request=DeleteShareGroupOffsetsRequestData,
            response=DeleteResponse,
            handle=offsets.delete,
            refuse=lambda message, version, error: DeleteResponse.make(
                error_code=error.code, error_message=error.message
            ),
        ),
    ]


class _ShareOffsets:
    def __init__(self, broker: NodeParts) -> None:
        self._broker = broker

    async def describe(self, call: Call[DescribeShareGroupOffsetsRequestData]) -> DescribeResponse:
        return DescribeResponse.make(groups=[await self._describe(group) for group in call.message.groups])

    async def _describe(
        self, group: DescribeShareGroupOffsetsRequestGroup
    ) -> described.DescribeShareGroupOffsetsResponseGroup:
        asked = None if group.topics is None else _named((each.topic_name, each.partitions) for each in group.topics)
        try:
            rows = await self._ask(r.DescribeShareOffsets(group=group.group_id, partitions=asked))
        except KafkaError as error:
            return _undescribed(group.group_id, error)
        return described.DescribeShareGroupOffsetsResponseGroup.make(
            group_id=group.group_id,
            topics=[
                described.DescribeShareGroupOffsetsResponseTopic.make(
                    topic_name=topic,
                    topic_id=self._topic_id(topic),
                    partitions=[
                        described.DescribeShareGroupOffsetsResponsePartition.make(
                            partition_index=row.partition,
                            start_offset=row.start_offset,
                            leader_epoch=max(0, row.leader_epoch),  # as in Kafka where no leader has begun
                            lag=row.lag,
                            error_code=row.error_code,
                            error_message=row.error_message,
                        )
                        for row in of_topic
                    ],
                )
                for topic, of_topic in _by_topic(rows).items()
            ],
        )

    async def alter(self, call: Call[AlterShareGroupOffsetsRequestData]) -> AlterResponse:
        """Raises NonEmptyGroup 68, GroupIdNotFound 69."""
        message = call.message
        offsets = tuple(
            (topic.topic_name, each.partition_index, each.start_offset)
            for topic in message.topics
            for each in topic.partitions
        )
        rows = await self._ask(r.ResetShareOffsets(group=message.group_id, offsets=offsets), call.principal)
        return AlterResponse.make(
            responses=[
                altered.AlterShareGroupOffsetsResponseTopic.make(
                    topic_name=topic,
                    topic_id=self._topic_id(topic),
                    partitions=[
                        altered.AlterShareGroupOffsetsResponsePartition.make(
                            partition_index=row.partition, error_code=row.error_code, error_message=row.error_message
                        )
                        for row in of_topic
                    ],
                )
                for topic, of_topic in _by_topic(rows).items()
            ]
        )

    async def delete(self, call: Call[DeleteShareGroupOffsetsRequestData]) -> DeleteResponse:
        """Raises NonEmptyGroup 68, GroupIdNotFound 69."""
        message = call.message
        topics = tuple(topic.topic_name for topic in message.topics)
        rows = await self._ask(r.DeleteShareOffsets(group=message.group_id, topics=topics), call.principal)
        assert all(row.partition == TOPIC_ROW for row in rows), rows
        return DeleteResponse.make(
            responses=[
                deleted.DeleteShareGroupOffsetsResponseTopic.make(
                    topic_name=row.topic,
                    topic_id=self._topic_id(row.topic),
                    error_code=row.error_code,
                    error_message=row.error_message,
                )
                for row in rows
            ]
        )

    async def _ask(self, request: r.Request, principal: Principal | None = None) -> Sequence[a.ShareOffset]:
        ask = self._broker.broker_or(NotCoordinator).group_coordinator.ask
        answer = await audited(self._broker.gateway, principal, request, ask)
        assert isinstance(answer, a.ShareOffsets), answer
        return answer.offsets

    def _topic_id(self, name: str) -> UUID:
        topic = self._broker.gateway.image.topic(name)
        return ZERO_UUID if topic is None else topic.topic_id


def _named(topics: Iterable[tuple[str, Iterable[int]]]) -> tuple[TopicPartition, ...]:
    return tuple((topic, number) for topic, numbers in topics for number in numbers)


def _by_topic(rows: Iterable[a.ShareOffset]) -> Mapping[str, Sequence[a.ShareOffset]]:
    found: dict[str, list[a.ShareOffset]] = {}
    for row in rows:
        found.setdefault(row.topic, []).append(row)
    return found


def _undescribed(group: str, error: KafkaError) -> described.DescribeShareGroupOffsetsResponseGroup:
    return described.DescribeShareGroupOffsetsResponseGroup.make(
        group_id=group, error_code=error.code, error_message=error.message
    )
