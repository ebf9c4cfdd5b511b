"""Routes on three real nodes: made on the command line, produced to at any node, a topic offline, a node killed."""

from __future__ import annotations

import contextlib
import json
import threading
from typing import Any

import pytest

from tests.integration.support.cluster import Cluster, kraft
from tests.integration.support.waiting import wait_until


@pytest.fixture
def nodes(fragile_cluster: Cluster) -> Cluster:
    fragile_cluster.heal()
    return fragile_cluster


def entry(key: str, number: int = 0) -> dict[str, Any]:
    return {"id": f"{number}", "routing_key": key, "value": {"type": "STRING", "data": f"{number}"}}


def produce(nodes: Cluster, route: str, *entries: dict[str, Any], node_id: int | None = None) -> dict[str, Any]:
    answer = nodes.call("POST", f"/routes/{route}/records:batch", {"entries": entries}, node_id=node_id)
    assert answer.status == 207, answer.json()
    document: dict[str, Any] = answer.json()
    return document


def committed(nodes: Cluster, topic: str, *, node_id: int) -> list[int]:
    """The values of partition 0, as readers of committed records have them."""
    found: list[int] = []
    path = f"/topics/{topic}/partitions/0"
    end = nodes.get(f"{path}/offsets", node_id=node_id)["end_offset"]
    offset = 0
    while offset < end:
        url = f"{path}/records?offset={offset}&isolation_level=read_committed&timeout=0"
        records = json.loads(nodes.send(node_id, "GET", url, Accept="application/vnd.kafka.json.v2+json").body)
        if not records:
            break
        found += [record["value"] for record in records]
        offset = records[-1]["offset"] + 1
    return found


def test_made_tried_and_produced_to_at_any_node(nodes: Cluster):
    for topic in ("r.mails", "r.ledger"):
        nodes.create_topic(topic)
    rest = ("--rest", nodes.node(2).rest)

    def routes(*arguments: str, code: int = 0) -> str:
        done = kraft("routes", *arguments, *rest, check=False)
        assert done.returncode == code, done.stderr
        return done.stdout

    routes("create", "r.orders", "--kind", "pattern", "eu.#=r.mails", "*.paid=r.ledger")
    assert routes("try", "r.orders", "eu.paid").split() == ["r.ledger", "r.mails"]
    routes("try", "r.orders", "nowhere", code=1)
    assert json.loads(routes("describe", "r.orders", "--json"))["bindings"][0] == {
        "binding_key": "*.paid",
        "topic_name": "r.ledger",
    }
    nodes.wait_for_metadata()
    for node_id in nodes.ids:
        done = produce(nodes, "r.orders", entry("eu.paid", 1), entry("us.paid", 2), entry("x", 3), node_id=node_id)
        assert [each["id"] for each in done["successes"]] == ["1", "2"], done
        assert [each["error_code"] for each in done["failures"]] == [42209]
    assert sorted(committed(nodes, "r.ledger", node_id=1)) == [1, 1, 1, 2, 2, 2]
    assert committed(nodes, "r.mails", node_id=3) == [1, 1, 1]
    routes("unbind", "r.orders", "eu.#=r.mails")
    routes("bind", "r.orders", "#=r.ledger")
    assert "r.orders" in routes("list")
    assert nodes.call("POST", "/topics", {"topic_name": "r.orders"}).status == 400, "it has the name of a route"
    routes("delete", "r.orders")
    assert nodes.call("GET", "/routes/r.orders", node_id=2).status == 404


@pytest.mark.long
def test_a_topic_that_is_offline_fails_what_goes_to_it_and_to_others(nodes: Cluster):
    (victim,) = [node_id for node_id in nodes.ids if node_id != nodes.controller()][:1]
    others = [node_id for node_id in nodes.ids if node_id != victim]
    nodes.create_assigned("o.gone", [victim])
    nodes.create_assigned("o.there", others)
    body = {
        "route_name": "o.route",
        "kind": "direct",
        "bindings": [{"binding_key": key, "topic_name": topic} for key, topic in
                     (("both", "o.gone"), ("both", "o.there"), ("there", "o.there"))],
    }  # fmt: skip
    assert nodes.call("POST", "/routes", body).status == 201
    nodes.wait_for_metadata()
    nodes.kill(victim)
    path = "/routes/o.route/records:batch?timeout=2000"
    answer = nodes.call("POST", path, {"entries": [entry("both", 1), entry("there", 2)]}, node_id=others[0]).json()
    assert [each["id"] for each in answer["successes"]] == ["2"], answer
    assert [each["id"] for each in answer["failures"]] == ["1"]
    assert answer["failures"][0]["retriable"] is True
    assert committed(nodes, "o.there", node_id=others[0]) == [2]


@pytest.mark.long
def test_a_node_that_is_killed_while_it_produces_leaves_no_half(nodes: Cluster):
    (victim,) = [node_id for node_id in nodes.ids if node_id != nodes.controller()][:1]
    others = [node_id for node_id in nodes.ids if node_id != victim]
    for topic in ("k.one", "k.two"):
        nodes.create_assigned(topic, others)
    bindings = [{"topic_name": topic} for topic in ("k.one", "k.two")]
    body = {"route_name": "k.route", "kind": "fanout", "bindings": bindings}
    assert nodes.call("POST", "/routes", body).status == 201
    nodes.wait_for_metadata()
    acked: list[int] = []

    def write(start: int) -> None:
        with contextlib.suppress(Exception):  # the node is killed
            for number in range(start, start + 10_000):
                if produce(nodes, "k.route", entry("", number), node_id=victim)["successes"]:
                    acked.append(number)

    writers = [threading.Thread(target=write, args=(start,)) for start in range(0, 80_000, 10_000)]
    for writer in writers:
        writer.start()
    wait_until(lambda: len(acked) > 40, deadline_s=60)
    nodes.kill(victim)
    for writer in writers:
        writer.join()

    def both() -> bool:
        one, two = (committed(nodes, topic, node_id=others[0]) for topic in ("k.one", "k.two"))
        return set(acked) <= set(one) and sorted(one) == sorted(two) and len(one) == len(set(one))

    wait_until(both, deadline_s=90)
