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
    from tests.simulation.plan import Event, Plan

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
DEPOSED_EVERY = 10
"""One seed of so many deposes leaders that come back."""
_PARTITIONS = {PROFILE: (1, 2, 3), PIPELINED: (3, 4, 6)}


def made_transactional(plan: Plan) -> Plan:
    """Three brokers at least, all that transactions need synced by two of them."""
    from tests.simulation.plan import TopicPlan

    rng = random.Random(f"{plan.profile} {plan.seed}")
    configs = {"min.insync.replicas": "2"}
    own = TopicPlan(
        name=TOPIC, partitions=rng.choice(_PARTITIONS.get(plan.profile, (1,))), replication_factor=3, configs=configs
    )
    settings = {
        "transaction.state.log.num.partitions": rng.choice((1, 2)),
        "transaction.state.log.replication.factor": 3,
        "transaction.state.log.min.isr": 2,
        "offsets.topic.num.partitions": 1,
        "offsets.topic.replication.factor": 3,
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": 200,
    }
    deposed = _deposed(plan) if plan.profile == PROFILE and plan.seed % DEPOSED_EVERY == DEPOSED_EVERY - 1 else ()
    return replace(
        plan,
        events=tuple(sorted((*plan.events, *deposed), key=lambda event: event.at_ms)),
        settings={**plan.settings, **settings},
        topics=(*plan.topics[:1], own),
        producers=tuple(replace(each, topic=0) for each in plan.producers[:1]),
        down_max=1,
    )


def _deposed(plan: Plan) -> Iterator[Event]:
    """Twice: a leader hears of no successor, then cuts its log, where a transaction may be open, and leads again."""
    from tests.simulation.plan import Event

    session_ms = int(str(plan.settings["broker.session.timeout.ms"]))
    for number in range(2):
        at_ms = 600 + number * (session_ms + 3_500)
        partition = (plan.seed * 7 + number * 3, 0, 0, 0)
        yield Event(at_ms=at_ms, kind="depose_leader", lasts_ms=session_ms + 1_500, numbers=partition)
        yield Event(at_ms=at_ms + session_ms + 2_600, kind="elect_preferred", lasts_ms=0, numbers=(0, 0, 0, 0))


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
