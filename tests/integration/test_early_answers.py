"""Nodes that know too little: lonely ones, those that start one at a time after a total outage, and their clients."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kraft.cli import rest
from kraft.cli.output import CommandFailed
from kraft.client.response import Answer
from tests.integration.conftest import run_cluster
from tests.integration.support.cluster import Cluster, kraft
from tests.integration.support.configuration import REPLICATED
from tests.integration.support.waiting import wait_until

IMPATIENT = {**REPLICATED, "initial.broker.registration.timeout.ms": 1_000, "group.initial.rebalance.delay.ms": 0}
"""A broker that counted the time without a controller would end itself soon."""
ROLES = {1: ("broker", "controller"), 2: ("broker", "controller"), 3: ("controller",), 4: ("broker",)}
ALWAYS = (
    "/", "/healthz", "/readyz", "/healthy", "/ready", "/status/ready", "/_health", "/metrics", "/kraft/status",
    "/docs", "/docs/{asset}", "/openapi.json", "/openapi", "/openapi/v3", "/console", "/console/{file}",
    "/kraft/events", "/kraft/facts", "/kraft/changes", "/kraft/evidence",
    "/kraft/explain/partition/{topic}/{partition}", "/kraft/explain/node/{broker_id}",
    "/kraft/explain/record/{topic}/{partition}/{offset}", "/kraft/explain/client/{client}",
)  # fmt: skip
ENDLESS = ("/kraft/live",)
"""Streams that answer early: they end when their client goes."""
VALUES = {"topic": "t", "broker_id": "1", "asset": "kraft.css", "file": "console.css", "name": "retention.ms"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two brokers that are voters, a voter that is no broker, and a broker that is no voter; topic t with records."""
    for each in run_cluster(tmp_path_factory.mktemp("early"), settings=IMPATIENT, roles=ROLES):
        each.create_topic("t", replication_factor=3)
        each.write_all("t", ["a", "b", "c"])
        yield each


def reason(cluster: Cluster, node_id: int) -> str:
    """What a node that answers already waits for; empty while it does not answer."""
    outcome = cluster.send(node_id, "GET", "/readyz")
    return str(outcome.json().get("reason", "")) if isinstance(outcome, Answer) else ""


def operations(cluster: Cluster, node_id: int) -> list[tuple[str, str]]:
    """Method and path of everything that a node serves, by its own document."""
    outcome = cluster.send(node_id, "GET", "/openapi.json")
    assert isinstance(outcome, Answer), outcome
    assert outcome.status == 200, outcome
    paths = outcome.json()["paths"].items()
    return [(method.upper(), path) for path, item in paths for method in item if path not in ENDLESS]


def filled(cluster: Cluster, path: str) -> str:
    values = {**VALUES, "cluster_id": cluster.v3.rpartition("/")[2]}
    return re.sub(r"{(\w+)}", lambda found: values.get(found[1], "0"), path)


def ask(cluster: Cluster, node_id: int, method: str, path: str) -> Answer:
    body: Any = b"{}" if method in ("POST", "PUT", "PATCH") else None
    outcome = cluster.send(node_id, method, filled(cluster, path), body)
    assert isinstance(outcome, Answer), (method, path, outcome)
    return outcome


@pytest.mark.timeout(280)
@pytest.mark.parametrize("lonely", [1, 3, 4], ids=["voter-and-broker", "voter", "broker"])
def test_a_lonely_node_refuses_all_that_it_serves_but_what_describes_itself(cluster: Cluster, lonely: int) -> None:
    cluster.kill_all()
    try:
        cluster.restart_unready(lonely)
        wait_until(lambda: "no leader" in reason(cluster, lonely), what="the node to say what it waits for")
        found = operations(cluster, lonely)
        assert len(found) > 60
        for method, path in found:
            answer = ask(cluster, lonely, method, path)
            if path in ALWAYS:
                assert answer.status == (503 if path.endswith(("/ready", "/readyz")) else 200), (method, path, answer)
                assert "no leader" in answer.headers["x-awaits"]
            else:
                assert (answer.status, answer.headers["retry-after"]) == (503, "1"), (method, path, answer)
                assert answer.json()["kafka_code"] == 5, (method, path, answer)
        assert "no leader" in cluster.status(lonely)["awaits"]
    finally:
        for node_id in cluster.ids:
            if not cluster.is_running(node_id):
                cluster.restart_unready(node_id)
        cluster.heal()


