"""What a seed of the profile "transactions" draws: three brokers at least, and faults that transactions outlive.

Who writes the transactions is in `transactional`.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.plan import Plan

PROFILE = "transactions"
EVENTS = (
    *("kill_leader",) * 3,
    *("kill", "kill", "restart", "isolate", "isolate", "cut", "split", "pause", "slow_link", "power_loss"),
    *("elect_preferred", "rolling_restart", "kill_controller", "disk_full"),
)
TOPIC = "transactional"


def made_transactional(plan: Plan) -> Plan:
    """Three brokers at least, all that transactions need synced by two of them."""
    from tests.simulation.plan import TopicPlan

    rng = random.Random(f"transactions {plan.seed}")
    configs = {"min.insync.replicas": "2"}
    own = TopicPlan(name=TOPIC, partitions=rng.choice((1, 2, 3)), replication_factor=3, configs=configs)
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
