"""How a seed draws its plan (swarm testing): some events of its profile, and its own rates, sizes and timeouts."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable
from dataclasses import replace

from kraft.config.models import Role
from kraft.protocol.primitives import SettingValue
from tests.simulation import (
    delayed_plan,
    headless_plan,
    pieces_plan,
    queue_plan,
    rare_plan,
    routed_plan,
    transactional_plan,
    usual_plan,
)
from tests.simulation.plan import Event, Plan, ProducerPlan, Strangeness, TopicPlan
from tests.simulation.profiles import PROFILES, STRANGE
from tests.simulation.stateful_plan import PROFILE as STATEFUL_PROFILE
from tests.simulation.stateful_plan import RESTLESS, draw_stateful

FAULTS_MS = (2_500, 8_000)
ELECTION_TIMEOUT = "controller.quorum.election.timeout.ms"
BATCH_BYTES = 100
"""The records of a batch with short values."""
CAUGHT_UP_PER_S = 200
"""Batches that a follower can fetch in a second over the slowest link: more than producers send."""


def draw_plan(seed: int, profile: str = "swarm") -> Plan:
    rng = random.Random(f"{profile} {seed}")
    roles = _roles(rng)
    brokers = sum("broker" in each for each in roles)
    topics = tuple(_topic(rng, f"topic-{i}", brokers, profile) for i in range(rng.choice((1, 1, 2, 3))))
    plan = Plan(
        seed=seed,
        profile=profile,
        roles=roles,
        rates=tuple(rng.uniform(0.97, 1.03) for _ in roles),
        settings=_settings(rng),
        topics=topics,
        producers=tuple(_producer(rng, f"p{i}", len(topics)) for i in range(rng.choice((1, 2, 2, 3)))),
        readers=rng.choice((0, 1, 1)),
        latency_us=rng.choice(((50, 200), (100, 1_000), (500, 15_000))),
        sync_us=rng.choice(((50, 500), (100, 2_000), (1_000, 30_000))),
        down_max=rng.choice((1, 1, 2, brokers)),
        faults_ms=rng.randint(*FAULTS_MS),
    )
    plan = plan.with_events(_events(rng, plan))
    remembered = draw_stateful(seed, profile, topics=len(topics))
    if remembered is not None:
        plan = replace(plan, remembered=remembered, settings={**plan.settings, **remembered.settings})
    if profile in (STATEFUL_PROFILE, RESTLESS, headless_plan.PROFILE):
        plan = replace(plan, producers=plan.producers[:1])
    if profile == headless_plan.PROFILE:
        return headless_plan.made_headless(plan)
    if profile in transactional_plan.PROFILES:
        return transactional_plan.made_transactional(plan)
    if profile == queue_plan.PROFILE:
        return queue_plan.made_queues(plan)
    if profile == delayed_plan.PROFILE:
        return delayed_plan.made_delayed(plan)
    if profile == routed_plan.PROFILE:
        return routed_plan.made_routed(plan)
    if profile == rare_plan.PROFILE:
        return rare_plan.made_rare(plan)
    if profile == usual_plan.PROFILE:
        return usual_plan.made_usual(plan)
    if profile == pieces_plan.PROFILE:
        return pieces_plan.made_in_pieces(plan)
    return _made_strange(plan) if profile in STRANGE else plan


def _made_strange(plan: Plan) -> Plan:
    rng = random.Random(f"strange {plan.profile} {plan.seed}")
    is_torn = plan.profile == "torn"
    strange = Strangeness(
        hop_us=rng.choice(((0, 0), (10, 1_000), (100, 20_000), (1_000, 150_000))),
        link_factor_max=rng.choice((1, 1, 5, 20)),
        tears_sectors=is_torn,
        synced_topics=is_torn and rng.random() < 0.5,
    )
    topics = tuple(_strange_topic(rng, topic, plan.profile, is_synced=strange.synced_topics) for topic in plan.topics)
    if plan.profile == "stranded":  # its brokers can sleep without the quorum noticing
        voters, brokers = rng.choice((1, 3)), rng.choice((3, 4))
        roles: tuple[tuple[Role, ...], ...] = (("controller",),) * voters + (("broker",),) * brokers
        plan = replace(plan, roles=roles, rates=tuple(rng.uniform(0.97, 1.03) for _ in roles))
    value_bytes = rng.choice((0, 700, 1_800, 3_000)) if is_torn else 0
    producers = tuple(replace(producer, value_bytes=value_bytes) for producer in plan.producers)
    return _made_patient(replace(plan, strange=strange, topics=topics, producers=producers))


def _made_patient(plan: Plan) -> Plan:
    """A node whose timeouts for votes (Raft 5.6) or answers are shorter than the latency considers the others dead for
    ever. An answer of the controller waits for its commit: two round trips. A follower that fetches two batches each
    time never catches up with producers that send hundreds in that time."""
    slowest_ms = _slowest_ms(plan, range(1, len(plan.roles) + 1))
    every_ms = slowest_ms + 2 * plan.strange.hop_us[1] // 1_000
    batch_bytes = BATCH_BYTES + max(producer.records * producer.value_bytes for producer in plan.producers)
    floors = {
        ELECTION_TIMEOUT: _slowest_ms(plan, plan.voters),
        "broker.session.timeout.ms": 4 * every_ms,  # a heartbeat has half of it
        "replica.socket.timeout.ms": 2 * every_ms,
        "replica.fetch.max.bytes": slowest_ms * batch_bytes * CAUGHT_UP_PER_S // 1_000,
    }
    patient = {name: max(int(str(plan.settings[name])), floor) for name, floor in floors.items()}
    return replace(plan, settings={**plan.settings, **patient})


def _slowest_ms(plan: Plan, nodes: Iterable[int]) -> int:
    """There and back, between any two of them."""
    pairs = itertools.combinations([f"node-{number}" for number in nodes], 2)
    ways_us = [plan.latency_us_of(one, two)[1] + plan.latency_us_of(two, one)[1] for one, two in pairs]
    return max(ways_us, default=0) // 1_000


def _roles(rng: random.Random) -> tuple[tuple[Role, ...], ...]:
    both: tuple[Role, ...] = ("broker", "controller")
    brokers = rng.choice((3, 3, 3, 4, 5))
    if rng.random() < 0.7:
        voters = rng.choice((1, 3, 3, 3)) if brokers < 5 else rng.choice((3, 5))
        return tuple(both if number < voters else ("broker",) for number in range(brokers))
    return (*(("controller",) for _ in range(rng.choice((1, 3)))), *(("broker",) for _ in range(min(brokers, 4))))


def _settings(rng: random.Random) -> dict[str, SettingValue]:
    session_ms = rng.choice((600, 1_500, 3_000))
    settings: dict[str, SettingValue] = {
        ELECTION_TIMEOUT: rng.choice((100, 200, 400)),
        "broker.session.timeout.ms": session_ms,
        "broker.heartbeat.interval.ms": session_ms // 5,
        "broker.probe.timeout.ms": rng.choice((50, 200)),
        "replica.lag.time.max.ms": rng.choice((200, 600, 2_000)),
        "replica.fetch.wait.max.ms": rng.choice((20, 100, 500)),
        "replica.fetch.backoff.ms": rng.choice((20, 200)),
        "replica.socket.timeout.ms": rng.choice((500, 2_000)),
        "replica.fetch.max.bytes": rng.choice((200, 2_000, 1_048_576)),
        "replica.high.watermark.checkpoint.interval.ms": rng.choice((100, 500, 2_000)),
        "log.flush.offset.checkpoint.interval.ms": rng.choice((200, 1_000, 10_000)),
        "log.segment.bytes": rng.choice((300, 2_000, 20_000)),
        "log.index.interval.bytes": rng.choice((0, 200, 4_096)),
        "log.segment.delete.delay.ms": rng.choice((0, 500, 2_000)),
        "metadata.log.max.record.bytes.between.snapshots": rng.choice((1_024, 4_000, 20_971_520)),
        "unclean.leader.election.interval.ms": 1_000,
        "unclean.recovery.timeout.ms": rng.choice((50, 300)),
        "leader.imbalance.check.interval.seconds": rng.choice((1, 300)),
        "controlled.shutdown.timeout.ms": rng.choice((500, 3_000)),
        "initial.broker.registration.timeout.ms": 600_000,
    }
    if rng.random() < 0.3:
        settings["max.incremental.fetch.session.cache.slots"] = rng.choice((0, 1, 2))
    return settings


def _topic(rng: random.Random, name: str, brokers: int, profile: str) -> TopicPlan:
    factor = rng.choice((1, 2, 3, 3, 3, brokers))
    configs = {"min.insync.replicas": str(rng.choice((1, 2, 2, 3)))}
    if rng.random() < 0.25:
        configs["flush.messages"] = "1"
    if rng.random() < (0.7 if profile == "unclean" else 0.2):
        configs["unclean.leader.election.enable"] = "true"
    if rng.random() < 0.15:
        configs["segment.bytes"] = "300"
    return TopicPlan(
        name=name, partitions=rng.choice((1, 1, 2, 3)), replication_factor=min(factor, brokers), configs=configs
    )


def _producer(rng: random.Random, name: str, topics: int) -> ProducerPlan:
    return ProducerPlan(
        name=name,
        topic=rng.randrange(topics),
        acks=rng.choice((-1, -1, -1, 1, 0)),
        in_flight=rng.choice((1, 1, 3, 5)),
        retries=rng.choice((0, 0, 3)),
        pause_ms=rng.choice((30, 80, 240)),
        records=rng.choice((1, 1, 3)),
        timeout_ms=rng.choice((300, 1_000, 3_000)),
    )


def _events(rng: random.Random, plan: Plan) -> tuple[Event, ...]:
    known = PROFILES[plan.profile]
    kinds = sorted(rng.sample(known, rng.randint(min(2, len(known)), max(2, min(len(known), 9)))))
    count = rng.randint(2, max(3, plan.faults_ms // rng.choice((250, 500, 1_000))))
    longest_ms = rng.choice((300, 1_500, 4_000))
    events = [
        Event(
            at_ms=rng.randint(0, plan.faults_ms),
            kind=rng.choice(kinds),
            lasts_ms=rng.randint(0, longest_ms),
            numbers=tuple(rng.randrange(10_000) for _ in range(4)),
        )
        for _ in range(count)
    ]
    return tuple(sorted(events, key=lambda event: event.at_ms))


def _strange_topic(rng: random.Random, topic: TopicPlan, profile: str, *, is_synced: bool) -> TopicPlan:
    configs = dict(topic.configs)
    if is_synced:
        configs["flush.messages"] = "1"
    if profile != "stranded":
        return replace(topic, configs=configs)
    configs["unclean.leader.election.enable"] = rng.choice(("true", "true", "true", "false"))
    configs["min.insync.replicas"] = rng.choice(("1", "1", "2"))  # 1: the high watermark goes on with a lone leader
    return replace(topic, replication_factor=3, configs=configs)
