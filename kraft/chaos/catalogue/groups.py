"""Members of groups die, and coordinators die."""

from __future__ import annotations

from kraft.chaos.model import SOME, Between, Expect, Member, Producer, Topic
from kraft.chaos.story import ScenarioRun, scenario

SETTINGS = {
    "offsets.topic.num.partitions": 1,
    "group.min.session.timeout.ms": 500,
    "group.initial.rebalance.delay.ms": 0,
}
"""One partition has the state of all groups, so that the story knows their coordinator; short sessions."""


@scenario(
    "member-killed",
    question="What does a group read twice when a member is killed?",
    settings=SETTINGS,
    topics=[
        Topic(name="t", assignment=[[1, 2, 3], [2, 3, 1]], configs={"min.insync.replicas": 2}),
    ],
    clients=[
        Producer(name="load", topic="t", rate=200, retries=10, idempotent=True),
        Member(name="victim", topic="t", batch=10, work_ms=300, session_ms=2_000),
        Member(name="heir", topic="t", batch=10, session_ms=2_000),
    ],
    expect=Expect(redelivered=SOME, causes=("which had not committed them",)),
)
async def member_killed(run: ScenarioRun) -> None:
    """A member of a group is killed in the middle of a batch; another one takes its partitions over.

    The next owner of its partitions reads its uncommitted records again: that batch, and nothing else.
    """
    await run.until(lambda now: now.read("victim") >= 20 and now.read("heir") >= 20)
    await run.until(lambda now: now.uncommitted("victim") > 0)
    await run.silence("victim")
    now = await run.now()
    read = now.read("heir")
    run.expect(redelivered=Between(low=1, high=now.uncommitted("victim")))
    await run.until(lambda now: now.read("heir") >= read + 200, deadline_ms=30_000)


@scenario(
    "zombie-member",
    question="Can a member that was evicted still commit?",
    settings=SETTINGS,
    topics=[
        Topic(name="t", configs={"min.insync.replicas": 2}),
    ],
    clients=[
        Producer(name="load", topic="t", rate=200, limit=150, retries=10, idempotent=True),
        Member(name="zombie", topic="t", batch=10, work_ms=200, session_ms=1_500),
        Member(name="heir", topic="t", batch=10, session_ms=1_500, starts="in the story"),
    ],
    expect=Expect(redelivered=SOME),
)
async def zombie_member(run: ScenarioRun) -> None:
    """A member is cut off in the middle of a batch, another one takes over, and its late commit arrives.

    The commit belongs to an old generation: if it was accepted, it would move the group back to the position of the
    zombie.
    """
    await run.until(lambda now: now.read("zombie") >= 20)
    await run.until(lambda now: now.uncommitted("zombie") > 0)
    await run.blackhole(dials="zombie", purpose="rest")
    await run.start("heir")
    await run.until(lambda now: now.done("load") and now.read("heir") + now.read("zombie") > 150)
    await run.until(lambda now: now.uncommitted("heir") == 0)
    await run.heal(dials="zombie")
    await run.until_group("g", members=2)
    await run.until(lambda now: now.uncommitted("zombie") == 0)


@scenario(
    "coordinator-killed-in-rebalance",
    question="Does a group forget what it committed when its coordinator dies during a rebalance?",
    controllers=[4],
    settings=SETTINGS,
    topics=[
        Topic(name="t", assignment=[[1, 2, 3], [2, 3, 1], [3, 1, 2]], configs={"min.insync.replicas": 2}),
    ],
    clients=[
        Producer(name="load", topic="t", rate=200, retries=20, idempotent=True),
        Member(name="first", topic="t", batch=10, session_ms=3_000),
        Member(name="second", topic="t", batch=10, work_ms=200, session_ms=3_000),
        Member(name="third", topic="t", batch=10, session_ms=3_000, starts="in the story"),
        Member(name="early", topic="t", group="gone", batch=10, session_ms=3_000),
    ],
    # A commit that was on its way when the coordinator died may be there or not.
    expect=Expect(redelivered=Between(low=0, high=60)),
)
async def coordinator_killed_in_rebalance(run: ScenarioRun) -> None:
    """A third member joins a group, and the coordinator is killed before the rebalance is over.

    Acknowledged commits are kept: the next coordinator has replayed them before it answers. Active members soon commit
    again, so a group without members shows it best.
    """
    await run.until(lambda now: now.read("early") >= 30)
    await run.finish("early")
    await run.until(lambda now: now.read("first") >= 50 and now.read("second") >= 50)
    old = (await run.now()).coordinator("g")
    await run.start("third")
    await run.until_group("g", members=3)
    await run.kill(old)
    await run.until(lambda now: now.coordinator("g") not in (old, -1))
    await run.until(lambda now: now.read("third") >= 50, deadline_ms=30_000)
    await run.restart(old)
    await run.more_acked(100)
