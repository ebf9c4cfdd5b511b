"""What a seed of the profile "rare" draws: stories that random faults hardly ever tell (see `coincidences`).

The stories need three voters, and a topic of several synced partitions on three brokers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kraft.config.models import Role
    from tests.simulation.plan import Plan

PROFILE = "rare"
EVENTS = (
    *("overtaken_append",) * 3,
    *("min_isr_raised_in_flush",) * 3,
    *("kill", "pause", "isolate", "restart", "create_topic", "elect_preferred", "slow_fsync"),
)

_BOTH: tuple[Role, ...] = ("broker", "controller")
_CONFIGS = {"flush.messages": "1", "min.insync.replicas": "2"}


def made_rare(plan: Plan) -> Plan:
    first, *others = plan.topics
    first = replace(first, partitions=4, replication_factor=3, configs=_CONFIGS)
    return replace(plan, roles=(_BOTH,) * 3, rates=(*plan.rates, 1.0, 1.0)[:3], topics=(first, *_fitting(others)))


def _fitting(topics: list) -> list:  # type: ignore[type-arg]
    return [replace(topic, replication_factor=min(3, topic.replication_factor)) for topic in topics]
