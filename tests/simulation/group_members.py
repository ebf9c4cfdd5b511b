"""A member of a group by Kafka's classic protocol: joins, assigns if it leads, reads, commits what it has processed.

Pauses past its session, crashes and leaves come by chance, until the faults are over. After a crash it comes back as
somebody new (a static one under its name), and what it was before tries to commit once more, as a zombie would.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from functools import partial

from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.coordinators.groups.assignors import assign
from kraft.coordinators.groups.subscriptions import (
    Subscription,
    decode_assignment,
    decode_subscription,
    encode_assignment,
    encode_subscription,
)
from kraft.protocol.batches.records import read_batches
from kraft.protocol.errors import KafkaError, OffsetOutOfRange
from kraft.protocol.primitives import TopicPartition
from metadata.internal_topics import OFFSETS_TOPIC
from replication.requests import EARLIEST_TIMESTAMP, ReadOptions
from tests.simulation.clients import GRACE_MS, READ_BYTES, RETRY_PAUSE_S
from tests.simulation.group_oracle import GroupOracle
from tests.simulation.node_request import Unanswered, ask
from tests.simulation.stateful_plan import GroupPlan, MemberPlan

PROTOCOL_TYPE = "consumer"
ANSWER_S = 40
"""A request that waits for nobody ends within it: ten seconds for a coordinator to be found, fifteen for its answer,
ten for the offsets topic to come into being."""
JOIN_S = 20
"""After it a member joins again. At the coordinator a join and a sync end within the limits of `group_waits`. Before:
ten seconds for a coordinator to be found, three for the longest rebalance of members like these, five for the append
of its end: when nothing is in the way they end within these 20 s, on the slowest of the clocks too."""
COMMIT_ALL_S = 1.0
UNKNOWN_MEMBER, FENCED, MEMBER_ID_REQUIRED = 25, 82, 79
REBALANCING = 27
REJOIN = (22, REBALANCING)


class _Rejoin(Exception):
    """The generation is over."""


@dataclass(slots=True)
class _Life:
    """What a member has in one generation."""

    generation: int
    protocol: str
    member_id: str
    partitions: tuple[TopicPartition, ...] = ()
    positions: dict[TopicPartition, int] = field(default_factory=dict)
    epochs: dict[TopicPartition, int] = field(default_factory=dict)
    """Leader epochs of the positions (KIP-320)."""
    committed: dict[TopicPartition, int] = field(default_factory=dict)
    committed_s: float = 0.0
    """When all positions were committed last, whether they had moved or not."""
    counts: dict[str, int] = field(default_factory=dict)
    """The partitions of the topics at its assignment; empty if it does not lead."""
    heard_s: float = 0.0


class ClassicMember:
    def __init__(self, plan: MemberPlan, group: GroupPlan, topics: tuple[str, ...], judge: GroupOracle) -> None:
        self._plan = plan
        self._group = group
        self._topics = topics
        self._judge = judge
        self._oracle = judge.oracle
        self._world = judge.oracle.cluster.world
        self._rng: random.Random = self._world.rng(f"member {plan.name}")
        self._member_id = ""
        self._zombie: _Life | None = None
        self._last: _Life | None = None
        self.is_calm = False
        self.is_stopping = False

    async def run(self) -> None:
        while not self.is_stopping:
            try:
                await self._live()
            except _Rejoin:
                continue
            except Unanswered:
                await asyncio.sleep(RETRY_PAUSE_S)
            except KafkaError as refusal:
                self._take_refusal(refusal)
                if refusal.code not in (*REJOIN, MEMBER_ID_REQUIRED):
                    await asyncio.sleep(RETRY_PAUSE_S)
        await self._leave()

    def _take_refusal(self, refusal: KafkaError) -> None:
        self._judge.refused(self._plan.name, refusal.code)
        late_commits = self._plan.late_commits
        if refusal.code == REBALANCING and late_commits and self._rng.random() < late_commits:
            self._zombie, self._last = self._last, None
        if refusal.code == MEMBER_ID_REQUIRED:
            self._member_id = refusal.message
        elif refusal.code in (UNKNOWN_MEMBER, FENCED):
            self._member_id = ""

    async def _ask(self, request: r.Request, *, within_s: float = ANSWER_S, is_owed: bool = True) -> a.Answer:
        node = self._judge.choose_node(self._rng)
        if node is None:
            raise Unanswered("no node runs")
        assert node.node is not None
        work, what = partial(node.node.groups.ask, request), type(request).__name__
        return await ask(self._oracle, node, work, within_s=within_s, what=what, is_owed=is_owed)

    # --- membership ---------------------------------------------------------------------------------------------

    async def _live(self) -> None:
        life = await self._join()
        zombie, self._zombie, self._last = self._zombie, None, life
        if zombie is not None and zombie.positions:
            await self._commit_late(zombie)
        await self._find_positions(life)
        while not self.is_stopping:
            await self._round(life)

    async def _join(self) -> _Life:
        plan = self._plan
        subscription = Subscription(topics=self._topics)
        joined = await self._ask(
            r.JoinGroup(
                group=self._group.name,
                member_id=self._member_id,
                instance_id=plan.instance_id,
                client_id=plan.name,
                client_host="/simulated",
                session_timeout_ms=plan.session_ms,
                rebalance_timeout_ms=plan.rebalance_ms,
                protocol_type=PROTOCOL_TYPE,
                protocols=tuple((name, encode_subscription(subscription, name)) for name in self._group.protocols),
            ),
            within_s=JOIN_S,
            is_owed=self._is_join_owed(),
        )
        assert isinstance(joined, a.GroupJoined), joined
        self._member_id = joined.member_id
        life = _Life(joined.generation, joined.protocol, joined.member_id, heard_s=self._world.loop.time())
        synced = await self._ask(self._sync(joined, life), within_s=JOIN_S, is_owed=self._is_join_owed())
        assert isinstance(synced, a.GroupSynced), synced
        life.partitions = decode_assignment(synced.assignment)
        self._judge.synced(self._group.name, life.generation, life.member_id, plan.instance_id, life.partitions)
        return life

    def _is_join_owed(self) -> bool:
        """No faults any more, the offsets topic there, and no member with the minute of rebalance that REST has."""
        has_home = self._oracle.image.topic(OFFSETS_TOPIC) is not None
        return self.is_calm and has_home and not any(member.is_rest for member in self._group.members)

    def _sync(self, joined: a.GroupJoined, life: _Life) -> r.SyncGroup:
        assignments: tuple[tuple[str, bytes], ...] = ()
        if joined.leader == joined.member_id and joined.members:
            members = {key: decode_subscription(data, joined.protocol) for key, _, data in joined.members}
            life.counts = self._counts(members.values())
            assigned = assign(joined.protocol, members, life.counts)
            assignments = tuple((key, encode_assignment(partitions)) for key, partitions in assigned.items())
        return r.SyncGroup(
            group=self._group.name,
            member_id=joined.member_id,
            generation=joined.generation,
            instance_id=self._plan.instance_id,
            assignments=assignments,
        )

    def _counts(self, subscriptions: object) -> dict[str, int]:
        found = {name: self._oracle.image.topic(name) for name in self._topics}
        return {name: len(topic.partitions) for name, topic in found.items() if topic is not None}

    async def _leave(self) -> None:
        if self._member_id:
            request = r.LeaveGroup(
                group=self._group.name, member_id=self._member_id, instance_id=self._plan.instance_id
            )
            try:
                await self._ask(request)
            except (KafkaError, Unanswered):
                self._oracle.count("leave failed")
            self._member_id = ""

    # --- a round of reading -------------------------------------------------------------------------------------

    async def _round(self, life: _Life) -> None:
        await self._beat(life)
        for partition in life.partitions:
            await self._read(life, partition)
        if self.is_calm or self._rng.random() < self._plan.commits:
            await self._commit(life)
        if life.counts and life.counts != self._counts(()):
            raise _Rejoin
        if not self.is_calm and self._rng.random() < self._plan.mishaps:
            await self._mishap(life)
        await asyncio.sleep(self._rng.uniform(0.02, 0.1))

    async def _mishap(self, life: _Life) -> None:
        kind = self._rng.choice(("pause", "pause", "crash", "leave"))
        self._oracle.count(f"member mishap: {kind}")
        self._oracle.note(f"{self._plan.name}: {kind}")
        if kind == "leave":
            await self._leave()
            raise _Rejoin
        session_s = self._plan.session_ms / 1000
        await asyncio.sleep(self._rng.uniform(0.5, 2) * session_s)
        if kind == "crash":
            self._zombie, self._member_id = life, ""
            raise _Rejoin
        await self._commit(life)

    async def _beat(self, life: _Life) -> None:
        now_s = self._world.loop.time()
        if now_s - life.heard_s < self._plan.session_ms / 4000:
            return
        since = self._judge.moment(self._group.name)
        beat = r.HeartbeatGroup(
            group=self._group.name,
            member_id=life.member_id,
            generation=life.generation,
            instance_id=self._plan.instance_id,
        )
        await self._ask(beat)
        life.heard_s = now_s
        self._judge.taken(self._group.name, life.generation, life.member_id, "a heartbeat", since)

    async def _find_positions(self, life: _Life) -> None:
        since = self._judge.moment(self._group.name)
        answer = await self._ask(r.FetchOffsets(group=self._group.name, partitions=life.partitions))
        assert isinstance(answer, a.GroupOffsets), answer
        self._judge.fetched(self._group.name, answer.offsets, since)
        for row in answer.offsets:
            life.positions[row.topic, row.partition] = row.offset
            life.committed[row.topic, row.partition] = row.offset
            life.epochs[row.topic, row.partition] = row.leader_epoch

    async def _read(self, life: _Life, partition: TopicPartition) -> None:
        topic, node = self._oracle.image.topic(partition[0]), self._judge.choose_node(self._rng)
        which = self._judge.which(partition)
        if which is None or topic is None or node is None:
            return
        assert node.node is not None
        gateway, offset = node.node.gateway, life.positions[partition]
        try:
            if offset < 0:
                found = partial(gateway.list_offset, which, EARLIEST_TIMESTAMP)
                answer = await ask(self._oracle, node, found, within_s=ANSWER_S, what="a member's question for offsets")
                offset = life.positions[partition] = answer.offset
            read = partial(gateway.read, which, offset, ReadOptions(bytes_max=READ_BYTES))
            records = await ask(self._oracle, node, read, within_s=GRACE_MS / 1000, what="a member's read")
        except OffsetOutOfRange:
            self._oracle.count("member out of range")
            if self._judge.is_certain(self._group.name):
                self._oracle.logs.called_out_of_range(which, offset, by=node.node_id)
            life.positions[partition] = life.epochs[partition] = -1
            return
        except (KafkaError, Unanswered):
            return
        batch = list(read_batches(records.data, from_offset=offset))
        values = [(record.offset, record.value or b"") for record in batch]
        self._judge.saw(self._group.name, which, values, leader_epoch=records.leader_epoch)
        if batch:
            life.positions[partition] = batch[-1].offset + 1
            life.epochs[partition] = max(life.epochs[partition], records.leader_epoch)

    async def _commit(self, life: _Life) -> None:
        """Now and then all positions, as Kafka's consumer does: what it committed last may have been lost since."""
        now_s = self._world.loop.time()
        if self.is_calm and now_s >= life.committed_s + COMMIT_ALL_S:
            life.committed_s = now_s
            life.committed.clear()
        moved = {key: at for key, at in life.positions.items() if at >= 0 and at != life.committed.get(key)}
        if not moved:
            return
        since = self._judge.moment(self._group.name)
        known = {which: at for key, at in moved.items() if (which := self._judge.which(key)) is not None}
        await self._ask(
            r.CommitOffsets(
                group=self._group.name,
                member_id=life.member_id,
                generation=life.generation,
                instance_id=self._plan.instance_id,
                offsets=tuple(r.OffsetToCommit(*key, at, "", life.epochs[key]) for key, at in sorted(moved.items())),
            )
        )
        life.committed.update(moved)
        self._judge.taken(self._group.name, life.generation, life.member_id, "a commit", since)
        self._judge.committed(self._group.name, known)

    async def _commit_late(self, zombie: _Life) -> None:
        zombie.committed.clear()
        try:
            await self._commit(zombie)
        except KafkaError as refusal:
            self._judge.refused(zombie.member_id, refusal.code)
            self._oracle.count("commit of a zombie refused")
