"""Leaders and followers without a connection to each other, or to the controller."""

from __future__ import annotations

from kraft.chaos.model import ANY, Expect, Producer, Topic
from kraft.chaos.story import ScenarioRun, scenario


@scenario(
    "follower-cut-from-leader",
    question="What happens when two brokers cannot reach each other, and the controller reaches both?",
    topics=[
        Topic(name="t", configs={"min.insync.replicas": 2}),
    ],
    clients=[
        Producer(name="load", topic="t", in_flight=8, target=1),
    ],
    expect=Expect(
        holds=(
            lambda now: now.leader("t", 0) == 1,
            lambda now: now.events("broker_fenced") == 0,
        )
    ),
)
async def follower_cut_from_leader(run: ScenarioRun) -> None:
    """One follower reaches everybody but its leader."""
    await run.more_acked(100)
    await run.cut(dials=2, answers=1, purpose="fetch")
    await run.until(lambda now: now.isr("t", 0) == [1, 3])
    await run.more_acked(100)
    await run.heal()
    await run.until(lambda now: now.isr("t", 0) == [1, 2, 3])


@scenario(
    "leader-cut-from-quorum",
    question="What does a leader without followers acknowledge?",
    controllers=[4],
    settings={
        "replica.lag.time.max.ms": 30_000,
    },
    topics=[
        Topic(name="t", configs={"min.insync.replicas": 2}),
    ],
    clients=[
        Producer(name="before", topic="t", rate=500, limit=100, batch=10),
        Producer(name="stale-one", topic="t", acks="1", rate=200, limit=40, target=1, starts="in the story"),
        Producer(
            name="stale-all", topic="t", limit=10, in_flight=10, timeout_ms=1_500, target=1, starts="in the story"
        ),
        Producer(name="after", topic="t", rate=200, limit=50, target=2, starts="in the story"),
    ],
    expect=Expect(kept=150, lost=40, unknown_gone=10),
    rest_only="its clients go on writing to a leader that was deposed; a Kafka client finds the new one",
)
async def leader_cut_from_quorum(run: ScenarioRun) -> None:
    """A leader is cut off from controller and quorum, but not from its clients.

    B8: cut off from controller and quorum, the old leader does not know that it was deposed. Clients still reach it:
    their records with acks=1 are truncated later; acks=all is not acknowledged, because no follower fetches.
    """
    await run.until(lambda now: now.done("before") and now.log_end(2, "t", 0) == 100 and now.log_end(3, "t", 0) == 100)
    await run.isolate(1, purpose="controller")
    # it would still read the metadata from there
    await run.cut(dials=1, answers=4, purpose="fetch")
    await run.until(lambda now: now.leader("t", 0) == 2)
    await run.start("stale-one", "stale-all", "after")
    await run.until(lambda now: now.acked("stale-one") == 40 and now.done("stale-all") and now.acked("after") == 50)
    await run.heal()


@scenario(
    "shrink-not-committed",
    question="Can a leader that is cut off from everybody go on acknowledging acks=all?",
    controllers=[4],
    topics=[
        Topic(name="t", configs={"min.insync.replicas": 1}),
    ],
    clients=[
        Producer(name="before", topic="t", rate=500, limit=100, batch=10),
        Producer(name="stale", topic="t", limit=20, in_flight=20, timeout_ms=4_000, target=1, starts="in the story"),
        Producer(name="after", topic="t", rate=200, limit=50, target=2, starts="in the story"),
    ],
    expect=Expect(kept=150, unknown_gone=20),
    rest_only="its clients go on writing to a leader that was deposed; a Kafka client finds the new one",
)
async def shrink_not_committed(run: ScenarioRun) -> None:
    """A leader loses its followers and the controller at once: it may not shrink the ISR alone.

    I7: a leader that removes followers from the ISR must wait for them until the controller has committed the change.
    Here its request does not arrive: the controller makes a follower, which is still in the ISR, the leader.
    """
    await run.until(lambda now: now.done("before") and now.log_end(2, "t", 0) == 100 and now.log_end(3, "t", 0) == 100)
    await run.isolate(1)
    await run.start("stale")
    await run.until(lambda now: now.leader("t", 0) == 2)
    await run.start("after")
    await run.until(lambda now: now.done("stale") and now.done("after") and now.log_end(1, "t", 0) == 120)
    await run.heal()
    await run.until(lambda now: now.isr("t", 0) == [1, 2, 3])


