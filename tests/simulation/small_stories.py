"""Stories that find a bug on one node, for bugs that a story of the catalogue finds at the cost of seconds.

Each has as few nodes and records as show the bug, and ends as expected without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kraft.chaos.catalogue.queues import DEAD_LETTERS
from kraft.chaos.model import Expect, Member, Producer, Scenario, Topic, Worker
from kraft.chaos.story import ScenarioRun, scenario
from kraft.protocol.primitives import SettingValue

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


ONE_QUEUE_PARTITION: Final[Mapping[str, SettingValue]] = {
    "offsets.topic.num.partitions": 1,
    "offsets.topic.replication.factor": 1,
    "share.coordinator.state.topic.num.partitions": 1,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
    "group.share.min.record.lock.duration.ms": 1_000,
}


@scenario(
    "poison-on-one-node",
    question="What becomes of a record that is released each time?",
    brokers=[1],
    controllers=[1],
    settings=ONE_QUEUE_PARTITION,
    topics=[
        T,
        Topic(
            name="dlq.t",
            assignment=((1,),),
            configs={"min.insync.replicas": 1, "errors.deadletterqueue.group.enable": True},
        ),
    ],
    clients=[
        Producer(name="load", topic="t", limit=20, batch=20),
        Worker(name="only", topic="t", lock_ms=1_000, cannot_handle="load:5", starts="in the story"),
    ],
    expect=Expect(redelivered=4, accepted=19, archived=1, dead_lettered=1),
)
async def poison_on_one_node(run: ScenarioRun) -> None:
    """One worker releases one record of twenty."""
    await run.set_group("q", DEAD_LETTERS)
    await run.start("only")
    await run.until(lambda now: now.accepted() == 19)


@scenario(
    "late-worker-on-one-node",
    question="Is a late acceptance refused?",
    brokers=[1],
    controllers=[1],
    settings=ONE_QUEUE_PARTITION,
    topics=[T],
    clients=[
        Producer(name="load", topic="t", limit=20, batch=20),
        Worker(name="late", topic="t", work_ms=100, lock_ms=1_000, starts="in the story"),
        Worker(name="heir", topic="t", lock_ms=1_000, starts="in the story"),
    ],
    expect=Expect(redelivered=10, accepted=20),
)
async def late_worker_on_one_node(run: ScenarioRun) -> None:
    """One worker is cut off until its lock has ended and another one has accepted its records."""
    await run.until(lambda now: now.done("load"))
    await run.start("late")
    await run.until(lambda now: now.uncommitted("late") == 10)
    await run.blackhole(dials="late", purpose="rest")
    await run.start("heir")
    await run.until(lambda now: now.accepted("heir") == 20)
    await run.heal(dials="late")


@scenario(
    "queue-restarts",
    question="Does a queue know what was accepted when its only node was killed?",
    brokers=[1],
    controllers=[1],
    settings=ONE_QUEUE_PARTITION,
    topics=[T],
    clients=[
        Producer(name="load", topic="t", limit=20, batch=20),
        Producer(name="more", topic="t", limit=5, batch=5, retries=10, starts="in the story"),
        Worker(name="only", topic="t", lock_ms=1_000),
    ],
    expect=Expect(accepted=25),
)
async def queue_restarts(run: ScenarioRun) -> None:
    """All records are accepted, the node comes back, and the worker gets the next ones."""
    await run.until(lambda now: now.done("load") and now.accepted() == 20)
    await run.kill(1)
    await run.restart(1)
    await run.start("more")
    await run.until(lambda now: now.done("more") and now.accepted() >= 25)


@scenario(
    "unclean-election-of-two",
    question="Does a queue hand out new records that have the offsets of lost ones?",
    brokers=[1, 2],
    controllers=[3],
    settings={
        **ONE_QUEUE_PARTITION,
        "offsets.topic.replication.factor": 2,
        "share.coordinator.state.topic.replication.factor": 2,
        "replica.lag.time.max.ms": 500,
        "broker.session.timeout.ms": 500,
        "broker.heartbeat.interval.ms": 100,
    },
    topics=[
        Topic(
            name="t",
            assignment=((1, 2),),
            configs={"min.insync.replicas": 1, "unclean.leader.election.enable": True},
        ),
    ],
    clients=[
        Producer(name="before", topic="t", limit=10, batch=10),
        Producer(name="doomed", topic="t", limit=10, batch=10, starts="in the story"),
        Producer(name="after", topic="t", limit=10, batch=10, retries=20, starts="in the story"),
        Worker(name="only", topic="t", lock_ms=1_000),
    ],
    expect=Expect(kept=20, lost=10, accepted=20),
)
async def unclean_election_of_two(run: ScenarioRun) -> None:
    """The worker has accepted ten records that only the dead leader had, and gets ten others for them."""
    await run.until(lambda now: now.accepted() == 10 and now.log_end(2, "t", 0) == 10)
    await run.cut(dials=2, answers=1, purpose="fetch")
    await run.start("doomed")
    await run.until(lambda now: now.isr("t", 0) == [1] and now.accepted() == 20)
    await run.kill(1)
    await run.until(lambda now: now.leader("t", 0) == 2)
    await run.start("after")
    await run.until(lambda now: now.done("after"))
    await run.restart(1)
    await run.until(lambda now: now.isr("t", 0) == [1, 2])


@scenario(
    "forwarder-restarts",
    question="Does a forwarder of delayed records know what it has written before it was killed?",
    brokers=[1],
    controllers=[1],
    settings={
        "offsets.topic.num.partitions": 1,
        "offsets.topic.replication.factor": 1,
        "transaction.state.log.num.partitions": 1,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
    },
    topics=[
        Topic(name="later", assignment=((1,),), configs={"min.insync.replicas": 1, "delivery.target.topic": "due"}),
        Topic(name="due", assignment=((1,),), configs={"min.insync.replicas": 1}),
    ],
    clients=[Producer(name="load", topic="later", limit=20, batch=10)],
    expect=Expect(kept=20),
)
async def forwarder_restarts(run: ScenarioRun) -> None:
    """The turn that was last is not noted as done when the only node is killed."""
    await run.until(lambda now: now.done("load") and now.hw("due", 0) >= 20)
    await run.kill(1)
    await run.restart(1)
    await run.until(lambda now: now.leader("later", 0) == 1)
    await run.sleep(2_000)


SMALL: Final[dict[str, Scenario]] = {
    "vote_not_persisted": one_voter,
    "commits_more_than_was_read": group_goes_on,
    "committed_offsets_not_replayed": coordinator_restarts,
    "delayed_twice": forwarder_restarts,
    "queue_begins_again": queue_restarts,
    "queue_state_beyond_log": unclean_election_of_two,
    "queue_takes_late_acceptances": late_worker_on_one_node,
    "queue_writes_no_dead_letters": poison_on_one_node,
    "queue_skips_released_records": poison_on_one_node,
}
"""A bug of `tests/integration/planted/bugs.py` -> the story that finds it for little."""
