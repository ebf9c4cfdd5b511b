"""ConsumerGroupHeartbeat and ConsumerGroupDescribe (68, 69): groups of the consumer protocol (KIP-848).

Topics go by id on this way in and out. Each request goes to the coordinator in this process, as those of the classic
protocol do (`groups`).
Source: KafkaApis, GroupCoordinatorService.consumerGroupHeartbeat and consumerGroupDescribe.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

from kraft.coordinators.groups.consumer_group import ConsumerGroup, ConsumerMember
from kraft.coordinators.groups.consumer_protocol import check_heartbeat
from kraft.coordinators.groups.consumer_requests import ConsumerHeartbeat, ConsumerHeartbeatAnswer
from kraft.coordinators.groups.share_records import by_topic
from kraft.protocol.errors import InvalidRequest, KafkaError, NotCoordinator
from kraft.protocol.messages import consumer_group_describe_response as described
from kraft.protocol.messages import consumer_group_heartbeat_response as beaten
from kraft.protocol.messages.consumer_group_describe_request import ConsumerGroupDescribeRequestData
from kraft.protocol.messages.consumer_group_heartbeat_request import ConsumerGroupHeartbeatRequestData
from kraft.wire.access import allowed
from kraft.wire.api_handler import ApiHandler, Call
from kraft.wire.handlers import operations
from kraft.wire.node_parts import NodeParts
from metadata.acls import AclOperation, AclResource
from metadata.image import MetadataImage, TopicIdPartition

CLASSIC_MEMBER, CONSUMER_MEMBER = 0, 1
"""Member types of ConsumerGroupDescribe 1 (KIP-1099)."""

Heartbeat = ConsumerGroupHeartbeatRequestData
HeartbeatResponse = beaten.ConsumerGroupHeartbeatResponseData
Describe = ConsumerGroupDescribeRequestData
DescribeResponse = described.ConsumerGroupDescribeResponseData


def apis(broker: NodeParts) -> Sequence[ApiHandler]:
    groups = _ConsumerGroups(broker)
    return [
        ApiHandler(
            request=Heartbeat,
            response=HeartbeatResponse,
            handle=groups.beat,
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


class _ConsumerGroups:
    def __init__(self, broker: NodeParts) -> None:
        self._broker = broker

    async def beat(self, call: Call[Heartbeat]) -> HeartbeatResponse:
        message = call.message
        if not message.group_id.strip():
            raise InvalidRequest("GroupId can't be empty.")
        check_heartbeat(_event(call), assignors=self._assignors(), version=call.version)
        may = allowed(call, self._broker.gateway, "ConsumerGroupHeartbeat")

        def event_of(ticket: int, new_member_id: str) -> ConsumerHeartbeat:
            event = _event(call, ticket=ticket, new_member_id=new_member_id)
            if may is None:
                return event
            return replace(event, may_describe=partial(may.silently, AclOperation.DESCRIBE, AclResource.TOPIC))

        answer = await self._broker.broker_or(NotCoordinator).group_coordinator.consumer_heartbeat(
            message.group_id, event_of
        )
        return _outcome_of(answer)

    async def describe(self, call: Call[Describe]) -> DescribeResponse:
        allowed = operations.GROUP if call.message.include_authorized_operations else operations.NOT_ASKED
        groups = [await self._describe(group, allowed=allowed) for group in call.message.group_ids]
        return DescribeResponse.make(groups=groups)

    async def _describe(self, group_id: str, *, allowed: int) -> described.DescribedGroup:
        try:
            group = await self._broker.broker_or(NotCoordinator).group_coordinator.describe_consumer_group(group_id)
        except KafkaError as error:
            return _undescribed(group_id, error)
        image = self._broker.gateway.image
        return described.DescribedGroup.make(
            group_id=group_id,
            group_state=group.state,
            group_epoch=group.epoch,
            assignment_epoch=group.assignment_epoch,
            assignor_name=group.preferred_assignor(self._assignors()),
            members=[_member(group, member, image) for member in group.members.values()],
            authorized_operations=allowed,
        )

    def _assignors(self) -> Sequence[str]:
        return self._broker.gateway.settings.group_consumer_assignors.split(",")


def _event(call: Call[Heartbeat], *, ticket: int = 0, new_member_id: str = "") -> ConsumerHeartbeat:
    message = call.message
    owned = None
    if message.topic_partitions is not None:
        owned = frozenset(
            [TopicIdPartition(each.topic_id, number) for each in message.topic_partitions for number in each.partitions]
        )
    return ConsumerHeartbeat(
        ticket=ticket,
        member_id=message.member_id,
        member_epoch=message.member_epoch,
        client_id=call.client_id or "",
        client_host=call.connection.host,
        instance_id=message.instance_id,
        rack_id=message.rack_id,
        rebalance_timeout_ms=message.rebalance_timeout_ms,
        topics=None if message.subscribed_topic_names is None else frozenset(message.subscribed_topic_names),
        pattern=message.subscribed_topic_regex,
        assignor=message.server_assignor,
        owned=owned,
        new_member_id=new_member_id,
    )


def _outcome_of(answer: ConsumerHeartbeatAnswer) -> HeartbeatResponse:
    assignment = None
    if answer.assignment is not None:
        assignment = beaten.Assignment.make(
            topic_partitions=[
                beaten.TopicPartitions.make(topic_id=topic_id, partitions=numbers)
                for topic_id, numbers in by_topic(answer.assignment).items()
            ]
        )
    return HeartbeatResponse.make(
        member_id=answer.member_id,
        member_epoch=answer.member_epoch,
        heartbeat_interval_ms=answer.heartbeat_interval_ms,
        assignment=assignment,
    )


def _member(group: ConsumerGroup, member: ConsumerMember, image: MetadataImage) -> described.Member:
    return described.Member.make(
        member_id=member.member_id,
        instance_id=member.instance_id,
        rack_id=member.rack_id,
        member_epoch=member.member_epoch,
        client_id=member.client_id,
        client_host=member.client_host,
        subscribed_topic_names=sorted(member.topics),
        subscribed_topic_regex=member.pattern,
        assignment=_assignment(member.assigned, image),
        target_assignment=_assignment(group.targets.get(member.member_id, frozenset()), image),
        member_type=CONSUMER_MEMBER if member.classic is None else CLASSIC_MEMBER,
    )


def _assignment(partitions: Iterable[TopicIdPartition], image: MetadataImage) -> described.Assignment:
    """Without those of topics that have been deleted."""
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
