"""What a seed of the profile "queues" draws: share groups on three brokers or more, and faults that they can outlive.

The members are in `queue_member`, the promises to them in `queue_oracle`. Locks last a second or two, so that a run
sees many of them run out.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.plan import Event, Plan

PROFILE = "queues"
EVENTS = (
    *("kill_leader",) * 3,
    *("kill", "kill", "restart", "isolate", "cut", "split", "pause", "pause", "slow_link", "reset", "power_loss"),
    *("elect_preferred", "elect_preferred", "rolling_restart", "kill_controller", "disk_full"),
)
TOPIC = "queue"
DEAD_LETTERS = "dlq.queue"
HEARTBEAT_MS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueMemberPlan:
    """One worker; its chances are for each record, or for each round of work."""

    name: str
    records: int
    """max.poll.records"""
    is_strict: bool
    """record_limit"""
    is_explicit: bool
    """It sends ShareAcknowledge; else its next fetch has the acknowledgements."""
    work_ms: int
    releases: float
    rejects: float
    renews: float
    forgets: float
    """It never acknowledges the record: only the lock's time frees it."""
    overdue: float
    """It works longer than the lock lasts, and accepts then."""
    mishaps: float
    """A lost connection, a new one beside the old one, a crash, or a leave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePlan:
    groups: tuple[tuple[str, tuple[QueueMemberPlan, ...]], ...]
    lock_ms: int
    limit: int
    """share.delivery.count.limit"""
    has_dead_letters: bool

    def __str__(self) -> str:
        groups = [f"queue group {name}: {', '.join(each.name for each in members)}" for name, members in self.groups]
        then = ", then a dead letter" if self.has_dead_letters else ""
        return "\n".join([*groups, f"locks last {self.lock_ms} ms, at most {self.limit} deliveries{then}"])


def made_queues(plan: Plan) -> Plan:
    """A topic of its own, whose partitions and all that coordinators keep are synced by two brokers of three."""
    from tests.simulation.plan import TopicPlan

    rng = random.Random(f"queues {plan.seed}")
    own = TopicPlan(
        name=TOPIC, partitions=rng.choice((1, 1, 2, 3)), replication_factor=3, configs={"min.insync.replicas": "2"}
    )
    drawn = QueuePlan(
        groups=tuple((f"q{number}", _members(rng, f"q{number}")) for number in range(rng.choice((1, 1, 2)))),
        lock_ms=rng.choice((1_000, 1_500, 2_000)),
        limit=rng.choice((2, 3, 5)),
        has_dead_letters=random.Random(f"dead letters {plan.seed}").random() < 0.5,
    )
    letters = TopicPlan(
        name=DEAD_LETTERS,
        partitions=1,
        replication_factor=3,
        configs={"min.insync.replicas": "2", "errors.deadletterqueue.group.enable": "true"},
    )
    sessions_ms = rng.choice((1_500, 3_000))
    settings = {
        "offsets.topic.num.partitions": 1,
        "offsets.topic.replication.factor": 3,
        "share.coordinator.state.topic.num.partitions": rng.choice((1, 3)),
        "share.coordinator.state.topic.replication.factor": 3,
        "share.coordinator.state.topic.min.isr": 2,
        "share.coordinator.state.topic.segment.bytes": rng.choice((20_000, 104_857_600)),
        "share.coordinator.snapshot.update.records.per.snapshot": rng.choice((0, 3, 500)),
        # Slower than a follower's fetch waits (500 ms). A coordinator that appends and prunes faster has followers that
        # are a high watermark behind for ever, with all records in sync, and no look finds the cluster at rest.
        "share.coordinator.state.topic.prune.interval.ms": rng.choice((700, 300_000)),
        "share.coordinator.cold.partition.snapshot.interval.ms": rng.choice((1_500, 300_000)),
        "share.coordinator.write.timeout.ms": rng.choice((300, 1_000, 5_000)),
        "group.share.record.lock.duration.ms": drawn.lock_ms,
        "group.share.delivery.count.limit": drawn.limit,
        "group.share.session.timeout.ms": sessions_ms,
        "group.share.min.session.timeout.ms": sessions_ms,
        "group.share.heartbeat.interval.ms": HEARTBEAT_MS,
        "group.share.min.heartbeat.interval.ms": HEARTBEAT_MS,
        "group.share.initialize.retry.interval.ms": 1_000,
    }
    producers = tuple(
        replace(each, topic=1, acks=-1, in_flight=1, pause_ms=rng.choice((150, 400)), records=rng.choice((1, 4)))
        for each in plan.producers[:2]
    )
    events = (
        *plan.events,
        *(_deposed(plan, number) for number in range(rng.choice((0, 1, 2)))),
        *_heard_late(plan, lock_ms=drawn.lock_ms),
    )
    return replace(
        plan,
        events=tuple(sorted(events, key=lambda event: event.at_ms)),
        settings={**plan.settings, **settings},
        topics=(*plan.topics[:1], own, *([letters] if drawn.has_dead_letters else [])),
        producers=producers,
        queues=drawn,
        down_max=1,
    )


def _deposed(plan: Plan, number: int) -> Event:
    """A leader that hears of no successor, for long enough for the next one to read its states and hand out records."""
    from tests.simulation.plan import Event

    rng = random.Random(f"deposed {plan.seed} {number}")
    session_ms = int(str(plan.settings["broker.session.timeout.ms"]))
    return Event(
        at_ms=rng.randint(1_000, 1_000 + plan.faults_ms),
        kind="depose_leader",
        lasts_ms=session_ms + rng.randint(1_000, 4_000),
        numbers=(rng.randrange(10_000), 0, 0, 0),
    )


def _heard_late(plan: Plan, *, lock_ms: int) -> Iterator[Event]:
    """In each other seed, for longer than a member works then; not in those of `delayed`."""
    from tests.simulation.plan import Event

    rng = random.Random(f"heard late {plan.seed}")
    if plan.profile == PROFILE and rng.random() < 0.5:
        yield Event(
            at_ms=rng.randint(1_500, 1_500 + plan.faults_ms),
            kind="hear_late",
            lasts_ms=lock_ms,
            numbers=(rng.randrange(10_000), 0, 0, 0),
        )


def _members(rng: random.Random, group: str) -> tuple[QueueMemberPlan, ...]:
    return tuple(
        QueueMemberPlan(
            name=f"{group}-m{number}",
            records=rng.choice((1, 3, 10)),
            is_strict=rng.random() < 0.3,
            is_explicit=rng.random() < 0.5,
            work_ms=rng.choice((0, 10, 60)),
            releases=rng.choice((0.0, 0.1, 0.4)),
            rejects=rng.choice((0.0, 0.05)),
            renews=rng.choice((0.0, 0.1)),
            forgets=rng.choice((0.0, 0.05, 0.1)),
            overdue=rng.choice((0.0, 0.2)),
            mishaps=rng.choice((0.0, 0.03, 0.1)),
        )
        for number in range(rng.choice((1, 2, 3, 4)))
    )
