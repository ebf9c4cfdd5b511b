"""DescribeGroups, ListGroups, DeleteGroups, OffsetDelete (15, 16, 42, 47): groups as administrators see them.

A node describes and deletes the groups that it coordinates and lists no others: an administrator's client asks all.
Source: KafkaApis, GroupMetadataManager.describeGroups and listGroups, OffsetMetadataManager.deleteOffsets.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.coordinators.groups.audited import audited
from kraft.coordinators.groups.classic_group import Phase
from kraft.coordinators.groups.group_metadata import Kind
from kraft.protocol.errors import (
    CoordinatorLoadInProgress,
    GroupIdNotFound,
    GroupSubscribedToTopic,
    KafkaError,
    NotCoordinator,
    UnknownTopicOrPartition,
)
from kraft.protocol.messages.delete_groups_request import DeleteGroupsRequestData
from kraft.protocol.messages.delete_groups_response import DeletableGroupResult, DeleteGroupsResponseData
from kraft.protocol.messages.describe_groups_request import DescribeGroupsRequestData
from kraft.protocol.messages.describe_groups_response import (
    DescribedGroup,
    DescribedGroupMember,
    DescribeGroupsResponseData,
)
from kraft.protocol.messages.list_groups_request import ListGroupsRequestData
from kraft.protocol.messages.list_groups_response import ListedGroup, ListGroupsResponseData
from kraft.protocol.messages.offset_delete_request import OffsetDeleteRequestData
from kraft.protocol.messages.offset_delete_response import (
    OffsetDeleteResponseData,
    OffsetDeleteResponsePartition,
    OffsetDeleteResponseTopic,
)
from kraft.wire.api_handler import ApiHandler, Call
from kraft.wire.handlers import operations
from kraft.wire.node_parts import NodeParts

MISSING_IS_AN_ERROR_FROM = 6
"""DescribeGroups: a group that is not there is GROUP_ID_NOT_FOUND 69 (KIP-1043); Dead, and no error, before."""


def apis(broker: NodeParts) -> Sequence[ApiHandler]:
    groups = _GroupAdmin(broker)
    return [
        ApiHandler(
            request=DescribeGroupsRequestData,
            response=DescribeGroupsResponseData,
            handle=groups.describe,
            refuse=lambda message, version, error: DescribeGroupsResponseData.make(
                groups=[_undescribed(group, error) for group in message.groups]
            ),
        ),
        ApiHandler(
            request=ListGroupsRequestData,
            response=ListGroupsResponseData,
            handle=groups.list,
            refuse=lambda message, version, error: ListGroupsResponseData.make(error_code=error.code),
        ),
        ApiHandler(
            request=DeleteGroupsRequestData,
            response=DeleteGroupsResponseData,
            handle=groups.delete,
            refuse=lambda message, version, error: DeleteGroupsResponseData.make(
                results=[
                    DeletableGroupResult.make(group_id=group, error_code=error.code) for group in message.groups_names
                ]
            ),
        ),
        ApiHandler(
            request=OffsetDeleteRequestData,
            response=OffsetDeleteResponseData,
            handle=groups.delete_offsets,
            refuse=lambda message, version, error: OffsetDeleteResponseData.make(error_code=error.code),
        ),
    ]


class _GroupAdmin:
    def __init__(self, broker: NodeParts) -> None:
        self._broker = broker

    @property
    def _ask(self) -> Callable[[r.Request], Awaitable[a.Answer]]:
        return self._broker.broker_or(NotCoordinator).group_coordinator.ask

    async def describe(self, call: Call[DescribeGroupsRequestData]) -> DescribeGroupsResponseData:
        allowed = operations.GROUP if call.message.include_authorized_operations else operations.NOT_ASKED
        groups = [await self._describe(group, version=call.version, allowed=allowed) for group in call.message.groups]
        return DescribeGroupsResponseData.make(groups=groups)

    async def _describe(self, group: str, *, version: int, allowed: int) -> DescribedGroup:
        try:
            described = await self._ask(r.DescribeGroup(group=group))
        except GroupIdNotFound:
            return self._missing(group, f"Group {group} not found.", version=version, allowed=allowed)
        except KafkaError as error:
            return _undescribed(group, error)
        assert isinstance(described, a.GroupDescription), described
        if described.group_type != Kind.CLASSIC:
            return self._missing(group, f"Group {group} is not a classic group.", version=version, allowed=allowed)
        is_stable = described.state == Phase.STABLE
        return DescribedGroup.make(
            group_id=group,
            group_state=described.state,
            protocol_type=described.protocol_type,
            protocol_data=described.protocol if is_stable else "",
            members=[_member(each, is_stable=is_stable) for each in described.members],
            authorized_operations=allowed,
        )

    def _missing(self, group: str, reason: str, *, version: int, allowed: int) -> DescribedGroup:
        if version >= MISSING_IS_AN_ERROR_FROM:
            return _undescribed(group, GroupIdNotFound(reason), state=Phase.DEAD)
        return DescribedGroup.make(group_id=group, group_state=Phase.DEAD, authorized_operations=allowed)

    async def list(self, call: Call[ListGroupsRequestData]) -> ListGroupsResponseData:
        try:
            listed = await self._ask(r.ListGroups(group=""))
        except NotCoordinator as failed:
            raise CoordinatorLoadInProgress(failed.message) from failed  # this broker's own, and read again soon
        assert isinstance(listed, a.GroupList), listed
        states = {state.strip().lower() for state in call.message.states_filter}
        types = {kind.lower() for kind in call.message.types_filter}
        return ListGroupsResponseData.make(
            groups=[
                ListedGroup.make(
                    group_id=each.group,
                    protocol_type=each.protocol_type,
                    group_state=each.state,
                    group_type=each.group_type,
                )
                for each in listed.groups
                if (not states or each.state.lower() in states) and (not types or each.group_type.lower() in types)
            ]
        )

    async def delete(self, call: Call[DeleteGroupsRequestData]) -> DeleteGroupsResponseData:
        results = [
            DeletableGroupResult.make(group_id=group, error_code=await self._delete(call, group))
            for group in call.message.groups_names
        ]
        return DeleteGroupsResponseData.make(results=results)

    async def _delete(self, call: Call[DeleteGroupsRequestData], group: str) -> int:
        try:
            await audited(self._broker.gateway, call.principal, r.DeleteGroup(group=group), self._ask)
        except KafkaError as error:
            return error.code
        return 0

    async def delete_offsets(self, call: Call[OffsetDeleteRequestData]) -> OffsetDeleteResponseData:
        image, message = self._broker.gateway.image, call.message
        codes: dict[tuple[str, int], int] = {}
        for topic in message.topics:
            known = image.topic(topic.name)
            for each in topic.partitions:
                is_known = known is not None and each.partition_index in known.partitions
                codes[topic.name, each.partition_index] = 0 if is_known else UnknownTopicOrPartition.code
        asked = tuple([key for key, code in codes.items() if not code])
        request = r.DeleteOffsets(group=message.group_id, partitions=asked)
        answer = await audited(self._broker.gateway, call.principal, request, self._ask)
        assert isinstance(answer, a.OffsetsDeleted), answer
        codes.update(dict.fromkeys(answer.refused, GroupSubscribedToTopic.code))
        return OffsetDeleteResponseData.make(
            topics=[
                OffsetDeleteResponseTopic.make(
                    name=topic.name,
                    partitions=[
                        OffsetDeleteResponsePartition.make(
                            partition_index=each.partition_index, error_code=codes[topic.name, each.partition_index]
                        )
                        for each in topic.partitions
                    ],
                )
                for topic in message.topics
            ]
        )


def _member(member: a.MemberDescription, *, is_stable: bool) -> DescribedGroupMember:
    return DescribedGroupMember.make(
        member_id=member.member_id,
        group_instance_id=member.instance_id,
        client_id=member.client_id,
        client_host=member.client_host,
        member_metadata=member.metadata if is_stable else b"",
        member_assignment=member.assignment,
    )


def _undescribed(group: str, error: KafkaError, *, state: str = "") -> DescribedGroup:
    return DescribedGroup.make(group_id=group, error_code=error.code, error_message=error.message, group_state=state)
