"""Stories that find a bug on one node, for bugs that a story of the catalogue finds at the cost of seconds.

Each has as few nodes and records as show the bug, and ends as expected without it.
"""

from __future__ import annotations

from typing import Final

from kraft.chaos.model import Member, Producer, Scenario, Topic
from kraft.chaos.story import ScenarioRun, scenario

ONE_GROUP_PARTITION: Final = {
    "offsets.topic.num.partitions": 1,
    "offsets.topic.replication.factor": 1,
    "group.min.session.timeout.ms": 500,
    "group.initial.rebalance.delay.ms": 0,
}
T: Final = Topic(name="t", assignment=((1,),), configs={"min.insync.replicas": 1})


@scenario(
    "one-voter",
    question="What does a voter keep of its vote?",
    brokers=[1],
    controllers=[1],
    topics=[T],
    clients=[Producer(name="load", topic="t", limit=5)],
)
async def one_voter(run: ScenarioRun) -> None:
    """The only voter votes for itself."""
    await run.until(lambda now: now.done("load"))


@scenario(
    "group-goes-on",
    question="Does a group go on where it had committed?",
    brokers=[1],
    controllers=[1],
    settings=ONE_GROUP_PARTITION,
    topics=[T],
    clients=[
        Producer(name="load", topic="t", limit=60, batch=20, rate=1_000),
        Member(name="first", topic="t", batch=10, starts="in the story"),
        Member(name="second", topic="t", batch=10, starts="in the story"),
    ],
)
async def group_goes_on(run: ScenarioRun) -> None:
    """One member leaves, and a second one reads what comes next."""
    await run.until(lambda now: now.done("load"))
    await run.start("first")
    await run.until(lambda now: now.read("first") >= 10)
    await run.finish("first")
    await run.start("second")
    await run.until(lambda now: now.read("second") >= 10 and now.uncommitted("second") == 0)


@scenario(
    "coordinator-restarts",
    question="Does a group without members keep its offsets when its coordinator is killed?",
    brokers=[1],
    controllers=[1],
    settings=ONE_GROUP_PARTITION,
    topics=[T],
    clients=[Producer(name="load", topic="t", limit=20), Member(name="only", topic="t", group="gone", batch=10)],
)
async def coordinator_restarts(run: ScenarioRun) -> None:
    """The only member leaves, and the only node is killed and comes back."""
    await run.until(lambda now: now.done("load") and now.read("only") >= 20)
    await run.finish("only")
    await run.kill(1)
    await run.restart(1)
    await run.until(lambda now: now.leader("t", 0) == 1)


SMALL: Final[dict[str, Scenario]] = {
    "vote_not_persisted": one_voter,
    "commits_more_than_was_read": group_goes_on,
    "committed_offsets_not_replayed": coordinator_restarts,
}
"""A bug of `tests/integration/planted/bugs.py` -> the story that finds it for little."""
