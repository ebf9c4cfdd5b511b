"""What each setting of acks promises when a leader dies."""

from __future__ import annotations

from kraft.chaos.model import Expect, Measured, Producer, Topic
from kraft.chaos.story import ScenarioRun, scenario

BEFORE = Producer(name="before", topic="t", rate=500, limit=200, batch=10)
AFTER = Producer(name="after", topic="t", limit=50, retries=10, starts="in the story")
SLOW_TO_SHRINK = {"replica.lag.time.max.ms": 30_000}
"""Followers that cannot fetch stay in the ISR."""


async def _dies_with_the_only_copy(run: ScenarioRun) -> None:
    """The followers are cut off while the doomed producer writes, and the leader dies."""
    now = await run.until(
        lambda now: (
            now.done("before")
            and now.hw("t", 0) == 200
            and now.log_end(2, "t", 0) == 200
            and now.log_end(3, "t", 0) == 200
        )
    )
    old = now.leader("t", 0)
    await run.cut(answers=old, purpose="fetch")
    await run.start("doomed")
    now = await run.until(lambda now: now.done("doomed") and now.log_end(old, "t", 0) == 250)
    unreplicated = now.log_end(old, "t", 0) - max(now.log_end(2, "t", 0), now.log_end(3, "t", 0))
    run.expect(lost=unreplicated)
    await _replace(run, old)


async def _replace(run: ScenarioRun, old: int) -> None:
    """The leader dies, another one leads, and the old one comes back."""
    await run.kill(old)
    await run.until(lambda now: now.leader("t", 0) in [2, 3])
    await run.start("after")
    await run.until(lambda now: now.done("after"))
    await run.heal()
    await run.restart(old)


@scenario(
    "acks0-leader-kill",
    question="What does acks=0 lose when a leader dies?",
    settings=SLOW_TO_SHRINK,
    topics=[
        Topic(name="t"),
    ],
    clients=[
        BEFORE,
        Producer(name="doomed", topic="t", acks="0", rate=200, limit=50, starts="in the story"),
        AFTER,
    ],
    expect=Expect(kept=250, lost=Measured("unreplicated")),
)
async def acks0_leader_kill(run: ScenarioRun) -> None:
    """acks=0, and the leader dies before its followers have fetched.

    The followers are cut off while the doomed producer writes, so exactly its records are on the leader alone.
    """
    await _dies_with_the_only_copy(run)


@scenario(
    "acks1-leader-kill",
    question="What does acks=1 lose when a leader dies?",
    settings=SLOW_TO_SHRINK,
    topics=[
        Topic(name="t"),
    ],
    clients=[
        BEFORE,
        Producer(name="doomed", topic="t", acks="1", rate=200, limit=50, starts="in the story"),
        AFTER,
    ],
    expect=Expect(kept=250, lost=Measured("unreplicated")),
)
async def acks1_leader_kill(run: ScenarioRun) -> None:
    """acks=1, and the leader dies before its followers have fetched.

    The followers are cut off while the doomed producer writes, so exactly its records are on the leader alone.
    """
    await _dies_with_the_only_copy(run)


@scenario(
    "acks-all-leader-kill",
    question="Can acks=all lose data when a leader dies?",
    settings=SLOW_TO_SHRINK,
    topics=[
        Topic(name="t", configs={"min.insync.replicas": 2}),
    ],
    clients=[
        BEFORE,
        Producer(name="doomed", topic="t", rate=200, limit=50, in_flight=50, timeout_ms=10_000, starts="in the story"),
        AFTER,
    ],
    expect=Expect(kept=250, unknown_gone=50),
    rest_only="it counts requests that wait in the leader together; aiokafka sends one after the other for a partition",
)
async def acks_all_leader_kill(run: ScenarioRun) -> None:
    """acks=all, and the leader dies before its followers have fetched.

    The same story as acks1-leader-kill: the doomed records are on the leader alone, and are not acknowledged.
    """
    now = await run.until(
        lambda now: now.done("before") and now.log_end(2, "t", 0) == 200 and now.log_end(3, "t", 0) == 200
    )
    old = now.leader("t", 0)
    await run.cut(answers=old, purpose="fetch")
    await run.start("doomed")
    await run.until(lambda now: now.log_end(old, "t", 0) == 250)
    await _replace(run, old)


@scenario(
    "high-watermark-behind",
    question="Does a follower whose high watermark is behind lose what was acknowledged?",
    controllers=[4],
    settings={
        # node 3 stays in the ISR
        "replica.lag.time.max.ms": 30_000,
    },
    topics=[
        Topic(name="t", configs={"min.insync.replicas": 1}),
    ],
    clients=[
        BEFORE,
        Producer(name="late", topic="t", limit=20, batch=20, timeout_ms=15_000, starts="in the story"),
        AFTER,
    ],
    expect=Expect(kept=270),
    is_long=True,
)
async def high_watermark_behind(run: ScenarioRun) -> None:
    """Two leaders die one after the other while the followers' high watermark is behind.

    R2, R4, KIP-101: a follower learns the high watermark one fetch later than the records below it. Followers of a new
    leader that truncate to their own high watermark, as in old versions of Kafka, remove acknowledged records; if the
    new leader then dies before they have copied these records again, they are lost.
    """
    # node 3 gets answers two seconds late, but fetches again at once: so the leader knows its log end
    await run.until(lambda now: now.done("before") and now.node_hw(2, "t", 0) == 200 and now.node_hw(3, "t", 0) == 200)
    await run.delay(dials=3, answers=1, purpose="fetch", direction="answers", delay_ms=2_000)
    # it gets no answers from the next leader
    await run.cut(dials=3, answers=2, purpose="fetch")
    await run.start("late")
    await run.until(lambda now: now.done("late") and now.log_end(3, "t", 0) == 220 and now.node_hw(3, "t", 0) == 200)
    await run.kill(1)
    await run.until(lambda now: now.leader("t", 0) == 2 and now.metadata_offset(3) == now.metadata_offset(4))
    await run.kill(2)
    await run.until(lambda now: now.leader("t", 0) == 3)
    await run.heal()
    await run.start("after")
    await run.until(lambda now: now.done("after"))
    await run.restart(1, 2)
