"""What each release of Apache Kafka can read: levels of features, settings, and kinds of data. Facts, and choices made
from them; pure.

Levels are those that a new cluster of the release has. A folder can be started by the release for which it was written
and by all later ones. Source: MetadataVersion, Feature, TopicConfig and GroupConfig of Kafka 3.9.1 to 4.4.0.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    name: str
    """The first two numbers of its versions."""
    metadata_version: int
    features: Mapping[str, int]
    """Feature -> the level that a folder for this release has; none has level 0."""


RELEASES: Final = (
    Release(name="3.9", metadata_version=21, features={}),
    Release(name="4.0", metadata_version=25, features={"group.version": 1, "transaction.version": 2}),
    Release(name="4.1", metadata_version=27, features={"group.version": 1, "transaction.version": 2}),
    Release(
        name="4.2",
        metadata_version=29,
        features={"group.version": 1, "transaction.version": 2, "share.version": 1},
    ),
    Release(
        name="4.3",
        metadata_version=30,
        features={"group.version": 1, "transaction.version": 2, "share.version": 1},
    ),
    Release(
        name="4.4",
        metadata_version=33,
        features={"group.version": 1, "transaction.version": 2, "share.version": 2},
    ),
)
OLDEST: Final = RELEASES[0]
NEWEST: Final = RELEASES[-1]
OLDEST_METADATA_VERSION: Final = 7
"""Kafka 4 starts on no older one (3.3-IV3)."""


def release_of(text: str) -> Release:
    """The release of a version such as `4.1` or `4.1.0`. Raises ValueError with those that there are."""
    name = ".".join(text.split(".")[:2])
    for release in RELEASES:
        if release.name == name:
            return release
    names = ", ".join(release.name for release in RELEASES)
    raise ValueError(f"{text!r} is no version of Kafka that data can be exported for; there are {names}")


class Below(StrEnum):
    """What happens to data that an older release does not know."""

    CARRIED = "-"
    """Every release knows it."""
    LEFT_OUT = "left out"
    LISTED = "stays in the log, where it is skipped"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of data, and the first release that knows it."""

    name: str
    since: str
    below: Below
    consequence: str = ""
    """What an older release does without it."""

    def is_known_to(self, release: Release) -> bool:
        return number_of(self.since) <= number_of(release.name)


