"""Transactions whose coordinator, partitions or client die before they have ended."""

from __future__ import annotations

from kraft.chaos.checkers.verdict import Kind
from kraft.chaos.model import ANY, Expect, Reader, Topic, Transactor
from kraft.chaos.story import ScenarioRun, scenario

SETTINGS = {
    "transaction.state.log.num.partitions": 1,
    "transaction.state.log.replication.factor": 3,
    "transaction.state.log.min.isr": 2,
    "offsets.topic.num.partitions": 1,
    "group.min.session.timeout.ms": 500,
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": 200,
}
"""One partition has the state of all transactions, so that it is known whose coordinator dies."""
TOPIC = Topic(name="t", assignment=[[1, 2, 3], [2, 3, 1], [3, 1, 2]], configs={"min.insync.replicas": 2})
READER = Reader(name="reader", topic="t", isolation="read_committed")


@scenario(
    "transaction-coordinator-killed",
    question="What becomes of a transaction whose coordinator dies after it has decided to commit?",
    controllers=[4],
    settings=SETTINGS,
    topics=[TOPIC],
    clients=[
        Transactor(name="writer", topic="t", aborts_every=4, group="g", work_ms=200),
        READER,
    ],
)
async def transaction_coordinator_killed(run: ScenarioRun) -> None:
    """The coordinator has written the commit of a transaction, reaches no partition, and is killed.

    A commit is decided when it is in `__transaction_state`. The next leader of that partition writes the markers.
    """
    await run.until(lambda now: now.committed("writer") >= 4)
    # the next one is to be committed, too: every fourth is aborted
    now = await run.until(lambda now: now.uncommitted("writer") >= 6)
    old, ended = now.transaction_coordinator("writer"), now.committed("writer") + now.aborted("writer")
    await run.cut(dials=old, purpose="forward")
    # the end is acknowledged when it is decided
    await run.until(lambda now: now.committed("writer") + now.aborted("writer") > ended)
    await run.kill(old)
    await run.until(lambda now: now.transaction_coordinator("writer") not in (old, -1))
    await run.heal()
    known = (await run.now()).committed("writer")
    await run.until(lambda now: now.committed("writer") >= known + 3, deadline_ms=40_000)
    await run.restart(old)
    await run.until(lambda now: now.committed("writer") >= known + 5, deadline_ms=40_000)


@scenario(
    "transaction-leader-killed",
    question="Does a partition get the marker of a transaction whose leader died before it was written?",
    controllers=[4],
    settings=SETTINGS,
    topics=[TOPIC],
    clients=[
        Transactor(name="writer", topic="t", aborts_every=4, group="g", work_ms=300),
        READER,
    ],
)
async def transaction_leader_killed(run: ScenarioRun) -> None:
    """A partition has records of an open transaction, and its leader is killed before the transaction ends.

    The next leader knows the open transaction from its log, and accepts the marker that the coordinator sends again.
    """
    await run.until(lambda now: now.committed("writer") >= 3)
    await run.until(lambda now: now.uncommitted("writer") >= 6)
    now = await run.now()
    coordinator = now.transaction_coordinator("writer")
    victim = next(node for node in (1, 2, 3) if node != coordinator)
    await run.kill(victim)
    await run.until(lambda now: all(now.leader("t", number) not in (victim, -1) for number in range(3)))
    known = (await run.now()).committed("writer")
    await run.until(lambda now: now.committed("writer") >= known + 3, deadline_ms=40_000)
    await run.restart(victim)
    await run.until(lambda now: len(now.isr("t", 0)) == 3)


@scenario(
    "transaction-zombie",
    question="Can an instance that was given up still commit?",
    settings=SETTINGS,
    topics=[TOPIC],
    clients=[
        Transactor(name="zombie", topic="t", transactional_id="shared", group="g", work_ms=400),
        Transactor(name="heir", topic="t", transactional_id="shared", starts="in the story"),
        READER,
    ],
)
async def transaction_zombie(run: ScenarioRun) -> None:
    """An instance pauses in mid-transaction, another one takes its transactional id over, and the first one wakes.

    The records of the first are aborted when the second begins, and its commit is refused because of its epoch.
    """
    await run.until(lambda now: now.committed("zombie") >= 2)
    await run.until(lambda now: now.uncommitted("zombie") >= 6)
    await run.blackhole(dials="zombie", purpose="rest")
    known = (await run.now()).committed("zombie")
    await run.start("heir")
    await run.until(lambda now: now.committed("heir") >= 3, deadline_ms=30_000)
    run.expect_at_the_end(
        lambda now: now.committed("zombie") <= known + 1,
        lambda now: now.refused("zombie", 47) + now.refused("zombie", 90) > 0,
    )
    await run.heal(dials="zombie")
    # or it lives on, which is not as expected
    await run.until(lambda now: now.done("zombie") or now.committed("zombie") > known + 1, deadline_ms=40_000)
    await run.until(lambda now: now.committed("heir") >= 5 or now.committed("zombie") > known + 1, deadline_ms=30_000)


