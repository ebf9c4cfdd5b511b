"""What a seed of the profiles "transactions" and "pipelined" draws: three brokers or more, faults that it can outlive.

Who writes the transactions is in `transactional` and `pipeliner`. In "pipelined" the epochs of a producer id are few,
so that a run meets their end many times.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from kraft.coordinators.transactions import decide, state

if TYPE_CHECKING:
    from tests.simulation.plan import Plan

PROFILE = "transactions"
PIPELINED = "pipelined"
PROFILES = (PROFILE, PIPELINED)
LAST_CLIENT_EPOCH = 7
EVENTS = (
    *("kill_leader",) * 3,
    *("kill", "kill", "restart", "isolate", "isolate", "cut", "split", "pause", "slow_link", "power_loss"),
    *("elect_preferred", "rolling_restart", "kill_controller", "disk_full"),
)
TOPIC = "transactional"
_PARTITIONS = {PROFILE: (1, 2, 3), PIPELINED: (3, 4, 6)}


def made_transactional(plan: Plan) -> Plan:
    """Three brokers at least, all that transactions need synced by two of them."""
    from tests.simulation.plan import TopicPlan

    rng = random.Random(f"{plan.profile} {plan.seed}")
    configs = {"min.insync.replicas": "2"}
    own = TopicPlan(name=TOPIC, partitions=rng.choice(_PARTITIONS[plan.profile]), replication_factor=3, configs=configs)
    settings = {
        "transaction.state.log.num.partitions": rng.choice((1, 2)),
        "transaction.state.log.replication.factor": 3,
        "transaction.state.log.min.isr": 2,
        "offsets.topic.num.partitions": 1,
        "offsets.topic.replication.factor": 3,
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": 200,
    }
    return replace(
        plan,
        settings={**plan.settings, **settings},
        topics=(*plan.topics[:1], own),
        producers=tuple(replace(each, topic=0) for each in plan.producers[:1]),
        down_max=1,
    )


@contextlib.contextmanager
def few_epochs(profile: str) -> Iterator[None]:
    """In "pipelined" a producer id has `LAST_CLIENT_EPOCH` epochs while this is open."""
    usual = state.LAST_CLIENT_EPOCH
    if profile == PIPELINED:
        state.LAST_CLIENT_EPOCH = decide.LAST_CLIENT_EPOCH = LAST_CLIENT_EPOCH
    try:
        yield
    finally:
        state.LAST_CLIENT_EPOCH = decide.LAST_CLIENT_EPOCH = usual
