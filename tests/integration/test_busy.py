"""Healthy nodes under full load are busy, not dead: nobody is fenced, no leader changes, no replica leaves an ISR."""

from __future__ import annotations

import threading
import time

import pytest

from kraft.client.blocking_transport import send
from kraft.client.response import Answer, Request
from kraft.protocol.batches.records import NewRecord, build_batch
from tests.integration.support.cluster import Cluster
from tests.integration.support.reading import RECORD_BATCH

CONNECTIONS = 8
PARTITIONS = 3
RECORD = NewRecord(None, b"x" * 1_000, [], 1_700_000_000_000)


def hammer(url: str, partition: int, until: float, failures: list[str]) -> None:
    """Large batches, as fast as they are taken."""
    body = bytes(build_batch([RECORD] * 900))
    path = f"/topics/busy/partitions/{partition}?acks=all"
    request = Request(method="POST", path=path, body=body, headers={"Content-Type": RECORD_BATCH})
    while time.monotonic() < until:
        outcome = send(url, request)
        if not isinstance(outcome, Answer) or outcome.status != 200 or outcome.json()["offsets"][0]["error_code"]:
            failures.append(str(outcome))


@pytest.mark.parametrize("seconds", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_nobody_is_fenced_for_being_busy(shared_cluster: Cluster, seconds: int):
    nodes = shared_cluster
    nodes.heal()
    nodes.create_topic("busy", partitions=PARTITIONS, segment_bytes="50000000", retention_bytes="100000000")
    for partition in range(PARTITIONS):
        nodes.wait_for_isr("busy", partition, nodes.ids)
    names = ("broker_fenced", "leader_elected", "isr_changed", "controller_changed")
    before = nodes.events(*names)
    failures: list[str] = []
    until = time.monotonic() + seconds
    urls = [node.rest for node in nodes.nodes]
    threads = [
        threading.Thread(target=hammer, args=(urls[n % len(urls)], n % PARTITIONS, until, failures))
        for n in range(CONNECTIONS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 60)
    assert failures == []
    assert nodes.events(*names) == before
    assert nodes.call("DELETE", "/topics/busy").status == 204
