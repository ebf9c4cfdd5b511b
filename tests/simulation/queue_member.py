"""A member of a share group that speaks as Kafka's share consumers do: heartbeats, share sessions, acknowledgements.

It has a session with each leader of its partitions, fetches from all of them, works, and acknowledges; now and then it
works longer than its lock, forgets a record, loses its connections, opens new ones beside the old, crashes or leaves.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from kraft.coordinators.shares.state import ShareKey
from kraft.protocol.messages import share_acknowledge_request as acknowledging
from kraft.protocol.messages import share_fetch_request as fetching
from kraft.protocol.messages.find_coordinator_request import FindCoordinatorRequestData
from kraft.protocol.messages.share_acknowledge_request import ShareAcknowledgeRequestData
from kraft.protocol.messages.share_fetch_request import ShareFetchRequestData
from kraft.protocol.messages.share_group_heartbeat_request import ShareGroupHeartbeatRequestData
from metadata.image import TopicIdPartition
from replication.shares.acknowledgements import AcknowledgementBatch
from replication.shares.partition import Acquired
from replication.shares.sessions import FINAL_EPOCH
from replication.shares.states import AcknowledgeType
from tests.simulation.node_request import Watch
from tests.simulation.oracle import Oracle
from tests.simulation.queue_plan import HEARTBEAT_MS, TOPIC, QueueMemberPlan
from tests.simulation.wire_client import WireClient

ANSWER_S: Final = 3.0
"""A connection that owes an answer for longer is given up."""
OWED_S: Final = 20.0
"""In calm an answer comes within it: ten seconds for a share coordinator to be found, and its append."""
WAIT_MS: Final = 150
PAUSE_S: Final = 0.05
LONG_WORK: Final = 0.4
"""The part of the time of a lock that they work then; twice as much at most."""
GONE: Final = 69
REJOIN: Final = (25, GONE, 110)
SESSION_LOST: Final = (122, 123)
ACCEPT, RELEASE, REJECT, RENEW = (
    AcknowledgeType.ACCEPT,
    AcknowledgeType.RELEASE,
    AcknowledgeType.REJECT,
    AcknowledgeType.RENEW,
)


@dataclass(frozen=True, slots=True)
class Held:
    """One record that it has got."""

    where: TopicIdPartition
    offset: int
    count: int


Acks = Sequence[tuple[Held, AcknowledgeType]]


@dataclass(eq=False)
class _Session:
    """A share session with one node."""

    connection: WireClient
    watch: Watch
    """Over the life of the node since the session began."""
    epoch: int = 0
    partitions: set[TopicIdPartition] = field(default_factory=set)
    held: list[Held] = field(default_factory=list)
    to_send: list[tuple[Held, AcknowledgeType]] = field(default_factory=list)
    """What the next fetch acknowledges."""


class QueueMember:
    def __init__(self, plan: QueueMemberPlan, group: str, oracle: Oracle) -> None:
        self._plan, self._group, self._oracle = plan, group, oracle
        self._world = oracle.cluster.world
        self._rng: random.Random = self._world.rng(f"queue member {plan.name}")
        self._born = 0
        self._id = f"{plan.name}-0"
        self._epoch = 0
        self._beaten_s = -1.0
        self._assigned: frozenset[TopicIdPartition] = frozenset()
        self._is_sure = False
        """The last heartbeat was answered: what it would have brought is not missing."""
        self._coordinator: WireClient | None = None
        self._sessions: dict[int, _Session] = {}
        self.is_calm = False
        self.is_stopping = False

    async def run(self) -> None:
        while not self.is_stopping:
            if await self._beat():
                await asyncio.gather(*(self._work(node, places) for node, places in self._by_leader().items()))
            if not self.is_calm and self._rng.random() < self._plan.mishaps:
                await self._mishap()
            await asyncio.sleep(self._rng.uniform(0.3, 1) * PAUSE_S)
        await self._leave()

    @property
    def _lock_s(self) -> float:
        assert self._oracle.queues.plan is not None
        return self._oracle.queues.plan.lock_ms / 1_000

    @property
    def _work_s(self) -> float:
        return LONG_WORK * self._lock_s if self._oracle.queues.is_work_long else self._plan.work_ms / 1_000

    def _key(self, where: TopicIdPartition) -> ShareKey:
        return ShareKey(self._group, where.topic_id, where.partition)

    # --- connections --------------------------------------------------------------------------------------------

    async def _connect(self, node: int) -> WireClient | None:
        target = self._oracle.cluster.nodes[node].machine.name
        return await WireClient.connect(self._world, f"client {self._plan.name}", target, within_s=ANSWER_S)

    async def _within(self, connection: WireClient, message: Any, version: int) -> Any:
        """None: there is no answer, or not in time; then the connection has ended."""
        answer = connection.ask(message, version)
        done, _ = await asyncio.wait((answer,), timeout=OWED_S if self.is_calm else ANSWER_S)
        if not done:
            connection.close()
        return await answer

    # --- membership ---------------------------------------------------------------------------------------------

    async def _beat(self) -> bool:
        """Whether it is a member."""
        now_s = self._world.loop.time()
        if self._epoch > 0 and now_s < self._beaten_s + HEARTBEAT_MS / 1_000:
            return True
        connection = await self._found_coordinator()
        if connection is None:
            return self._epoch > 0
        answer = await self._within(connection, self._heartbeat(self._epoch), 1)
        self._is_sure = answer is not None and not answer.error_code
        if answer is None or answer.error_code:
            code = "no answer" if answer is None else f"error {answer.error_code}"
            self._oracle.count(f"queue heartbeat: {code}")
            connection.close()
            self._coordinator = None
            if answer is not None and answer.error_code == GONE:
                self._oracle.queues.group_gone(self._group, self._assigned)
            if answer is not None and answer.error_code in REJOIN:
                self._epoch, self._assigned = 0, frozenset()
            return self._epoch > 0
        self._epoch, self._beaten_s = answer.member_epoch, now_s
        if answer.assignment is not None:
            self._assigned = frozenset(
                TopicIdPartition(topic.topic_id, number)
                for topic in answer.assignment.topic_partitions
                for number in topic.partitions
            )
        return True

    def _heartbeat(self, epoch: int) -> ShareGroupHeartbeatRequestData:
        """A coordinator sends an assignment that has changed once, and to a heartbeat with topics: Kafka's clients name
        them again after one that failed."""
        topics = [TOPIC] if epoch == 0 or (epoch > 0 and not self._is_sure) else None
        return ShareGroupHeartbeatRequestData.make(
            group_id=self._group, member_id=self._id, member_epoch=epoch, subscribed_topic_names=topics
        )

    async def _found_coordinator(self) -> WireClient | None:
        if self._coordinator is not None and self._coordinator.is_open:
            return self._coordinator
        asked = await self._connect(self._rng.choice(sorted(self._oracle.cluster.nodes)))
        if asked is None:
            return None
        answer = await self._within(asked, FindCoordinatorRequestData.make(coordinator_keys=[self._group]), 6)
        asked.close()
        if answer is not None and not answer.coordinators[0].error_code:
            self._coordinator = await self._connect(answer.coordinators[0].node_id)
        return self._coordinator if self._coordinator is not None and self._coordinator.is_open else None

    async def _leave(self) -> None:
        for session in list(self._sessions.values()):
            message = ShareFetchRequestData.make(
                group_id=self._group, member_id=self._id, share_session_epoch=FINAL_EPOCH
            )
            await self._within(session.connection, message, 2)
        self._close_sessions()
        connection = await self._found_coordinator()
        if connection is not None:
            await self._within(connection, self._heartbeat(-1), 1)
            connection.close()
        self._coordinator, self._epoch, self._assigned = None, 0, frozenset()

    def _close_sessions(self) -> None:
        for session in self._sessions.values():
            session.connection.close()
        self._sessions.clear()

    # --- mishaps ------------------------------------------------------------------------------------------------

    async def _mishap(self) -> None:
        kind = self._rng.choice(("connections", "beside", "beside", "crash", "leave", "pause"))
        self._oracle.count(f"queue member mishap: {kind}")
        self._oracle.note(f"{self._id}: {kind}")
        match kind:
            case "connections":
                self._close_sessions()
            case "beside":
                await self._open_beside()
            case "crash":
                self._close_sessions()
                self._born += 1
                self._id, self._epoch, self._assigned = f"{self._plan.name}-{self._born}", 0, frozenset()
            case "leave":
                await self._leave()
            case _:
                await asyncio.sleep(self._rng.uniform(0.5, 2) * self._lock_s)

    async def _open_beside(self) -> None:
        """New connections take over while the old ones stand, and these end later."""
        old = dict(self._sessions)
        self._sessions.clear()
        for node, session in old.items():
            places = self._by_leader().get(node)
            if places:
                await self._fetch(node, places)
                if node in self._sessions:
                    self._sessions[node].held += session.held
            await asyncio.sleep(self._rng.uniform(0, 0.2))
            session.connection.close()

    # --- fetching -----------------------------------------------------------------------------------------------

    def _by_leader(self) -> dict[int, set[TopicIdPartition]]:
        found: dict[int, set[TopicIdPartition]] = defaultdict(set)
        for where in sorted(self._assigned, key=lambda each: each.partition):
            partition = self._oracle.image.partition(where.topic_id, where.partition)
            if partition is not None and partition.has_leader:
                found[partition.leader].add(where)
        for node, session in self._sessions.items():
            if session.partitions or session.held:
                found.setdefault(node, set())
        return found

    async def _work(self, node: int, places: set[TopicIdPartition]) -> None:
        """One fetch, and what becomes of its records."""
        session = await self._fetch(node, places)
        if session is None or not session.held:
            return
        await asyncio.sleep(self._rng.uniform(0, 2) * self._work_s)
        acks, renewed = self._decided(session)
        if renewed and await self._acknowledge(session, renewed, RENEW):
            await asyncio.sleep(self._rng.uniform(0, 1) * self._lock_s)
        acks += [(each, ACCEPT) for each in renewed]
        if acks and self._plan.is_explicit:
            await self._send(node, session, acks)
        else:
            session.to_send += acks

    def _decided(self, session: _Session) -> tuple[list[tuple[Held, AcknowledgeType]], list[Held]]:
        plan, rng = self._plan, self._rng
        acks, renewed = list[tuple[Held, AcknowledgeType]](), list[Held]()
        held, session.held = session.held, []
        for each in sorted(held, key=lambda it: (it.where, it.offset)):
            chance = rng.random()
            if self.is_calm or chance > plan.releases + plan.rejects + plan.renews + plan.forgets + plan.overdue:
                acks.append((each, ACCEPT))
            elif chance < plan.releases:
                acks.append((each, RELEASE))
            elif chance < plan.releases + plan.rejects:
                acks.append((each, REJECT))
            elif chance < plan.releases + plan.rejects + plan.renews:
                renewed.append(each)
            elif chance < plan.releases + plan.rejects + plan.renews + plan.forgets:
                self._oracle.count("queue member forgets a record")
            else:
                asyncio.get_running_loop().create_task(self._accept_late(each, session))
        return acks, renewed

    async def _accept_late(self, each: Held, session: _Session) -> None:
        await asyncio.sleep(self._rng.uniform(0.95, 1.3) * self._lock_s)
        if session in self._sessions.values():
            session.to_send.append((each, ACCEPT))

    async def _session(self, node: int) -> _Session | None:
        found = self._sessions.get(node)
        if found is not None and found.connection.is_open:
            return found
        self._sessions.pop(node, None)
        connection = await self._connect(node)
        if connection is None:
            return None
        watch = Watch(self._oracle.cluster.nodes[node], self._world.loop.now_us)
        made = self._sessions[node] = _Session(connection, watch)
        return made

    async def _fetch(self, node: int, places: set[TopicIdPartition]) -> _Session | None:
        session = await self._session(node)
        if session is None:
            return None
        acks = session.to_send if session.epoch else []
        session.to_send = []
        added = places - session.partitions
        message = ShareFetchRequestData.make(
            group_id=self._group,
            member_id=self._id,
            share_session_epoch=session.epoch,
            max_wait_ms=WAIT_MS,
            min_bytes=1,
            max_bytes=100_000,
            max_records=self._plan.records,
            batch_size=self._plan.records,
            share_acquire_mode=int(self._plan.is_strict),
            topics=_topics(added, acks, fetching.FetchTopic, fetching.FetchPartition, fetching.AcknowledgementBatch),
            forgotten_topics_data=[
                fetching.ForgottenTopic.make(topic_id=each.topic_id, partitions=[each.partition])
                for each in sorted(session.partitions - places)
            ],
        )
        asked_us = self._world.loop.now_us
        answer = await self._within(session.connection, message, 2)
        if not self._is_good(node, session, answer):
            return None
        session.partitions = set(places)
        self._take(session, answer, acks, asked_us)
        return session

    def _is_good(self, node: int, session: _Session, answer: Any) -> bool:
        """Whether the session goes on."""
        if answer is not None and not answer.error_code:
            session.epoch += 1
            return True
        if answer is None:
            self._oracle.count("queue: no answer")
            is_owed = self.is_calm and session.watch.is_undisturbed and not session.connection.is_open
            self._oracle.note(f"{self._id} has no answer of node {node}{' in calm' if is_owed else ''}")
        else:
            self._oracle.count(f"queue session refused, error {answer.error_code}")
            is_known = session.connection.is_open and session.watch.is_undisturbed and session.epoch > 0
            self._oracle.check(
                not (is_known and answer.error_code in SESSION_LOST),
                f"node {node} knows the share session of {self._id} at epoch {session.epoch} no more: "
                f"error {answer.error_code}",
            )
        session.connection.close()
        if self._sessions.get(node) is session:
            del self._sessions[node]
        return False

    def _take(self, session: _Session, answer: Any, acks: Acks, asked_us: int) -> None:
        codes = {}
        for topic in answer.responses:
            for each in topic.partitions:
                where = TopicIdPartition(topic.topic_id, each.partition_index)
                codes[where] = each.acknowledge_error_code
                if each.error_code:
                    self._oracle.count(f"queue fetch refused, error {each.error_code}")
                ranges = [Acquired(a.first_offset, a.last_offset, a.delivery_count) for a in each.acquired_records]
                self._oracle.queues.handed(self._key(where), self._id, ranges, asked_us=asked_us)
                session.held += [
                    Held(where, offset, count) for first, last, count in ranges for offset in range(first, last + 1)
                ]
        self._answered(acks, codes)

    def _answered(self, acks: Acks, codes: dict[TopicIdPartition, int]) -> None:
        for held, kind in acks:
            code = codes.get(held.where, -1)
            if code:
                self._oracle.count(f"queue acknowledgement refused, error {code}")
            else:
                self._oracle.queues.answered(self._key(held.where), held.offset, held.offset, kind, held.count)

    # --- acknowledging ------------------------------------------------------------------------------------------

    async def _send(self, node: int, session: _Session, acks: Acks) -> None:
        answer = await self._within(session.connection, self._acknowledgement(session, acks, is_renewal=False), 2)
        if self._is_good(node, session, answer):
            self._answered(acks, _codes(answer))

    async def _acknowledge(self, session: _Session, held: Iterable[Held], kind: AcknowledgeType) -> bool:
        acks = [(each, kind) for each in held]
        answer = await self._within(session.connection, self._acknowledgement(session, acks, is_renewal=True), 2)
        if answer is None or answer.error_code:
            return False
        session.epoch += 1
        self._answered(acks, _codes(answer))
        return True

    def _acknowledgement(self, session: _Session, acks: Acks, *, is_renewal: bool) -> ShareAcknowledgeRequestData:
        return ShareAcknowledgeRequestData.make(
            group_id=self._group,
            member_id=self._id,
            share_session_epoch=session.epoch,
            is_renew_ack=is_renewal,
            topics=_topics(
                (),
                acks,
                acknowledging.AcknowledgeTopic,
                acknowledging.AcknowledgePartition,
                acknowledging.AcknowledgementBatch,
            ),
        )


def _codes(answer: Any) -> dict[TopicIdPartition, int]:
    return {
        TopicIdPartition(topic.topic_id, each.partition_index): each.error_code
        for topic in answer.responses
        for each in topic.partitions
    }


def _topics(places: Iterable[TopicIdPartition], acks: Acks, topic: Any, partition: Any, batch: Any) -> list[Any]:
    """The topics of a request, with the acknowledgements in ascending ranges."""
    by_place: dict[TopicIdPartition, list[AcknowledgementBatch]] = {each: [] for each in sorted(places)}
    for held, kind in sorted(acks, key=lambda each: (each[0].where, each[0].offset)):
        ranges = by_place.setdefault(held.where, [])
        if ranges and ranges[-1].last_offset + 1 == held.offset:
            first, _, types, _ = ranges[-1]
            ranges[-1] = AcknowledgementBatch(first, held.offset, [*types, int(kind)])
        elif not ranges or ranges[-1].last_offset < held.offset:
            ranges.append(AcknowledgementBatch(held.offset, held.offset, [int(kind)]))
    return [
        topic.make(
            topic_id=where.topic_id,
            partitions=[
                partition.make(
                    partition_index=where.partition,
                    acknowledgement_batches=[
                        batch.make(first_offset=first, last_offset=last, acknowledge_types=types)
                        for first, last, types, _ in ranges
                    ],
                )
            ],
        )
        for where, ranges in by_place.items()
    ]
