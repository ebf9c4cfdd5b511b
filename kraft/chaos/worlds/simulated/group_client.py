"""A member of a group in a simulated world: the classic protocol, directly at the coordinator of a node.

It sends heartbeats when it polls; its work is short compared with its session.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from kraft.chaos.workload.group_client import CommitResult, MemberRecords, Membership, PollResult, of_commit
from kraft.chaos.workload.requests import value_of
from kraft.chaos.worlds.simulated.client import Refused, SimulatedClient, Unanswered, partition_of
from kraft.chaos.worlds.simulated.cluster import SimulatedNode
from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.coordinators.groups.assignors import assign
from kraft.coordinators.groups.subscriptions import (
    Subscription,
    decode_assignment,
    decode_subscription,
    encode_assignment,
    encode_subscription,
)
from kraft.protocol.batches.records import read_batches
from kraft.protocol.errors import (
    FencedInstanceId,
    IllegalGeneration,
    KafkaError,
    MemberIdRequired,
    OffsetOutOfRange,
    RebalanceInProgress,
    UnknownMemberId,
)
from kraft.protocol.primitives import TopicPartition
from replication.requests import EARLIEST_TIMESTAMP, ReadOptions

T = TypeVar("T")
PROTOCOL: Final = "range"
REQUEST_TIMEOUT_MS: Final = 5_000
READ_BYTES: Final = 65_536
REJOIN: Final = (IllegalGeneration.code, RebalanceInProgress.code)
NOT_A_MEMBER: Final = (UnknownMemberId.code, FencedInstanceId.code)


@dataclass(slots=True)
class _GenerationState:
    """The state of the member in one generation."""

    generation: int
    assigned_us: int
    heard_us: int
    positions: dict[int, int] = field(default_factory=dict)


class SimulatedGroupClient:
    """Implements `GroupClient`."""

    def __init__(
        self, client: SimulatedClient, membership: Membership, *, name: str, now_us: Callable[[], int]
    ) -> None:
        self._client = client
        self._membership = membership
        self._name = name
        self._now_us = now_us
        self._member_id = ""
        self._state: _GenerationState | None = None

    async def open(self, nodes: Sequence[int]) -> None:
        await self._client.open(nodes)

    async def close(self) -> None:
        self._state = None

    async def poll(self, node: int, *, wait_ms: int) -> PollResult:
        try:
            state = self._state or await self._join(node)
            await self._send_heartbeat(node, state)
            given = await self._read(node, state, wait_ms=wait_ms)
        except Refused as error:
            return PollResult(outcome="fail", error=str(error), cannot_now=True)
        except Unanswered as error:
            return PollResult(outcome="info", error=str(error))
        except KafkaError as error:
            self._take_refusal(error)
            return PollResult(outcome="info", kafka_code=error.code, error=error.message)
        return PollResult(outcome="ok", given=given, generation=state.generation)

    async def commit(self, node: int, offsets: Mapping[int, int]) -> CommitResult:
        state, topic = self._state, self._membership.topic
        if state is None:
            return CommitResult(outcome="fail", error="it is no member any more")
        request = r.CommitOffsets(
            group=self._membership.group,
            member_id=self._member_id,
            generation=state.generation,
            instance_id=self._membership.instance,
            offsets=tuple(r.OffsetToCommit(topic, partition, at) for partition, at in sorted(offsets.items())),
        )
        try:
            await self._ask(node, request)
        except Refused as error:
            return CommitResult(outcome="info", error=str(error), cannot_now=True)
        except Unanswered as error:
            return CommitResult(outcome="info", error=str(error))
        except KafkaError as error:
            self._take_refusal(error)
            return CommitResult(outcome=of_commit(error.code), kafka_code=error.code, error=error.message)
        return CommitResult(outcome="ok", generation=state.generation)

    async def leave(self, node: int) -> None:
        if not self._member_id:
            return
        group, instance = self._membership.group, self._membership.instance
        try:
            await self._ask(node, r.LeaveGroup(group=group, member_id=self._member_id, instance_id=instance))
        except (Refused, Unanswered, KafkaError):
            return  # its session ends it

    def _take_refusal(self, refusal: KafkaError) -> None:
        if refusal.code == MemberIdRequired.code:
            self._member_id = refusal.message
        elif refusal.code in NOT_A_MEMBER:
            self._member_id, self._state = "", None
        elif refusal.code in REJOIN:
            self._state = None

    # --- membership ---------------------------------------------------------------------------------------------

    async def _join(self, node: int) -> _GenerationState:
        membership = self._membership
        metadata = encode_subscription(Subscription(topics=(membership.topic,)), PROTOCOL)
        request = r.JoinGroup(
            group=membership.group,
            member_id=self._member_id,
            instance_id=membership.instance,
            client_id=self._name,
            client_host="/simulated",
            session_timeout_ms=membership.session_ms,
            rebalance_timeout_ms=membership.session_ms,
            protocol_type="consumer",
            protocols=((PROTOCOL, metadata),),
        )
        joined = await self._ask(node, request, within_ms=2 * membership.session_ms + REQUEST_TIMEOUT_MS)
        assert isinstance(joined, a.GroupJoined), joined
        self._member_id = joined.member_id
        sync = r.SyncGroup(
            group=membership.group,
            member_id=joined.member_id,
            generation=joined.generation,
            instance_id=membership.instance,
            assignments=await self._client.asked(
                node, lambda asked: _assignments(asked, joined), within_ms=REQUEST_TIMEOUT_MS
            ),
        )
        synced = await self._ask(node, sync, within_ms=2 * membership.session_ms + REQUEST_TIMEOUT_MS)
        assert isinstance(synced, a.GroupSynced), synced
        state = _GenerationState(joined.generation, assigned_us=self._now_us(), heard_us=self._now_us())
        await self._find_positions(node, state, decode_assignment(synced.assignment))
        self._state = state
        return state

    async def _find_positions(self, node: int, state: _GenerationState, partitions: Sequence[TopicPartition]) -> None:
        answer = await self._ask(node, r.FetchOffsets(group=self._membership.group, partitions=tuple(partitions)))
        assert isinstance(answer, a.GroupOffsets), answer
        for row in answer.offsets:
            state.positions[row.partition] = row.offset

    async def _send_heartbeat(self, node: int, state: _GenerationState) -> None:
        if self._now_us() - state.heard_us < self._membership.session_ms * 100:
            return
        group, instance = self._membership.group, self._membership.instance
        beat = r.HeartbeatGroup(
            group=group, member_id=self._member_id, generation=state.generation, instance_id=instance
        )
        await self._ask(node, beat)
        state.heard_us = self._now_us()

    # --- records ------------------------------------------------------------------------------------------------

    async def _read(self, node: int, state: _GenerationState, *, wait_ms: int) -> list[MemberRecords]:
        """Read a batch from its partitions in turn; waits at the last one if there are no records."""
        given: list[MemberRecords] = []
        left, partitions = self._membership.batch, sorted(state.positions)
        for number, partition in enumerate(partitions):
            is_last = number == len(partitions) - 1
            wait = wait_ms if is_last and not given else 0
            try:
                records = await self._records(node, partition, state.positions[partition], wait_ms=wait)
            except OffsetOutOfRange:
                state.positions[partition] = -1
                continue
            except KafkaError:
                continue
            if records := records[:left]:
                left -= len(records)
                after = state.positions[partition] = records[-1][0] + 1
                part = MemberRecords(
                    partition=partition, records=records, next_offset=after, since_us=state.assigned_us
                )
                given.append(part)
        if not partitions:
            await self._client.asked(node, _nothing, within_ms=REQUEST_TIMEOUT_MS)
        return given

    async def _records(self, node: int, partition: int, offset: int, *, wait_ms: int) -> list[tuple[int, str]]:
        topic = self._membership.topic

        async def read(asked: SimulatedNode) -> list[tuple[int, str]]:
            assert asked.node is not None
            gateway, which, start = asked.node.gateway, partition_of(asked, topic, partition), offset
            if start < 0:
                start = (await gateway.list_offset(which, EARLIEST_TIMESTAMP)).offset
            options = ReadOptions(bytes_max=READ_BYTES, bytes_min=1, wait_ms_max=wait_ms)
            found = await gateway.read(which, start, options)
            return [
                (record.offset, value_of((record.value or b"").decode()))
                for record in read_batches(found.data, from_offset=start)
            ]

        return await self._client.asked(node, read, within_ms=wait_ms + REQUEST_TIMEOUT_MS)

    async def _ask(self, node: int, request: r.Request, *, within_ms: int = REQUEST_TIMEOUT_MS) -> a.Answer:
        """Raises Refused, Unanswered, KafkaError."""

        async def work(asked: SimulatedNode) -> a.Answer:
            assert asked.node is not None
            return await asked.node.groups.ask(request)

        return await self._client.asked(node, work, within_ms=within_ms)


async def _nothing(_asked: SimulatedNode) -> None:
    """Nothing runs at the node; only the links count."""


async def _assignments(asked: SimulatedNode, joined: a.GroupJoined) -> tuple[tuple[str, bytes], ...]:
    """The assignments of the group leader, from the metadata of its node."""
    if joined.leader != joined.member_id or not joined.members:
        return ()
    assert asked.node is not None
    members = {key: decode_subscription(data, joined.protocol) for key, _, data in joined.members}
    topics = {topic for each in members.values() for topic in each.topics}
    known = {topic: asked.node.gateway.image.topic(topic) for topic in topics}
    counts = {name: len(topic.partitions) for name, topic in known.items() if topic is not None}
    assigned = assign(joined.protocol, members, counts)
    return tuple((key, encode_assignment(partitions)) for key, partitions in assigned.items())
