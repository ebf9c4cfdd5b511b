"""What a seed of the profile "routed" draws: two topics or three that records of a route go to together, and the faults
of the profile "transactions". One of the topics may have a single replica, so that it is offline now and then.

Who writes them, and what is promised to readers of committed records, is in `routed_clients`.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kraft.coordinators import routed
from tests.simulation import transactional_plan

if TYPE_CHECKING:
    from tests.simulation.plan import Plan

PROFILE = "routed"
EVENTS = transactional_plan.EVENTS
TOPICS = ("mails", "ledger", "audit")
TIMEOUT_MS = 2_000
"""The timeout of a transaction; the product has half a minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedPlan:
    topics: tuple[str, ...]
    producers: int
    pause_ms: int
    records: int

    def __str__(self) -> str:
        return f"{self.producers} producers to {' and '.join(self.topics)}, every {self.pause_ms} ms {self.records}"


def made_routed(plan: Plan) -> Plan:
    from tests.simulation.plan import TopicPlan

    rng = random.Random(f"{plan.profile} {plan.seed}")
    names = TOPICS[: rng.choice((2, 2, 3))]
    factors = (3, rng.choice((1, 3)), 3)
    topics = tuple(
        TopicPlan(
            name=name,
            partitions=rng.choice((1, 2)),
            replication_factor=factor,
            configs={"min.insync.replicas": str(min(factor, 2))},
        )
        for name, factor in zip(names, factors, strict=False)
    )
    made = transactional_plan.made_transactional(plan)
    drawn = RoutedPlan(
        topics=names,
        producers=rng.choice((2, 3)),
        pause_ms=rng.choice((30, 150)),
        records=rng.choice((1, 3)),
    )
    return replace(made, topics=(*plan.topics[:1], *topics), routed=drawn)


@contextlib.contextmanager
def short_transactions(profile: str) -> Iterator[None]:
    usual = routed.TRANSACTION_TIMEOUT_MS
    if profile == PROFILE:
        routed.TRANSACTION_TIMEOUT_MS = TIMEOUT_MS
    try:
        yield
    finally:
        routed.TRANSACTION_TIMEOUT_MS = usual
