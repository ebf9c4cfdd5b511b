"""What a seed of the profile "headless" draws: groups that go on while there is no controller, and nodes that hang.

While the quorum is away, or so much of it that it commits nothing, the sessions of brokers run out, and coordinators
prove with each request that they still lead. One that is cut off for longer than its session is relieved, and is asked
all the same. A hung node's main loop stands still while its Raft half goes on: it is not to lead, and some are past
help and end themselves.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.simulation.plan import Event, Plan

if TYPE_CHECKING:
    from kraft.config.models import Role

PROFILE = "headless"
EVENTS = (
    *("no_controllers",) * 4,
    *("hang_controller",) * 4,
    "hang",
    *("kill_controller", "kill_leader", "pause", "restart", "isolate", "slow_link", "grow_topic"),
)
_END_MS = (1_000, 1_000, 120_000)
_TURNS_US = (0, 1_000, 5_000, 5_000)
_ALWAYS = ("hang_controller", "no_controllers")
"""Once in each run, beside what is drawn."""


def made_headless(plan: Plan) -> Plan:
    rng = random.Random(f"headless {plan.seed}")
    both: tuple[Role, ...] = ("broker", "controller")
    apart: tuple[tuple[Role, ...], ...] = (("controller",),) * rng.choice((1, 3)) + (("broker",),) * 3
    roles = rng.choice((apart, apart, (both,) * 3))
    always = [
        Event(
            at_ms=plan.faults_ms * number // 3,
            kind=kind,
            lasts_ms=rng.randint(1_500, 4_000),
            numbers=(rng.randrange(10_000), 1 + 2 * rng.randrange(2), rng.randrange(10_000), 0),
        )
        for number, kind in enumerate(_ALWAYS)
    ]
    if plan.remembered is not None and plan.remembered.has_onlookers:
        always.append(_isolation(plan))
    return replace(
        plan,
        events=tuple(sorted((*plan.events, *always), key=lambda event: event.at_ms)),
        roles=roles,
        rates=tuple(rng.uniform(0.97, 1.03) for _ in roles),
        settings={**plan.settings, "node.hang.timeout.ms": rng.choice(_END_MS)},
        topics=tuple(replace(topic, replication_factor=min(3, topic.replication_factor)) for topic in plan.topics),
        down_max=min(plan.down_max, 2),
        strange=replace(plan.strange, turn_us=rng.choice(_TURNS_US)),
    )


def _isolation(plan: Plan) -> Event:
    """The isolation of a coordinator, long enough for the next one to take over and commit."""
    rng = random.Random(f"relieved {plan.seed}")
    session_ms = int(str(plan.settings["broker.session.timeout.ms"]))
    return Event(
        at_ms=plan.faults_ms + rng.randint(0, 1_000),  # for it takes controllers to relieve it
        kind="isolate_coordinator",
        lasts_ms=2 * session_ms + rng.randint(1_000, 5_000),
        numbers=(rng.randrange(10_000), 0, 0, 0),
    )
