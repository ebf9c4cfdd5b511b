"""One loop for one leader broker: fetches all partitions followed from it, on a connection of its own.

A request names only partitions that changed (KIP-227). The order is: answer, append or truncate, flush where the policy
requires it and after each truncation, next request. So the offset in a request is always in the log, and on disk where
flush.messages=1, and nothing is written in place of truncated records before the truncation is on disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from kraft.protocol.errors import KafkaError
from kraft.values import new
from metadata.environment import ConnectionClosed
from metadata.image import TopicIdPartition
from metadata.retries import RECONNECT_BACKOFF_MS
from metadata.settings import BrokerSettings
from replication.fetcher.follower import Follower, Taken
from replication.manager.registry import Registry
from replication.partition.replica import Replica
from replication.partition.states import FollowerState
from replication.requests import FetchPartition, FetchRequest, FetchResponse, LeaderChannel
from replication.sessions.client import FollowerSession

METADATA_BEHIND_MS_FIRST = 10
"""Wait before a partition is asked for again while leader and follower have different metadata; doubles."""

FAILED_RETRY_MS = 5_000
"""Wait before a partition whose own log failed is tried again (R11)."""

LOOK_MS = 1_000
"""Interval in which the requests of all partitions are checked: retention moves the start of a log."""


_ANSWERED = (Taken.DONE, Taken.APPENDED, Taken.IGNORED)


@dataclass(slots=True)
class Followed:
    """One partition in the loop. `question` is rebuilt only when the replica has moved."""

    replica: Replica
    retry_at_ms: int = 0
    behind_ms: int = METADATA_BEHIND_MS_FIRST
    question: FetchPartition | None = None


class ReplicaFetcher:
    def __init__(self, registry: Registry, leader: int, *, channels: Callable[[int], LeaderChannel]) -> None:
        self._registry = registry
        self._leader = leader
        self._channels = channels
        self._channel: LeaderChannel | None = None
        self._session = FollowerSession()
        self._follower = Follower(
            clock=registry.clock, events=registry.events, on_high_watermark=registry.fetches.check
        )
        self._followed: dict[TopicIdPartition, Followed] = {}
        self._wanted: dict[TopicIdPartition, FetchPartition] = {}
        """The current questions of all partitions that are not backing off."""
        self._unsettled: dict[TopicIdPartition, None] = {}
        """Partitions whose question may have changed."""
        self._moved: dict[TopicIdPartition, None] = {}
        """Partitions whose question may differ from the one that the leader has."""
        self._resting: dict[TopicIdPartition, Followed] = {}
        """Partitions that are backing off."""
        self._bytes_max = -1
        self._looked_ms = 0
        self._changed = asyncio.Event()
        self._is_reachable = True

    @property
    def followed(self) -> dict[TopicIdPartition, Followed]:
        return self._followed

    def add(self, replica: Replica) -> None:
        """Add a partition; it is asked for after the current poll. Its leader ends that poll when it learns that it has
        one more partition for this broker, and soon if it knew that earlier (`manager.fetch.NEWS_WAIT_MS`)."""
        self._followed[replica.key] = Followed(replica)
        self._resting.pop(replica.key, None)
        self._unsettled[replica.key] = None
        self._changed.set()

    def remove(self, key: TopicIdPartition) -> None:
        if self._followed.pop(key, None) is not None:
            self._resting.pop(key, None)
            self._unsettled[key] = None

    async def run(self) -> None:
        try:
            while True:
                self._changed.clear()
                settings = self._registry.settings()
                wait_ms = self._settle(settings)
                if not self._wanted:
                    await self._pause(wait_ms)
                    continue
                try:
                    await self._round(wait_ms, settings)
                except (OSError, ConnectionClosed, KafkaError) as error:
                    await self._lost(error)
        finally:
            await self._disconnect()

    async def _lost(self, error: Exception) -> None:
        if self._is_reachable:
            self._is_reachable = False
            self._registry.events.emit("leader_unreachable", leader=self._leader, error=str(error))
        await self._disconnect()
        await self._registry.clock.sleep(RECONNECT_BACKOFF_MS)

    async def _pause(self, wait_ms: int) -> None:
        """There is nothing to ask for: wait until a partition is added or the first backoff is over."""
        timer = self._registry.clock.call_later(wait_ms, self._changed.set)
        try:
            await self._changed.wait()
        finally:
            timer.cancel()

    def _settle(self, settings: BrokerSettings) -> int:
        """Update the questions; return the time until the first partition that backs off is due, in ms."""
        now_ms = self._registry.clock.monotonic_ms()
        if self._resting:
            for key in [key for key, followed in self._resting.items() if followed.retry_at_ms <= now_ms]:
                del self._resting[key]
                self._unsettled[key] = None
        if settings.replica_fetch_max_bytes != self._bytes_max or now_ms - self._looked_ms >= LOOK_MS:
            self._bytes_max, self._looked_ms = settings.replica_fetch_max_bytes, now_ms
            self._unsettled.update(dict.fromkeys(self._followed))
        unsettled, self._unsettled = self._unsettled, {}
        for key in unsettled:
            followed = self._followed.get(key)
            if followed is None:
                self._wanted.pop(key, None)
            elif followed.retry_at_ms > now_ms:
                self._wanted.pop(key, None)
                self._resting[key] = followed
            else:
                self._wanted[key] = _question(followed, bytes_max=self._bytes_max)
        self._moved.update(unsettled)
        wait_ms = settings.replica_fetch_wait_max_ms
        if self._resting:
            return min(wait_ms, *[each.retry_at_ms - now_ms for each in self._resting.values()])
        return wait_ms

    async def _round(self, wait_ms: int, settings: BrokerSettings) -> None:
        changed, forgotten = self._session.changes(self._wanted, self._moved)
        self._moved = {}
        request = new(FetchRequest)
        FetchRequest.__init__(
            request,
            replica_id=self._registry.node_id,
            replica_epoch=self._registry.broker_epoch,
            wait_ms_max=wait_ms,
            bytes_min=settings.replica_fetch_min_bytes,
            bytes_max=settings.replica_fetch_response_max_bytes,
            session_id=self._session.session_id,
            session_epoch=self._session.epoch,
            partitions=changed,
            forgotten=forgotten,
        )
        response = await self._ask(request, timeout_ms=wait_ms + settings.replica_socket_timeout_ms)
        self._is_reachable = True
        self._session.on_response(response)
        await self._take(response)

    async def _ask(self, request: FetchRequest, *, timeout_ms: int) -> FetchResponse:
        if self._channel is None:
            self._channel = self._channels(self._leader)
        try:
            return await self._channel.fetch(request, timeout_ms=timeout_ms)
        except TimeoutError as error:
            silent = f"leader {self._leader} has not answered a fetch within {timeout_ms} ms"
            raise TimeoutError(silent) from error

    async def _disconnect(self) -> None:
        """Close the connection, and with it the leader's session: it is unknown how much it got of the last request."""
        self._session.reset()
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    async def _take(self, response: FetchResponse) -> None:
        due: list[Followed] = []
        for answer in response.partitions:
            key = TopicIdPartition(answer.topic_id, answer.partition)
            followed, asked = self._followed.get(key), self._wanted.get(key)
            if followed is None or asked is None:
                continue
            self._unsettled[key] = None
            taken = self._follower.take(followed.replica, asked, answer)
            if taken not in (Taken.FAILED, Taken.IGNORED) and followed.replica.log.needs_flush():
                due.append(followed)  # appended under flush.messages, or truncated
            self._schedule(followed, taken)
        if len(due) == 1:
            await self._flush(due[0])
        elif due:
            await asyncio.gather(*(self._flush(followed) for followed in due))

    async def _flush(self, followed: Followed) -> None:
        try:
            await followed.replica.log.flush()
        except (OSError, KafkaError) as error:
            self._registry.events.emit("replica_flush_failed", partition=followed.replica.name, error=str(error))
            self._schedule(followed, Taken.FAILED)
            self._unsettled[followed.replica.key] = None

    def _schedule(self, followed: Followed, taken: Taken) -> None:
        if taken in _ANSWERED:
            followed.behind_ms = METADATA_BEHIND_MS_FIRST
            return
        now_ms = self._registry.clock.monotonic_ms()
        backoff_ms = self._registry.settings().replica_fetch_backoff_ms
        match taken:
            case Taken.METADATA_BEHIND:
                followed.retry_at_ms = now_ms + followed.behind_ms
                followed.behind_ms = min(2 * followed.behind_ms, max(backoff_ms, METADATA_BEHIND_MS_FIRST))
            case Taken.BACK_OFF:
                followed.retry_at_ms = now_ms + backoff_ms
            case Taken.FAILED:
                followed.retry_at_ms = now_ms + FAILED_RETRY_MS


def _question(followed: Followed, *, bytes_max: int) -> FetchPartition:
    replica, asked = followed.replica, followed.question
    log, state = replica.log, replica.state
    assert isinstance(state, FollowerState), (replica.name, state)
    if (
        asked is not None
        and asked.fetch_offset == log.log_end_offset
        and asked.last_fetched_epoch == log.latest_epoch
        and asked.log_start_offset == log.log_start_offset
        and asked.current_leader_epoch == state.leader_epoch
        and asked.bytes_max == bytes_max
    ):
        return asked
    followed.question = new(FetchPartition)
    FetchPartition.__init__(
        followed.question,
        topic_id=replica.key.topic_id,
        partition=replica.key.partition,
        current_leader_epoch=state.leader_epoch,
        fetch_offset=log.log_end_offset,
        last_fetched_epoch=log.latest_epoch,
        log_start_offset=log.log_start_offset,
        bytes_max=bytes_max,
    )
    return followed.question