TOPICS: Final = Kind(name="Topics, partitions, records, leader epochs", since="3.9", below=Below.CARRIED)
SETTINGS: Final = Kind(
    name="Settings of topics and brokers that Kafka has, subscriptions to client metrics",
    since="3.9",
    below=Below.CARRIED,
)
OFFSETS: Final = Kind(name="Committed offsets, groups of the classic protocol", since="3.9", below=Below.CARRIED)
PRODUCERS: Final = Kind(
    name="Idempotent producers, transactions: finished, open and to be finished", since="3.9", below=Below.CARRIED
)
SECURITY: Final = Kind(name="Users with SCRAM, users of cluster.toml, ACLs, quotas", since="3.9", below=Below.CARRIED)
CONSUMER_GROUPS: Final = Kind(
    name="Groups of the consumer protocol (KIP-848)",
    since="4.0",
    below=Below.LISTED,
    consequence="committed offsets stay; members join again with the classic protocol",
)
TRANSACTIONS_2: Final = Kind(
    name="An epoch for each transaction (KIP-890, transaction.version 2)",
    since="4.0",
    below=Below.LEFT_OUT,
    consequence="producers use the protocol before it",
)
OFFSET_TOPIC_IDS: Final = Kind(
    name="Committed offsets with the id of the topic, in data that came from Kafka 4.1 or newer",
    since="4.1",
    below=Below.LEFT_OUT,
    consequence="the offsets stay without the ids, and count for a topic that is made again under its name",
)
SHARE_GROUPS: Final = Kind(
    name="Share groups, queues (KIP-932)",
    since="4.2",
    below=Below.LEFT_OUT,
    consequence="their groups and __share_group_state are not there: they begin again",
)
DEAD_LETTERS: Final = Kind(
    name="Dead letters of share groups (KIP-1191)",
    since="4.4",
    below=Below.LEFT_OUT,
    consequence="their settings are gone; topics with dead letters stay",
)
ACL_RANGES: Final = Kind(
    name="ACLs for a range of addresses",
    since="4.4",
    below=Below.REFUSED,
    consequence="an older Kafka would take the range for the name of a host",
)
KINDS: Final = (
    TOPICS,
    SETTINGS,
    OFFSETS,
    PRODUCERS,
    SECURITY,
    CONSUMER_GROUPS,
    TRANSACTIONS_2,
    OFFSET_TOPIC_IDS,
    SHARE_GROUPS,
    DEAD_LETTERS,
    ACL_RANGES,
)
TARGET: Final = "delivery.target.topic"
EXPIRY: Final = "record.expiry.enable"
OWN_TOPIC_SETTINGS: Final = frozenset({TARGET, EXPIRY})
"""Settings of a topic that no Kafka has."""
TOPIC_SETTINGS_SINCE: Final[Mapping[str, str]] = {
    "errors.deadletterqueue.group.enable": "4.4",
    "internal.segment.bytes": "4.1",
}
"""Settings of a topic that Kafka 3.9 does not know."""
GROUP_SETTINGS_SINCE: Final[Mapping[str, str]] = {
    "consumer.session.timeout.ms": "4.0",
    "consumer.heartbeat.interval.ms": "4.0",
    "consumer.assignment.interval.ms": "4.3",
    "consumer.assignor.offload.enable": "4.3",
    "share.session.timeout.ms": "4.2",
    "share.heartbeat.interval.ms": "4.2",
    "share.record.lock.duration.ms": "4.2",
    "share.auto.offset.reset": "4.2",
    "share.isolation.level": "4.2",
    "share.assignment.interval.ms": "4.3",
    "share.delivery.count.limit": "4.3",
    "share.partition.max.record.locks": "4.3",
    "share.renew.acknowledge.enable": "4.3",
    "errors.deadletterqueue.topic.name": "4.4",
    "errors.deadletterqueue.copy.record.enable": "4.4",
}
"""Settings of a group: the first release that has them, and groups that use them."""


SETTING_MINIMA: Final[Mapping[str, tuple[str, int]]] = {
    "segment.bytes": ("4.0", 1 << 20),
    "log.segment.bytes": ("4.0", 1 << 20),
}
"""Settings with a least value since a release, which this cluster takes with less: the broker would not start
(KIP-1030)."""


def number_of(release: str) -> tuple[int, ...]:
    """A release's name as numbers that can be compared."""
    return tuple(map(int, release.split(".")))


def lowest_for(kinds: Collection[Kind], settings: Collection[str]) -> Release:
    """The oldest release that knows all these kinds of data, and settings of topics and groups."""
    since = [kind.since for kind in kinds] + [first_release(name) for name in settings]
    return next(each for each in RELEASES if all(number_of(one) <= number_of(each.name) for one in since))


def first_release(setting: str) -> str:
    """The first release that has a setting of topics or groups."""
    return TOPIC_SETTINGS_SINCE.get(setting) or GROUP_SETTINGS_SINCE.get(setting) or OLDEST.name


def is_setting_of(release: Release, name: str) -> bool:
    """Whether the release has this setting of topics or groups, which this cluster has."""
    return number_of(first_release(name)) <= number_of(release.name)


def value_for(release: Release, name: str, value: str) -> str:
    """The value of a setting that the release takes."""
    since, least = SETTING_MINIMA.get(name, (NEWEST.name, 0))
    is_bound = name in SETTING_MINIMA and number_of(since) <= number_of(release.name)
    return str(least) if is_bound and value.isdecimal() and int(value) < least else value


def table() -> Iterator[tuple[str, str, str]]:
    """Rows for people: the kind of data, the first release, and what an export for an older one does."""
    for kind in KINDS:
        below = kind.below.value + (f": {kind.consequence}" if kind.consequence else "")
        yield kind.name, kind.since, below
