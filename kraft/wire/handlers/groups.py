"""FindCoordinator, JoinGroup, SyncGroup, Heartbeat, LeaveGroup (10 to 14): members of the classic protocol.

Each request goes to the coordinator in this process: a group of another node is NOT_COORDINATOR 16, and the client
asks FindCoordinator again. What members tell each other stays bytes, whatever the protocol type.
Source: KafkaApis, GroupCoordinatorService and `getErrorResponse` of each request.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from enum import IntEnum

from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.protocol.errors import (
    ClassicMembersNotTaken,
    CoordinatorLoadInProgress,
    CoordinatorNotAvailable,
    GroupMaxSizeReached,
    InconsistentGroupProtocol,
    InvalidGroupId,
    InvalidRequest,
    KafkaError,
    MemberIdRequired,
    NotCoordinator,
)
from kraft.protocol.messages.find_coordinator_request import FindCoordinatorRequestData
from kraft.protocol.messages.find_coordinator_response import Coordinator, FindCoordinatorResponseData
from kraft.protocol.messages.heartbeat_request import HeartbeatRequestData
from kraft.protocol.messages.heartbeat_response import HeartbeatResponseData
from kraft.protocol.messages.join_group_request import JoinGroupRequestData
from kraft.protocol.messages.join_group_response import JoinGroupResponseData, JoinGroupResponseMember
from kraft.protocol.messages.leave_group_request import LeaveGroupRequestData, MemberIdentity
from kraft.protocol.messages.leave_group_response import LeaveGroupResponseData, MemberResponse
from kraft.protocol.messages.sync_group_request import SyncGroupRequestAssignment, SyncGroupRequestData
from kraft.protocol.messages.sync_group_response import SyncGroupResponseData
from kraft.wire.api_handler import ApiHandler, Call, ClientConnection
from kraft.wire.handlers.endpoints import live_endpoints
from kraft.wire.node_parts import NodeParts

BATCHED_FROM = 4
"""FindCoordinator: several keys, and an error for each (KIP-699)."""
KNOWN_MEMBERS_FROM = 4
"""JoinGroup: a new dynamic member gets its id first, and joins with it (KIP-394)."""
SKIPS_ASSIGNMENT_FROM = 9
"""JoinGroup: a static leader that comes back keeps the assignment (KIP-814)."""
NULLABLE_PROTOCOL_FROM = 7
"""JoinGroup: a refusal names no protocol."""
NAMED_PROTOCOL_FROM = 5
"""SyncGroup: protocol type and name are mandatory (KIP-559)."""
SEVERAL_LEAVE_FROM = 3
"""LeaveGroup: a list of members, and an error for each (KIP-345)."""
ASSIGNMENTS_AT_ONCE = 1_000
"""SyncGroup: assignments that are read in one turn of the loop, each in a microsecond."""
NO_ERROR_MESSAGE = "NONE"
"""What FindCoordinator 1 to 3 say beside error 0."""
NO_NODE, NO_PORT = -1, -1


SHARES_FROM = 6
"""FindCoordinator: the coordinator of a share partition (KIP-932)."""
SHARE_KEY = re.compile(r".+:[A-Za-z0-9_-]{22}:\d{1,10}", re.DOTALL)
"""Group, topic id as base64url, and partition."""


class _Key(IntEnum):
    """Key type of FindCoordinator."""

    GROUP = 0
    TRANSACTION = 1
    SHARE_PARTITION = 2


def apis(broker: NodeParts) -> Sequence[ApiHandler]:
    finder, members = _Finder(broker), _Members(broker)
    return [
        ApiHandler(
            request=FindCoordinatorRequestData,
            response=FindCoordinatorResponseData,
            handle=finder.find,
            refuse=_refuse_find,
        ),
        ApiHandler(
            request=JoinGroupRequestData, response=JoinGroupResponseData, handle=members.join, refuse=_refuse_join
        ),
        ApiHandler(
            request=SyncGroupRequestData, response=SyncGroupResponseData, handle=members.sync, refuse=_refuse_sync
        ),
        ApiHandler(
            request=HeartbeatRequestData,
            response=HeartbeatResponseData,
            handle=members.beat,
            refuse=lambda message, version, error: HeartbeatResponseData.make(error_code=error.code),
        ),
        ApiHandler(
            request=LeaveGroupRequestData, response=LeaveGroupResponseData, handle=members.leave, refuse=_refuse_leave
        ),
    ]


# --- FindCoordinator ----------------------------------------------------------------------------------------


class _Finder:
    def __init__(self, broker: NodeParts) -> None:
        self._broker = broker

    async def find(self, call: Call[FindCoordinatorRequestData]) -> FindCoordinatorResponseData:
        message = call.message
        if message.key_type == _Key.SHARE_PARTITION and call.version < SHARES_FROM:
            raise InvalidRequest(f"FindCoordinator of a share partition is version {SHARES_FROM}, not {call.version}")
        if call.version < BATCHED_FROM:
            found = await self._find(message.key, message.key_type, call.connection)
            return FindCoordinatorResponseData.make(
                error_message=NO_ERROR_MESSAGE, node_id=found.node_id, host=found.host, port=found.port
            )
        coordinators = []
        for key in message.coordinator_keys:
            try:
                coordinators.append(await self._find(key, message.key_type, call.connection))
            except KafkaError as error:
                coordinators.append(_unknown(key, error))
        return FindCoordinatorResponseData.make(coordinators=coordinators)

    async def _find(self, key: str, key_type: int, connection: ClientConnection) -> Coordinator:
        """Raises CoordinatorNotAvailable 15, InvalidRequest 42."""
        if self._broker.lost.are_awaited():
            await self._broker.lost.fenced()
        try:
            node_id = await self._coordinator_of(key, key_type)
        except NotCoordinator as nobody:
            raise CoordinatorNotAvailable(nobody.message) from nobody
        live = {endpoint.node_id: endpoint for endpoint in live_endpoints(self._broker, connection)}
        found = live.get(node_id)
        if found is None:
            raise CoordinatorNotAvailable(f"node {node_id} coordinates {key!r} and is not alive")
        return Coordinator.make(key=key, node_id=node_id, host=found.host, port=found.port)

    async def _coordinator_of(self, key: str, key_type: int) -> int:
        match key_type:
            case _Key.GROUP:
                return await self._broker.groups.coordinator_of(key)
            case _Key.TRANSACTION:
                return await self._broker.transactions.coordinator_of(key)
            case _Key.SHARE_PARTITION if SHARE_KEY.fullmatch(key):
                return await self._broker.share_persister.coordinator_of(key)
            case _Key.SHARE_PARTITION:
                raise InvalidRequest(f"{key!r} is no share partition: group, topic id and partition with colons are")
        raise InvalidRequest(
            f"key type {key_type} of FindCoordinator; 0 (group), 1 (transactional id), 2 (share partition) are served"
        )


def _unknown(key: str, error: KafkaError) -> Coordinator:
    return Coordinator.make(key=key, node_id=NO_NODE, port=NO_PORT, error_code=error.code, error_message=error.message)


def _refuse_find(message: FindCoordinatorRequestData, version: int, error: KafkaError) -> FindCoordinatorResponseData:
    if version < BATCHED_FROM:
        return FindCoordinatorResponseData.make(
            error_code=error.code, error_message=error.message, node_id=NO_NODE, port=NO_PORT
        )
    return FindCoordinatorResponseData.make(coordinators=[_unknown(key, error) for key in message.coordinator_keys])


# --- members ------------------------------------------------------------------------------------------------


class _Members:
    def __init__(self, broker: NodeParts) -> None:
        self._broker = broker

    @property
    def _ask(self) -> Callable[[r.Request], Awaitable[a.Answer]]:
        return self._broker.broker_or(NotCoordinator).group_coordinator.ask

    async def join(self, call: Call[JoinGroupRequestData]) -> JoinGroupResponseData:
        message = call.message
        joined = await self._ask(
            r.JoinGroup(
                group=_named(message.group_id),
                member_id=message.member_id,
                instance_id=message.group_instance_id,
                client_id=call.client_id or "",
                client_host=call.connection.host,
                session_timeout_ms=message.session_timeout_ms,
                rebalance_timeout_ms=message.rebalance_timeout_ms if call.version else message.session_timeout_ms,
                protocol_type=message.protocol_type,
                protocols=tuple([(each.name, bytes(each.metadata)) for each in message.protocols]),
                is_known_required=call.version >= KNOWN_MEMBERS_FROM,
                can_skip_assignment=call.version >= SKIPS_ASSIGNMENT_FROM,
            )
        )
        assert isinstance(joined, a.GroupJoined), joined
        return JoinGroupResponseData.make(
            generation_id=joined.generation,
            protocol_type=joined.protocol_type,
            protocol_name=joined.protocol,
            leader=joined.leader,
            skip_assignment=joined.skips_assignment,
            member_id=joined.member_id,
            members=[
                JoinGroupResponseMember.make(member_id=key, group_instance_id=instance_id, metadata=metadata)
                for key, instance_id, metadata in joined.members
            ],
        )

    async def sync(self, call: Call[SyncGroupRequestData]) -> SyncGroupResponseData:
        message = call.message
        if call.version >= NAMED_PROTOCOL_FROM and None in (message.protocol_type, message.protocol_name):
            raise InconsistentGroupProtocol("SyncGroup names the protocol type and the protocol that were chosen")
        assignments = await self._assignments(message.assignments)
        synced = await self._ask(
            r.SyncGroup(
                group=_named(message.group_id),
                member_id=message.member_id,
                generation=message.generation_id,
                instance_id=message.group_instance_id,
                protocol_type=message.protocol_type,
                protocol=message.protocol_name,
                assignments=assignments,
            )
        )
        assert isinstance(synced, a.GroupSynced), synced
        return SyncGroupResponseData.make(
            protocol_type=synced.protocol_type, protocol_name=synced.protocol, assignment=synced.assignment
        )

    async def _assignments(self, given: Sequence[SyncGroupRequestAssignment]) -> tuple[tuple[str, bytes], ...]:
        """Those of thousands of members are made in turns of their own: the coordinator needs one for its decision."""
        made: list[tuple[str, bytes]] = []
        for number, each in enumerate(given, 1):
            made.append((each.member_id, bytes(each.assignment)))
            if not number % ASSIGNMENTS_AT_ONCE:
                await self._broker.environment.clock.sleep(0)
        return tuple(made)

    async def beat(self, call: Call[HeartbeatRequestData]) -> HeartbeatResponseData:
        message = call.message
        # As in Kafka, what is being loaded takes heartbeats: the member has a whole session from when it is.
        with suppress(CoordinatorLoadInProgress):
            await self._ask(
                r.HeartbeatGroup(
                    group=_named(message.group_id),
                    member_id=message.member_id,
                    generation=message.generation_id,
                    instance_id=message.group_instance_id,
                )
            )
        return HeartbeatResponseData.make()

    async def leave(self, call: Call[LeaveGroupRequestData]) -> LeaveGroupResponseData:
        message = call.message
        if call.version < SEVERAL_LEAVE_FROM:
            await self._ask(r.LeaveGroup(group=_named(message.group_id), member_id=message.member_id))
            return LeaveGroupResponseData.make()
        members = [await self._leave(_named(message.group_id), each) for each in message.members]
        return LeaveGroupResponseData.make(members=members)

    async def _leave(self, group: str, member: MemberIdentity) -> MemberResponse:
        code = 0
        try:
            await self._ask(r.LeaveGroup(group=group, member_id=member.member_id, instance_id=member.group_instance_id))
        except KafkaError as error:
            if error.retriable:
                raise  # of the group, not of the member
            error.__traceback__ = None  # its frames have the future that has the error: thousands of members may leave
            code = error.code
        return MemberResponse.make(
            member_id=member.member_id, group_instance_id=member.group_instance_id, error_code=code
        )


def _named(group: str) -> str:
    if not group:
        raise InvalidGroupId("a group has a name")
    return group


def _refuse_join(message: JoinGroupRequestData, version: int, error: KafkaError) -> JoinGroupResponseData:
    member_id = message.member_id
    if isinstance(error, MemberIdRequired):
        member_id = error.message
    elif isinstance(error, (GroupMaxSizeReached, ClassicMembersNotTaken)):
        member_id = ""
    protocol = None if version >= NULLABLE_PROTOCOL_FROM else ""
    return JoinGroupResponseData.make(error_code=error.code, member_id=member_id, protocol_name=protocol)


def _refuse_sync(message: SyncGroupRequestData, version: int, error: KafkaError) -> SyncGroupResponseData:
    return SyncGroupResponseData.make(error_code=error.code)


def _refuse_leave(message: LeaveGroupRequestData, version: int, error: KafkaError) -> LeaveGroupResponseData:
    return LeaveGroupResponseData.make(error_code=error.code)
