"""Acknowledgements of one request over REST, at the leaders of their partitions until each has its answer.

Records that follow each other, are in the same hands and get the same word are asked for as one. When such a range is
refused, each of its records is asked for alone: one of their locks may have ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final, Protocol, TypeAlias

from kraft.coordinators.shares.ack_ids import Settlement
from kraft.coordinators.shares.leaders import Handed, Leases, ShareFetch
from kraft.coordinators.shares.peek import Peeked
from kraft.protocol.errors import KafkaError, LeaderNotAvailable, UnknownTopicOrPartition
from metadata.environment import Clock, ConnectionClosed
from metadata.image import TopicIdPartition
from metadata.retries import ELECTION_RETRY_MS, retry_until
from replication.shares.acknowledgements import Part
from replication.shares.settled import Lease

ACKNOWLEDGE_WAIT_MS: Final = 10_000
"""How long an acknowledgement is sent again while there is no leader that takes it. It may be: it can come twice."""
LOST: Final = (ConnectionClosed, OSError, TimeoutError)
"""How the answer of a leader is lost."""
Results: TypeAlias = Sequence[KafkaError | None]


class _Unanswered(Exception):
    """Some acknowledgements have no answer yet."""


class Shares(Protocol):
    """The share partitions of one broker."""

    async def fetch(self, ask: ShareFetch) -> Mapping[TopicIdPartition, Handed]: ...
    async def settle(self, group: str, leases: Leases) -> Results: ...
    async def exchange(self, leases: Leases, ask: ShareFetch) -> tuple[Results, Mapping[TopicIdPartition, Handed]]: ...
    async def peek(
        self, group: str, partitions: Sequence[TopicIdPartition], *, records_max: int
    ) -> Mapping[TopicIdPartition, Peeked]: ...


class Leaders(Protocol):
    """Where partitions are led."""

    def at(self, node_id: int) -> Shares: ...
    def leader_of(self, where: TopicIdPartition) -> int: ...


class RestAcknowledgements:
    """The acknowledgements of one request."""

    def __init__(self, group: str, asked: Iterable[Settlement], *, leaders: Leaders, clock: Clock) -> None:
        self.refused: dict[int, KafkaError] = {}
        """Why records were refused, by their places among all records that are asked for."""
        self._group = group
        self._leaders = leaders
        self._clock = clock
        self._left = _joined(_leases(asked))
        """Those that have no answer yet, or have to be asked again."""
        self._deadline_ms = clock.monotonic_ms() + ACKNOWLEDGE_WAIT_MS

    @property
    def is_done(self) -> bool:
        """Whether none is left to be asked for."""
        return not self._left

    def part_of(self, leader: int | None) -> RestAcknowledgements:
        """Those for this leader, which leave these."""
        part = RestAcknowledgements(self._group, (), leaders=self._leaders, clock=self._clock)
        left: list[_Asked] = []
        for each in self._left:
            (part._left if self._leader_of(each[0]) == leader else left).append(each)
        self._left = left
        return part

    def _leader_of(self, where: TopicIdPartition) -> int:
        try:
            return self._leaders.leader_of(where)
        except KafkaError:
            return -1

    async def run(self) -> None:
        """Sends them until all are answered, or ACKNOWLEDGE_WAIT_MS are over."""

        async def attempt() -> None:
            await self._once()
            if self._left:
                raise _Unanswered

        async def wake() -> None:
            """A range whose records are asked for alone needs no wait."""
            if any(len(places) == 1 and _is_to_repeat(self.refused.get(places[0])) for _, _, places in self._left):
                await self._clock.sleep(ELECTION_RETRY_MS)

        if self._left:
            with suppress(_Unanswered):
                await retry_until(self._deadline_ms, attempt, clock=self._clock, retriable=_is_unanswered, wake=wake)

    async def exchange(self, node_id: int, ask: ShareFetch) -> Mapping[TopicIdPartition, Handed]:
        """Sends them once, with a look at their leader. Raises what the look raises; what it has not answered is left
        for `run`."""
        asked, self._left = self._left, []
        if not asked:
            return await self._leaders.at(node_id).fetch(ask)
        try:
            answered, handed = await self._leaders.at(node_id).exchange([each[:2] for each in asked], ask)
        except (*LOST, KafkaError):
            self._left = asked
            raise
        for each, error in zip(asked, answered, strict=True):
            self._got(each, error)
        return handed

    async def _once(self) -> None:
        by_leader: dict[int, list[_Asked]] = {}
        asked, self._left = self._left, []
        for each in asked:
            try:
                by_leader.setdefault(self._leaders.leader_of(each[0]), []).append(each)
            except KafkaError as error:
                self._got(each, error)

        async def one(node_id: int, those: Sequence[_Asked]) -> None:
            answered: Results
            try:
                answered = await self._leaders.at(node_id).settle(self._group, [each[:2] for each in those])
            except LOST as lost:
                answered = [no_answer(node_id, lost)] * len(those)
            except KafkaError as refusal:
                answered = [refusal] * len(those)
            for each, error in zip(those, answered, strict=True):
                self._got(each, error)

        await asyncio.gather(*(one(node_id, those) for node_id, those in by_leader.items()))

    def _got(self, each: _Asked, error: KafkaError | None) -> None:
        where, lease, places = each
        for at in places if error is not None or self.refused else ():
            self.refused.pop(at, None)
            if error is not None:
                self.refused[at] = error
        if _is_to_repeat(error):
            self._left.append(each)
        elif error is not None and len(places) > 1:
            self._left.extend((where, _one(lease, step), [at]) for step, at in enumerate(places))


def _is_unanswered(error: Exception) -> bool:
    return isinstance(error, _Unanswered)


def no_answer(node_id: int, lost: Exception) -> KafkaError:
    """What a client gets when the answer of a leader was lost."""
    return LeaderNotAvailable(f"leader {node_id} did not answer: {type(lost).__name__}")


_Asked: TypeAlias = tuple[TopicIdPartition, Lease, list[int]]
"""What is settled, and its places among the records of the request."""


def _leases(asked: Iterable[Settlement]) -> Iterable[_Asked]:
    begin = 0
    for lock, first, last, kind, reason, lock_ms, delay_ms in asked:
        lease = Lease(
            member=lock.member,
            part=Part(first, last, kind, reason, delay_ms),
            leader_epoch=lock.leader_epoch,
            delivery_count=lock.delivery_count,
            until_ms=lock.until_ms,
            lock_ms=lock_ms or lock.lock_ms,
        )
        end = begin + last - first + 1
        yield lock.where, lease, list(range(begin, end))
        begin = end


def _joined(asked: Iterable[_Asked]) -> list[_Asked]:
    """Records that follow each other, are in the same hands and get the same word, as one."""
    joined: list[_Asked] = []
    for each in sorted(asked, key=lambda one: (one[0], one[1].member, one[1].part.first)):
        if joined:
            where, lease, places = joined[-1]
            longer = lease.part._replace(last=each[1].part.last)
            follows = each[1].part.first == lease.part.last + 1
            if (
                follows
                and where == each[0]
                and each[1] == lease._replace(part=longer._replace(first=each[1].part.first))
            ):
                places += each[2]
                joined[-1] = (where, lease._replace(part=longer), places)
                continue
        joined.append(each)
    return joined


def _one(lease: Lease, step: int) -> Lease:
    offset = lease.part.first + step
    return lease._replace(part=lease.part._replace(first=offset, last=offset))


def _is_to_repeat(error: KafkaError | None) -> bool:
    return error is not None and error.retriable and not isinstance(error, UnknownTopicOrPartition)
