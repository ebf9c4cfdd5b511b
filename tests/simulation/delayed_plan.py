"""What a seed of the profile "delayed" draws: a delay topic whose target is worked off by a share group, clocks that
step, and the faults of the profile "queues". The clients and the promises to them are in `delayed_clients`.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kraft.coordinators.delayed import forwarder
from tests.simulation import queue_plan

if TYPE_CHECKING:
    from tests.simulation.plan import Plan

PROFILE = "delayed"
EVENTS = (*queue_plan.EVENTS, *("clock_jump",) * 3, "clock_drift", "reassign")
TOPIC = "later"
JUMP_MS_MAX = 5_000_000
"""The longest step of a clock in one event."""
CLOCKS = ("clock_jump", "clock_drift")
TRIM_MS, KEPT_MAX, AT_ONCE = 700, 6, 5
"""A run has tens of records, and not millions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DelayedPlan:
    producers: int
    pause_ms: int
    records: int
    expires: float
    """How many records have an end of their own."""
    has_jumps: bool
    """Clocks step, or run at another rate."""

    def __str__(self) -> str:
        return f"{self.producers} producers of delayed records, every {self.pause_ms} ms up to {self.records}"


def made_delayed(plan: Plan) -> Plan:
    from tests.simulation.plan import TopicPlan

    plan = queue_plan.made_queues(plan)
    assert plan.queues is not None
    rng = random.Random(f"delayed {plan.seed}")
    own = TopicPlan(
        name=TOPIC,
        partitions=rng.choice((1, 1, 2)),
        replication_factor=3,
        configs={"min.insync.replicas": "2", "delivery.target.topic": queue_plan.TOPIC},
    )
    first, target, *letters = plan.topics
    return replace(
        plan,
        settings={
            **plan.settings,
            "transaction.state.log.num.partitions": 1,
            "transaction.state.log.replication.factor": 3,
            "transaction.state.log.min.isr": 2,
        },
        topics=(
            first,
            replace(target, configs={**target.configs, "record.expiry.enable": "true"}),
            own,
            *letters,
        ),
        producers=tuple(replace(each, topic=0) for each in plan.producers[:1]),
        queues=replace(plan.queues, groups=plan.queues.groups[:1]),
        delayed=DelayedPlan(
            producers=rng.choice((1, 2)),
            pause_ms=rng.choice((150, 400)),
            records=rng.choice((1, 3)),
            expires=rng.choice((0.0, 0.3)),
            has_jumps=any(event.kind in CLOCKS for event in plan.events),
        ),
    )


@contextlib.contextmanager
def few_records(profile: str) -> Iterator[None]:
    usual = forwarder.TRIM_MS, forwarder.KEPT_MAX, forwarder.AT_ONCE
    if profile == PROFILE:
        forwarder.TRIM_MS, forwarder.KEPT_MAX, forwarder.AT_ONCE = TRIM_MS, KEPT_MAX, AT_ONCE
    try:
        yield
    finally:
        forwarder.TRIM_MS, forwarder.KEPT_MAX, forwarder.AT_ONCE = usual
