"""Queues (share groups): leaders and coordinators die under locks, workers are late, records are poison."""

from __future__ import annotations

from collections.abc import Mapping

from kraft.chaos.model import ANY, SOME, Between, Expect, Producer, Topic, Worker
from kraft.chaos.story import ScenarioRun, scenario
from kraft.chaos.worlds.processes.proxy.rules import Direction
from kraft.protocol.primitives import SettingValue

STATE = "__share_group_state"
OFFSETS = "__consumer_offsets"
SETTINGS = {
    "offsets.topic.num.partitions": 1,
    "share.coordinator.state.topic.num.partitions": 1,
    "group.share.min.record.lock.duration.ms": 1_000,
}
"""One partition has the state of all queues, so that the story knows its coordinator; short locks."""
TOPIC = Topic(name="t", assignment=[[1, 2, 3]], configs={"min.insync.replicas": 2})
DEAD_LETTERS: Mapping[str, SettingValue] = {
    "errors.deadletterqueue.topic.name": "dlq.t",
    "errors.deadletterqueue.copy.record.enable": True,
}
LOAD = Producer(name="load", topic="t", rate=200, retries=20, idempotent=True)


@scenario(
    "queue-leader-killed",
    question="What becomes of locked records when the leader of a queue's partition is killed?",
    controllers=[4],
    settings=SETTINGS,
    topics=[TOPIC],
    clients=[
        Producer(name="load", topic="t", rate=120, batch=20, retries=20, idempotent=True),
        Worker(name="slow", topic="t", batch=20, work_ms=1_500, lock_ms=5_000),
        Worker(name="quick", topic="t", batch=5),
    ],
    expect=Expect(redelivered=SOME, perhaps_accepted=ANY, causes=("leader changed",)),
)
async def queue_leader_killed(run: ScenarioRun) -> None:
    """The leader of a partition is killed while two workers hold records; the next one hands these out again.

    Locks are in the memory of the leader. Acceptances are in the state of the group: no accepted record comes again.
    """
    await run.until(lambda now: now.accepted("quick") >= 100)
    await run.until(lambda now: now.uncommitted("slow") >= 5)
    old = (await run.now()).leader("t", 0)
    await run.kill(old)
    await run.until(lambda now: now.leader("t", 0) not in (old, -1))
    accepted = (await run.now()).accepted("quick")
    await run.until(lambda now: now.accepted("quick") >= accepted + 100, deadline_ms=30_000)
    await run.restart(old)
    await run.until(lambda now: now.isr("t", 0) == [1, 2, 3])


@scenario(
    "queue-coordinator-killed",
    question="Is a record handed out again when the share coordinator dies between its write and its answer?",
    controllers=[4],
    settings=SETTINGS,
    topics=[TOPIC],
    clients=[
        LOAD,
        Worker(name="early", topic="t"),
        Worker(name="first", topic="t", lock_ms=20_000, starts="in the story"),
        Worker(name="second", topic="t", lock_ms=20_000, starts="in the story"),
    ],
    expect=Expect(accepted=SOME),
)
async def queue_coordinator_killed(run: ScenarioRun) -> None:
    """The share coordinator writes the states of a queue, its answers are lost, and it is killed.

    A leader that has no answer writes again, at the next coordinator: the acceptance is answered then, and no record is
    handed out twice.
    """
    await run.until(lambda now: now.accepted("early") >= 50)
    await run.finish("early")
    old = (await run.now()).leader(STATE, 0)
    others = [node for node in (1, 2, 3) if node != old]
    # the leader of the records is another node, so that its writes go over the network
    await run.reassign("t", 0, replicas=[*others, old])
    await run.elect("t", 0, may_be_refused=True)
    await run.until(lambda now: now.leader("t", 0) == others[0])
    await run.start("first", "second")
    await run.until(lambda now: now.accepted("first") >= 50 and now.accepted("second") >= 50)
    await run.blackhole(answers=old, purpose="forward", direction="answers")
    # time for the next write, which is carried out; the leader waits for its answer before it writes again
    await run.sleep(500)
    await run.kill(old)
    await run.until(lambda now: now.leader(STATE, 0) not in (old, -1))
    await run.heal()
    accepted = (await run.now()).accepted()
    await run.until(lambda now: now.accepted() >= accepted + 200, deadline_ms=40_000)
    await run.restart(old)
    await run.until(lambda now: now.isr("t", 0) == [1, 2, 3])


