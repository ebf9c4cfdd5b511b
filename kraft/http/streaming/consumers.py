"""The stream of a REST consumer: its partitions as the group assigns them, with the connection as its heartbeat.

The coordinator gets the range of each batch before the batch is written, as in any read of the consumer. The next batch
acknowledges it, and begins when the client's side of the connection has taken the last one. No record is lost when a
connection breaks: the same consumer goes on exactly after the Last-Event-ID that it sends, at any node, because that is
a seek.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.http.context import Context
from kraft.http.errors import BAD_REQUEST, HttpError
from kraft.http.media import Format
from kraft.http.streaming.merge import Merge, Piece
from kraft.http.streaming.positions import PARTITIONS_MAX, Key, Positions
from kraft.protocol.errors import OffsetOutOfRange
from metadata.image import TopicIdPartition
from replication.requests import EARLIEST_TIMESTAMP, LATEST_TIMESTAMP

LOOK_MS = 3_000
"""How often an idle stream asks the coordinator: for its assignment, and to be known as alive."""
REBALANCE_WAIT_MS = 1_000
_RESET = {"earliest": EARLIEST_TIMESTAMP, "latest": LATEST_TIMESTAMP}


class ConsumerSource:
    """`names`: group, instance and owner, as in each request to the coordinator. `had`: what the client has already."""

    def __init__(
        self,
        context: Context,
        ask: Callable[[r.Request], Awaitable[Any]],
        names: Mapping[str, str],
        *,
        plan: a.PollPlan,
        had: Mapping[Key, int],
        form: Format,
    ) -> None:
        self._context = context
        self._ask = ask
        self._names: dict[str, Any] = dict(names)
        self._plan: a.PollPlan | None = plan
        self._had = dict(had)
        self._form = form
        self._generation = -1
        self._is_read_committed = plan.config.is_read_committed
        self._merge = self._merged(had)

    @property
    def positions(self) -> Positions:
        return self._merge.positions

    async def next(self, *, wait_ms: int) -> list[Piece]:
        clock = self._context.clock
        deadline_ms = clock.monotonic_ms() + wait_ms
        while True:
            plan = await self._begin()
            if plan is not None:
                left_ms = max(deadline_ms - clock.monotonic_ms(), 0)
                pieces = await self._merge.next(wait_ms=min(left_ms, LOOK_MS))
                pieces = await self._end_poll(plan, pieces) if pieces else []
                if pieces:
                    return pieces
            if clock.monotonic_ms() >= deadline_ms:
                return []

    async def _begin(self) -> a.PollPlan | None:
        """Acknowledges what was served before. None: the positions have just been settled, ask again."""
        plan, self._plan = self._plan, None
        if plan is None:
            plan = await self._ask(r.BeginPoll(**self._names, number=None, wait_ms=REBALANCE_WAIT_MS))
        assigned = {each[:2]: each[2] for each in plan.ranges}
        if len(assigned) > PARTITIONS_MAX:
            raise HttpError(BAD_REQUEST, f"a stream has at most {PARTITIONS_MAX} partitions, not {len(assigned)}")
        sought = {key: self._had.pop(key) for key in assigned if key in self._had}
        if sought:
            positions = tuple((topic, partition, offset) for (topic, partition), offset in sought.items())
            await self._ask(r.Seek(**self._names, positions=positions))
            return None
        if any(first < 0 for first in assigned.values()):
            await self._reset(plan, assigned)
            return None
        if plan.generation != self._generation or assigned.keys() != self.positions.offsets.keys():
            self._generation = plan.generation
            self._merge = self._merged(assigned)
        return plan

    def _merged(self, offsets: Mapping[Key, int]) -> Merge:
        return Merge(self._context, Positions(offsets), self._form, is_read_committed=self._is_read_committed)

    async def _reset(self, plan: a.PollPlan, assigned: Mapping[Key, int]) -> None:
        """Settle where partitions begin that the group has no position of, by auto.offset.reset."""
        ranges: list[r.Range] = []
        for key, first in assigned.items():
            begin = first if first >= 0 else await self._reset_offset(key, plan.config.reset)
            ranges.append((*key, begin, begin))
        await self._ask(r.EndPoll(**self._names, number=plan.number, generation=plan.generation, ranges=tuple(ranges)))

    async def _reset_offset(self, key: Key, policy: str) -> int:
        if policy not in _RESET:
            raise HttpError(
                BAD_REQUEST,
                f"there is no valid committed offset of {key[0]}-{key[1]}, and auto.offset.reset is none; seek first",
                extra={"kafka_code": OffsetOutOfRange.code},
            )
        topic = self._context.topic_or_raise(key[0])
        where = TopicIdPartition(topic.topic_id, key[1])
        answer = await self._context.gateway.list_offset(
            where, _RESET[policy], is_read_committed=self._is_read_committed
        )
        return answer.offset

    async def _end_poll(self, plan: a.PollPlan, pieces: list[Piece]) -> list[Piece]:
        """The pieces that are still this consumer's to read."""
        ranges = tuple((*piece.key, self.positions[piece.key], piece.next_offset) for piece in pieces)
        ended = await self._ask(r.EndPoll(**self._names, number=plan.number, generation=plan.generation, ranges=ranges))
        kept = set(ended.ranges)
        if kept != set(ranges):
            self._generation = -1
        return [piece for piece, read in zip(pieces, ranges, strict=True) if read in kept]
