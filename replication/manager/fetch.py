"""Fetch by followers and consumers: read, note how far the follower is, wait for bytes, read again (F1 to F3).

A follower's progress is noted before it waits, once per request; the answer after a wait only reads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import TypeAlias

from kraft.protocol.errors import KafkaError, NotLeaderOrFollower, OffsetOutOfRange
from metadata.image import TopicIdPartition
from replication.manager.reader import PartitionReader, Pass
from replication.manager.registry import Registry
from replication.partition.replica import Replica
from replication.partition.states import LeaderState
from replication.purgatory import Purgatory
from replication.requests import CONSUMER, FetchedPartition, FetchRequest, FetchResponse
from replication.sessions.cache import FetchSession, SessionCache, SessionPartition

NEWS_MS = 1_000
NEWS_WAIT_MS = 20
"""For so long after a follower was woken for partitions that are new to it, its polls wait no longer than this while
they do not ask for any: it has yet to learn of them, and cannot end a poll that is under way."""


Proof: TypeAlias = Callable[[], Awaitable[bool]]
"""Whether this broker was not relieved when it was asked."""


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
        """By replica id; in the order in which they came, which a set of objects does not keep."""
        self._news_until_ms: dict[int, int] = {}
        """Replica id -> until when it is expected to ask for partitions that it was woken for."""

    @property
    def session_count(self) -> int:
        return len(self._sessions)

    async def fetch(self, request: FetchRequest) -> FetchResponse:
        try:
            session = self._sessions.open(request)
        except KafkaError as error:
            return FetchResponse(error_code=error.code)
        pass_ = self._read(session, request, None, notes_progress=True)
        if request.replica_id == CONSUMER and any(map(_is_beyond, pass_.answers)):
            await self._look_again(pass_, session, request)
        if not self._answers_now(pass_, session, request):
            touched = await self._wait(session, pass_, self._wait_ms(session, request))
            for partition, _answer in pass_.answers:
                touched.add(partition.key)
            if not touched:
                return session.respond(())
            again = [partition for key, partition in session.awake.items() if key in touched]
            pass_ = self._read(session, request, again, notes_progress=False)
        return session.respond(pass_.answers)

    async def _look_again(self, pass_: Pass, session: FetchSession, request: FetchRequest) -> None:
        """An offset beyond the end of the log is out of range for who leads. A leader that was relieved and has not
        heard of it knows no better than to say so too, and its client would begin anew for nothing. Kafka's consumers
        send the leader epoch with each fetch, and are told 75 (KIP-320); readers without one are told 6 unless the
        broker proves that it is in office."""
        is_trusted = await self._is_trusted()
        for number, (partition, answer) in enumerate(pass_.answers):
            if not _is_beyond((partition, answer)):
                continue
            again = self._read(session, request, (partition,), notes_progress=False).answers
            found = again[0][1] if again else answer
            if not is_trusted and _is_beyond((partition, found)):
                found = FetchedPartition(
                    topic_id=found.topic_id, partition=found.partition, error_code=NotLeaderOrFollower.code
                )
            pass_.answers[number] = (partition, found)

    def wake_followers(self, broker_ids: Iterable[int]) -> None:
        """Answer waiting fetches of these brokers: they have more partitions to ask for than when they asked."""
        until_ms = self._registry.clock.monotonic_ms() + NEWS_MS
        for broker_id in broker_ids:
            self._news_until_ms[broker_id] = until_ms
            for operation in tuple(self._waiting.get(broker_id, ())):
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
            or pass_.size_bytes >= request.bytes_min
        )

    def _read(
        self,
        session: FetchSession,
        request: FetchRequest,
        partitions: Sequence[SessionPartition] | None,
        *,
        notes_progress: bool,
    ) -> Pass:
        """These partitions, or all that do not idle."""
        pass_ = self._reader.begin(
            request,
            now_ms=session.used_ms,
            notes_progress=notes_progress,
            tells_all=not session.is_incremental,
            rounds=session.rounds,
        )
        if partitions is None:
            if pass_.is_stale or pass_.tells_all:
                session.stir_all()
            else:
                session.maybe_look_at_idle()
            partitions = [*session.awake.values()]
        for partition in partitions:
            self._reader.read(partition, pass_)
        if notes_progress:
            session.rounds.latest_ms = session.used_ms
        return pass_

    async def _wait(self, session: FetchSession, pass_: Pass, wait_ms: int) -> set[TopicIdPartition]:
        """Returns the partitions to which something happened meanwhile; the others need not be read again."""
        request = pass_.request
        operation = DelayedFetch(self._reader, request, pass_.replicas, purgatory=self._registry.fetches)
        awake = [replica for replica, partition in pass_.replicas.items() if partition.idling is None]
        if not self._registry.fetches.watch(operation, awake, wait_ms=wait_ms):
            return set()
        session.poll = operation
        waiting = self._waiting.setdefault(request.replica_id, {})
        waiting[operation] = None
        try:
            await operation.done
        finally:
            del waiting[operation]
            if session.poll is operation:
                session.poll = None
            self._registry.fetches.forget(operation)
        return operation.touched


def _is_beyond(answered: tuple[SessionPartition, FetchedPartition]) -> bool:
    partition, answer = answered
    return answer.error_code == OffsetOutOfRange.code and partition.fetch.fetch_offset > answer.high_watermark


class DelayedFetch:
    """A long poll: ends when `bytes_min` can be read, or a partition's role changes. It watches the partitions that are
    awake; one that idles tells when it is not any more, before whoever woke it looks for those who wait."""

    def __init__(
        self,
        reader: PartitionReader,
        request: FetchRequest,
        partitions: dict[Replica, SessionPartition],
        *,
        purgatory: Purgatory[Replica],
    ) -> None:
        self._reader = reader
        self._request = request
        self._partitions = partitions
        self._purgatory = purgatory
        self.touched: set[TopicIdPartition] = set()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def woken(self, partition: SessionPartition, replica: Replica, /) -> None:
        self._partitions[replica] = partition
        self._purgatory.watch_also(self, replica)

    def try_complete(self, replica: Replica, /) -> bool:
        state = replica.state
        partition = self._partitions[replica]
        self.touched.add(replica.key)
        if isinstance(state, LeaderState):
            available = self._reader.bound(replica, state, self._request) - partition.fetch.fetch_offset
            if available <= 0 or (self._request.bytes_min > 1 and not self._has_enough(self._partitions)):
                return False
        self.expire()
        return True

    def _has_enough(self, partitions: Collection[Replica]) -> bool:
        size_bytes = 0
        for replica in partitions:
            size_bytes += self._reader.available_bytes(
                replica, self._partitions[replica].fetch, self._request, bytes_max=self._request.bytes_min
            )
            if size_bytes >= self._request.bytes_min:
                return True
        return False

    def expire(self) -> None:
        if not self.done.done():
            self.done.set_result(None)