@scenario(
    "queue-lock-ends",
    question="Can a worker whose lock has ended still accept its records?",
    settings=SETTINGS,
    topics=[TOPIC],
    clients=[
        Producer(name="load", topic="t", rate=200, limit=200, retries=10, idempotent=True),
        Worker(name="paused", topic="t", work_ms=200, lock_ms=1_500),
        Worker(name="heir", topic="t", lock_ms=1_500, starts="in the story"),
    ],
    expect=Expect(redelivered=SOME, causes=("whose acceptance was refused with INVALID_RECORD_STATE",)),
)
async def queue_lock_ends(run: ScenarioRun) -> None:
    """A worker is cut off with locked records, the locks end, another worker accepts them, and its own acceptance
    arrives.

    The late acceptance is refused with INVALID_RECORD_STATE (121).
    """
    await run.until(lambda now: now.accepted("paused") >= 20)
    await run.until(lambda now: now.uncommitted("paused") > 0)
    await run.blackhole(dials="paused", purpose="rest")
    held = (await run.now()).uncommitted("paused")
    await run.start("heir")
    await run.until(lambda now: now.done("load") and now.accepted("heir") + now.accepted("paused") >= 200)
    run.expect(redelivered=Between(low=1, high=held), accepted=200)
    run.expect_at_the_end(lambda now: now.refused("paused", 121) > 0)
    await run.heal(dials="paused")


@scenario(
    "queue-lock-renewed",
    question="Does a worker that renews its locks keep its records for longer than a lock lasts?",
    settings=SETTINGS,
    topics=[TOPIC],
    clients=[
        Producer(name="load", topic="t", rate=200, limit=100, retries=10, idempotent=True),
        Worker(name="thorough", topic="t", work_ms=4_000, lock_ms=1_500, renews=True),
        Worker(name="quick", topic="t", lock_ms=1_500, starts="in the story"),
    ],
    expect=Expect(accepted=100),
)
async def queue_lock_renewed(run: ScenarioRun) -> None:
    """A worker works on its records for longer than two locks last, and renews them; another worker takes the others.

    Nobody else receives the renewed records, and their acceptance is answered with success.
    """
    await run.until(lambda now: now.uncommitted("thorough") > 0)
    await run.start("quick")
    await run.until(lambda now: now.done("load") and now.accepted("quick") >= 50, deadline_ms=40_000)
    await run.until(lambda now: now.accepted("thorough") > 0)
    await run.until(lambda now: now.accepted() == 100, deadline_ms=40_000)


@scenario(
    "queue-poison",
    question="Does one poison record hold up a thousand others?",
    settings=SETTINGS,
    topics=[
        TOPIC,
        Topic(name="dlq.t", configs={"min.insync.replicas": 2, "errors.deadletterqueue.group.enable": True}),
    ],
    clients=[
        Producer(name="load", topic="t", rate=1_000, batch=20, limit=1_000, retries=10, idempotent=True),
        Worker(name="first", topic="t", batch=50, work_ms=5, cannot_handle="load:500", starts="in the story"),
        Worker(name="second", topic="t", batch=50, work_ms=5, cannot_handle="load:500", starts="in the story"),
    ],
    expect=Expect(
        redelivered=4,
        accepted=999,
        archived=1,
        dead_lettered=1,
        causes=("handed out 5 times, as often as the limit allows",),
    ),
)
async def queue_poison(run: ScenarioRun) -> None:
    """No worker can handle one record of a thousand: each one releases it, and it goes to the dead letters.

    It is handed out five times (group.share.delivery.count.limit). All other records are accepted at their first
    delivery.
    """
    await run.set_group("q", DEAD_LETTERS)
    await run.start("first", "second")
    await run.until(lambda now: now.done("load") and now.accepted() == 999)
    await run.until(lambda now: now.hw("dlq.t", 0) == 1)


@scenario(
    "queue-many-workers",
    question="Do more workers than partitions share the work?",
    settings=SETTINGS,
    topics=[TOPIC],
    clients=[
        Producer(name="load", topic="t", rate=200, batch=20, limit=600, retries=10, idempotent=True),
        *(Worker(name=f"worker{number}", topic="t", batch=5, work_ms=100) for number in range(1, 7)),
    ],
    expect=Expect(
        accepted=600,
        holds=(lambda now: all(now.accepted(f"worker{number}") > 0 for number in range(1, 7)),),
    ),
)
async def queue_many_workers(run: ScenarioRun) -> None:
    """Six workers take the records of one partition, and each of them works at the same time as the others.

    In a consumer group five of them would be idle.
    """
    await run.until(lambda now: now.uncommitted() >= 15)
    await run.until(lambda now: now.accepted() == 600, deadline_ms=30_000)