@pytest.mark.long
@pytest.mark.timeout(280)
def test_nodes_that_start_one_at_a_time_after_a_total_outage_converge(cluster: Cluster) -> None:
    """Each is alone for longer than initial.broker.registration.timeout.ms; none ends itself, none answers early."""
    cluster.kill_all()
    answered: set[int] = set()
    for node_id in (4, 1):
        cluster.restart_unready(node_id)
        wait_until(
            lambda at=node_id: "no leader" in reason(cluster, at), what=f"node {node_id} to say what it waits for"
        )
        before = len(cluster.events("node_awaits", node_id=node_id))
        wait_until(
            lambda at=node_id, seen=before: len(cluster.events("node_awaits", node_id=at)) > seen,
            what=f"node {node_id} to tell of it in an event",
        )
        for other in cluster.serving:
            topics = cluster.send(other, "GET", "/topics")
            assert isinstance(topics, Answer)
            assert topics.status == 503
    cluster.restart_unready(2)  # with it there is a majority
    for node_id in (1, 2, 4):

        def answers(at: int = node_id) -> bool:
            outcome = cluster.send(at, "GET", "/topics/t/partitions/0/records?offset=earliest",
                                   Accept="application/vnd.kafka.text.v2+json")  # fmt: skip
            assert isinstance(outcome, Answer)
            assert outcome.status in (200, 503), outcome
            return outcome.is_success and len(outcome.json()) == 3

        wait_until(answers, deadline_s=60, what=f"all records from node {node_id}")
        answered.add(node_id)
    cluster.restart_unready(3)
    cluster.heal()
    assert answered == {1, 2, 4}
    log = Path(cluster.node(1).log)
    wait_until(lambda: "node 1 serves" in log.read_text(), what="node 1 to say that it waits no longer")
    text = log.read_text()
    assert "node 1 waits: the metadata quorum has no leader yet: of its voters 1, 2, 3 this node has met 1" in text
    assert "failed" not in text


@pytest.mark.timeout(280)
def test_a_node_that_had_caught_up_answers_without_the_quorum(cluster: Cluster) -> None:
    cluster.heal()
    for node_id in (2, 3, 4):
        cluster.kill(node_id)
    try:
        wait_until(lambda: "no leader" in reason(cluster, 1), deadline_s=60, what="node 1 to miss the quorum")
        topics = ask(cluster, 1, "GET", "/topics")
        assert (topics.status, "t" in topics.json()) == (200, True)
        assert ask(cluster, 1, "GET", "/topics/t/partitions/0").status == 200
    finally:
        for node_id in (2, 3, 4):
            cluster.restart_unready(node_id)
        cluster.heal()


@pytest.mark.timeout(280)
def test_a_command_waits_for_nodes_that_know_too_little(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first node is alone and refuses; the command goes on when the second has come."""
    cluster.kill_all()
    cluster.restart_unready(1)
    wait_until(lambda: "no leader" in reason(cluster, 1), what="node 1 to answer")
    with monkeypatch.context() as patience:
        patience.setattr(rest, "BUSY_LIMIT_MS", 1_500)
        with pytest.raises(CommandFailed, match="does not know the cluster yet"):
            rest.Rest(cluster.node(1).rest).get("/topics")
    for node_id in (2, 3, 4):
        cluster.restart_unready(node_id)
    listed = kraft("topics", "list", "--data", cluster.data, check=False)
    cluster.heal()
    assert listed.returncode == 0, listed
    assert "t" in listed.stdout.split()


@pytest.mark.long
@pytest.mark.timeout(280)
def test_restarting_node_after_node_by_hand_converges(cluster: Cluster) -> None:
    """Each command returns: the node waits for a majority, or is ready."""
    cluster.kill_all()
    for node_id, needs in ((4, "start 1 or 2 or 3 too"), (1, "start 2 or 3 too")):
        done = kraft("node", "restart", str(node_id), "--data", cluster.data)
        cluster.ever_started.add(cluster.node(node_id).pid)
        assert needs in done.stdout, done
        assert cluster.is_running(node_id)
    done = kraft("node", "restart", "2", "--data", cluster.data)
    cluster.ever_started.add(cluster.node(2).pid)
    assert "waits for a majority" not in done.stdout
    assert reason(cluster, 2) == ""
    cluster.restart_unready(3)
    cluster.heal()
