"""A share group as a queue over REST: any node receives and acknowledges, at the leaders of the partitions (KIP-932).

Nothing is kept between two requests. Each receive is a member of its own, of which the group coordinator knows nothing:
its locks end by their time, or by acknowledgements that name them by `ack_id`. Partitions are looked at in the order of
the topics, and those of one topic one leader after the other, mostly this node first.
"""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_left
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final, Protocol, TypeVar
from uuid import UUID

from kraft.broker.gateway import Gateway
from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.coordinators.groups.group_metadata import Kind
from kraft.coordinators.groups.routing import Groups
from kraft.coordinators.shares.ack_ids import AckIds, Lock, Settlement
from kraft.coordinators.shares.leaders import Handed, ShareFetch
from kraft.coordinators.shares.peek import Peeked
from kraft.coordinators.shares.redrive import AskedRedrive, Redrive, Redriven
from kraft.coordinators.shares.rest_acknowledgements import LOST, RestAcknowledgements, Shares, no_answer
from kraft.coordinators.shares.settings import KnownSettings
from kraft.coordinators.transactions.routing import Transactions
from kraft.protocol.errors import (
    GroupIdNotFound,
    KafkaError,
    LeaderNotAvailable,
    UnknownTopicOrPartition,
)
from metadata.controller.requests import AlterConfigs, ConfigAlteration, ConfigResource
from metadata.environment import Clock
from metadata.image import TopicIdPartition, TopicImage
from metadata.retries import ELECTION_RETRY_MS
from metadata.settings import GroupSettings


class HasOffset(Protocol):
    """A record of a partition."""

    @property
    def offset(self) -> int: ...


Record = TypeVar("Record", bound=HasOffset)
Found = TypeVar("Found")
_OFFSET = attrgetter("offset")

LOOK_MS_MAX: Final = 1_000
"""Longest wait of one look for news at a leader. When another leader has some first, what waits here ends by this."""
INITIALIZE_WAIT_MS: Final = 10_000
"""How long a receive waits for the share partitions of a new group."""
NOTIFY_WAIT_MS: Final = 2_000
CONTROL_TIMEOUT_MS: Final = 30_000
ELSEWHERE_FIRST: Final = 4
"""One of so many looks begins with any leader; the others begin here, if this node leads a partition of the topic."""
RESET: Final = "share.auto.offset.reset"


@dataclass(frozen=True, slots=True, kw_only=True)
class Receive:
    """What one receive asks for."""

    group: str
    topics: Sequence[str]
    """The first one has priority over the next."""
    receipt: UUID
    records_max: int
    bytes_max: int
    wait_ms: int
    lock_ms: int


@dataclass(frozen=True, slots=True)
class _Routes:
    """Ways to the cluster, as the principal of a request may read and write it."""

    gateway: Gateway
    groups: Groups
    transactions: Transactions


