"""Every node restarts between any two steps of a share group's life: what the group ends with is the same.

The steps go from the creation of the group over acquisition, renewal, acknowledgements of each type, a lock that runs
out and dead letters to a reset and the deletion. What a leader has written survives: acceptances, releases with their
counts, what was given up (KAFKA-20330: no acknowledgement is lost at a restart). Locks do not, and neither does the
count of a delivery that nobody has acknowledged: as in Kafka, which never writes that a record is acquired.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from kraft.chaos.worlds.simulated.cluster import SimulatedCluster
from metadata.image import TopicIdPartition
from tests.unit.coordinators.test_share_dead_letters import LETTERS, configure, letters, offsets
from tests.unit.coordinators.test_share_leaders import ACCEPT, REJECT, RELEASE, RENEW, Member, produce
from tests.unit.coordinators.test_transaction_cluster import create, play, until
from tests.unit.wire.handlers.test_share_offsets import alter, code_of_deletion, coordinator, describe

SETTINGS: Final[dict[str, Any]] = {
    "share_coordinator_state_topic_num_partitions": 2,
    "group_share_min_record_lock_duration_ms": 1_000,
    "group_share_record_lock_duration_ms": 5_000,
    "group_share_delivery_count_limit": 3,
}
RECORDS: Final = 10
OF_THE_COORDINATOR: Final = (14, 15, 16)
SYNCED: Final = {"min.insync.replicas": "2"}


@dataclass(kw_only=True)
class Outcome:
    """What a group ends with."""

    counts: dict[int, list[int]] = field(default_factory=dict)
    """The delivery counts with which each record was acknowledged."""
    dead: list[int] = field(default_factory=list)
    state: list[tuple[int, int]] = field(default_factory=list)
    """Start offset and lag, whenever they were asked for."""
    is_deleted: bool = False


class Life:
    """The steps of one group's life, each of which goes on after a restart of all nodes."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self.outcome = Outcome()
        self._cluster = cluster
        self._where: TopicIdPartition | None = None
        self._member: Member | None = None
        self._held: dict[int, int] = {}
        """Offset -> delivery count."""
        self._lost: set[int] = set()
        """What it held when the nodes restarted: it gets all of that again, and nothing else."""
        self._accepted: set[int] = set()

    @property
    def steps(self) -> Mapping[str, Callable[[], Awaitable[object]]]:
        return {
            "create": self._create,
            "produce": lambda: produce(self._cluster, self._topic, RECORDS),
            "acquire": lambda: self._hold(range(6)),
            "accept": lambda: self._end(ACCEPT, 0, 1),
            "reject": lambda: self._end(REJECT, 3),
            "renew": lambda: self._end(RENEW, 4),
            "release": lambda: self._end(RELEASE, 2),
            "lock timeout": self._outlast_locks,
            "dead letter": lambda: self._has_dead(3),
            "acquire again": lambda: self._hold((2, *range(4, RECORDS))),
            "release again": lambda: self._end(RELEASE, 2),
            "accept the others": lambda: self._end(ACCEPT, *range(4, RECORDS)),
            "acquire for the last time": lambda: self._hold((2,)),
            "release at the limit": lambda: self._end(RELEASE, 2),
            "dead letter at the limit": lambda: self._has_dead(3, 2, polls=True),
            "describe": lambda: self._stands_at(RECORDS, 0, polls=True),
            "reset": lambda: self._reset(8),
            "describe after the reset": lambda: self._stands_at(8, 2),
            "acquire after the reset": lambda: self._hold((8, 9)),
            "accept after the reset": lambda: self._end(ACCEPT, 8, 9),
            "delete": self._delete,
            "look": self._look,
        }

    async def restart(self, *, is_killed: bool) -> None:
        if is_killed:
            for node in list(self._cluster.alive):
                node.kill()
        else:
            await self._cluster.stop()
        await self._cluster.start()
        self._lost.update(self._held)
        self._held.clear()
        self._member = None

    @property
    def _topic(self) -> TopicIdPartition:
        assert self._where is not None
        return self._where

    async def _create(self) -> None:
        self._where = await create(self._cluster, "t", configs=SYNCED)
        await create(self._cluster, "dlq.t", configs=SYNCED | LETTERS)
        await configure(self._cluster, {"errors.deadletterqueue.topic.name": "dlq.t"})
        await self._reset(0)

    # --- the member -------------------------------------------------------------------------------------------------

    async def _hold(self, wanted: Sequence[int]) -> None:
        """The member has these; what it has lost with its session it gets again."""

        async def has_all() -> bool:
            if self._member is None:
                self._member = Member(self._cluster, self._topic)
            missing = self._lost.union(wanted) - self._held.keys()
            answer = await self._member.fetch(records=len(missing), mode=1, wait_ms=200)
            if answer.error_code or any(each.error_code for topic in answer.responses for each in topic.partitions):
                self._member = None
                return False
            for topic in answer.responses:
                for partition in topic.partitions:
                    for first, last, count in map(_fields, partition.acquired_records):
                        self._held.update(dict.fromkeys(range(first, last + 1), count))
            assert not self._held.keys() & self._accepted, "handed out after its acceptance was answered"
            self._lost -= self._held.keys()
            return self._held.keys() >= set(wanted)

        if not self._held.keys() >= set(wanted):
            await until(has_all, every_s=0.1)

    async def _end(self, kind: int, *wanted: int) -> None:
        async def is_done() -> bool:
            await self._hold(wanted)
            assert self._member is not None
            code = await self._member.acknowledge(*((each, each, kind) for each in wanted))
            if code:
                self._member = None
                self._lost.update(self._held)
                self._held.clear()
            return code == 0

        await until(is_done, every_s=0.1)
        for each in wanted if kind != RENEW else ():
            self.outcome.counts.setdefault(each, []).append(self._held.pop(each))
        if kind == ACCEPT:
            self._accepted.update(wanted)

    async def _outlast_locks(self) -> None:
        await asyncio.sleep(6)
        self._held.clear()
        self._lost.clear()

    async def _poll_in_vain(self) -> None:
        """A leader loads its states, and finishes what an earlier one has begun, when a member asks for records."""
        member = Member(self._cluster, self._topic)
        answer = await member.fetch(records=1, mode=1)
        assert not any(each.acquired_records for topic in answer.responses for each in topic.partitions)
        member.disconnect()

    async def _has_dead(self, *wanted: int, polls: bool = False) -> None:
        async def are_there() -> bool:
            if polls:
                await self._poll_in_vain()
            return set(offsets(await letters(self._cluster))) == set(wanted)

        await until(are_there)

    # --- the administrator ------------------------------------------------------------------------------------------

    async def _stands_at(self, start_offset: int, lag: int, *, polls: bool = False) -> None:
        """The write of a start offset goes on after the acknowledgement that moved it was answered."""

        async def does() -> bool:
            if polls:
                await self._poll_in_vain()
            found = await describe(await coordinator(self._cluster))
            return not found.error_code and (start_offset, lag) in [
                (each.start_offset, each.lag) for topic in found.topics for each in topic.partitions
            ]

        await until(does, every_s=0.2)
        self.outcome.state.append((start_offset, lag))

    async def _reset(self, offset: int) -> None:
        """The member has left, as it has to."""
        if self._member is not None:
            self._member.disconnect()

        async def is_done() -> bool:
            answer = await alter(await coordinator(self._cluster), ("t", 0, offset))
            assert answer.error_code in (0, *OF_THE_COORDINATOR), answer.error_message
            return not answer.error_code and not answer.responses[0].partitions[0].error_code

        await until(is_done, every_s=0.2)
        self._member, self._held, self._lost, self._accepted = None, {}, set(), set()

    async def _delete(self) -> None:
        async def is_done() -> bool:
            code = await code_of_deletion(await coordinator(self._cluster))
            assert code in (0, *OF_THE_COORDINATOR)
            return code == 0

        await until(is_done, every_s=0.2)

    async def _look(self) -> None:
        async def is_gone() -> bool:
            return bool((await describe(await coordinator(self._cluster))).error_code == 69)

        await until(is_gone, every_s=0.2)
        self.outcome.is_deleted = True
        self.outcome.dead = offsets(await letters(self._cluster))


