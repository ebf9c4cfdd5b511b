"""A stream on real processes outlives its node and its partition's leader: every record once, in order."""

from __future__ import annotations

import http.client
import json
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from kraft.client.response import Answer
from tests.integration.support.cluster import Cluster
from tests.integration.support.configuration import QUICK_FAILURES, write_config
from tests.integration.support.load import Load
from tests.integration.support.waiting import wait_until

PARTITIONS = 2
V2_JSON = "application/vnd.kafka.v2+json"
READ_TIMEOUT_S = 20


class Follower:
    """Follows records as a browser does: connects to the next node with the last event id whenever a stream ends."""

    def __init__(self, cluster: Cluster, path: str) -> None:
        self._path = path
        self._urls = {node.id: node.rest for node in cluster.nodes}
        self.node_id = min(self._urls)
        self.last_id = ""
        self.seen: list[tuple[int, int, str]] = []
        self.streams = 0
        self.stop = threading.Event()

    def wait_for(self, count: int) -> None:
        wanted = len(self.seen) + count
        wait_until(lambda: len(self.seen) >= wanted, what=f"{count} more records on the stream")

    def run(self) -> None:
        while not self.stop.is_set():
            try:
                self._follow()
            except (OSError, http.client.HTTPException):
                self.stop.wait(0.05)
            nodes = sorted(self._urls)
            self.node_id = nodes[(nodes.index(self.node_id) + 1) % len(nodes)]

    def _follow(self) -> None:
        connection = http.client.HTTPConnection(urlsplit(self._urls[self.node_id]).netloc, timeout=READ_TIMEOUT_S)
        try:
            headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": self.last_id} if self.last_id else {})
            connection.request("GET", self._path, headers=headers)
            response = connection.getresponse()
            if response.status != 200:
                return
            self.streams += 1
            event_id, data, kind = "", "", ""
            while not self.stop.is_set() and (line := response.readline().decode()):
                name, _, value = line.rstrip("\n").partition(": ")
                if name == "id":
                    event_id = value
                elif name == "event":
                    kind = value
                elif name == "data":
                    data = value
                elif line == "\n":
                    # Only a whole event counts; the id of one that was cut off is not kept.
                    self.last_id = event_id or self.last_id
                    if data and kind != "error":
                        record = json.loads(data)
                        self.seen.append((record["partition"], record["offset"], record["value"]))
                    event_id, data, kind = "", "", ""
        finally:
            connection.close()


@pytest.mark.slow
def test_a_stream_goes_on_exactly_when_its_node_and_the_leaders_die(stopped_cluster: Cluster, tmp_path: Path) -> None:
    stopped_cluster.config = write_config(tmp_path / "cluster.toml", settings=QUICK_FAILURES)
    stopped_cluster.start()
    stopped_cluster.create_topic("t", partitions=PARTITIONS)
    follower = Follower(stopped_cluster, "/topics/t/records?format=text&heartbeat=500")
    thread = threading.Thread(target=follower.run)
    with Load(stopped_cluster, "t", partitions=PARTITIONS) as load:
        thread.start()
        follower.wait_for(200)
        for _ in range(2):
            serving = follower.node_id
            stopped_cluster.kill(serving)
            follower.wait_for(200)
            stopped_cluster.restart(serving)
        leader = stopped_cluster.get("/topics/t/partitions/0")["leader"]
        stopped_cluster.kill(leader)
        follower.wait_for(200)
        stopped_cluster.restart(leader)
    ends_exactly(follower, thread, load, streams_min=3)


def ends_exactly(follower: Follower, thread: threading.Thread, load: Load, *, streams_min: int) -> None:
    """Waits for what was acknowledged; then every record has come, once, in order, over so many streams."""
    acknowledged = {
        (client.partition, offset): value for client in load.clients for offset, value in client.acknowledged.items()
    }
    try:
        wait_until(lambda: acknowledged.keys() <= {each[:2] for each in follower.seen}, what="every record has come")
    finally:
        follower.stop.set()
        thread.join()
    assert follower.streams >= streams_min
    for partition in range(PARTITIONS):
        offsets = [each[1] for each in follower.seen if each[0] == partition]
        assert offsets == list(range(len(offsets))), "each once, none missing, in order"
    values = {each[:2]: each[2] for each in follower.seen}
    assert all(values[key] == value for key, value in acknowledged.items())


@pytest.mark.slow
def test_consumer_stream_survives_node_and_coordinator(stopped_cluster: Cluster, tmp_path: Path) -> None:
    settings = {**QUICK_FAILURES, "group.initial.rebalance.delay.ms": 0}
    stopped_cluster.config = write_config(tmp_path / "cluster.toml", settings=settings)
    stopped_cluster.start()
    stopped_cluster.create_topic("t", partitions=PARTITIONS)
    instance = {"name": "i", "format": "text", "auto.offset.reset": "earliest"}
    one = min(stopped_cluster.ids)
    for path, document in (("", instance), ("/instances/i/subscription", {"topics": ["t"]})):
        answer = stopped_cluster.send(one, "POST", f"/consumers/g{path}", document, **{"Content-Type": V2_JSON})
        assert isinstance(answer, Answer), answer
        assert answer.is_success, answer.body
    follower = Follower(stopped_cluster, "/consumers/g/instances/i/records?heartbeat=500")
    thread = threading.Thread(target=follower.run)
    with Load(stopped_cluster, "t", partitions=PARTITIONS) as load:
        thread.start()
        follower.wait_for(200)
        serving = follower.node_id
        stopped_cluster.kill(serving)
        follower.wait_for(200)
        stopped_cluster.restart(serving)
        stopped_cluster.heal()
        described = stopped_cluster.call("GET", "/consumer-groups/g").json()
        coordinator = int(described["coordinator"]["related"].rpartition("/")[2])
        stopped_cluster.kill(coordinator)
        follower.wait_for(200)
        stopped_cluster.restart(coordinator)
    ends_exactly(follower, thread, load, streams_min=2)  # the coordinator may be another node than the stream's