class Queues:
    """The share groups of the cluster, for the HTTP listener of one node."""

    def __init__(
        self,
        *,
        gateway: Gateway,
        groups: Groups,
        transactions: Transactions,
        clock: Clock,
        rng: random.Random,
        ack_ids: AckIds,
        local: Shares | None,
        remote: Callable[[int], Shares],
    ) -> None:
        self.ack_ids = ack_ids
        self._gateway = gateway
        self._settings = KnownSettings(lambda: gateway.settings, lambda: gateway.image)
        self._groups = groups
        self._transactions = transactions
        self._clock = clock
        self._rng = rng
        self._local = local
        self._remote = remote

    def settings_of(self, group: str) -> GroupSettings:
        """The settings that the group has now."""
        return self._settings.of(group)

    def new_receipt(self) -> UUID:
        """Names one receive."""
        return UUID(bytes=self._rng.randbytes(16), version=4)

    # --- receive ------------------------------------------------------------------------------------------------

    async def exchange(
        self, asked: Receive, acknowledgements: Sequence[Settlement]
    ) -> tuple[Mapping[int, KafkaError], Mapping[TopicIdPartition, Handed]]:
        """`acknowledge` and `receive` at once: the acknowledgements begin first, those for the leader that is looked at
        first go along with the look, and all of them are answered with the records. Raises what `receive` raises; the
        acknowledgements may be done then, too, and may come again."""
        deadline_ms = self._clock.monotonic_ms() + asked.wait_ms
        look = _Look(self, asked)
        others = RestAcknowledgements(asked.group, acknowledgements, leaders=self, clock=self._clock)
        along = others.part_of(look.first_leader)
        await _with(look.take(along), others)
        handed = await _with(self._receive(asked, look, deadline_ms), along)
        return {**others.refused, **along.refused}, handed

    async def receive(self, asked: Receive) -> Mapping[TopicIdPartition, Handed]:
        """What there is, else what comes within the wait; empty when nothing does. Raises UnknownTopicOrPartition 3, or
        the error of the last partition when none of them answered."""
        deadline_ms = self._clock.monotonic_ms() + asked.wait_ms
        look = _Look(self, asked)
        await look.take()
        return await self._receive(asked, look, deadline_ms)

    async def _receive(self, asked: Receive, look: _Look, deadline_ms: int) -> Mapping[TopicIdPartition, Handed]:
        """After the first look, which was taken."""
        initialized_ms = self._clock.monotonic_ms() + INITIALIZE_WAIT_MS
        has_prepared = False
        while True:
            now_ms = self._clock.monotonic_ms()
            if look.uninitialized and not has_prepared:
                await self.create(asked.group, look.uninitialized)
                has_prepared = True
            if look.handed:
                return look.handed
            if look.uninitialized and now_ms < initialized_ms:
                await self._clock.sleep(ELECTION_RETRY_MS)
            elif now_ms >= deadline_ms:
                if look.error is not None and not look.has_answered:
                    raise look.error
                return {}
            else:
                await look.wait(min(deadline_ms - now_ms, LOOK_MS_MAX))
            look = _Look(self, asked)
            await look.take()

    async def create(self, group: str, topics: Iterable[str], changes: Sequence[ConfigAlteration] = ()) -> None:
        """Also the first receive: the group comes into being, and begins with the first record unless its
        share.auto.offset.reset is set. A Kafka client's would begin with the next one. Raises GroupIdNotFound 69 where
        the name is that of another kind of group."""
        is_reset_set = RESET in (*self._gateway.image.config("group", group), *(each.name for each in changes))
        if await self._is_new(group) and not is_reset_set:
            changes = (*changes, ConfigAlteration(name=RESET, operation="set", value="earliest"))
        if changes:
            await self._alter(ConfigResource(resource_type="group", name=group), tuple(changes))
        await self._groups.ask(
            r.JoinShareGroup(group=group, member_id=str(self.new_receipt()), topics=tuple(sorted(topics)))
        )

    async def _is_new(self, group: str) -> bool:
        try:
            found = await self._groups.ask(r.DescribeGroup(group=group))
        except GroupIdNotFound:
            return True
        assert isinstance(found, a.GroupDescription), found
        if found.group_type != Kind.SHARE:
            raise GroupIdNotFound(f"group {group!r} is not a share group: it is a {found.group_type} group")
        return False

    async def _alter(self, resource: ConfigResource, changes: tuple[ConfigAlteration, ...]) -> None:
        outcomes = await self._gateway.control(
            AlterConfigs(resources={resource: changes}), timeout_ms=CONTROL_TIMEOUT_MS
        )
        if (refused := outcomes[resource]) is not None:
            raise refused.exception()

    # --- acknowledge --------------------------------------------------------------------------------------------

    async def acknowledge(self, group: str, asked: Sequence[Settlement]) -> Mapping[int, KafkaError]:
        """Why records were refused, by their places among all records that are asked for. Sent again until its leader
        has answered: each may come twice."""
        acknowledgements = RestAcknowledgements(group, asked, leaders=self, clock=self._clock)
        await acknowledgements.run()
        return acknowledgements.refused

    # --- look ---------------------------------------------------------------------------------------------------

    async def peek(
        self, group: str, *, topics: Collection[str] = (), records_max: int
    ) -> Mapping[TopicIdPartition, Peeked]:
        """What the group is not done with, by partition; `topics`: of these only. Raises GroupIdNotFound 69."""
        known = await self._groups.ask(r.DescribeShareOffsets(group=group))
        assert isinstance(known, a.ShareOffsets), known
        found: dict[TopicIdPartition, Peeked] = {}
        by_leader: dict[int, list[TopicIdPartition]] = {}
        for row in known.offsets:
            if topics and row.topic not in topics:
                continue
            where = TopicIdPartition(self.topic(row.topic).topic_id, row.partition)
            found[where] = Peeked()
            try:
                by_leader.setdefault(self.leader_of(where), []).append(where)
            except KafkaError as error:
                found[where] = Peeked(error=error)

        async def one(node_id: int, partitions: Sequence[TopicIdPartition]) -> None:
            try:
                found.update(await self.at(node_id).peek(group, partitions, records_max=records_max))
            except LOST as lost:
                found.update(dict.fromkeys(partitions, Peeked(error=no_answer(node_id, lost))))

        await asyncio.gather(*(one(node_id, partitions) for node_id, partitions in by_leader.items()))
        return found

    async def changed(self, group: str, partitions: Collection[TopicIdPartition]) -> None:
        """The leaders of share partitions compare what they know with the share coordinator, as after a reset. One that
        does not answer within NOTIFY_WAIT_MS does so later, by itself."""
        await self.glance(group, partitions)

    async def glance(self, group: str, partitions: Collection[TopicIdPartition]) -> Mapping[TopicIdPartition, Peeked]:
        """What the leaders that answer within NOTIFY_WAIT_MS know without reading: the dead letters that were lost."""
        found: dict[TopicIdPartition, Peeked] = {}
        by_leader: dict[int, list[TopicIdPartition]] = {}
        for where in partitions:
            with suppress(KafkaError):
                by_leader.setdefault(self.leader_of(where), []).append(where)

        async def one(node_id: int, those: Sequence[TopicIdPartition]) -> None:
            with suppress(KafkaError, *LOST):
                async with self._clock.timeout(NOTIFY_WAIT_MS):
                    found.update(await self.at(node_id).peek(group, those, records_max=0))

        await asyncio.gather(*(one(node_id, those) for node_id, those in by_leader.items()))
        return found

    # --- dead letters -------------------------------------------------------------------------------------------

    async def redrive(self, asked: AskedRedrive, gateway: Gateway) -> Redriven:
        """Brings dead letters back, as the principal of `gateway` may. Raises UnknownTopicOrPartition 3 without their
        topic, ProducerFenced 90 when another redrive of the queue has begun."""
        topic = gateway.image.topic(asked.dead_letters)
        if topic is None:
            raise UnknownTopicOrPartition(f"topic {asked.dead_letters!r}, which has the dead letters, does not exist")
        routes = _Routes(gateway, self._groups, self._transactions)
        return await Redrive(asked, routes=routes, clock=self._clock).run(topic)

    # --- leaders ------------------------------------------------------------------------------------------------

    def at(self, node_id: int) -> Shares:
        """The share partitions of a node."""
        if node_id == self._gateway.node_id and self._local is not None:
            return self._local
        return self._remote(node_id)

    def leader_of(self, where: TopicIdPartition) -> int:
        """Node id. Raises UnknownTopicOrPartition 3, LeaderNotAvailable 5."""
        partition = self._gateway.image.partition(where.topic_id, where.partition)
        if partition is None:
            raise UnknownTopicOrPartition(f"partition {where.partition} of topic {where.topic_id} does not exist")
        if partition.leader < 0:
            raise LeaderNotAvailable(f"partition {where.partition} of topic {where.topic_id} has no leader now")
        return partition.leader

    def topic(self, name: str) -> TopicImage:
        """Raises UnknownTopicOrPartition 3."""
        topic = self._gateway.image.topic(name)
        if topic is None:
            raise UnknownTopicOrPartition(f"topic {name!r} does not exist")
        return topic

    def first_of(self, leaders: Sequence[int]) -> int:
        """The place of the leader with which a look begins: mostly this node, whose records need no second connection.
        The others come first often enough that a backlog of theirs becomes smaller, too, where all clients ask one
        node."""
        if self._local is not None and self._gateway.node_id in leaders and self._rng.randrange(ELSEWHERE_FIRST):
            return leaders.index(self._gateway.node_id)
        return self.turn(len(leaders))

    def turn(self, count: int) -> int:
        """With which of so many partitions a look begins."""
        return self._rng.randrange(count) if count else 0


