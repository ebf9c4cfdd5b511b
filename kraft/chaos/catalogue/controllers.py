"""Controllers die, or are cut off."""

from __future__ import annotations

from kraft.chaos.model import ANY, Expect, Producer, Topic
from kraft.chaos.story import ScenarioRun, scenario


@scenario(
    "controller-killed",
    question="Do producers notice when the controller dies?",
    controllers=[4, 5, 6],
    settings={
        # a new controller must hear of all brokers before it may call one silent
        "broker.session.timeout.ms": 5_000,
    },
    topics=[
        Topic(name="t", assignment=[[1, 2, 3], [2, 3, 1], [3, 1, 2]]),
    ],
    clients=[
        Producer(name="load", topic="t", in_flight=8),
    ],
    expect=Expect(
        holds=(
            lambda now: now.failed() == 0,
            lambda now: now.unknown() == 0,
        )
    ),
)
async def controller_killed(run: ScenarioRun) -> None:
    """The active controller is killed; leaders go on.

    The controllers are separate nodes, so that only the controller fails. Records do not pass through it.
    """
    await run.more_acked(100)
    now = await run.now()
    old = now.controller()
    term = now.controller_epoch()
    await run.kill(now.controller())
    await run.until(lambda now: now.controller() not in [old, -1] and now.controller_epoch() > term)
    await run.more_acked(100)
    await run.restart(old)
    await run.more_acked(50)


@scenario(
    "controller-and-leader-killed",
    question="What if the controller and a leader die together?",
    topics=[
        Topic(name="t", assignment=[[1, 2, 3], [2, 3, 1], [3, 1, 2]], configs={"min.insync.replicas": 2}),
    ],
    clients=[
        Producer(name="load", topic="t", in_flight=8),
    ],
)
async def controller_and_leader_killed(run: ScenarioRun) -> None:
    """One node is the active controller and leads a partition, and is killed."""
    await run.more_acked(100)
    now = await run.now()
    old = now.controller()
    term = now.controller_epoch()
    await run.kill(now.controller())
    await run.until(lambda now: now.controller() not in [old, -1] and now.controller_epoch() > term)
    await run.until(
        lambda now: (
            now.leader("t", 0) not in [old, -1]
            and now.leader("t", 1) not in [old, -1]
            and now.leader("t", 2) not in [old, -1]
        )
    )
    await run.more_acked(100)
    await run.restart(old)
    await run.until(lambda now: len(now.isr("t", 0)) == 3 and len(now.isr("t", 1)) == 3 and (len(now.isr("t", 2)) == 3))


@scenario(
    "old-controller-isolated",
    question="Can there be two controllers?",
    controllers=[4, 5, 6],
    settings={
        # a new controller must hear of all brokers before it may call one silent
        "broker.session.timeout.ms": 5_000,
    },
    topics=[
        Topic(name="t", assignment=[[1, 2, 3], [2, 3, 1]], configs={"min.insync.replicas": 2}),
    ],
    clients=[
        Producer(name="load", topic="t", retries=20, in_flight=8),
    ],
    expect=Expect(duplicated=ANY, holds=(lambda now: now.partitions("t") == 3,)),
)
async def old_controller_isolated(run: ScenarioRun) -> None:
    """The active controller is cut off from the other voters, and finds another one when it returns.

    Q5, Q6: the old controller may still believe that it is active; its decisions are never committed, and its epoch is
    fenced.
    """
    await run.more_acked(100)
    now = await run.now()
    old = now.controller()
    term = now.controller_epoch()
    await run.isolate(now.controller())
    await run.until(lambda now: now.controller() not in [old, -1] and now.controller_epoch() > term)
    await run.grow_topic("t", partitions=3)
    now = await run.until(lambda now: now.partitions("t") == 3)
    known = now.metadata_offset(1)
    await run.heal()
    await run.until(lambda now: now.metadata_offset(old) >= known)
    await run.more_acked(50)
    run.expect_at_the_end(lambda now: now.controller() != old)


@scenario(
    "quorum-majority-lost",
    question="Does a cluster without a quorum still take records?",
    controllers=[4, 5, 6],
    settings={
        # a new controller must hear of all brokers before it may call one silent
        "broker.session.timeout.ms": 3_000,
    },
    topics=[
        Topic(name="t", assignment=[[1, 3], [2, 3]]),
    ],
    clients=[
        Producer(name="steady", topic="t", partition=0, target=1),
        Producer(
            name="waiting", topic="t", partition=1, rate=40, limit=20, retries=1_000, target=1, starts="in the story"
        ),
    ],
    expect=Expect(
        duplicated=ANY,
        holds=(
            lambda now: now.failed("steady") == 0,
            lambda now: now.unknown("steady") == 0,
        ),
    ),
    is_long=True,
)
async def quorum_majority_lost(run: ScenarioRun) -> None:
    """Two of three controllers are killed: existing leaders go on, metadata is frozen until they return.

    Without a quorum there are no decisions: leaders stay the same, and live leaders still accept records.
    """
    await run.more_acked(100)
    now = await run.now()
    term = now.epoch("t", 1)
    await run.kill(5, 6)
    # the leader of t-1: no controller can elect another one
    await run.kill(2)
    await run.start("waiting")
    # of t-0: its leader goes on
    await run.more_acked(150)
    await run.until(lambda now: now.epoch("t", 1) == term and now.acked("waiting") == 0)
    await run.restart(5, 6)
    await run.until(lambda now: now.leader("t", 1) == 3 and now.done("waiting"))
    await run.restart(2)
    await run.until(lambda now: len(now.isr("t", 0)) == 2 and len(now.isr("t", 1)) == 2)
