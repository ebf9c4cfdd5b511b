"""The topics, clients and settings of a soak. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from kraft.chaos import model
from kraft.chaos.worlds.processes.pace import Pace
from kraft.protocol.primitives import SettingValue

PLAIN: Final = "soak-plain"
IDEMPOTENT: Final = "soak-idempotent"
GROUP_TOPIC: Final = "soak-group"
WIDE: Final = "soak-wide"
GROUP: Final = "soak"
WATCHED: Final = {PLAIN: 2, IDEMPOTENT: 2, GROUP_TOPIC: 3}
"""Topic -> partitions, for topics with readers and members; samples of their leaders are taken."""
WIDE_PARTITIONS: Final = 200
"""The partitions of one wide topic; their number follows from the options."""
MEMBER_PLACES: Final = 3
RETRIES: Final = 1_000
PARTITIONS_DEFAULT: Final = 1_000
RATE_DEFAULT: Final = 60
PACE_S_DEFAULT: Final = 6.0

SETTINGS: Final[Mapping[str, SettingValue]] = {
    "broker.heartbeat.interval.ms": 1_000,
    "broker.session.timeout.ms": 6_000,
    "replica.lag.time.max.ms": 5_000,
    "replica.fetch.wait.max.ms": 500,
    "replica.fetch.backoff.ms": 250,
    "default.replication.factor": 3,
    "min.insync.replicas": 2,
    "offsets.topic.num.partitions": 6,
    "group.initial.rebalance.delay.ms": 0,
    "metadata.log.max.record.bytes.between.snapshots": 2_000_000,
    "producer.id.expiration.ms": 600_000,
    "producer.id.expiration.check.interval.ms": 30_000,
}
"""Timeouts between those of a story of seconds and those of a data center. An Idempotency-Key expires after ten
minutes, and a snapshot replaces the metadata log after 2 MB, so that nodes need no more memory after hours than after
minutes."""
TOPIC_SETTINGS: Final[Mapping[str, SettingValue]] = {"retention.ms": -1, "segment.bytes": 1_048_576}


def is_judged(topic: str) -> bool:
    return topic.startswith("soak-")


PACE: Final = Pace(
    poll_ms=250,
    sample_ms=4_000,
    is_sampled=lambda topic: topic in WATCHED,
    ask_timeout_ms=10_000,
    start_limit_ms=180_000,
    stop_limit_ms=60_000,
    change_limit_ms=120_000,
    change_timeout_ms=30_000,
)
"""A look at a thousand partitions takes as long as three produces, on three nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SoakOptions:
    minutes: float
    seed: int = 1
    partitions: int = PARTITIONS_DEFAULT
    """The number of partitions of all topics together; each has three replicas."""
    rate: int = RATE_DEFAULT
    """Records per second of all producers together."""
    pace_s: float = PACE_S_DEFAULT
    """Mean time between two faults."""


def topics_of(options: SoakOptions) -> dict[str, int]:
    """Topic -> its number of partitions."""
    topics, left = dict(WATCHED), options.partitions - sum(WATCHED.values())
    number = 0
    while left > 0:
        topics[f"{WIDE}-{number}"] = min(left, WIDE_PARTITIONS)
        left -= WIDE_PARTITIONS
        number += 1
    return topics


def clients_of(options: SoakOptions) -> tuple[model.Client, ...]:
    """The clients. Half of the records go to the plain and the idempotent topic, the rest to the topic of the group and
    to the wide ones."""
    topics = topics_of(options)
    wide = [topic for topic in topics if topic.startswith(WIDE)]
    share = max(1, options.rate // 6)
    clients: list[model.Client] = [
        *_producers("plain", PLAIN, count=2, rate=share, retries=0, idempotent=False),
        *_producers("idempotent", IDEMPOTENT, count=2, rate=share, retries=RETRIES, idempotent=True),
        *_producers("work", GROUP_TOPIC, count=1, rate=share, retries=RETRIES, idempotent=True),
    ]
    for topic in wide:
        rate = max(1, share // len(wide))
        clients += _producers(topic.removeprefix("soak-"), topic, count=1, rate=rate, retries=RETRIES, idempotent=True)
    clients += [
        model.Reader(name=f"reader-{topic.removeprefix('soak-')}", topic=topic) for topic in (PLAIN, IDEMPOTENT)
    ]
    return tuple(clients)


def _producers(
    name: str, topic: str, *, count: int, rate: int, retries: int, idempotent: bool
) -> Iterator[model.Producer]:
    for number in range(1, count + 1):
        yield model.Producer(
            name=f"{name}-{number}",
            topic=topic,
            acks="all",
            rate=rate,
            batch=2,
            retries=retries,
            idempotent=idempotent,
            timeout_ms=10_000,
            target="leader" if number == 2 else "any",
        )


EXPECT: Final = model.Expect(reordered=model.ANY)
"""No record is lost or duplicated: plain producers never retry, the others retry with a key. Two requests may be
written in the other order if the first has no answer."""
