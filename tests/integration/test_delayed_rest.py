"""The recipe of docs/queues.md: an order is cancelled unless it is paid in time, on three real nodes."""

from __future__ import annotations

import time
from base64 import b64encode
from typing import Any

import pytest

from tests.integration.support.cluster import Cluster
from tests.integration.support.waiting import wait_until

PAYABLE_MS = 6_000


def produce(nodes: Cluster, order: str, **more: Any) -> None:
    """A record about an order; the key keeps what concerns one order in one partition."""
    record = {"key": {"type": "STRING", "data": order}, "value": {"type": "STRING", "data": order}, **more}
    answer = nodes.call("POST", "/topics/unpaid.later/records", record)
    assert answer.json()["error_code"] == 200, answer.json()


def header(name: str, value: str) -> dict[str, str]:
    return {"name": name, "value": b64encode(value.encode()).decode()}


@pytest.mark.long
def test_an_order_is_cancelled_unless_it_is_paid_in_time(fragile_cluster: Cluster):
    nodes = fragile_cluster
    nodes.heal()
    nodes.create_topic("unpaid", partitions=2)
    leader = next(node_id for node_id in nodes.ids if node_id != nodes.controller())
    others = [node_id for node_id in nodes.ids if node_id != leader]
    nodes.create_assigned("unpaid.later", [leader, *others])
    change = {"data": [{"name": "delivery.target.topic", "value": "unpaid"}]}
    assert nodes.call("POST", "/topics/unpaid.later/configs:alter", change).status == 204
    configs = [{"name": "share.isolation.level", "value": "read_committed"}]
    queue = {"share_group_id": "cancellers", "topics": ["unpaid"], "configs": configs}
    assert nodes.call("POST", "/share-groups", queue).status == 204
    begin = time.monotonic()
    for order in ("a", "b", "c"):
        produce(nodes, order, deliver_in_ms=PAYABLE_MS, headers=[header("kraft.deliver.id", order)])
    produce(nodes, "b", headers=[header("kraft.deliver.cancel", "b")])
    nodes.kill(leader)
    cancelled: list[str] = []

    def receive() -> bool:
        asked = {"topics": ["unpaid"], "format": "STRING", "max_wait_ms": 1_000, "acknowledgement": "implicit"}
        answer = nodes.call("POST", "/share-groups/cancellers/records:receive", asked, node_id=others[0])
        cancelled.extend(record["value"]["data"] for record in answer.json().get("records", ()))
        assert not cancelled or time.monotonic() - begin > PAYABLE_MS / 1_000 - 0.2, "too early"
        return len(cancelled) >= 2

    wait_until(receive, what="the orders that nobody paid", deadline_s=60)
    assert sorted(cancelled) == ["a", "c"]
