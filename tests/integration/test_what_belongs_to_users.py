"""Consumers, transactions, keys and acknowledgement ids belong to the user who made them, at whatever node one asks."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from kraft.client.blocking_transport import send
from kraft.client.response import Answer, Request
from tests.integration.support.cluster import Cluster, kraft
from tests.integration.support.secured import secured_cluster
from tests.integration.support.waiting import wait_until

pytestmark = pytest.mark.long

PASSWORD = "a password"
USERS = "".join(f'[[users]]\nname = "{name}"\npassword = "{PASSWORD}"\n' for name in ("alice", "bob"))
V2 = "application/vnd.kafka.v2+json"
TEXT = "application/vnd.kafka.text.v2+json"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    settings = {"sasl.plain.without.tls.enable": True, "group.initial.rebalance.delay.ms": 0}
    yield from secured_cluster(
        tmp_path_factory.mktemp("belongs"), protocol="SASL_PLAINTEXT", settings=settings, tail=USERS
    )


class User:
    """Asks each node in turn."""

    def __init__(self, nodes: Cluster, name: str) -> None:
        self._nodes, self._asked = nodes, 0
        self.authorization = f"Basic {b64encode(f'{name}:{PASSWORD}'.encode()).decode()}"

    def ask(self, method: str, path: str, body: Any = None, *, kind: str = V2, **headers: str) -> Answer:
        node = self._nodes.nodes[self._asked % 3]
        self._asked += 1
        sent = {"Authorization": self.authorization, "Content-Type": kind, **headers}
        data = None if body is None else json.dumps(body).encode()
        url = node.rest.replace("://", "://stranger@")
        answer = send(url, Request(method=method, path=path, headers=sent, body=data, timeout_ms=20_000))
        assert isinstance(answer, Answer), answer
        return answer

    def everywhere(self, method: str, path: str, body: Any = None, **how: Any) -> set[tuple[int, int]]:
        """The statuses and codes of all nodes."""
        answers = [self.ask(method, path, body, **how) for _ in range(3)]
        return {(each.status, json.loads(each.body or b"{}").get("error_code", 0)) for each in answers}


@pytest.fixture
def alice(nodes: Cluster) -> User:
    return User(nodes, "alice")


@pytest.fixture
def bob(nodes: Cluster) -> User:
    return User(nodes, "bob")


@pytest.fixture(scope="module")
def topic(nodes: Cluster) -> str:
    nodes.create_topic("shared", partitions=1)
    return "shared"


def test_what_waits_ends_soon_after_its_user_was_deleted(nodes: Cluster, topic: str, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    password.chmod(0o600)
    kraft("users", "add", "carol", "--password-file", str(password), "--data", nodes.data)
    carol = User(nodes, "carol")
    wait_until(lambda: carol.everywhere("GET", "/kraft/status") == {(200, 0)}, what="the user on all nodes")
    poll, stream = [HTTPConnection(nodes.nodes[0].rest.removeprefix("http://"), timeout=30) for _ in range(2)]
    for connection, kind in ((poll, "application/vnd.kafka.binary.v2+json"), (stream, "application/x-ndjson")):
        path = f"/topics/{topic}/partitions/0/records?offset=latest&timeout=60000"
        connection.request("GET", path, headers={"Authorization": carol.authorization, "Accept": kind})
    streamed = stream.getresponse()
    kraft("users", "delete", "carol", "--data", nodes.data)
    begun_s = time.monotonic()
    polled = poll.getresponse()
    assert (polled.status, json.loads(polled.read())["error_code"]) == (401, 401)
    assert b'"error_code":401' in streamed.read()
    assert time.monotonic() - begun_s < 5
    poll.close()
    stream.close()


def test_a_rest_consumer(alice: User, bob: User, topic: str) -> None:
    made = alice.ask("POST", "/consumers/g", {"name": "one", "format": "binary", "auto.offset.reset": "earliest"})
    assert made.status == 200
    one = "/consumers/g/instances/one"
    assert alice.ask("POST", f"{one}/subscription", {"topics": [topic]}).status == 204
    for asked in (("GET", f"{one}/subscription"), ("DELETE", one), ("GET", f"{one}/records?timeout=1")):
        assert bob.everywhere(*asked) == {(404, 40403)}, asked
    unknown = bob.everywhere("DELETE", one.replace("one", "two"))
    assert unknown == {(404, 40403)}
    assert bob.everywhere("POST", f"{one}/offsets", {}) == {(404, 40403)}
    assert alice.everywhere("GET", f"{one}/subscription") == {(200, 0)}
    assert alice.ask("DELETE", one).status == 204


def test_a_transaction(alice: User, bob: User, topic: str) -> None:
    begun = json.loads(alice.ask("POST", "/transactions/pay", {}).body)
    named = f"?producer_id={begun['producer_id']}&producer_epoch={begun['producer_epoch']}"
    records = {"records": [{"value": "mine"}]}
    for verb, body in ((f"/topics/{topic}", records), ("/commit", None), ("/abort", None)):
        kind = TEXT if body else V2
        assert bob.everywhere("POST", f"/transactions/pay{verb}{named}", body, kind=kind) == {(404, 40406)}, verb
    assert alice.ask("POST", f"/transactions/pay/topics/{topic}{named}", records, kind=TEXT).status == 200
    assert bob.everywhere("POST", f"/transactions/pay/commit{named}") == {(404, 40406)}
    assert alice.everywhere("POST", f"/transactions/pay/commit{named}") == {(200, 0)}
    described = alice.ask("GET", "/transactions/pay")
    assert (described.status, b"owner" in described.body) == (200, False)


def test_an_idempotency_key(alice: User, bob: User, topic: str) -> None:
    records, path = {"records": [{"value": "once"}]}, f"/topics/{topic}/partitions/0"

    def offsets(user: User) -> set[int]:
        answers = [user.ask("POST", path, records, kind=TEXT, **{"Idempotency-Key": "k"}) for _ in range(3)]
        return {json.loads(each.body)["offsets"][0]["offset"] for each in answers}

    [his], [hers] = offsets(bob), offsets(alice)
    assert his != hers


def test_an_acknowledgement_id(nodes: Cluster, alice: User, bob: User) -> None:
    nodes.create_topic("work", partitions=1)
    alice.ask("POST", "/topics/work", {"records": [{"value": "job"}]}, kind=TEXT)
    cluster_id = json.loads(alice.ask("GET", "/v3/clusters").body)["data"][0]["cluster_id"]
    queue = f"/v3/clusters/{cluster_id}/share-groups/workers/records"
    wanted = {"topics": ["work"], "max_wait_ms": 10_000, "lock_ms": 60_000}
    received = alice.ask("POST", f"{queue}:receive", wanted, kind="application/json")
    [record] = json.loads(received.body)["records"]
    accepted = {"acks": [{"ack_id": record["ack_id"], "type": "accept"}]}
    forged = {"acks": [{"ack_id": "x" + record["ack_id"], "type": "accept"}]}
    unknown = bob.everywhere("POST", f"{queue}:acknowledge", forged, kind="application/json")
    assert bob.everywhere("POST", f"{queue}:acknowledge", accepted, kind="application/json") == unknown
    assert {status for status, _ in unknown} == {400}
    assert alice.everywhere("POST", f"{queue}:acknowledge", accepted, kind="application/json") == {(200, 0)}


def test_a_quota_of_changes_counts_what_is_asked_of_all_nodes(nodes: Cluster, alice: User, bob: User) -> None:
    """The active controller counts: each node alone would allow as much."""
    kraft("quotas", "set", "--user", "alice", "controller_mutation_rate=0.1", "--data", nodes.data)
    cluster_id = json.loads(alice.ask("GET", "/v3/clusters").body)["data"][0]["cluster_id"]
    path = f"/v3/clusters/{cluster_id}/topics"

    def create(user: User, name: str) -> Answer:
        return user.ask("POST", path, {"topic_name": name, "partitions_count": 4}, kind="application/json")

    def is_known() -> bool:
        return all(b"0.1" in alice.ask("GET", path.replace("/topics", "/client-quotas")).body for _ in range(3))

    wait_until(is_known, what="the quota on all nodes")
    assert create(alice, "first").status == 201
    refused = [create(alice, f"more-{number}") for number in range(3)]
    assert [each.status for each in refused] == [429] * 3
    assert all(0 < int(each.headers["retry-after"]) <= 60 for each in refused)
    assert create(bob, "of-another-user").status == 201