@scenario(
    "queue-unclean-election",
    question="What does an unclean election cost a queue?",
    controllers=[4],
    settings={**SETTINGS, "unclean.leader.election.enable": False},
    topics=[
        Topic(
            name="t",
            assignment=[[1, 2]],
            configs={"min.insync.replicas": 1, "unclean.leader.election.enable": True},
        ),
    ],
    clients=[
        Producer(name="load", topic="t", rate=200, retries=20),
        Worker(name="first", topic="t"),
        Worker(name="second", topic="t", work_ms=200),
    ],
    expect=Expect(
        lost=SOME,
        duplicated=ANY,
        redelivered=ANY,
        perhaps_accepted=ANY,
        causes=("an unclean election made node 2 leader",),
    ),
)
async def queue_unclean_election(run: ScenarioRun) -> None:
    """The leader of a queue's partition is alone in the ISR and dies; the next leader has an older log.

    The records that only it had are lost, accepted or not. New records get their offsets, and the queue hands them out:
    the state of the group ends where the new log ends.
    """
    await run.until(lambda now: now.accepted() >= 100)
    await run.cut(dials=2, answers=1, purpose="fetch")
    await run.until(lambda now: now.isr("t", 0) == [1])
    known = (await run.now()).accepted()
    await run.until(lambda now: now.accepted() >= known + 100)
    await run.kill(1)
    await run.until(lambda now: now.leader("t", 0) == 2, deadline_ms=40_000)
    await run.heal()
    known = (await run.now()).accepted()
    await run.until(lambda now: now.accepted() >= known + 100, deadline_ms=40_000)
    await run.restart(1)
    await run.until(lambda now: now.isr("t", 0) == [1, 2], deadline_ms=40_000)


LATER = Topic(name="later", assignment=[[1, 2, 3]], configs={"min.insync.replicas": 2, "delivery.target.topic": "due"})
DUE = Topic(name="due", assignment=[[2, 3, 1], [3, 2, 1]], configs={"min.insync.replicas": 2})
DELAYED = Producer(name="load", topic="later", rate=200, batch=10, limit=800, retries=20, idempotent=True, keys=7)


@scenario(
    "delayed-leader-killed",
    question="Is a delayed record forgotten, or forwarded twice, when the leader that forwards it is killed?",
    controllers=[4],
    settings=SETTINGS,
    topics=[LATER, DUE],
    clients=[DELAYED],
    expect=Expect(kept=800),
)
async def delayed_leader_killed(run: ScenarioRun) -> None:
    """The leader of a delay topic is killed while it forwards records; the next one goes on.

    What the last turn has written is known by a header of the copies: each record is in the target once.
    """
    await run.until(lambda now: now.hw("due", 0) + now.hw("due", 1) >= 100)
    old = (await run.now()).leader("later", 0)
    await run.kill(old)
    await run.until(lambda now: now.leader("later", 0) not in (old, -1))
    await run.until(lambda now: now.done("load") and now.hw("due", 0) + now.hw("due", 1) >= 800, deadline_ms=60_000)
    await run.sleep(1_000)  # high watermarks count markers, too
    await run.restart(old)
    await run.until(lambda now: now.isr("later", 0) == [1, 2, 3])


@scenario(
    "delayed-forwarder-killed",
    question="Is a delayed record forgotten, or forwarded twice, when a node dies between its two writes?",
    controllers=[4],
    settings=SETTINGS,
    topics=[
        Topic(
            name="later",
            assignment=[[1, 3, 2]],
            configs={"min.insync.replicas": 2, "delivery.target.topic": "due"},
        ),
        Topic(name="due", assignment=[[2, 3, 1]], configs={"min.insync.replicas": 2}),
    ],
    clients=[Producer(name="load", topic="later", rate=50, batch=10, limit=500, retries=40, idempotent=True)],
    expect=Expect(kept=500),
)
async def delayed_forwarder_killed(run: ScenarioRun) -> None:
    """A node that forwards delayed records notes a turn, its copies do not arrive, and it is killed; at the next one
    the copies arrive, their answers are lost, and it is killed, too.

    The next leader looks which copies of the turn are in the target, and writes the others.
    """
    await run.until(lambda now: now.hw("due", 0) >= 50)
    await run.reassign(OFFSETS, 0, replicas=[1, 3, 2])
    await run.elect(OFFSETS, 0, may_be_refused=True)
    # the notes go to the node itself, and only the copies over the network
    await run.until(lambda now: now.leader(OFFSETS, 0) == 1 and now.isr(OFFSETS, 0) == [1, 2, 3])
    await _killed_in_a_turn(run, 1, direction="requests")
    await _killed_in_a_turn(run, 3, direction="answers")
    await run.until(lambda now: now.done("load") and now.hw("due", 0) >= 500, deadline_ms=60_000)
    await run.sleep(1_000)  # high watermarks count markers, too


async def _killed_in_a_turn(run: ScenarioRun, node: int, *, direction: Direction) -> None:
    await run.until(lambda now: now.leader("later", 0) == node)
    before = (await run.now()).hw("due", 0)
    await run.until(lambda now: now.hw("due", 0) >= before + 50, deadline_ms=60_000)
    await run.blackhole(dials=node, answers=2, purpose="forward", direction=direction)
    await run.sleep(500)  # time for the next turn
    await run.kill(node)
    await run.until(lambda now: now.leader("later", 0) not in (node, -1))
    await run.heal()
    await run.restart(node)
    await run.until(lambda now: now.isr("later", 0) == [1, 2, 3] and now.isr("due", 0) == [1, 2, 3])
