"""The plan of one seed: topology, settings, topics, clients, and the list of events.

Everything that a run does on purpose is in the plan, so that a failing run can be cut down: events are dropped from
the list and the rest is played again, with the same numbers for all else.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from kraft.config.models import Role
from kraft.protocol.primitives import SettingValue
from tests.simulation import decay_plan
from tests.simulation.delayed_plan import DelayedPlan
from tests.simulation.queue_plan import QueuePlan
from tests.simulation.routed_plan import RoutedPlan
from tests.simulation.stateful_plan import StatefulPlan


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happens to the cluster. The numbers choose nodes, topics and amounts, whatever is there then."""

    at_ms: int
    kind: str
    lasts_ms: int
    numbers: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.at_ms:6d} ms  {self.kind} for {self.lasts_ms} ms, numbers {list(self.numbers)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicPlan:
    name: str
    partitions: int
    replication_factor: int
    configs: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerPlan:
    name: str
    topic: int
    acks: int
    in_flight: int
    retries: int
    pause_ms: int
    records: int
    timeout_ms: int
    value_bytes: int = 0
    """Values are at least so long: batches of several sectors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strangeness:
    """What came later than the first profiles, drawn from a stream of its own; all of it is off in those."""

    hop_us: tuple[int, int] = (0, 0)
    """A call between a voter's two loops, which are threads in production, takes so long."""
    link_factor_max: int = 1
    """Each direction of each link is up to so many times slower than `latency_us`."""
    tears_sectors: bool = False
    """A loss of power keeps any sectors of an unsynced write, and not only its first ones."""
    turn_us: int = 0
    """What arrives within that time is handled in one turn of a loop."""
    synced_topics: bool = False
    """All topics have flush.messages=1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    seed: int
    profile: str
    roles: tuple[tuple[Role, ...], ...]
    rates: tuple[float, ...]
    settings: Mapping[str, SettingValue]
    topics: tuple[TopicPlan, ...]
    producers: tuple[ProducerPlan, ...]
    readers: int
    latency_us: tuple[int, int]
    sync_us: tuple[int, int]
    down_max: int
    """At most so many nodes are taken away at the same time, except by a blackout."""
    faults_ms: int
    strange: Strangeness = Strangeness()
    remembered: StatefulPlan | None = None
    queues: QueuePlan | None = None
    delayed: DelayedPlan | None = None
    routed: RoutedPlan | None = None
    events: tuple[Event, ...] = field(default=())

    @property
    def is_new(self) -> bool:
        """Its voters have never met when the run begins."""
        return self.profile == decay_plan.PROFILE and self.seed % 2 == 0

    @property
    def voters(self) -> tuple[int, ...]:
        return tuple(number for number, roles in enumerate(self.roles, start=1) if "controller" in roles)

    @property
    def brokers(self) -> tuple[int, ...]:
        return tuple(number for number, roles in enumerate(self.roles, start=1) if "broker" in roles)

    def latency_us_of(self, one: str, other: str) -> tuple[int, int]:
        """The latency from one host to the other."""
        low, high = self.latency_us
        factor = random.Random(f"{self.seed} link {one} {other}").randint(1, self.strange.link_factor_max)
        return low * factor, high * factor

    def with_events(self, events: tuple[Event, ...]) -> Plan:
        return replace(self, events=events)

    def __str__(self) -> str:
        nodes = ", ".join(f"{n}: {'+'.join(roles)}" for n, roles in enumerate(self.roles, start=1))
        lines = [
            f"seed {self.seed}, profile {self.profile}; nodes {nodes}; at most {self.down_max} away at once",
            *([] if self.strange == Strangeness() else [str(self.strange)]),
            *([] if self.remembered is None else [str(self.remembered)]),
            *([] if self.queues is None else [str(self.queues)]),
            *([] if self.delayed is None else [str(self.delayed)]),
            *([] if self.routed is None else [str(self.routed)]),
            "settings " + ", ".join(f"{name}={value}" for name, value in self.settings.items()),
            *(f"topic {t.name}: {t.partitions} x {t.replication_factor} {dict(t.configs)}" for t in self.topics),
            *(
                f"producer {p.name}: acks={p.acks}, in flight {p.in_flight}, retries {p.retries}"
                for p in self.producers
            ),
        ]
        return "\n".join(lines)
