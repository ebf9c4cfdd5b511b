"""ShareGroupHeartbeat and ShareGroupDescribe (76, 77): members of share groups (KIP-932).

Each request goes to the group coordinator in this process, as those of the other group protocols do. Without a share
coordinator both are refused with UNSUPPORTED_VERSION 35, as Kafka does while `share.version` is 0.
Source: KafkaApis, GroupCoordinatorService.shareGroupHeartbeat and shareGroupDescribe, Kafka 4.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kraft.coordinators.groups.share_group import ShareGroup, ShareMember
from kraft.coordinators.groups.share_protocol import ASSIGNOR, check_share_heartbeat
from kraft.coordinators.groups.share_records import by_topic
from kraft.coordinators.groups.share_requests import ShareHeartbeat
from kraft.protocol.errors import InvalidRequest, KafkaError, NotCoordinator
from kraft.protocol.messages import share_group_describe_response as described
from kraft.protocol.messages import share_group_heartbeat_response as heartbeat_
from kraft.protocol.messages.share_group_describe_request import ShareGroupDescribeRequestData
from kraft.protocol.messages.share_group_heartbeat_request import ShareGroupHeartbeatRequestData
from kraft.wire.api_handler import ApiHandler, Call
from kraft.wire.handlers import operations
from kraft.wire.node_parts import NodeParts
from metadata.image import MetadataImage, TopicIdPartition

Heartbeat = ShareGroupHeartbeatRequestData
HeartbeatResponse = heartbeat_.ShareGroupHeartbeatResponseData
Describe = ShareGroupDescribeRequestData
DescribeResponse = described.ShareGroupDescribeResponseData


def apis(broker: NodeParts) -> Sequence[ApiHandler]:
    groups = _ShareGroups(broker)
    return [
        ApiHandler(
            request=Heartbeat,
            response=HeartbeatResponse,
            handle=groups.heartbeat,
            refuse=lambda message, version, error: HeartbeatResponse.make(
                error_code=error.code, error_message=error.message
            ),
        ),
        ApiHandler(
            request=Describe,
            response=DescribeResponse,
            handle=groups.describe,
            refuse=lambda message, version, error: DescribeResponse.make(
                groups=[_undescribed(group, error) for group in message.group_ids]
            ),
        ),
    ]


class _ShareGroups:
    def __init__(self, broker: NodeParts) -> None:
        self._broker = broker

    async def heartbeat(self, call: Call[Heartbeat]) -> HeartbeatResponse:
        message = call.message
        if not message.group_id.strip():
            raise InvalidRequest("GroupId can't be empty.")
        check_share_heartbeat(_event(call, ticket=0))
        answer = await self._broker.broker_or(NotCoordinator).group_coordinator.share_heartbeat(
            message.group_id, lambda ticket: _event(call, ticket=ticket)
        )
        assignment = None
        if answer.assignment is not None:
            topics = [
                heartbeat_.TopicPartitions.make(topic_id=topic_id, partitions=numbers)
                for topic_id, numbers in by_topic(answer.assignment).items()
            ]
            assignment = heartbeat_.Assignment.make(topic_partitions=topics)
        return HeartbeatResponse.make(
            member_id=answer.member_id,
            member_epoch=answer.member_epoch,
            heartbeat_interval_ms=answer.heartbeat_interval_ms,
            assignment=assignment,
        )

    async def describe(self, call: Call[Describe]) -> DescribeResponse:
        allowed = operations.GROUP if call.message.include_authorized_operations else operations.NOT_ASKED
        groups = [await self._describe(group, allowed=allowed) for group in call.message.group_ids]
        return DescribeResponse.make(groups=groups)

    async def _describe(self, group_id: str, *, allowed: int) -> described.DescribedGroup:
        try:
            group: ShareGroup = await self._broker.broker_or(NotCoordinator).group_coordinator.describe_share_group(
                group_id
            )
        except KafkaError as error:
            return _undescribed(group_id, error)
        image = self._broker.gateway.image
        return described.DescribedGroup.make(
            group_id=group_id,
            group_state=group.state,
            group_epoch=group.epoch,
            assignment_epoch=group.assignment_epoch,
            assignor_name=ASSIGNOR,
            members=[_member(member, image) for member in group.members.values()],
            authorized_operations=allowed,
        )


def _event(call: Call[Heartbeat], *, ticket: int) -> ShareHeartbeat:
    message = call.message
    return ShareHeartbeat(
        ticket=ticket,
        member_id=message.member_id,
        member_epoch=message.member_epoch,
        client_id=call.client_id or "",
        client_host=call.connection.host,
        rack_id=message.rack_id,
        topics=None if message.subscribed_topic_names is None else frozenset(message.subscribed_topic_names),
    )


def _member(member: ShareMember, image: MetadataImage) -> described.Member:
    return described.Member.make(
        member_id=member.member_id,
        rack_id=member.rack_id,
        member_epoch=member.member_epoch,
        client_id=member.client_id,
        client_host=member.client_host,
        subscribed_topic_names=sorted(member.topics),
        assignment=_assignment(member.assigned, image),
    )


def _assignment(partitions: Iterable[TopicIdPartition], image: MetadataImage) -> described.Assignment:
    """Without partitions of topics that have been deleted."""
    return described.Assignment.make(
        topic_partitions=[
            described.TopicPartitions.make(
                topic_id=topic_id, topic_name=image.topics[topic_id].name, partitions=numbers
            )
            for topic_id, numbers in by_topic(partitions).items()
            if topic_id in image.topics
        ]
    )


def _undescribed(group: str, error: KafkaError) -> described.DescribedGroup:
    return described.DescribedGroup.make(group_id=group, error_code=error.code, error_message=error.message)
