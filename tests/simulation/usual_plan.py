"""What a seed of the profile "usual" draws: three nodes with the settings that users have, and faults that last long
enough to matter to them.

The other profiles shrink every wait, so that rare paths are common; no seed of theirs ever has a broker's session of
nine seconds, a fetch that waits for half a second, or a segment that does not roll.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kraft.config.models import Role
    from tests.simulation.plan import Event, Plan

PROFILE = "usual"
EVENTS = (
    *("kill", "kill_leader", "kill_controller", "restart", "rolling_restart", "pause", "power_loss", "blackout"),
    *("isolate", "cut", "split", "slow_link", "reset", "cut_message", "disk_full", "slow_fsync"),
    *("create_topic", "grow_topic", "set_min_isr", "reassign", "elect_preferred", "clock_jump"),
)
FAULTS_MS = (15_000, 45_000)
LASTS_MS = (1_000, 12_000)
"""Up to more than a broker's session: the longest are taken for dead, the others only for slow."""

_BOTH: tuple[Role, ...] = ("broker", "controller")
_CONFIGS = {"min.insync.replicas": "2"}


def made_usual(plan: Plan) -> Plan:
    rng = random.Random(f"usual {plan.seed}")
    faults_ms = rng.randint(*FAULTS_MS)
    stretched = tuple(_stretched(rng, event, faults_ms / plan.faults_ms) for event in plan.events)
    return replace(
        plan,
        roles=(_BOTH,) * 3,
        rates=tuple(rng.uniform(0.999, 1.001) for _ in range(3)),
        settings={},
        topics=tuple(replace(topic, replication_factor=3, configs=_CONFIGS) for topic in plan.topics),
        latency_us=(50, 200),
        sync_us=(50, 500),
        down_max=1,
        faults_ms=faults_ms,
        events=stretched,
    )


def _stretched(rng: random.Random, event: Event, factor: float) -> Event:
    return replace(event, at_ms=int(event.at_ms * factor), lasts_ms=rng.randint(*LASTS_MS))