class _Look:
    """One look at all partitions of a receive, and a wait for news of them."""

    def __init__(self, queues: Queues, asked: Receive) -> None:
        self.handed: dict[TopicIdPartition, Handed] = {}
        self.uninitialized: dict[str, None] = {}
        """Topics that were not initialized for the group, or whose leader has another cause for its -1."""
        self.error: KafkaError | None = None
        self.has_answered = False
        self._queues = queues
        self._asked = asked
        self._records_left = asked.records_max
        self._bytes_left = asked.bytes_max
        self._first = self._in_turn(asked.topics[0])

    @property
    def first_leader(self) -> int | None:
        """The node with which the look begins; None: no partition of the first topic has a leader now."""
        return self._first[0][0] if self._first else None

    async def take(self, along: RestAcknowledgements | None = None) -> None:
        """Acquires what there is, up to the limits. `along`: acknowledgements for the first leader."""
        for at, name in enumerate(self._asked.topics):
            for node_id, partitions in self._in_turn(name) if at else self._first:
                if self._records_left <= 0 or self._bytes_left <= 0:
                    return
                self._got(name, await self._fetch(node_id, partitions, records_max=self._records_left, along=along))
                along = None

    def _in_turn(self, name: str) -> Sequence[tuple[int, Sequence[TopicIdPartition]]]:
        leaders = list(self._by_leader(name).items())
        first = self._queues.first_of([node_id for node_id, _ in leaders])
        return leaders[first:] + leaders[:first]

    async def wait(self, wait_ms: int) -> None:
        """Until one of the leaders has something, without acquiring it."""
        by_leader: dict[int, list[TopicIdPartition]] = {}
        for name in self._asked.topics:
            for node_id, partitions in self._by_leader(name).items():
                by_leader.setdefault(node_id, []).extend(partitions)
        if self.error is not None or not by_leader:
            await self._queues._clock.sleep(min(wait_ms, ELECTION_RETRY_MS))
            return
        looks = [
            asyncio.ensure_future(self._fetch(node_id, partitions, records_max=0, wait_ms=wait_ms))
            for node_id, partitions in by_leader.items()
        ]
        try:
            for look in asyncio.as_completed(looks):
                if any(each.error is None for each in (await look).values()):
                    return
        finally:
            for each in looks:
                each.cancel()

    def _by_leader(self, name: str) -> Mapping[int, list[TopicIdPartition]]:
        topic = self._queues.topic(name)
        found: dict[int, list[TopicIdPartition]] = {}
        for number in topic.partitions:
            where = TopicIdPartition(topic.topic_id, number)
            try:
                found.setdefault(self._queues.leader_of(where), []).append(where)
            except LeaderNotAvailable as error:
                self.error = error
        return found

    async def _fetch(
        self,
        node_id: int,
        partitions: Sequence[TopicIdPartition],
        *,
        records_max: int,
        wait_ms: int = 0,
        along: RestAcknowledgements | None = None,
    ) -> Mapping[TopicIdPartition, Handed]:
        """What was acquired while the answer was lost stays locked for its time."""
        bytes_max = self._bytes_left if records_max else 1
        first = self._queues.turn(len(partitions))
        ask = ShareFetch(
            group=self._asked.group,
            member=str(self._asked.receipt),
            partitions=[*partitions[first:], *partitions[:first]],
            wait_ms=wait_ms,
            bytes_max=bytes_max,
            records_max=records_max,
            batch_size=max(records_max, 1),
            is_strict=True,
            room=lambda: bytes_max,
            lock_ms=self._asked.lock_ms,
        )
        try:
            if along is not None:
                return await along.exchange(node_id, ask)
            return await self._queues.at(node_id).fetch(ask)
        except LOST as lost:
            self.error = no_answer(node_id, lost)
        except KafkaError as refused:
            self.error = refused
        return {}

    def _got(self, topic: str, answer: Mapping[TopicIdPartition, Handed]) -> None:
        errors = [handed.error for handed in answer.values() if handed.error is not None]
        for error in errors:
            if error.code == KafkaError.code:
                self.uninitialized[topic] = None
            self.error = error
        self.has_answered |= self.error is None or len(errors) < len(answer)
        for where, handed in answer.items():
            if handed.acquired:
                self.handed[where] = handed
                self._records_left -= sum(last - first + 1 for first, last, _ in handed.acquired)
                self._bytes_left -= len(handed.records)