@scenario(
    "transaction-client-killed",
    question="Who ends the transaction of a client that is gone?",
    settings=SETTINGS,
    topics=[TOPIC],
    clients=[
        Transactor(name="victim", topic="t", group="g", work_ms=400, transaction_timeout_ms=1_500),
        Transactor(name="other", topic="t"),
        READER,
    ],
)
async def transaction_client_killed(run: ScenarioRun) -> None:
    """A client is killed in the middle of a transaction: the coordinator aborts it after its timeout.

    Until then `read_committed` consumers stop before its first record, even if others commit after it.
    """
    await run.until(lambda now: now.committed("victim") >= 2)
    await run.until(lambda now: now.uncommitted("victim") >= 6)
    await run.silence("victim")
    known = (await run.now()).read("reader")
    await run.until(lambda now: now.read("reader") > known + 30, deadline_ms=30_000)


@scenario(
    "transaction-unclean-election",
    question="Does a transaction end in a partition that an unclean election has cut?",
    controllers=[4],
    settings={**SETTINGS, "unclean.leader.election.enable": False},
    topics=[
        Topic(
            name="t",
            assignment=[[1, 2], [2, 3]],
            configs={"min.insync.replicas": 1, "unclean.leader.election.enable": True},
        ),
    ],
    clients=[
        Transactor(name="writer", topic="t", work_ms=300, transaction_timeout_ms=5_000),
        READER,
    ],
    expect=Expect(
        lost=ANY,
        anomalies=(Kind.OFFSET_TWO_VALUES, Kind.READ_VANISHED, Kind.NON_MONOTONIC_READ),
    ),
)
async def transaction_unclean_election(run: ScenarioRun) -> None:
    """The leader of a partition is alone in the ISR, has an open transaction, and dies; the next leader has an older
    log.

    The records that only it had are lost, as with every unclean election; no transaction stays open, and no aborted
    record is visible.
    """
    await run.until(lambda now: now.committed("writer") >= 2)
    await run.cut(dials=2, answers=1, purpose="fetch")
    await run.until(lambda now: now.isr("t", 0) == [1])
    known = (await run.now()).committed("writer")
    await run.until(lambda now: now.committed("writer") >= known + 2 and now.uncommitted("writer") >= 4)
    await run.kill(1)
    await run.until(lambda now: now.leader("t", 0) == 2, deadline_ms=40_000)
    await run.heal()
    known = (await run.now()).committed("writer")
    await run.until(lambda now: now.committed("writer") >= known + 3, deadline_ms=40_000)
    await run.restart(1)
    await run.until(lambda now: now.isr("t", 0) == [1, 2], deadline_ms=40_000)


@scenario(
    "transaction-both-flows",
    question="Do producers of the old and the new flow go well together?",
    settings=SETTINGS,
    topics=[TOPIC],
    clients=[
        Transactor(name="old", topic="t", flow="old", aborts_every=3, group="g"),
        Transactor(name="new", topic="t", flow="new", aborts_every=3, group="h"),
        READER,
    ],
)
async def transaction_both_flows(run: ScenarioRun) -> None:
    """Producers that add partitions first, and producers that do not, write to the same partitions while nodes die."""
    await run.until(lambda now: now.committed("old") >= 3 and now.committed("new") >= 3)
    for victim in (1, 2):
        await _outlive(run, victim)


async def _outlive(run: ScenarioRun, victim: int) -> None:
    """The node dies, both producers continue, and the node starts again."""
    await run.kill(victim)
    await run.until(lambda now: all(now.leader("t", number) not in (victim, -1) for number in range(3)))
    now = await run.now()
    old, new = now.committed("old"), now.committed("new")
    await run.until(lambda now: now.committed("old") >= old + 2 and now.committed("new") >= new + 2, deadline_ms=40_000)
    await run.restart(victim)
    await run.until(lambda now: all(len(now.isr("t", number)) == 3 for number in range(3)))
