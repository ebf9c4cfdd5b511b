"""Writes that min.insync.replicas refuses, and writes with an unknown outcome."""

from __future__ import annotations

from kraft.chaos.model import Expect, Producer, Reader, Topic
from kraft.chaos.story import ScenarioRun, scenario


@scenario(
    "min-isr-refuses",
    question="Why is my high watermark stuck?",
    controllers=[4],
    topics=[
        Topic(name="t", configs={"min.insync.replicas": 2}),
    ],
    clients=[
        Producer(name="before", topic="t", rate=500, limit=100, batch=10),
        Producer(name="all", topic="t", limit=20, target=1, starts="in the story"),
        Producer(name="one", topic="t", acks="1", limit=20, target=1, starts="in the story"),
        Reader(name="reader", topic="t", target=1),
    ],
    expect=Expect(kept=120),
    rest_only="it counts each refusal; a Kafka client tries again until its time is over",
)
async def min_isr_refuses(run: ScenarioRun) -> None:
    """Both followers are gone, min ISR 2: acks=all is refused, acks=1 is accepted and stays invisible.

    P1: acks=all is refused and nothing is appended. P3: acks=1 is accepted, and stays invisible until the ISR is
    back.
    """
    await run.until(lambda now: now.done("before") and now.hw("t", 0) == 100)
    await run.kill(2, 3)
    await run.until(lambda now: now.isr("t", 0) == [1])
    await run.start("all")
    await run.until(lambda now: now.done("all") and now.refused("all", 19) == 20 and now.log_end(1, "t", 0) == 100)
    await run.start("one")
    await run.until(
        lambda now: (
            now.acked("one") == 20
            and now.log_end(1, "t", 0) == 120
            and now.hw("t", 0) == 100
            and now.read("reader") == 100
        )
    )
    await run.restart(2, 3)
    await run.until(lambda now: len(now.isr("t", 0)) == 3 and now.hw("t", 0) == 120 and now.read("reader") == 120)


@scenario(
    "min-isr-lost-in-flight",
    question="A produce timed out: is my record there?",
    topics=[
        Topic(name="t", configs={"min.insync.replicas": 2}),
    ],
    clients=[
        Producer(name="before", topic="t", rate=500, limit=100, batch=10),
        Producer(name="waiting", topic="t", limit=10, in_flight=10, timeout_ms=4_000, target=1, starts="in the story"),
    ],
    expect=Expect(kept=100, unknown_kept=10),
    rest_only="it counts requests that wait in the leader together; aiokafka sends one after the other for a partition",
)
async def min_isr_lost_in_flight(run: ScenarioRun) -> None:
    """acks=all waits while the ISR falls below min ISR: a timeout, and the records are kept.

    P5, P6: the records are in the leader's log when the ISR falls below its minimum. The wait ends in a timeout, and
    the outcome is unknown until the followers are back: the records are kept.
    """
    await run.until(lambda now: now.done("before") and now.log_end(2, "t", 0) == 100 and now.log_end(3, "t", 0) == 100)
    await run.cut(answers=1, purpose="fetch")
    await run.start("waiting")
    await run.until(lambda now: now.isr("t", 0) == [1] and now.log_end(1, "t", 0) == 110 and now.hw("t", 0) == 100)
    await run.until(lambda now: now.refused("waiting", 7) == 10)
    await run.heal()
    await run.until(lambda now: len(now.isr("t", 0)) == 3 and now.hw("t", 0) == 110)