def _fields(found: Any) -> tuple[int, int, int]:
    return found.first_offset, found.last_offset, found.delivery_count


def played(*, restarts_after: str = "", is_killed: bool = True) -> Outcome:
    ended: list[Outcome] = []

    async def story(cluster: SimulatedCluster) -> None:
        life = Life(cluster)
        for name, step in life.steps.items():
            await step()
            if name == restarts_after:
                await life.restart(is_killed=is_killed)
        ended.append(life.outcome)

    play(story, **SETTINGS)
    return ended[0]


STEPS: Final = tuple(Life(None).steps)  # type: ignore[arg-type]
FORGETS: Final = "release"
"""A restart after it forgets that 4 and 5 were delivered: no leader has written it, and no member gets them again
before their locks would have run out."""
SENDING: Final = {"reject", "renew", "release", "lock timeout", "dead letter"}
"""A restart after one of these may find a dead letter written, and its record not archived yet: it is written again."""
SENDING_LAST: Final = {"release at the limit", "dead letter at the limit"}
ACKNOWLEDGED: Final = {0: [1], 1: [1], 2: [1, 2, 3], 3: [1], 4: [2], 5: [2], 6: [1], 7: [1]}
TWICE: Final = {8: [1, 1], 9: [1, 1]}


def expected(restarts_after: str) -> Outcome:
    counts = {**ACKNOWLEDGED, **TWICE}
    if restarts_after == FORGETS:
        counts |= {4: [1], 5: [1]}
    return Outcome(counts=counts, dead=[3, 2], state=[(RECORDS, 0), (8, 2)], is_deleted=True)


def test_a_share_groups_life_without_a_restart() -> None:
    assert played() == expected("")


@pytest.mark.long
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("is_killed", [True, False], ids=["killed", "stopped"])
def test_a_share_groups_life_with_a_restart(step: str, is_killed: bool) -> None:
    outcome = played(restarts_after=step, is_killed=is_killed)
    assert len(outcome.dead) <= 2 + (step in SENDING | SENDING_LAST)
    outcome.dead = list(dict.fromkeys(outcome.dead))
    assert outcome == expected(step)
