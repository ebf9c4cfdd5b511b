"""Any node takes any request: `Gateway` of a running node.

Requests about partitions go to their leaders, at most one hop. One that was surely not carried out, or that is safe to
repeat, is sent again with newer metadata, for LEADER_WAIT_MS at least. A produce appends each batch at most once: one
whose outcome is unknown is sent again only if it carries a producer id, by which its leader recognises it (D2).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, TypeVar
from uuid import UUID

from kraft.broker.audit import Audit
from kraft.broker.client_quotas import ClientQuotas
from kraft.broker.consumer_fetch import consumer_fetch, records_of
from kraft.broker.control import ControllerDoor
from kraft.broker.gateway import NodeInfo, Records
from kraft.broker.leaders import LEADER_WAIT_MS, MOVED, LeaderFinder, PartitionClient
from kraft.broker.metadata_publisher import MetadataPublisher
from kraft.broker.permissions import Permissions, permissions_of
from kraft.broker.principal import CLIENT, Principal, owner_of
from kraft.broker.tail_waits import Tails
from kraft.broker.visibility import is_visible
from kraft.protocol.acks import ACKS
from kraft.protocol.batches.header import HEADER_BYTES, NO_PRODUCER_ID, header_at
from kraft.protocol.errors import (
    InvalidRequiredAcks,
    KafkaError,
    KafkaStorageError,
    LeaderNotAvailable,
    RequestTimedOut,
    TopicAlreadyExists,
    UnknownTopicOrPartition,
)
from kraft.protocol.primitives import Buffer
from metadata.authorizer import Authorizer
from metadata.controller.requests import CreateTopics, ErrorDetail, NewTopic, Request
from metadata.environment import Clock, ConnectionClosed, NotConnected
from metadata.image import MetadataImage, PartitionImage, TopicIdPartition
from metadata.retries import ELECTION_RETRY_MS, retry_until
from metadata.settings import BrokerSettings, TopicSettings
from replication.requests import (
    ActiveProducer,
    OffsetAnswer,
    ProduceOptions,
    ProduceOutcome,
    ReadOptions,
)

Answer = TypeVar("Answer")
Reply = TypeVar("Reply")

CREATE_TIMEOUT_MS = 5_000
METADATA_WAIT_MS = 2_000
"""How long a node waits to see what the controller has just done."""
PRODUCE_RETRY_MS = 50
"""Wait before a replica that should lead is sent the records again without newer metadata here: it refuses them until
it has heard that it leads."""

_MOVED = frozenset(error.code for error in MOVED)

Batches = Mapping[TopicIdPartition, Buffer]
NO_STAND_INS: Mapping[TopicIdPartition, int] = MappingProxyType({})
Outcomes = dict[TopicIdPartition, ProduceOutcome]


class _Unfinished(Exception):
    """Some batches of a produce were not taken yet."""


class Router:
    """Implements `kraft.broker.gateway.Gateway`."""

    def __init__(
        self,
        *,
        node_id: int,
        cluster_id: str,
        nodes: Mapping[int, NodeInfo],
        described_settings: Mapping[str, str],
        clock: Clock,
        publisher: MetadataPublisher,
        door: ControllerDoor,
        finder: LeaderFinder,
        tails: Tails,
        audit: Audit,
    ) -> None:
        self._audit = audit
        self._node_id = node_id
        self._cluster_id = cluster_id
        self._nodes = nodes
        self._described_settings = described_settings
        self._publisher = publisher
        self._door = door
        self._clock = clock
        self._finder = finder
        self._tails = tails

    @property
    def node_id(self) -> int:
        return self._node_id

    @property
    def cluster_id(self) -> str:
        return self._cluster_id

    @property
    def image(self) -> MetadataImage:
        return self._publisher.image

    @property
    def controller_id(self) -> int:
        return self._publisher.leadership.leader_id

    @property
    def nodes(self) -> Mapping[int, NodeInfo]:
        return self._nodes

    @property
    def settings(self) -> BrokerSettings:
        return self._publisher.settings

    @property
    def authorizer(self) -> Authorizer | None:
        return self._publisher.authorizer

    def permissions(self, principal: Principal, *, what: str) -> Permissions | None:
        def refused(*refusal: Any) -> None:
            self._audit.refused(principal, what, *refusal)

        return permissions_of(self._publisher.authorizer, principal, refused)

    @property
    def quotas(self) -> ClientQuotas | None:
        return self._publisher.quotas

    @property
    def described_settings(self) -> Mapping[str, str]:
        return self._described_settings

    def topic_settings(self, topic: str) -> TopicSettings:
        return self._publisher.topic_settings(topic)

    # --- administrative requests ----------------------------------------------------------------------------

    async def control(self, request: Request[Reply], *, timeout_ms: int) -> Reply:
        """Answers when this node, too, has seen what was done: a client that asks it next reads what it
        wrote."""
        reply = await self._audited(request, self._door.control(request, timeout_ms=timeout_ms))
        await self._publisher.wait_for(lambda image: is_visible(image, request, reply), timeout_ms=METADATA_WAIT_MS)
        return reply

    async def _audited(self, request: Request[Reply], asked: Awaitable[Reply]) -> Reply:
        """What a client changes is written down."""
        principal = CLIENT.get()
        if principal is None or not self._is_audited(principal):
            return await asked
        try:
            reply = await asked
        except KafkaError as error:
            self._audit.changed(principal, request, error)
            raise
        self._audit.changed(principal, request, reply)
        return reply

    def note_change(
        self, principal: Principal | None, what: str, names: Sequence[str], errors: Iterable[str] = ()
    ) -> None:
        if principal is not None and names and self._is_audited(principal):
            self._audit.noted(principal, what, names, errors)

    def _is_audited(self, principal: Principal) -> bool:
        """Changes of every client are written down while there is an authorizer, else those of clients that have logged
        in."""
        return self._publisher.authorizer is not None or bool(owner_of(principal))

    async def topic_id_or_create(self, name: str) -> UUID:
        topic = self.image.topic(name)
        if topic is not None:
            return topic.topic_id
        if not self.settings.auto_create_topics_enable:
            raise UnknownTopicOrPartition(
                f"topic {name!r} does not exist; create it first (auto.create.topics.enable is false)"
            )
        created = await self.ensure_topic(NewTopic(name=name))
        if isinstance(created, ErrorDetail):
            raise created.exception()
        return created

    async def ensure_topic(self, new: NewTopic) -> UUID | ErrorDetail:
        topic = self.image.topic(new.name)
        if topic is not None:
            return topic.topic_id
        reply = await self.control(CreateTopics(topics=(new,)), timeout_ms=CREATE_TIMEOUT_MS)
        result = reply[new.name]
        if isinstance(result, ErrorDetail) and result.error is not TopicAlreadyExists:
            return result
        await self._publisher.wait_for(lambda image: image.topic(new.name) is not None, timeout_ms=CREATE_TIMEOUT_MS)
        created = self.image.topic(new.name)
        if created is None:
            raise LeaderNotAvailable(f"topic {new.name!r} was created, but this node does not know it yet; try again")
        return created.topic_id

    # --- produce --------------------------------------------------------------------------------------------

    async def produce(self, batches: Batches, options: ProduceOptions) -> Outcomes:
        if options.acks not in ACKS:
            raise InvalidRequiredAcks(f"acks was {options.acks}; it must be 0, 1 or -1 (all)")
        deadline_ms = self._clock.monotonic_ms() + min(LEADER_WAIT_MS, options.timeout_ms)
        seen = self._publisher.version
        outcomes = await self._produce_once(batches, options)
        for outcome in outcomes.values():
            if outcome.error_code:
                break
        else:
            return outcomes
        left = self._left(outcomes, batches)
        if left and self._clock.monotonic_ms() < deadline_ms:
            await self._produce_again(left, options, outcomes, seen=seen, deadline_ms=deadline_ms)
        return outcomes

    async def _produce_again(
        self, left: Batches, options: ProduceOptions, outcomes: Outcomes, *, seen: int, deadline_ms: int
    ) -> None:
        """Routes the batches that are `left` again, as soon as there is newer metadata, and updates their outcomes."""
        stand_ins: Mapping[TopicIdPartition, int] = {}

        async def attempt() -> None:
            nonlocal left, seen
            seen = self._publisher.version
            for partition, outcome in (await self._produce_once(left, options, stand_ins)).items():
                outcomes[partition] = _after(outcomes[partition], outcome)
            left = self._left(outcomes, left)
            if left:
                raise _Unfinished

        async def news() -> None:
            """The new leader may be the one that has not heard of it yet, so the wait is short without any."""
            nonlocal stand_ins
            stand_ins = self._stand_ins(p for p in left if p in stand_ins or _has_failed_log(outcomes[p]))
            if await self._is_newer(seen, deadline_ms=deadline_ms, retry_ms=PRODUCE_RETRY_MS):
                stand_ins = {}

        await news()
        try:
            await retry_until(deadline_ms, attempt, clock=self._clock, retriable=_is_unfinished, wake=news)
        except _Unfinished:
            return

    def _left(self, outcomes: Mapping[TopicIdPartition, ProduceOutcome], batches: Batches) -> Batches:
        return {
            partition: data
            for partition, data in batches.items()
            if outcomes[partition].error_code and self._is_worth_routing_again(partition, outcomes[partition], data)
        }

    def _stand_ins(self, failed: Iterable[TopicIdPartition]) -> dict[TopicIdPartition, int]:
        """A node whose disk is full may not learn who leads instead of it: its metadata log has no room either."""
        return {p: next_leader for p in failed if (next_leader := self._finder.stand_in(p)) is not None}

    async def _produce_once(
        self, batches: Batches, options: ProduceOptions, stand_ins: Mapping[TopicIdPartition, int] = NO_STAND_INS
    ) -> Outcomes:
        outcomes: Outcomes = {}
        by_leader: dict[int, dict[TopicIdPartition, Buffer]] = {}
        for partition, data in batches.items():
            try:
                leader = stand_ins.get(partition, self._finder.leader_of(partition).leader)
                by_leader.setdefault(leader, {})[partition] = data
            except KafkaError as error:
                outcomes[partition] = ProduceOutcome(error_code=error.code, message=error.message)
        if len(by_leader) == 1:
            ((leader, part),) = by_leader.items()
            outcomes.update(await self._produce_at(leader, part, options))
        elif by_leader:
            parts = await asyncio.gather(*(self._produce_at(leader, p, options) for leader, p in by_leader.items()))
            for part_outcomes in parts:
                outcomes.update(part_outcomes)
        return outcomes

    async def _produce_at(
        self, leader: int, batches: Batches, options: ProduceOptions
    ) -> Mapping[TopicIdPartition, ProduceOutcome]:
        try:
            return await self._finder.client_of(leader).produce(batches, options)
        except (ConnectionRefusedError, NotConnected):
            refused = LeaderNotAvailable(
                f"broker {leader} leads the partition and cannot be connected to; nothing was sent"
            )
            return _all_failed(batches, refused, is_appended=False)
        except (ConnectionClosed, OSError) as lost:
            unknown = RequestTimedOut(
                f"the connection to leader {leader} failed ({type(lost).__name__}); the records may have been written"
            )
            return _all_failed(batches, unknown, is_appended=True)
        except KafkaError as error:
            return _all_failed(batches, error, is_appended=False)

    def _is_worth_routing_again(self, partition: TopicIdPartition, outcome: ProduceOutcome, data: Buffer) -> bool:
        if outcome.is_appended and not _has_producer(data):
            return False
        if _has_failed_log(outcome):
            return self._finder.stand_in(partition) is not None
        return outcome.error_code in _MOVED or (outcome.is_appended and outcome.error_code == RequestTimedOut.code)

    # --- requests that are safe to repeat -------------------------------------------------------------------

    async def read(self, partition: TopicIdPartition, offset: int, options: ReadOptions) -> Records:
        """Reads what is there; waits, if it has to, together with all others who wait, and reads again."""
        deadline_ms = self._clock.monotonic_ms() + options.wait_ms_max
        found = await self._read_now(partition, offset, options)
        while len(found.data) < options.bytes_min:
            left_ms = deadline_ms - self._clock.monotonic_ms()
            if left_ms <= 0:
                break
            left = replace(options, wait_ms_max=left_ms)
            news = await self._tails.wait({partition: max(offset, found.end_offset)}, left)
            if not news:
                break
            records = news[partition]
            if records is not None and not found.data and options.bytes_min <= len(records.data):
                return records
            found = await self._read_now(partition, offset, left)
        return found

    async def _read_now(self, partition: TopicIdPartition, offset: int, options: ReadOptions) -> Records:
        """Without a wait at the leader; `wait_ms_max` is for a leader to be found."""
        request = consumer_fetch(partition, offset, options)

        async def attempt(client: PartitionClient, state: PartitionImage) -> Records:
            answer = await client.fetch(request)
            return records_of(answer, state, is_read_committed=options.is_read_committed)

        return await self._at_leader(partition, attempt, wait_ms_max=options.wait_ms_max)

    async def tail(
        self, positions: Mapping[TopicIdPartition, int], options: ReadOptions
    ) -> Mapping[TopicIdPartition, Records | None]:
        return await self._tails.wait(positions, options)

    async def list_offset(
        self, partition: TopicIdPartition, timestamp: int, *, is_read_committed: bool = False
    ) -> OffsetAnswer:
        async def attempt(client: PartitionClient, _state: PartitionImage) -> OffsetAnswer:
            return await client.list_offset(partition, timestamp, is_read_committed=is_read_committed)

        return await self._at_leader(partition, attempt)

    async def producers(self, partition: TopicIdPartition) -> Sequence[ActiveProducer]:
        async def attempt(client: PartitionClient, _state: PartitionImage) -> Sequence[ActiveProducer]:
            return await client.producers(partition)

        return await self._at_leader(partition, attempt)

    async def delete_records(self, partition: TopicIdPartition, *, offset: int, timeout_ms: int) -> int:
        async def attempt(client: PartitionClient, _state: PartitionImage) -> int:
            return await client.delete_records(partition, offset=offset, timeout_ms=timeout_ms)

        return await self._at_leader(partition, attempt, wait_ms_max=timeout_ms)

    async def _at_leader(
        self,
        partition: TopicIdPartition,
        attempt: Callable[[PartitionClient, PartitionImage], Awaitable[Answer]],
        *,
        wait_ms_max: int = 0,
    ) -> Answer:
        """Routes a request again until a leader takes it or the wait is over."""
        deadline_ms = self._clock.monotonic_ms() + max(LEADER_WAIT_MS, wait_ms_max)
        seen = self._publisher.version

        async def routed() -> Answer:
            nonlocal seen
            seen = self._publisher.version
            state = self._finder.leader_of(partition)
            try:
                return await attempt(self._finder.client_of(state.leader), state)
            except (ConnectionClosed, OSError) as lost:
                raise LeaderNotAvailable(f"the leader did not answer: {type(lost).__name__}") from lost

        def is_elsewhere(error: Exception) -> bool:
            if isinstance(error, KafkaStorageError):
                return self._finder.stand_in(partition) is not None
            return isinstance(error, MOVED)

        def news() -> Awaitable[object]:
            return self._is_newer(seen, deadline_ms=deadline_ms, retry_ms=ELECTION_RETRY_MS)

        return await retry_until(deadline_ms, routed, clock=self._clock, retriable=is_elsewhere, wake=news)

    def _is_newer(self, seen: int, *, deadline_ms: int, retry_ms: int) -> Awaitable[bool]:
        """Waits for an image after the version `seen`; False when none has come after `retry_ms`."""
        soon_ms = self._clock.monotonic_ms() + retry_ms
        return self._publisher.wait_newer(seen, deadline_ms=min(deadline_ms, soon_ms))


def _is_unfinished(error: Exception) -> bool:
    return isinstance(error, _Unfinished)


def _has_failed_log(outcome: ProduceOutcome) -> bool:
    return outcome.error_code == KafkaStorageError.code


def _has_producer(data: Buffer) -> bool:
    return len(data) >= HEADER_BYTES and header_at(data).producer_id != NO_PRODUCER_ID


def _after(earlier: ProduceOutcome, outcome: ProduceOutcome) -> ProduceOutcome:
    """What an earlier attempt may have appended stays in doubt until it is found."""
    in_doubt = earlier.is_appended and outcome.error_code != 0
    return replace(outcome, is_appended=True) if in_doubt else outcome


def _all_failed(batches: Batches, error: KafkaError, *, is_appended: bool) -> Outcomes:
    outcome = ProduceOutcome(error_code=error.code, message=error.message, is_appended=is_appended)
    return dict.fromkeys(batches, outcome)
