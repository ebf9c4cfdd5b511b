"""Disks that fill up, change bits, or lose files."""

from __future__ import annotations

from kraft.chaos.model import ANY, Expect, Producer, Reader, Topic
from kraft.chaos.nemesis.actions import Damage
from kraft.chaos.questions import Now
from kraft.chaos.story import ScenarioRun, scenario

SMALL_SEGMENTS = Topic(name="t", configs={"segment.bytes": 8_192, "min.insync.replicas": 2})
BEFORE = Producer(name="before", topic="t", rate=400, limit=300, in_flight=4)
AFTER = Producer(name="after", topic="t", rate=200, limit=100, retries=20, starts="in the story")
NO_CHECKPOINT = {"replica.high.watermark.checkpoint.interval.ms": 600_000}
"""A recovery point would be saved with it, and be scanned from."""


def _have_all(now: Now) -> bool:
    """Each replica has the records of the first producer."""
    return all(now.log_end(node, "t", 0) == 300 for node in (1, 2, 3))


async def _outlive(run: ScenarioRun, node: int, *, what: Damage) -> None:
    """The node dies, its files are damaged, others write on, and it comes back with the same records as they."""
    await run.until(lambda now: now.done("before") and _have_all(now))
    await run.kill(node)
    await run.until(lambda now: now.leader("t", 0) not in [node, -1])
    await run.damage(node, "t", what=what)
    await run.start("after")
    await run.restart(node)
    await run.until(lambda now: now.done("after") and len(now.isr("t", 0)) == 3 and now.log_end(node, "t", 0) == 400)


@scenario(
    "corrupt-follower",
    question="Does a corrupt replica repair itself?",
    topics=[SMALL_SEGMENTS],
    clients=[BEFORE, AFTER],
    expect=Expect(kept=400),
)
async def corrupt_follower(run: ScenarioRun) -> None:
    """Bytes of a follower's active segment are flipped while it is down."""
    await _outlive(run, 2, what="flip active")


@scenario(
    "corrupt-leader",
    question="What if the corrupt replica was the leader?",
    topics=[SMALL_SEGMENTS],
    clients=[BEFORE, AFTER],
    expect=Expect(kept=400),
)
async def corrupt_leader(run: ScenarioRun) -> None:
    """Bytes of the leader's active segment are flipped while it is down."""
    await _outlive(run, 1, what="flip active")


@scenario(
    "corrupt-closed-follower",
    question="Is a flipped byte in a closed segment noticed after a crash?",
    settings=NO_CHECKPOINT,
    topics=[SMALL_SEGMENTS],
    clients=[BEFORE, AFTER],
    expect=Expect(kept=400, holds=(lambda now: now.events("segment_repaired") == 1,)),
)
async def corrupt_closed_follower(run: ScenarioRun) -> None:
    """Bytes of a follower's oldest, closed segment are flipped while it is down after a crash.

    S5: after a crash the segments are scanned from the recovery point on; the log is cut at the damage and copied
    again.
    """
    await _outlive(run, 2, what="flip closed")


@scenario(
    "corrupt-closed-leader",
    question="Is a flipped byte in a closed segment noticed after a crash?",
    settings=NO_CHECKPOINT,
    topics=[SMALL_SEGMENTS],
    clients=[BEFORE, AFTER],
    expect=Expect(kept=400, holds=(lambda now: now.events("segment_repaired") == 1,)),
)
async def corrupt_closed_leader(run: ScenarioRun) -> None:
    """Bytes of the leader's oldest, closed segment are flipped while it is down after a crash.

    The same on the leader: while it is down, another replica leads, and the old leader follows it afterwards.
    """
    await _outlive(run, 1, what="flip closed")


@scenario(
    "bit-rot",
    question="Who notices a flipped byte in an old segment?",
    topics=[SMALL_SEGMENTS],
    clients=[
        Producer(name="load", topic="t", rate=400, limit=300),
        Reader(name="late", topic="t", partition=0, target="leader", starts="in the story"),
    ],
    expect=Expect(
        kept=300,
        holds=(
            lambda now: now.events("log_damaged", 1) == 1,
            lambda now: now.events("segment_repaired", 1) == 1,
        ),
    ),
)
async def bit_rot(run: ScenarioRun) -> None:
    """A byte of a closed segment flips on the leader's disk, and a clean restart does not check it.

    After a clean stop no segment is scanned, as in Kafka: a byte that flips later, in a closed segment, is found when a
    client reads it. The CRC of its batch protects the reader, another replica leads at once, and the damaged replica
    truncates its log there and copies the rest again.
    """
    await run.until(lambda now: now.done("load") and _have_all(now))
    await run.stop(1)
    await run.damage(1, "t", what="flip closed")
    await run.restart(1)
    await run.until(lambda now: len(now.isr("t", 0)) == 3)
    await run.elect("t")
    await run.until(lambda now: now.leader("t", 0) == 1)
    await run.start("late")
    # no client reads it
    await run.until(lambda now: now.read("late") == 300 and now.leader("t", 0) in [2, 3])
    await run.until(lambda now: now.isr("t", 0) == [1, 2, 3])


@scenario(
    "torn-tail",
    question="What does a half-written batch do?",
    topics=[SMALL_SEGMENTS],
    clients=[BEFORE, AFTER],
    expect=Expect(kept=400),
)
async def torn_tail(run: ScenarioRun) -> None:
    """The last batch of a log is torn, as a crash may leave it."""
    await _outlive(run, 2, what="torn tail")


@scenario(
    "index-deleted",
    question="What if an index is missing?",
    topics=[SMALL_SEGMENTS],
    clients=[BEFORE, AFTER],
    expect=Expect(kept=400),
)
async def index_deleted(run: ScenarioRun) -> None:
    """The indexes of a log are deleted while the node is down."""
    await _outlive(run, 2, what="delete index")


@scenario(
    "disk-full-leader",
    question="What does a full disk do to a partition?",
    topics=[
        Topic(name="t", configs={"min.insync.replicas": 2}),
    ],
    clients=[
        Producer(name="load", topic="t", in_flight=4),
    ],
    expect=Expect(unknown_kept=0),
)
async def disk_full_leader(run: ScenarioRun) -> None:
    """The leader's disk is full: another replica leads until there is room again."""
    await run.more_acked(100)
    await run.fill_disk(1)
    now = await run.until(lambda now: now.leader("t", 0) == 2 and now.isr("t", 0) == [2, 3])
    full_at = now.log_end(1, "t", 0)
    # nothing is appended there, and no client waits for it
    await run.more_acked(100)
    await run.until(lambda now: now.log_end(1, "t", 0) == full_at)
    await run.free_disk(1)
    await run.until(lambda now: now.isr("t", 0) == [1, 2, 3] and now.log_end(1, "t", 0) > full_at)


@scenario(
    "wiped-follower",
    question="What if a broker loses its disk?",
    controllers=[4],
    topics=[
        Topic(name="t", configs={"min.insync.replicas": 2}),
    ],
    clients=[
        Producer(name="load", topic="t", retries=20, in_flight=4),
    ],
    expect=Expect(duplicated=ANY),
)
async def wiped_follower(run: ScenarioRun) -> None:
    """A follower comes back with an empty disk and copies everything."""
    await run.more_acked(100)
    await run.kill(3)
    await run.until(lambda now: now.isr("t", 0) == [1, 2])
    await run.wipe(3)
    await run.restart(3)
    await run.until(lambda now: now.isr("t", 0) == [1, 2, 3] and now.log_end(3, "t", 0) >= 100)
