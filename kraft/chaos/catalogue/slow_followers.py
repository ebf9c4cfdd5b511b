"""Followers that fall behind, and come back."""

from __future__ import annotations

from kraft.chaos.model import Expect, Producer, Topic
from kraft.chaos.story import ScenarioRun, scenario


@scenario(
    "paused-follower",
    question="When does a slow follower leave the ISR?",
    settings={
        "replica.lag.time.max.ms": 1_500,
        # so that it is lag and not fencing that takes it out
        "broker.session.timeout.ms": 9_000,
    },
    topics=[
        Topic(name="t"),
    ],
    clients=[
        Producer(name="load", topic="t", in_flight=8, target=1),
    ],
    expect=Expect(holds=(lambda now: now.events("broker_fenced") == 0,)),
)
async def paused_follower(run: ScenarioRun) -> None:
    """A paused follower leaves the ISR within 1.5 x replica.lag.time.max.ms, and joins it after it has caught up.

    I1: out of the ISR after replica.lag.time.max.ms, looked at every half of it. I4: back when it has caught up.
    """
    await run.more_acked(100)
    await run.pause(3)
    # 1.5 x 1500, and a second for us to see it
    await run.until(lambda now: now.isr("t", 0) == [1, 2], deadline_ms=3_250)
    await run.more_acked(100)
    await run.resume(3)
    now = await run.until(lambda now: now.isr("t", 0) == [1, 2, 3])
    end = now.log_end(3, "t", 0)
    visible = now.node_hw(3, "t", 0)
    await run.more_acked(50)
    run.expect_at_the_end(lambda now: end >= visible)


@scenario(
    "slow-follower",
    question="Does a slow network take followers out of the ISR?",
    topics=[
        Topic(name="t"),
    ],
    clients=[
        # with acks=all everybody would wait for the slow one, who would never fall behind
        Producer(name="load", topic="t", acks="1", in_flight=8, value_bytes=1_000, target=1),
    ],
)
async def slow_follower(run: ScenarioRun) -> None:
    """A follower behind a narrow link leaves the ISR, and joins it when the link is wide again."""
    # a fifth of what is written
    await run.more_acked(100)
    await run.bandwidth(dials=3, answers=1, purpose="fetch", bytes_per_second=20_000)
    await run.until(lambda now: now.isr("t", 0) == [1, 2], deadline_ms=8_000)
    await run.more_acked(100)
    await run.heal()
    await run.until(lambda now: now.isr("t", 0) == [1, 2, 3])


@scenario(
    "returning-follower",
    question="When does a follower that was away count again?",
    brokers=[1, 2],
    controllers=[3],
    settings={
        # copies in small pieces
        "replica.fetch.response.max.bytes": 5_000,
    },
    topics=[
        Topic(name="t", assignment=[[1, 2]], configs={"min.insync.replicas": 1}),
    ],
    clients=[
        Producer(name="before", topic="t", rate=500, limit=100, batch=10),
        # the other one is down
        Producer(name="alone", topic="t", rate=500, limit=200, value_bytes=1_000, target=1, starts="in the story"),
        Producer(name="after", topic="t", limit=50, retries=100, starts="in the story"),
    ],
    expect=Expect(kept=350),
)
async def returning_follower(run: ScenarioRun) -> None:
    """A follower is still copying when the leader dies: it may not lead.

    I4: node 2 comes back behind a narrow link and has copied only a part when the leader dies. It is alive, but no
    member of the ISR, so the partition waits for node 1.
    """
    await run.until(lambda now: now.done("before") and now.log_end(2, "t", 0) == 100)
    await run.kill(2)
    await run.until(lambda now: now.isr("t", 0) == [1])
    await run.start("alone")
    await run.until(lambda now: now.acked("alone") == 200)
    await run.bandwidth(dials=2, answers=1, purpose="fetch", direction="answers", bytes_per_second=20_000)
    await run.restart(2)
    now = await run.until(lambda now: now.log_end(2, "t", 0) > 120)
    copied = now.log_end(2, "t", 0)
    members = now.isr("t", 0)
    await run.kill(1)
    # time enough to elect node 2, if that were allowed
    await run.sleep(1_000)
    await run.start("after")
    await run.restart(1)
    await run.until(lambda now: now.done("after"))
    run.expect_at_the_end(lambda now: copied < 300)
    run.expect_at_the_end(lambda now: members == [1])
