"""Topics grow, are created again, and move to new machines."""

from __future__ import annotations

from kraft.chaos.model import ANY, Expect, Producer, Reader, Topic
from kraft.chaos.story import ScenarioRun, scenario


@scenario(
    "partition-grown",
    question="Does it cost anything to add partitions?",
    topics=[
        Topic(name="t"),
    ],
    clients=[
        Producer(name="load", topic="t", keys=20, in_flight=4),
        Reader(name="reader", topic="t"),
    ],
    expect=Expect(
        holds=(
            lambda now: now.failed() == 0,
            lambda now: now.unknown() == 0,
        )
    ),
)
async def partition_grown(run: ScenarioRun) -> None:
    """A topic gets more partitions under load."""
    await run.more_acked(100)
    await run.grow_topic("t", partitions=3)
    await run.until(lambda now: now.partitions("t") == 3 and len(now.isr("t", 1)) == 3 and (len(now.isr("t", 2)) == 3))
    await run.more_acked(100)
    await run.until(lambda now: now.log_end(1, "t", 1) > 0 and now.log_end(1, "t", 2) > 0)


@scenario(
    "topic-recreated",
    question="What is left of a topic that was deleted and created again?",
    topics=[
        Topic(name="t"),
        Topic(name="other"),
    ],
    clients=[
        Producer(name="old", topic="t", rate=200, limit=100),
        Producer(name="other", topic="other", rate=50),
        Producer(name="new", topic="t", limit=60, retries=50, starts="in the story"),
    ],
    expect=Expect(lost=100, causes=("delet",)),
)
async def topic_recreated(run: ScenarioRun) -> None:
    """A topic is deleted and created again with the same name, under load.

    The id of a topic counts, not its name: no record of the old topic may appear in the new one.
    """
    await run.until(lambda now: now.done("old"))
    await run.delete_topic("t")
    await run.until(lambda now: now.partitions("t") == 0)
    await run.create_topic("t", assignment=[[2, 3, 1]])
    await run.until(lambda now: now.leader("t", 0) == 2)
    await run.start("new")
    await run.until(lambda now: now.done("new"))


@scenario(
    "broker-id-taken-over",
    question="Can I give a new machine the id of a broken broker?",
    controllers=[4],
    topics=[
        Topic(name="t", configs={"min.insync.replicas": 2}),
    ],
    clients=[
        Producer(name="load", topic="t", retries=20, in_flight=4),
    ],
    expect=Expect(duplicated=ANY),
)
async def broker_id_taken_over(run: ScenarioRun) -> None:
    """The leader dies, and a broker with an empty disk takes over its id."""
    await run.more_acked(100)
    await run.kill(1)
    await run.wipe(1)
    await run.restart(1)
    await run.until(
        lambda now: now.leader("t", 0) in [2, 3] and now.isr("t", 0) == [1, 2, 3] and now.log_end(1, "t", 0) >= 100
    )
    await run.more_acked(50)