async def _with(work: Coroutine[Any, Any, Found], acknowledgements: RestAcknowledgements) -> Found:
    """The result of `work`, which goes on while acknowledgements do: most have nothing left, and need no task."""
    if acknowledgements.is_done:
        return await work
    found: Found
    found, _ = await asyncio.gather(work, acknowledgements.run())
    return found


def locks_of(
    handed: Mapping[TopicIdPartition, Handed], receipt: UUID, *, now_ms: int
) -> Mapping[TopicIdPartition, Sequence[Lock]]:
    """What was acquired by a receive, in the order of the offsets."""
    return {
        where: [
            Lock(
                where,
                first,
                last - first + 1,
                each.leader_epoch,
                delivery_count,
                now_ms + each.lock_ms,
                each.lock_ms,
                receipt,
            )
            for first, last, delivery_count in each.acquired
        ]
        for where, each in handed.items()
    }


def by_lock(records: Sequence[Record], locks: Iterable[Lock]) -> Iterable[tuple[Lock, Sequence[Record]]]:
    """The records of each lock; others have those in between. Both are in the order of the offsets."""
    for lock in locks:
        begin = bisect_left(records, lock.first, key=_OFFSET)
        end = bisect_left(records, lock.first + lock.size, begin, key=_OFFSET)
        yield lock, records[begin:end]
