"""Faults of links and nodes under librdkafka's ShareConsumer, and the checks of a queue."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import AcknowledgeType, Producer, ShareConsumer

from kraft.testing import FaultCluster
from kraft.testing.queues import Queue
from tests.clients.test_share_groups import new_group

DEADLINE_S = 60
VALUES = [b"mail %d" % number for number in range(30)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[FaultCluster]:
    with FaultCluster(nodes=3) as running:
        yield running


@pytest.fixture
def broken(cluster: FaultCluster) -> Iterator[FaultCluster]:
    """The cluster in a test: a fault that no request met fails it, as with `kafka_faults`."""
    cluster.begin_span()
    yield cluster
    assert cluster.never() == []
    cluster.end_span()


def queue_of(cluster: FaultCluster, group: str) -> Queue:
    return Queue(group, rest_urls=lambda: list(cluster.rest_urls.values()), records=cluster.records)


def filled(cluster: FaultCluster, topic: str) -> str:
    """A group, and a topic with records for it."""
    cluster.create_topic(topic, partitions=2)
    producer = Producer({"bootstrap.servers": cluster.bootstrap_servers, "acks": "all"})
    for value in VALUES:
        producer.produce(topic, value=value)
    assert producer.flush(DEADLINE_S) == 0
    return new_group(cluster)


def work(cluster: FaultCluster, group: str, topic: str) -> list[bytes]:
    """What one member has accepted, when there is nothing left."""
    consumer = ShareConsumer(
        {"bootstrap.servers": cluster.bootstrap_servers, "group.id": group, "share.acknowledgement.mode": "explicit"}
    )
    consumer.subscribe([topic])
    accepted: list[bytes] = []
    end = time.monotonic() + DEADLINE_S
    try:
        while len(set(accepted)) < len(VALUES) and time.monotonic() < end:
            batch: list[Any] = [each for each in consumer.poll(0.5) if each.error() is None]
            for message in batch:
                consumer.acknowledge(message, AcknowledgeType.ACCEPT)
            refused = {where for where, error in (consumer.commit_sync() or {}).items() if error is not None}
            refused_at = {(where.topic, where.partition) for where in refused}
            accepted += [each.value() for each in batch if (each.topic(), each.partition()) not in refused_at]
    finally:
        consumer.close()
    return accepted


@pytest.mark.parametrize(
    ("api", "error"), [("ShareFetch", "NOT_LEADER_OR_FOLLOWER"), ("ShareAcknowledge", "COORDINATOR_NOT_AVAILABLE")]
)
def test_a_share_request_is_refused_once(broken: FaultCluster, api: str, error: str) -> None:
    topic = f"refused-{api.lower()}"
    group = filled(broken, topic)
    broken.answer(api, error=error, topic=topic)
    assert set(work(broken, group, topic)) == set(VALUES)
    broken.heal()
    queue_of(broken, group).assert_nothing_in_flight()


def test_a_later_fetch_of_a_share_session_is_of_its_topic(broken: FaultCluster) -> None:
    """Only the first request of a session names the topic."""
    group = filled(broken, "session")
    broken.delay("ShareFetch", ms=200, topic="session", times=3)
    assert sorted(work(broken, group, "session")) == sorted(VALUES)
    broken.heal()
    queue_of(broken, group).assert_accepted_once(VALUES)


def test_the_leader_dies_and_each_mail_is_accepted(broken: FaultCluster) -> None:
    group = filled(broken, "deaths")
    broken.kill(broken.leader_of("deaths", 0))
    accepted = work(broken, group, "deaths")
    broken.heal()
    queue = queue_of(broken, group)
    queue.assert_accepted_once(set(accepted))
    queue.assert_nothing_in_flight()
    queue.assert_dead_letters()