@scenario(
    "deposed-leader",
    question="Can a deposed leader throw the others out of the ISR and acknowledge acks=all alone?",
    controllers=[4],
    topics=[
        Topic(name="t", configs={"min.insync.replicas": 1}),
    ],
    clients=[
        Producer(name="before", topic="t", rate=500, limit=100, batch=10),
        Producer(name="stale", topic="t", limit=20, in_flight=20, timeout_ms=4_000, target=1, starts="in the story"),
        Producer(name="after", topic="t", rate=200, limit=50, target=2, starts="in the story"),
    ],
    expect=Expect(kept=150, unknown_gone=20),
    rest_only="its clients go on writing to a leader that was deposed; a Kafka client finds the new one",
)
async def deposed_leader(run: ScenarioRun) -> None:
    """A leader does not know that it was deposed, and asks the controller to shrink its ISR.

    I5, B8: node 1 still has a connection to the controller, but its metadata is stale, so it does not know that node 2
    is the leader. Because no follower fetches from it, it requests an ISR with itself alone. The controller refuses:
    the leader epoch is old.
    """
    await run.until(lambda now: now.done("before") and now.log_end(2, "t", 0) == 100 and now.log_end(3, "t", 0) == 100)
    await run.reassign("t", 0, replicas=[2, 1, 3])
    # the way on which node 1 reads the metadata
    await run.until(lambda now: now.replicas("t", 0) == [2, 1, 3] and now.metadata_offset(1) == now.metadata_offset(4))
    await run.blackhole(dials=1, answers=4, purpose="fetch")
    await run.elect("t")
    await run.until(lambda now: now.leader("t", 0) == 2)
    await run.start("stale", "after")
    await run.until(lambda now: now.done("stale") and now.done("after") and now.log_end(1, "t", 0) == 120)
    await run.heal()
    await run.until(lambda now: now.isr("t", 0) == [1, 2, 3])


@scenario(
    "one-way-mute",
    question="What if only one direction of the network breaks?",
    topics=[
        Topic(name="t", configs={"min.insync.replicas": 2}),
    ],
    clients=[
        Producer(name="load", topic="t", retries=20, in_flight=8, timeout_ms=2_000, target=3),
    ],
    expect=Expect(duplicated=ANY),
)
async def one_way_mute(run: ScenarioRun) -> None:
    """The leader receives from all nodes, and no node receives from the leader.

    No connection is refused or breaks: bytes in one direction do not arrive any more.
    """
    await run.more_acked(100)
    now = await run.now()
    first = now.epoch("t", 0)
    await run.blackhole(dials=1, direction="requests")
    await run.blackhole(answers=1, direction="answers")
    await run.until(lambda now: now.leader("t", 0) in [2, 3] and now.epoch("t", 0) > first)
    await run.more_acked(100)
    await run.heal()
    await run.until(lambda now: now.isr("t", 0) == [1, 2, 3])


@scenario(
    "one-way-deaf",
    question="What if only the other direction of the network breaks?",
    topics=[
        Topic(name="t", configs={"min.insync.replicas": 2}),
    ],
    clients=[
        Producer(name="load", topic="t", retries=20, in_flight=8, timeout_ms=2_000, target=3),
    ],
    expect=Expect(duplicated=ANY),
)
async def one_way_deaf(run: ScenarioRun) -> None:
    """All nodes receive from the leader, and the leader receives from no node.

    No connection is refused or breaks: bytes in one direction do not arrive any more.
    """
    await run.more_acked(100)
    now = await run.now()
    first = now.epoch("t", 0)
    await run.blackhole(dials=1, direction="answers")
    await run.blackhole(answers=1, direction="requests")
    await run.until(lambda now: now.leader("t", 0) in [2, 3] and now.epoch("t", 0) > first)
    await run.more_acked(100)
    await run.heal()
    await run.until(lambda now: now.isr("t", 0) == [1, 2, 3])
