"""Fetch by followers and consumers: read, note the follower's progress, wait for bytes, read again (F1 to F3).

A follower's progress is noted before the wait, once per request; the answer after a wait only reads.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeAlias
from uuid import UUID

from kraft.protocol.errors import KafkaError, NotLeaderOrFollower, OffsetOutOfRange
from kraft.values import value
from metadata.environment import TimerHandle
from metadata.image import TopicIdPartition
from replication.manager.partition_reader import PartitionReader, Pass
from replication.manager.registry import ANY_EPOCH, Registry
from replication.partition.replica import Replica
from replication.partition.states import LeaderState
from replication.purgatory import Purgatory
from replication.requests import CONSUMER, FetchedPartition, FetchRequest, FetchResponse
from replication.sessions.cache import FetchSession, SessionCache, SessionPartition

NEWS_MS = 1_000
NEWS_WAIT_MS = 20
"""After a follower was woken for partitions that are new to it, its polls wait no longer than this until it asks for
them: it still has to learn of them, and cannot end its current poll."""
ACLS_WAIT_MS = 200
"""After a change of ACLs, waiting fetches are looked at once for all changes within this."""


Proof: TypeAlias = Callable[[], Awaitable[bool]]
"""Proves that this broker had not been replaced as leader when it was called."""


async def nobody_doubts() -> bool:
    return True


class Fetch:
    def __init__(self, registry: Registry, reader: PartitionReader, *, is_trusted: Proof = nobody_doubts) -> None:
        self._registry = registry
        self._reader = reader
        self._is_trusted = is_trusted
        self._sessions = SessionCache(
            clock=registry.clock,
            rng=registry.environment.rng,
            slots_max=registry.settings().max_incremental_fetch_session_cache_slots,
        )
        self._waiting: dict[int, dict[DelayedFetch, None]] = {}
        """Waiting fetches by replica id, in the order of their arrival, which a set of objects does not keep."""
        self._news_until_ms: dict[int, int] = {}
        """Replica id -> time until which it is expected to ask for partitions that it was woken for."""

        self._acls: object = None
        self._of_many: dict[DelayedFetchOfMany, None] = {}
        self._acls_timer: TimerHandle | None = None

    @property
    def session_count(self) -> int:
        return len(self._sessions)

    def begin(self, request: FetchRequest) -> FetchResponse | DeferredFetch:
        """Answer at once where possible, without a task."""
        try:
            session = self._sessions.open(request)
        except KafkaError as error:
            return FetchResponse(error_code=error.code)
        session.resolve_names(self._registry.image)
        pass_ = self._read(session, request, None, notes_progress=True)
        if request.replica_id == CONSUMER and any(map(_is_beyond, pass_.answers)):
            task = asyncio.get_running_loop().create_task(self._look_again_and_answer(session, request))
            return DeferredFetch(task, task.result)
        return self._answer_or_wait(pass_, session, request)

    async def response(self, request: FetchRequest) -> FetchResponse:
        """Reads as `begin` does; returns once there is an answer."""
        begun = self.begin(request)
        return await begun.complete() if isinstance(begun, DeferredFetch) else begun

    def _answer_or_wait(
        self, pass_: Pass, session: FetchSession, request: FetchRequest
    ) -> FetchResponse | DeferredFetch:
        if self._answers_now(pass_, session, request):
            return session.respond(pass_.answers)
        operation = self._wait(session, pass_, self._wait_ms(session, request))
        if operation is None:
            return self._answer_after_wait(pass_, session, set())
        return DeferredFetch(operation.done, lambda: self._answer_after_wait(pass_, session, operation.touched))

    def _answer_after_wait(self, pass_: Pass, session: FetchSession, touched: set[TopicIdPartition]) -> FetchResponse:
        """Read again only partitions that had an event meanwhile, and those that had an answer."""
        for partition, _answer in pass_.answers:
            touched.add(partition.key)
        if not touched:
            return session.respond(())
        again = [partition for partition in session.awake.values() if partition.key in touched]
        return session.respond(self._read(session, pass_.request, again, notes_progress=False).answers)

    async def _look_again_and_answer(self, session: FetchSession, request: FetchRequest) -> FetchResponse:
        pass_ = await self._look_again(session, request)
        begun = self._answer_or_wait(pass_, session, request)
        return await begun.complete() if isinstance(begun, DeferredFetch) else begun

    async def _look_again(self, session: FetchSession, request: FetchRequest) -> Pass:
        """Handle an offset beyond the end of the log, which is out of range for the leader. A former leader that does
        not know of its successor would answer the same, and its client would begin again for nothing. Kafka's consumers
        send the leader epoch with each fetch, and get error 75 (KIP-320); a reader without an epoch gets error 6 unless
        the broker proves that it still leads. Records that were read from other partitions are not kept meanwhile."""
        is_trusted = await self._is_trusted()
        pass_ = self._read(session, request, None, notes_progress=False)
        for number, (partition, found) in enumerate(pass_.answers):
            if not is_trusted and _is_beyond((partition, found)):
                found = FetchedPartition(
                    topic_id=found.topic_id,
                    partition=found.partition,
                    error_code=NotLeaderOrFollower.code,
                    topic=found.topic,
                )
                pass_.answers[number] = (partition, found)
        return pass_

    def watch_many(self, request: FetchRequest, offsets: OffsetsOfMany, *, wait_ms: int) -> asyncio.Future[None] | None:
        """Done when one of these partitions has records from its offset on, or the time is over; to be cancelled when
        nobody waits. None when too many wait already."""
        operation = DelayedFetchOfMany(self._reader, request, offsets)
        if not self._registry.fetches.watch_all(operation, wait_ms=wait_ms):
            return None
        self._of_many[operation] = None

        def ended(_: asyncio.Future[None]) -> None:
            del self._of_many[operation]
            self._registry.fetches.forget(operation)

        operation.done.add_done_callback(ended)
        return operation.done

    def wake_followers(self, broker_ids: Iterable[int]) -> None:
        """Answer waiting fetches of these brokers: they now have more partitions to ask for."""
        until_ms = self._registry.clock.monotonic_ms() + NEWS_MS
        for broker_id in broker_ids:
            self._news_until_ms[broker_id] = until_ms
            for operation in tuple(self._waiting.get(broker_id, ())):
                self._registry.fetches.forget(operation)
                operation.expire()

    def on_acls(self, acls: object) -> None:
        """Fetches that wait for what their readers may not read any more are answered soon, where these are others."""
        has_changed, self._acls = acls is not self._acls, acls
        if has_changed and self._acls_timer is None:
            self._acls_timer = self._registry.clock.call_later(ACLS_WAIT_MS, self._end_unreadable)

    def _end_unreadable(self) -> None:
        self._acls_timer = None
        waiting = (*self._waiting.get(CONSUMER, ()), *self._of_many)
        for operation in waiting:
            if operation.is_unreadable():
                self._registry.fetches.forget(operation)
                operation.expire()

    def _wait_ms(self, session: FetchSession, request: FetchRequest) -> int:
        until_ms = self._news_until_ms.get(request.replica_id)
        if until_ms is None:
            return request.wait_ms_max
        if session.has_grown or self._registry.clock.monotonic_ms() >= until_ms:
            del self._news_until_ms[request.replica_id]
            return request.wait_ms_max
        return min(request.wait_ms_max, NEWS_WAIT_MS)

    def _answers_now(self, pass_: Pass, session: FetchSession, request: FetchRequest) -> bool:
        return (
            request.wait_ms_max <= 0
            or not session.partitions
            or pass_.has_news
            or pass_.is_full
            or pass_.size_bytes >= min(request.bytes_min, pass_.bytes_max)
            or not (pass_.replicas or pass_.is_follower)
        )

    def _read(
        self,
        session: FetchSession,
        request: FetchRequest,
        partitions: Sequence[SessionPartition] | None,
        *,
        notes_progress: bool,
    ) -> Pass:
        """Read these partitions, or all that do not idle."""
        pass_ = self._reader.begin(
            request,
            now_ms=session.used_ms,
            notes_progress=notes_progress,
            answers_all=not session.is_incremental,
        )
        if partitions is None:
            if pass_.is_stale or pass_.answers_all:
                session.stir_all()
            else:
                session.maybe_look_at_idle()
            partitions = [*session.awake.values()]
        for partition in partitions:
            self._reader.read(partition, pass_)
        if notes_progress:
            session.rounds.latest_ms = session.used_ms
        return pass_

    def _wait(self, session: FetchSession, pass_: Pass, wait_ms: int) -> DelayedFetch | None:
        """Wait. None when too many wait already."""
        request = pass_.request
        operation = DelayedFetch(
            self._reader,
            request,
            pass_.replicas,
            bytes_min=min(request.bytes_min, pass_.bytes_max),
            purgatory=self._registry.fetches,
        )
        awake = [replica for replica, partition in pass_.replicas.items() if partition.idling is None]
        if not self._registry.fetches.watch(operation, awake, wait_ms=wait_ms):
            return None
        session.poll = operation
        waiting = self._waiting.setdefault(request.replica_id, {})
        waiting[operation] = None

        def ended(_: asyncio.Future[None]) -> None:
            del waiting[operation]
            if session.poll is operation:
                session.poll = None
            self._registry.fetches.forget(operation)

        operation.done.add_done_callback(ended)
        return operation


def _is_beyond(answered: tuple[SessionPartition, FetchedPartition]) -> bool:
    partition, answer = answered
    return answer.error_code == OffsetOutOfRange.code and partition.fetch.fetch_offset > answer.high_watermark


@value()
class DeferredFetch:
    """A fetch that waits for an event."""

    future: asyncio.Future[Any]
    """Done when there is an answer. Cancelling it only ends the wait."""
    answer: Callable[[], FetchResponse]
    """To be called once, when the future is done."""

    async def complete(self) -> FetchResponse:
        await self.future
        return self.answer()


OffsetsOfMany: TypeAlias = Mapping[UUID, tuple[Sequence[int], Sequence[int]]]
"""Topic id -> partitions, ascending, and the offset that is fetched from each."""


class DelayedFetchOfMany:
    """The long poll of a fetch of thousands of partitions. It keeps two numbers for each, and looks at each event of
    the broker."""

    def __init__(self, reader: PartitionReader, request: FetchRequest, offsets: OffsetsOfMany) -> None:
        self._reader, self._request, self._offsets = reader, request, offsets
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def try_complete(self, replica: Replica, /) -> bool:
        partitions, offsets = self._offsets.get(replica.key.topic_id, ((), ()))
        place = bisect_left(partitions, replica.key.partition)
        if place == len(partitions) or partitions[place] != replica.key.partition:
            return False
        state = replica.state
        can_read = isinstance(state, LeaderState) or self._request.reads_followers
        if can_read and self._reader.bound(replica, state, self._request) <= offsets[place]:
            return False
        self.expire()
        return True

    def is_unreadable(self) -> bool:
        """Not known here: each of its reads is checked when it goes on."""
        return self._request.may_read is not None

    def expire(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


class DelayedFetch:
    """A long poll: it ends when `bytes_min` can be read, or a partition's role changes. It watches the partitions that
    are awake; a replica reports the end of an idling before it wakes the operations that wait."""

    def __init__(
        self,
        reader: PartitionReader,
        request: FetchRequest,
        partitions: dict[Replica, SessionPartition],
        *,
        bytes_min: int,
        purgatory: Purgatory[Replica],
    ) -> None:
        self._reader = reader
        self._request = request
        self._partitions = partitions
        self._bytes_min = bytes_min
        self._purgatory = purgatory
        self.touched: set[TopicIdPartition] = set()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def woken(self, partition: SessionPartition, replica: Replica, /) -> None:
        self._partitions[replica] = partition
        self._purgatory.watch_also(self, replica)

    def try_complete(self, replica: Replica, /) -> bool:
        state = replica.state
        fetch = self._partitions[replica].fetch
        self.touched.add(replica.key)
        has_moved = fetch.current_leader_epoch not in (ANY_EPOCH, state.leader_epoch)
        if not has_moved and (isinstance(state, LeaderState) or self._request.reads_followers):
            available = self._reader.bound(replica, state, self._request) - fetch.fetch_offset
            if available <= 0 or (self._bytes_min > 1 and not self._has_enough(self._partitions)):
                return False
        self.expire()
        return True

    def is_unreadable(self) -> bool:
        """Whether its reader may not read all of it any more: the answer has the error of these partitions."""
        may_read = self._request.may_read
        if may_read is None:
            return False
        denied = [each.key for each in self._partitions.values() if not self._reader.may_read(each, may_read)]
        self.touched.update(denied)
        return bool(denied)

    def _has_enough(self, partitions: Collection[Replica]) -> bool:
        size_bytes = 0
        for replica in partitions:
            size_bytes += self._reader.available_bytes(
                replica, self._partitions[replica].fetch, self._request, bytes_max=self._bytes_min
            )
            if size_bytes >= self._bytes_min:
                return True
        return False

    def expire(self) -> None:
        if not self.done.done():
            self.done.set_result(None)
