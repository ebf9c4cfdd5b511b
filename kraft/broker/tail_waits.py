"""Waiting for records at the end of partitions, many waiters for the price of one.

Everybody who waits on this node at the same position of a partition shares one long fetch at its leader, and gets the
same bytes from it: ten thousand idle readers cost the leader as many waiting fetches as there are positions. A fetch
whose waiters have gone ends with its wait at the latest and may be shared by the next ones until then.
Invariant: at most `POSITIONS_MAX` fetches are under way; one more position is refused with THROTTLING_QUOTA_EXCEEDED.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from kraft.broker.consumer_fetch import consumer_fetch, records_of
from kraft.broker.gateway import Records
from kraft.broker.leaders import LeaderFinder
from kraft.protocol.errors import KafkaError, LeaderNotAvailable, ThrottlingQuotaExceeded
from metadata.delta import MetadataDelta
from metadata.environment import Clock, ConnectionClosed
from metadata.image import MetadataImage, PartitionImage, TopicIdPartition
from metadata.retries import ELECTION_RETRY_MS
from replication.requests import ReadOptions

POSITIONS_MAX = 2_048
"""Positions that are waited for at once, however many wait there; below the leaders' WAITING_FETCH_MAX."""
FETCH_WAIT_MS = 10_000
"""Longest wait of one shared fetch."""


@dataclass(eq=False, slots=True)
class _Waiter:
    woken: asyncio.Future[None]
    found: dict[TopicIdPartition, Records | None] = field(default_factory=dict)

    def tell(self, partition: TopicIdPartition, records: Records | None) -> None:
        self.found[partition] = records
        if not self.woken.done():
            self.woken.set_result(None)


@dataclass(frozen=True, slots=True)
class _Position:
    partition: TopicIdPartition
    offset: int
    bytes_max: int
    is_read_committed: bool


@dataclass(eq=False, slots=True)
class _Tail:
    """One position that is waited for. Without a leader there is no fetch: new metadata ends the wait."""

    at: _Position
    state: PartitionImage | None
    waiters: dict[_Waiter, None] = field(default_factory=dict)
    fetch: asyncio.Task[None] | None = None


class Tails:
    """Owns the fetches that wait for records on behalf of this node's readers."""

    def __init__(self, *, clock: Clock, finder: LeaderFinder) -> None:
        self._clock = clock
        self._finder = finder
        self._tails: dict[_Position, _Tail] = {}

    def __len__(self) -> int:
        """Positions that are waited for."""
        return len(self._tails)

    async def wait(
        self, positions: Mapping[TopicIdPartition, int], options: ReadOptions
    ) -> Mapping[TopicIdPartition, Records | None]:
        """What came first at these offsets; empty when nothing came in time. Any byte ends the wait.

        None instead of records: a read of the partition returns an error or another leader. `bytes_max` is for each
        partition; the first batch comes whole. Raises ThrottlingQuotaExceeded 89.
        """
        waiter = _Waiter(asyncio.get_running_loop().create_future())
        joined: list[_Tail] = []
        try:
            for partition, offset in positions.items():
                self._join(_Position(partition, offset, options.bytes_max, options.is_read_committed), waiter, joined)
            if waiter.woken.done():  # nothing was waited for, and who asks again at once would keep all others waiting
                await self._clock.sleep(min(ELECTION_RETRY_MS, options.wait_ms_max))
            else:
                async with self._clock.timeout(options.wait_ms_max):
                    await waiter.woken
        except TimeoutError:
            pass
        finally:
            for tail in joined:
                tail.waiters.pop(waiter, None)
                self._forget_if_idle(tail)
        return waiter.found

    def on_metadata(self, delta: MetadataDelta, image: MetadataImage) -> None:
        """A reader that waits at a former leader looks for the new one."""
        for partition in self._moved(delta):
            for tail in [tail for tail in self._tails.values() if tail.at.partition == partition]:
                if tail.fetch is not None:
                    tail.fetch.cancel()
                self._end(tail, None)

    def close(self) -> None:
        for tail in tuple(self._tails.values()):
            if tail.fetch is not None:
                tail.fetch.cancel()
            self._end(tail, None)

    def _moved(self, delta: MetadataDelta) -> set[TopicIdPartition]:
        if not self._tails:
            return set()
        return {
            partition
            for partition, (old, new) in delta.changed_partitions.items()
            if old is None or new is None or (old.leader, old.leader_epoch) != (new.leader, new.leader_epoch)
        }

    def _join(self, at: _Position, waiter: _Waiter, joined: list[_Tail]) -> None:
        tail = self._tails.get(at)
        if tail is None:
            if len(self._tails) >= POSITIONS_MAX:
                raise ThrottlingQuotaExceeded(
                    f"this node waits for records at {POSITIONS_MAX} different positions already; try again later"
                )
            try:
                tail = _Tail(at, self._finder.leader_of(at.partition))
            except LeaderNotAvailable:
                tail = _Tail(at, None)
            except KafkaError:
                waiter.tell(at.partition, None)
                return
            self._tails[at] = tail
            if tail.state is not None:
                tail.fetch = asyncio.get_running_loop().create_task(self._fetch(tail, tail.state))
        tail.waiters[waiter] = None
        joined.append(tail)

    async def _fetch(self, tail: _Tail, state: PartitionImage) -> None:
        client, at = self._finder.client_of(state.leader), tail.at
        options = ReadOptions(bytes_max=at.bytes_max, is_read_committed=at.is_read_committed)
        request = consumer_fetch(at.partition, at.offset, options, wait_ms_max=FETCH_WAIT_MS)
        while True:
            started_ms = self._clock.monotonic_ms()
            try:
                answer = await client.fetch(request)
                records: Records | None = records_of(answer, state, is_read_committed=at.is_read_committed)
            except (KafkaError, ConnectionClosed, OSError):
                records = None
            if records is not None and len(records.data):
                break
            if records is None or self._clock.monotonic_ms() - started_ms < FETCH_WAIT_MS // 2:
                await self._clock.sleep(ELECTION_RETRY_MS)
            if records is None or not tail.waiters:
                break
        self._end(tail, records)

    def _end(self, tail: _Tail, records: Records | None) -> None:
        if self._tails.get(tail.at) is tail:
            del self._tails[tail.at]
        for waiter in tail.waiters:
            waiter.tell(tail.at.partition, records)

    def _forget_if_idle(self, tail: _Tail) -> None:
        """One that fetches goes when its fetch ends."""
        if not tail.waiters and tail.fetch is None and self._tails.get(tail.at) is tail:
            del self._tails[tail.at]
