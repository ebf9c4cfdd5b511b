"""The clients of a run with state at brokers: started and ended together, and the final checks of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.protocol.errors import KafkaError
from metadata.image import TopicIdPartition
from replication.partition.states import LeaderState
from tests.simulation.clients import choose
from tests.simulation.group_members import ANSWER_S, ClassicMember
from tests.simulation.group_oracle import GroupOracle
from tests.simulation.idempotent_producer import SequencedProducer
from tests.simulation.keyed_producer import KeyedProducer
from tests.simulation.node_request import Unanswered, ask
from tests.simulation.onlookers import Committer, Onlooker
from tests.simulation.oracle import Oracle
from tests.simulation.producer_oracle import ProducerOracle
from tests.simulation.rest_members import HttpListeners, RestMember
from tests.simulation.stateful_plan import GroupPlan, MemberPlan

if TYPE_CHECKING:
    from tests.simulation.plan import Plan

SETTLE_S = 45
"""Virtual time after the last fault within which groups are stable and own all partitions, and beyond what they have
to read."""
READ_PER_S = 20
"""Records of a partition that a member reads in a second at least, where each answer holds one batch."""
LOOK_S = 0.2


class StatefulClients:
    """Nothing in a run that draws none."""

    def __init__(self, plan: Plan, oracle: Oracle) -> None:
        self._oracle = oracle
        self._names = [topic.name for topic in plan.topics]
        self._drawn = plan.remembered
        self._promised = ProducerOracle(oracle)
        self._groups = GroupOracle(oracle)
        self._listeners = HttpListeners()
        self._producers: list[SequencedProducer | KeyedProducer] = []
        self._members: list[ClassicMember | RestMember] = []
        self._onlookers: list[Committer | Onlooker] = []
        self._tasks: list[asyncio.Task[None]] = []
        """The tasks of members and onlookers."""
        self._rng = oracle.cluster.world.rng("looking at groups")

    def start(self, tasks: asyncio.TaskGroup) -> None:
        drawn = self._drawn
        if drawn is None:
            return
        names = self._names
        self._producers += [SequencedProducer(each, names[each.topic], self._promised) for each in drawn.sequenced]
        self._producers += [KeyedProducer(each, names[each.topic], self._promised) for each in drawn.keyed]
        for producer in self._producers:
            tasks.create_task(producer.run())
        for group in drawn.groups:
            self._members += [self._member(each, group) for each in group.members]
        if drawn.has_onlookers:
            committer = Committer(names[0], self._groups)
            onlookers = [Onlooker(each, committer, self._groups) for each in self._oracle.cluster.nodes]
            self._onlookers = [committer, *onlookers]
        self._tasks = [tasks.create_task(each.run()) for each in (*self._members, *self._onlookers)]

    def _member(self, plan: MemberPlan, group: GroupPlan) -> ClassicMember | RestMember:
        if plan.is_rest:
            return RestMember(plan, group, self._topics(group), self._groups, self._listeners)
        return ClassicMember(plan, group, self._topics(group), self._groups)

    def _topics(self, group: GroupPlan) -> tuple[str, ...]:
        return tuple(self._names[each] for each in group.topics)

    # --- the end ------------------------------------------------------------------------------------------------

    async def finish(self) -> None:
        """After the last fault: producers end; members come to rest, read to the end, and leave."""
        for producer in self._producers:
            producer.is_stopping = True
        for member in self._members:
            member.is_calm = True
        for group in () if self._drawn is None else self._drawn.groups:
            await self._settle(group)
        for client in (*self._members, *self._onlookers):
            client.is_stopping = True
        await asyncio.gather(*self._tasks)

    async def _settle(self, group: GroupPlan) -> None:
        world = self._oracle.cluster.world
        limit_s = SETTLE_S + self._unread(group) / READ_PER_S
        deadline = world.loop.time() + limit_s
        while self._groups.has_home(group.name) and (missing := await self._missing(group)) is not None:
            if self._oracle.violation is not None:
                return
            is_late = world.loop.time() > deadline
            self._oracle.check(not is_late, f"{limit_s:g} s after the last fault group {group.name} has {missing}")
            await asyncio.sleep(LOOK_S)

    def _unread(self, group: GroupPlan) -> int:
        """The records of its topics, at most."""
        topics = [self._oracle.image.topic(name) for name in self._topics(group)]
        keys = [
            (partition.leader, TopicIdPartition(partition.topic_id, partition.partition))
            for topic in topics
            for partition in (() if topic is None else topic.partitions.values())
            if partition.has_leader
        ]
        replicas = [self._oracle.replica(leader, key) for leader, key in keys]
        return sum(replica.log.log_end_offset for replica in replicas if replica is not None)

    async def _missing(self, group: GroupPlan) -> str | None:
        since = self._groups.moment(group.name)
        try:
            described = await self._ask(r.DescribeGroup(group=group.name))
            fetched = await self._ask(r.FetchOffsets(group=group.name))
        except (KafkaError, Unanswered) as error:
            return f"{type(error).__name__}: {error}"
        assert isinstance(described, a.GroupDescription), described
        assert isinstance(fetched, a.GroupOffsets), fetched
        self._groups.fetched(group.name, fetched.offsets, since)
        if described.state != "Stable" or len(described.members) != len(group.members):
            return f"{described.state}, members {[each.member_id for each in described.members]}"
        owned = Counter(each for member in described.members for each in member.partitions)
        committed = {(row.topic, row.partition): row.offset for row in fetched.offsets}
        return self._missing_of(group, owned, committed)

    def _missing_of(
        self, group: GroupPlan, owned: Mapping[tuple[str, int], int], committed: Mapping[tuple[str, int], int]
    ) -> str | None:
        for name in self._topics(group):
            topic = self._oracle.image.topic(name)
            for partition in () if topic is None else topic.partitions.values():
                where = (name, partition.partition)
                if owned.get(where, 0) != 1:
                    return f"{where} has {owned.get(where, 0)} owners"
                which = TopicIdPartition(partition.topic_id, partition.partition)
                replica = self._oracle.replica(partition.leader, which) if partition.has_leader else None
                if replica is None or not isinstance(replica.state, LeaderState):
                    return f"{where} has no leader"
                start, end = replica.log.log_start_offset, replica.state.high_watermark
                if self._groups.which(where) is not None and start < end != committed.get(where, -1):
                    return f"{where} is committed up to {committed.get(where)} of {end}"
        return None

    async def _ask(self, request: r.Request) -> a.Answer:
        node = choose(self._oracle.cluster, self._rng, out_of_reach=self._oracle.out_of_reach)
        if node is None:
            raise Unanswered("no node runs")
        assert node.node is not None
        work = partial(node.node.groups.ask, request)
        return await ask(self._oracle, node, work, within_s=ANSWER_S, what=type(request).__name__)

    def judge(self, logs: Mapping[TopicIdPartition, Mapping[int, bytes]]) -> None:
        if self._producers:
            self._promised.judge(logs)
        for group in () if self._drawn is None else self._drawn.groups:
            self._groups.judge(group.name, self._topics(group), logs)
