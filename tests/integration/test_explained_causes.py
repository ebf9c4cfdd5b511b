"""Each cause that `kraft explain` names is planted in a cluster of real nodes, and is the first reason given."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from kraft.client.blocking_transport import send
from kraft.client.response import Answer, Request
from kraft.explain.explanation import Explanation
from kraft.testing import FaultCluster
from tests.integration.support.cluster import kraft
from tests.integration.support.waiting import NotYet, wait_until
from tests.unit.explain.cluster import checked

for library in ("confluent_kafka", "kafka"):
    pytest.importorskip(library, reason="the extra `clients` is not installed")

from confluent_kafka import Consumer, Producer, TopicPartition  # noqa: E402
from kafka import KafkaConsumer  # noqa: E402

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
LIMIT_S = 60
API_VERSIONS = struct.pack(">ihhih", 10, 18, 0, 1, -1)
LOCKS = 100
"""The least that share.partition.max.record.locks may be."""


@pytest.fixture(scope="module")
def whole() -> Iterator[FaultCluster]:
    settings = {
        "replica.lag.time.max.ms": 8_000,
        "group.initial.rebalance.delay.ms": 0,
        "group.share.partition.max.record.locks": LOCKS,
        "log.retention.check.interval.ms": 500,
        "event.ring.bytes": 200_000,
    }
    with FaultCluster(nodes=3, settings=settings) as cluster:
        yield cluster


@pytest.fixture
def nodes(whole: FaultCluster) -> Iterator[FaultCluster]:
    yield whole
    whole.heal()


def asked(cluster: FaultCluster, node: int, method: str, path: str, body: Any = None) -> Any:
    headers = {"Content-Type": "application/json"}
    request = Request(
        method=method, path=path, headers=headers, body=None if body is None else json.dumps(body).encode()
    )
    answer = send(cluster.rest_urls[node], request)
    assert isinstance(answer, Answer), answer
    assert answer.is_success, answer.body
    return answer.json()


def explained(
    cluster: FaultCluster, path: str, cause: str, *, node: int | None = None, state: str | None = None
) -> Explanation:
    """The explanation, once its first reason is this one; its shape is looked at, too."""
    asks = node or next(each for each in cluster.ids if cluster.state(each) == "running")

    def look() -> Explanation:
        found = msgspec.convert(asked(cluster, asks, "GET", f"/kraft/explain/{path}"), Explanation, str_keys=True)
        if found.cause != cause or (state is not None and found.state != state):
            raise NotYet(f"{found.state}, {found.cause!r}: {found.summary}")
        return checked(found)

    return wait_until(look, deadline_s=LIMIT_S, what=f"the reason {cause!r}")


def causes(found: Explanation) -> set[str]:
    return {each.cause for each in found.deciders if each.decision == "no"}


def produce(cluster: FaultCluster, topic: str, count: int = 1, *, node: int | None = None, size: int = 10, **more: Any):
    servers = cluster.bootstrap_servers.split(",")
    settings = {"bootstrap.servers": servers[cluster.ids.index(node)] if node else ",".join(servers), **more}
    producer = Producer(settings)
    for _ in range(count):
        producer.produce(topic, b"x" * size, partition=0)
    assert producer.flush(LIMIT_S) == 0


def followers_of(cluster: FaultCluster, topic: str) -> tuple[int, int, int]:
    """Leader and both followers."""
    leader = cluster.leader_of(topic)
    first, second = (each for each in cluster.ids if each != leader)
    return leader, first, second


@contextmanager
def thread(work: Any) -> Iterator[None]:
    over = threading.Event()
    running = threading.Thread(target=work, args=(over,))
    running.start()
    try:
        yield
    finally:
        over.set()
        running.join(LIMIT_S)


def test_a_dead_follower_and_too_few_replicas(nodes: FaultCluster) -> None:
    nodes.create_topic("flights")
    nodes.create_topic("strict", configs={"min.insync.replicas": 3})
    leader, dead, _ = followers_of(nodes, "flights")
    nodes.kill(dead)
    found = explained(nodes, "partition/flights/0", "broker_fenced", state="under-replicated")
    assert found.fix == [f"kraft node restart {dead}"]
    strict = explained(nodes, "partition/strict/0", "broker_fenced", state="not enough replicas")
    assert "NOT_ENOUGH_REPLICAS" in strict.summary
    assert "under_min_isr" in causes(strict)
    assert explained(nodes, f"node/{dead}", "not_answering").state == "down"
    words = ("explain", "partition", "flights", "0", "--json", "--rest", nodes.rest_urls[leader])
    by_command = msgspec.json.decode(kraft(*words).stdout, type=Explanation)
    over_rest = explained(nodes, "partition/flights/0", "broker_fenced", node=leader)
    assert (by_command.summary, by_command.fix) == (over_rest.summary, over_rest.fix)
    assert [each.question for each in by_command.deciders] == [each.question for each in over_rest.deciders]


def test_the_last_of_the_isr_dies_and_an_unclean_election_loses_records(nodes: FaultCluster) -> None:
    nodes.create_topic("lossy", replicas=2, configs={"min.insync.replicas": 1})
    produce(nodes, "lossy", 3)
    leader = nodes.leader_of("lossy")
    known = asked(nodes, leader, "GET", "/kraft/evidence?topic=lossy&partition=0")["partition"]["replicas"]
    follower = next(each for each in known if each != leader)
    third = next(each for each in nodes.ids if each not in known)
    nodes.kill(follower)
    explained(nodes, "partition/lossy/0", "broker_fenced", state="under-replicated")
    produce(nodes, "lossy", 4)
    nodes.kill(leader)
    assert "only" in explained(nodes, "partition/lossy/0", "quorum_without_leader", node=third).summary
    assert explained(nodes, f"node/{third}", "quorum_without_leader", node=third).state == "not ready"
    nodes.restart(follower)

    def names_what_would_lead() -> Explanation | None:
        found = explained(nodes, "partition/lossy/0", "no_live_isr_member", node=third, state="offline")
        would = f"node {follower} would lead with a log that ends at 3"
        return found if any(would in each.explanation for each in found.deciders) else None

    found = wait_until(names_what_would_lead, deadline_s=LIMIT_S, what="the log that would lead")
    assert found.fix == [f"kraft node restart {leader}", "kraft elect lossy 0 --type unclean"]
    kraft("elect", "lossy", "0", "--type", "unclean", "--rest", nodes.rest_urls[third])
    nodes.heal()
    explained(nodes, "partition/lossy/0", "unclean_election", state="healthy")
    assert explained(nodes, "record/lossy/0/5", "lost_unclean").state == "lost"
    assert explained(nodes, "record/lossy/0/1", "", state="committed")


def test_a_cut_off_leader_has_its_own_view_and_loses_what_nobody_else_has(nodes: FaultCluster) -> None:
    nodes.create_topic("cut", configs={"min.insync.replicas": 1})
    produce(nodes, "cut", 2)
    old = nodes.leader_of("cut")
    nodes.cut(old)
    produce(nodes, "cut", 5, node=old, acks=1)
    other = next(each for each in nodes.ids if each != old)
    wait_until(lambda: nodes.leader_of("cut") not in (old, -1), deadline_s=LIMIT_S, what="another leader")
    found = explained(nodes, "partition/cut/0", "broker_fenced", node=other)
    assert {tuple(each.nodes) for each in found.views} == {(old,), tuple(each for each in nodes.ids if each != old)}
    assert "views_differ" in causes(found)
    assert explained(nodes, f"node/{old}", "broker_fenced", node=other).state == "fenced"
    nodes.heal()
    lost = explained(nodes, "record/cut/0/6", "truncated")
    assert (lost.state, lost.summary) == ("lost", lost.deciders[0].explanation)
    assert any(f"node {old} cut its log from 7 to 2" in each.explanation for each in lost.deciders)
    assert explained(nodes, "record/cut/0/0", "", state="committed")


def test_a_member_of_the_isr_that_does_not_fetch_holds_the_high_watermark(nodes: FaultCluster) -> None:
    nodes.create_topic("held", partitions=3, configs={"min.insync.replicas": 1})
    number = next(each for each in range(3) if nodes.leader_of("held", each) != nodes.controller)
    leader = nodes.leader_of("held", number)
    cut = next(each for each in nodes.ids if each not in (leader, nodes.controller))
    nodes.cut(cut, leader)
    producer = Producer({"bootstrap.servers": nodes.bootstrap_servers, "acks": 1})
    producer.produce("held", b"x", partition=number)
    assert producer.flush(LIMIT_S) == 0
    stuck = explained(nodes, f"partition/held/{number}", "follower_silent", state="high watermark stuck")
    assert f"replica {cut}" in stuck.summary
    assert explained(nodes, f"partition/held/{number}", "not_fetching", state="under-replicated").fix == [
        "kraft fault heal"
    ]


def test_a_disk_that_is_full(nodes: FaultCluster) -> None:
    nodes.create_topic("disks", configs={"min.insync.replicas": 1})
    _, full, _ = followers_of(nodes, "disks")
    nodes.fill_disk(full)
    produce(nodes, "disks", 5, size=100_000)
    found = explained(nodes, "partition/disks/0", "log_failed")
    assert "No space left" in found.summary
    assert "No space left" in explained(nodes, f"node/{full}", "disk_failed", state="disk failed").summary


def test_a_member_that_does_not_join_is_named(nodes: FaultCluster) -> None:
    nodes.create_topic("joined", partitions=2)
    common = {"bootstrap_servers": nodes.bootstrap_servers, "group_id": "classic", "session_timeout_ms": 30_000}
    sleeper = KafkaConsumer("joined", client_id="sleeper", **common)
    wait_until(lambda: sleeper.poll(100) or sleeper.assignment(), deadline_s=LIMIT_S, what="its partitions")

    def join(over: threading.Event) -> None:
        second = KafkaConsumer("joined", client_id="second", **common)
        while not over.is_set():
            second.poll(200)
        second.close()

    with thread(join):
        found = explained(nodes, "group/classic", "rebalancing")
        assert "sleeper (sleeper-" in found.summary
        assert ": JoinGroup" in found.summary
        sleeper.close()
        explained(nodes, "group/classic", "", state="Stable")


def test_a_member_that_does_not_give_up_its_partitions_is_named(nodes: FaultCluster) -> None:
    nodes.create_topic("given", partitions=2)
    common = {"bootstrap.servers": nodes.bootstrap_servers, "group.id": "modern", "group.protocol": "consumer"}
    keeper = Consumer({**common, "client.id": "keeper"})
    keeper.subscribe(["given"], on_revoke=lambda consumer, gone: None)
    wait_until(lambda: keeper.poll(0.1) or len(keeper.assignment()) == 2, deadline_s=LIMIT_S, what="its partitions")

    def join(over: threading.Event) -> None:
        second = Consumer({**common, "client.id": "second"})
        second.subscribe(["given"])
        while not over.is_set():
            second.poll(0.2)
        second.close()

    with thread(join):

        def names_partitions() -> bool:
            found = explained(nodes, "group/modern", "rebalancing", state="Reconciling")
            assert "keeper (" in found.summary
            return "to give up given-" in found.summary

        wait_until(names_partitions, deadline_s=LIMIT_S, what="the partitions that the member holds")
        keeper.close()
        explained(nodes, "group/modern", "", state="Stable")


def test_lag_that_grows(nodes: FaultCluster) -> None:
    nodes.create_topic("lagging")
    slow = Consumer({"bootstrap.servers": nodes.bootstrap_servers, "group.id": "slow", "enable.auto.commit": False})
    slow.subscribe(["lagging"])
    wait_until(lambda: slow.poll(0.1) or slow.assignment(), deadline_s=LIMIT_S, what="its partition")
    slow.commit(offsets=[TopicPartition("lagging", 0, 0)], asynchronous=False)

    def write(over: threading.Event) -> None:
        while not over.wait(0.1):
            produce(nodes, "lagging")

    with thread(write):
        found = explained(nodes, "group/slow", "lag_grows")
        assert "nothing was committed meanwhile" in found.summary
    slow.close()


def test_a_transaction_that_hangs(nodes: FaultCluster) -> None:
    nodes.create_topic("paid")
    producer = Producer({"bootstrap.servers": nodes.bootstrap_servers, "transactional.id": "hangs"})
    producer.init_transactions(LIMIT_S)
    producer.begin_transaction()
    producer.produce("paid", b"x", partition=0)
    producer.flush(LIMIT_S)
    found = explained(nodes, "transaction/hangs", "transaction_open", state="Ongoing")
    assert "paid-0" in found.summary
    assert "a transaction that is open" in explained(nodes, "partition/paid/0", "").summary
    producer.abort_transaction(LIMIT_S)
    explained(nodes, "transaction/hangs", "", state="CompleteAbort")


def test_a_queue_whose_locks_are_all_taken(nodes: FaultCluster) -> None:
    nodes.create_topic("work")
    produce(nodes, "work", LOCKS + 50)
    path = f"/v3/clusters/{nodes.cluster_id}/share-groups/workers/records:receive"
    body = {"topics": ["work"], "format": "STRING", "max_records": LOCKS, "max_wait_ms": 5_000}
    wait_until(lambda: asked(nodes, 1, "POST", path, body)["records"], deadline_s=LIMIT_S, what="records")
    found = explained(nodes, "queue/workers", "locks_exhausted")
    assert f"{LOCKS} records of work-0 are in flight" in found.summary


def test_clients_that_are_throttled_or_refused(nodes: FaultCluster) -> None:
    nodes.create_topic("greed")
    rest = ("--rest", nodes.rest_url)
    kraft("quotas", "set", "--client-id", "greedy", "producer_byte_rate=1000", *rest)
    producer = Producer({"bootstrap.servers": nodes.bootstrap_servers, "client.id": "greedy"})
    producer.produce("greed", b"x" * 50_000, partition=0)
    producer.flush(LIMIT_S)
    found = explained(nodes, "client/greedy", "client_throttled", state="throttled")
    assert found.fix == ["kraft quotas set --client-id greedy producer_byte_rate=2000"]
    node = next(each.node for each in found.deciders if each.cause)
    assert explained(nodes, f"node/{node}", "client_throttled").state == "ready"
    kraft("quotas", "remove", "--client-id", "greedy", "producer_byte_rate", *rest)
    kraft("quotas", "set", "--ip", "<default>", "connection_creation_rate=1", *rest)
    host, _, port = nodes.bootstrap_servers.split(",")[0].rpartition(":")
    for _ in range(30):
        with socket.create_connection((host, int(port)), timeout=LIMIT_S) as connection:
            connection.sendall(API_VERSIONS)
    kraft("quotas", "remove", "--ip", "<default>", "connection_creation_rate", *rest)
    events = asked(nodes, nodes.ids[0], "GET", "/kraft/events?event=client_refused")["events"]
    refused = explained(nodes, f"client/{events[-1]['host']}", "client_refused", state="refused")
    assert "connection_creation_rate" in refused.summary


def test_a_record_that_retention_deletes_and_one_that_is_forgotten(nodes: FaultCluster) -> None:
    nodes.create_topic("short", configs={"retention.ms": 500})
    produce(nodes, "short", 3)
    assert explained(nodes, "record/short/0/1", "deleted").state == "deleted"
    assert explained(nodes, "record/short/0/9", "not_written").state == "not there"
    for number in range(4):  # more events than the nodes remember
        nodes.create_topic(f"many-{number}", partitions=100)
    found = explained(nodes, "record/short/0/9", "", state="unknown")
    assert "has forgotten" in found.summary
    assert found.forgotten
