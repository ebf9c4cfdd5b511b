"""Commits of groups without members, and readers that fetch them from each node again and again, as a tool that shows
lags does.

Each commit has a group of its own: it is there once it was answered, whatever else is still on its way. Members wait
long for a coordinator that went silent; these do not, and so find the next one while the last one believes to lead.
Onlookers read records, too, each from where any of them is: a leader that was relieved does not have them yet.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.coordinators.shard import CoordinatorShard
from kraft.node.assembly import Node
from kraft.protocol.batches.records import read_batches
from kraft.protocol.errors import KafkaError, OffsetOutOfRange
from kraft.protocol.primitives import TopicPartition
from metadata.image import TopicIdPartition
from replication.requests import ReadOptions
from tests.simulation.clients import READ_BYTES
from tests.simulation.group_members import ANSWER_S
from tests.simulation.group_oracle import GroupOracle
from tests.simulation.node_request import Unanswered, ask

T = TypeVar("T")

COMMIT_S = 0.5
PAUSE_S = (0.05, 0.3)
LOOKED_AT = 3
"""The newest commits, for which an onlooker asks at once."""


class Committer:
    """A consumer that assigns its partitions itself."""

    def __init__(self, topic: str, judge: GroupOracle) -> None:
        self._partition: TopicPartition = (topic, 0)
        self._judge = judge
        self._oracle = judge.oracle
        self._rng = judge.oracle.cluster.world.rng("committer")
        self._number = 0
        self.committed: deque[str] = deque(maxlen=LOOKED_AT)
        """Groups."""
        self.read_up_to: dict[TopicIdPartition, int] = {}
        """The furthest position of any onlooker."""
        self.is_stopping = False

    @property
    def partition(self) -> TopicPartition:
        return self._partition

    async def run(self) -> None:
        while not self.is_stopping:
            self._number += 1
            try:
                await self._commit(f"alone-{self._number}")
            except (KafkaError, Unanswered):
                self._oracle.count("lone commit not answered")
            await asyncio.sleep(self._rng.uniform(*PAUSE_S))

    async def _commit(self, group: str) -> None:
        node, which = self._judge.choose_node(self._rng), self._judge.which(self._partition)
        if node is None or node.node is None or which is None:
            return
        request = r.CommitOffsets(
            group=group,
            member_id="",
            generation=-1,
            instance_id=None,
            offsets=(r.OffsetToCommit(*self._partition, self._number, "", -1),),
        )
        self._judge.moment(group)
        work = partial(node.node.groups.ask, request)
        await ask(self._oracle, node, work, within_s=COMMIT_S, what="a lone commit", is_owed=False)
        self._oracle.count("lone commit")
        self._judge.committed(group, {which: self._number})
        self.committed.append(group)


class Onlooker:
    def __init__(self, node_id: int, committer: Committer, judge: GroupOracle) -> None:
        self._node_id = node_id
        self._committer = committer
        self._judge = judge
        self._oracle = judge.oracle
        self._rng = judge.oracle.cluster.world.rng(f"onlooker {node_id}")
        self._question: asyncio.Task[None] | None = None
        self.is_stopping = False

    async def run(self) -> None:
        while not self.is_stopping:
            if self._committer.committed:
                try:
                    await self._look_at_all()
                    await self._read()
                except (KafkaError, Unanswered):
                    self._oracle.count("onlooker refused")
            self._oracle.at_append[self._node_id] = self._ask_as_it_ends
            await asyncio.sleep(self._rng.uniform(*PAUSE_S))

    def _ask_as_it_ends(self, shard: CoordinatorShard[Any]) -> None:
        """A request of this turn of the loop comes before the callbacks of the append. Random times hardly meet that:
        an append ends some turns after the fetch that has replicated it arrived."""
        if not shard.context.has_session():
            self._oracle.count("question as a proof ended")
        self._question = asyncio.get_running_loop().create_task(_ask_shard(shard))

    def _running(self) -> Node:
        node = self._oracle.cluster.nodes[self._node_id]
        if node not in self._oracle.cluster.alive or node.node is None:
            raise Unanswered("it does not run")
        return node.node

    async def _ask(self, work: Callable[[], Awaitable[T]], *, what: str) -> T:
        node = self._oracle.cluster.nodes[self._node_id]
        return await ask(self._oracle, node, work, within_s=ANSWER_S, what=what)

    async def _read(self) -> None:
        which, known = self._judge.which(self._committer.partition), self._committer.read_up_to
        if which is None:
            return
        offset = known.get(which, 0)
        work = partial(self._running().gateway.read, which, offset, ReadOptions(bytes_max=READ_BYTES))
        try:
            found = await self._ask(work, what="an onlooker's read")
        except OffsetOutOfRange:
            self._oracle.logs.called_out_of_range(which, offset, by=self._node_id)
            known.pop(which, None)
            return
        records = list(read_batches(found.data, from_offset=offset))
        if records:
            known[which] = max(known.get(which, 0), records[-1].offset + 1)

    async def _look_at_all(self) -> None:
        looks = [self._look(group) for group in self._committer.committed]
        for outcome in await asyncio.gather(*looks, return_exceptions=True):
            if outcome is not None:
                raise outcome

    async def _look(self, group: str) -> None:
        since = self._judge.moment(group)
        request = r.FetchOffsets(group=group, partitions=(self._committer.partition,))
        answer = await self._ask(partial(self._running().groups.ask, request), what="an onlooker's question")
        assert isinstance(answer, a.GroupOffsets), answer
        self._judge.fetched(group, answer.offsets, since)


async def _ask_shard(shard: CoordinatorShard[Any]) -> None:
    """What each request asks first."""
    with suppress(KafkaError):
        await shard.ensure_leadership()
