"""The clients with state at brokers that a seed draws: idempotent producers, Idempotency-Keys, members of groups.

Drawn from a stream of its own, and only in runs of the profiles "groups", "restless" and "headless" and in every
seventh of "swarm": the plans of all other runs are what they would be without it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

from kraft.protocol.primitives import SettingValue

PROFILE = "groups"
RESTLESS = "restless"
"""The profile whose members crash and sleep again and again, most of them with a name that they keep: what a
coordinator refuses, and whom it fences, is met in nearly each of its runs."""
RESTLESS_MISHAPS = (0.05, 0.15)
RESTLESS_STATIC = 0.6
RESTLESS_LATE_COMMITS = 0.5
HEADLESS = "headless"
"""The profile whose coordinators have to prove that they lead, for many members at once."""
SWARM_EVERY, SWARM_AT = 7, 4
"""Swarm seeds that draw such clients: those with this remainder."""
SESSIONS_MS = (1_000, 2_000, 3_000)
PROTOCOLS = ("range", "roundrobin", "sticky")


@dataclass(frozen=True, slots=True, kw_only=True)
class SequencedPlan:
    """A producer with a producer id of the cluster's, as Kafka's idempotent one."""

    name: str
    topic: int
    acks: int
    in_flight: int
    lanes: int
    pause_ms: int
    records: int
    timeout_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyedPlan:
    """A client that gives each request an Idempotency-Key."""

    name: str
    topic: int
    acks: int
    pause_ms: int
    records: int
    partitions: int
    size_max: int
    """Records of one request and partition that are longer become several batches."""
    retries: int
    repeats: float
    """Share of its requests that are one it has sent before."""
    timeout_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberPlan:
    name: str
    is_rest: bool
    instance_id: str | None
    session_ms: int
    rebalance_ms: int
    mishaps: float
    """Chance of a pause, a leave or a crash at each round of reading."""
    commits: float
    late_commits: float = 0.0
    """Chance that a commit of the generation before is still on its way when the next one has begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupPlan:
    name: str
    topics: tuple[int, ...]
    protocols: tuple[str, ...]
    members: tuple[MemberPlan, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StatefulPlan:
    sequenced: tuple[SequencedPlan, ...]
    keyed: tuple[KeyedPlan, ...]
    groups: tuple[GroupPlan, ...]
    settings: Mapping[str, SettingValue]
    has_onlookers: bool = False
    """Onlookers of each node, and committers of the offsets that they fetch; and a coordinator is isolated. In every
    other run of headless."""

    def __str__(self) -> str:
        producers = [f"{p.name}: acks={p.acks}, in flight {p.in_flight}, lanes {p.lanes}" for p in self.sequenced]
        keyed = [f"{p.name}: acks={p.acks}, partitions {p.partitions}, retries {p.retries}" for p in self.keyed]
        groups = [
            f"group {g.name}: " + ", ".join(f"{m.name} ({m.instance_id or m.session_ms})" for m in g.members)
            for g in self.groups
        ]
        return "\n".join([f"remembered {dict(self.settings)}", *producers, *keyed, *groups])


def draw_stateful(seed: int, profile: str, *, topics: int) -> StatefulPlan | None:
    if profile not in (PROFILE, RESTLESS, HEADLESS) and (profile != "swarm" or seed % SWARM_EVERY != SWARM_AT):
        return None
    rng = random.Random(f"{profile} {seed} remembered")
    is_main = profile != "swarm"
    plan = StatefulPlan(
        sequenced=tuple(_sequenced(rng, f"s{i}", topics) for i in range(rng.choice((0, 1, 1)))),
        keyed=tuple(_keyed(rng, f"k{i}", topics) for i in range(rng.choice((0, 1, 1)))),
        groups=tuple(_group(rng, f"g{i}", topics) for i in range(rng.choice((1, 1, 2) if is_main else (0, 1)))),
        settings=_settings(rng),
    )
    if profile == HEADLESS:
        return replace(_made_crowded(rng, plan, topics), has_onlookers=seed % 2 == 1)
    return _made_restless(rng, plan) if profile == RESTLESS else plan


def _made_crowded(rng: random.Random, plan: StatefulPlan, topics: int) -> StatefulPlan:
    """Enough members at one coordinator that their requests come while one of them is being proven."""
    groups = tuple(_crowd(rng, f"g{i}", topics) for i in range(rng.choice((2, 3))))
    settings = {**plan.settings, "offsets.topic.num.partitions": 1}
    return replace(plan, groups=groups, settings=settings)


def _crowd(rng: random.Random, name: str, topics: int) -> GroupPlan:
    members = tuple(_member(rng, f"{name}-m{i}", is_rest=rng.random() < 0.6, mishaps=0.0) for i in range(5))
    return GroupPlan(name=name, topics=tuple(range(topics)), protocols=PROTOCOLS, members=members)


def _made_restless(rng: random.Random, plan: StatefulPlan) -> StatefulPlan:
    mishaps = rng.choice(RESTLESS_MISHAPS)
    groups = [
        replace(group, members=tuple(_restless_member(rng, member, mishaps) for member in group.members))
        for group in plan.groups
    ]
    return replace(plan, groups=tuple(groups))


def _restless_member(rng: random.Random, member: MemberPlan, mishaps: float) -> MemberPlan:
    is_static = not member.is_rest and rng.random() < RESTLESS_STATIC
    instance_id = f"{member.name}-static" if is_static else None
    return replace(member, mishaps=mishaps, instance_id=instance_id, late_commits=RESTLESS_LATE_COMMITS)


def _settings(rng: random.Random) -> dict[str, SettingValue]:
    return {
        "offsets.topic.num.partitions": rng.choice((1, 2, 3)),
        "offsets.topic.segment.bytes": rng.choice((2_000, 20_000, 104_857_600)),
        "offsets.commit.timeout.ms": rng.choice((300, 1_000, 5_000)),
        "group.min.session.timeout.ms": 500,
        "group.initial.rebalance.delay.ms": rng.choice((0, 0, 300)),
        "log.cleaner.backoff.ms": rng.choice((200, 15_000)),
    }


def _sequenced(rng: random.Random, name: str, topics: int) -> SequencedPlan:
    return SequencedPlan(
        name=name,
        topic=rng.randrange(topics),
        acks=rng.choice((-1, -1, -1, 1)),
        in_flight=rng.choice((1, 3, 5, 5)),
        lanes=rng.choice((1, 2)),
        pause_ms=rng.choice((80, 240)),
        records=rng.choice((1, 1, 3)),
        timeout_ms=rng.choice((300, 1_000, 3_000)),
    )


def _keyed(rng: random.Random, name: str, topics: int) -> KeyedPlan:
    return KeyedPlan(
        name=name,
        topic=rng.randrange(topics),
        acks=rng.choice((-1, -1, -1, 1)),
        pause_ms=rng.choice((80, 240)),
        records=rng.choice((1, 2, 4)),
        partitions=rng.choice((1, 1, 2)),
        size_max=rng.choice((90, 1_000_000)),
        retries=rng.choice((3, 10)),
        repeats=rng.choice((0.1, 0.5)),
        timeout_ms=rng.choice((300, 1_000, 3_000)),
    )


def _group(rng: random.Random, name: str, topics: int) -> GroupPlan:
    count = rng.choice((1, 2, 3, 4))
    classic = rng.choice((0, count, count, rng.randint(0, count)))
    mishaps = rng.choice((0.0, 0.01, 0.03))
    members = tuple(_member(rng, f"{name}-m{i}", is_rest=i >= classic, mishaps=mishaps) for i in range(count))
    return GroupPlan(
        name=name,
        topics=tuple(sorted(rng.sample(range(topics), rng.randint(1, topics)))),
        protocols=tuple(rng.sample(PROTOCOLS, rng.randint(1, len(PROTOCOLS)))),
        members=members,
    )


def _member(rng: random.Random, name: str, *, is_rest: bool, mishaps: float) -> MemberPlan:
    is_static = not is_rest and rng.random() < 0.3
    return MemberPlan(
        name=name,
        is_rest=is_rest,
        instance_id=f"{name}-static" if is_static else None,
        session_ms=rng.choice(SESSIONS_MS),
        rebalance_ms=rng.choice(SESSIONS_MS),
        mishaps=mishaps,
        commits=rng.choice((0.3, 1.0)),
    )
