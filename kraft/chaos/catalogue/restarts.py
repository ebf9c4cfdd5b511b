"""A cluster is restarted under load."""

from __future__ import annotations

from kraft.chaos.model import ANY, Expect, Producer, Reader, Topic
from kraft.chaos.story import ScenarioRun, scenario


@scenario(
    "rolling-restart",
    question="Can I restart a cluster without anybody noticing?",
    settings={
        "auto.leader.rebalance.enable": True,
        "leader.imbalance.check.interval.seconds": 1,
    },
    topics=[
        Topic(name="t", assignment=[[1, 2, 3], [2, 3, 1], [3, 1, 2]], configs={"min.insync.replicas": 2}),
    ],
    clients=[
        Producer(name="load", topic="t", rate=50, retries=20, in_flight=4),
        Reader(name="reader", topic="t"),
    ],
    expect=Expect(
        duplicated=ANY,
        unknown_kept=0,
        unknown_gone=0,
        holds=(
            lambda now: now.failed() == 0,
            lambda now: now.unknown() == 0,
        ),
    ),
    is_long=True,
)
async def rolling_restart(run: ScenarioRun) -> None:
    """All nodes are stopped in order and started again, one after the other, under load.

    A leader that hands over answers waiting produces with NOT_LEADER_OR_FOLLOWER (6). Clients retry, and without
    idempotence a record may then be duplicated. No client sees an error.
    """
    await run.more_acked(30)
    await run.stop(1)
    await run.until(lambda now: not now.alive(1))
    await run.restart(1)
    await run.until(lambda now: len(now.isr("t", 0)) == 3 and len(now.isr("t", 1)) == 3 and (len(now.isr("t", 2)) == 3))
    await run.more_acked(30)
    await run.stop(2)
    await run.until(lambda now: not now.alive(2))
    await run.restart(2)
    await run.until(lambda now: len(now.isr("t", 0)) == 3 and len(now.isr("t", 1)) == 3 and (len(now.isr("t", 2)) == 3))
    await run.more_acked(30)
    await run.stop(3)
    await run.until(lambda now: not now.alive(3))
    await run.restart(3)
    await run.until(lambda now: len(now.isr("t", 0)) == 3 and len(now.isr("t", 1)) == 3 and (len(now.isr("t", 2)) == 3))
    await run.until(lambda now: now.leader("t", 0) == 1 and now.leader("t", 1) == 2 and now.leader("t", 2) == 3)
