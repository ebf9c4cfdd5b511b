"""REST consumers on real processes: any node serves any request of any instance, and none is lost with a node."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kraft.client.response import Answer
from tests.integration.support.cluster import Cluster, kraft
from tests.integration.support.load import Load
from tests.integration.support.waiting import wait_until

TEXT = "application/vnd.kafka.text.v2+json"
GROUP = "/consumers/g"
INSTANCES = ("i", "a", "b")


def consumer(cluster: Cluster, name: str, *topics: str, node_id: int | None = None, **config: Any) -> str:
    """A new instance's path."""
    body = {"name": name, "format": "text", "auto.offset.reset": "earliest", **config}
    created = call(cluster, "POST", GROUP, body, node_id=node_id)
    assert created["instance_id"] == name
    path = f"{GROUP}/instances/{name}"
    assert created["base_uri"].endswith(path)
    if topics:
        call(cluster, "POST", path + "/subscription", {"topics": list(topics)}, node_id=node_id)
    return path


def call(
    cluster: Cluster, method: str, path: str, body: Any = None, *, node_id: int | None = None, expected: int = 0
) -> Any:
    chosen = node_id if node_id is not None else next(each for each in cluster.ids if cluster.is_running(each))
    outcome = cluster.send(chosen, method, path, body)
    assert isinstance(outcome, Answer), (method, path, outcome)
    assert outcome.status == expected if expected else outcome.is_success, (method, path, outcome.status, outcome.body)
    return outcome.json()


def read(cluster: Cluster, path: str, *, node_id: int, **query: Any) -> tuple[list[str], int]:
    """Values and the token to go on with."""
    text = "&".join(f"{name}={value}" for name, value in query.items())
    outcome = cluster.send(node_id, "GET", f"{path}/records?{text}", Accept=TEXT)
    assert isinstance(outcome, Answer), outcome
    assert outcome.is_success, outcome
    return [record["value"] for record in outcome.json()], int(outcome.headers["x-next-token"])


def produce(cluster: Cluster, topic: str, *values: str) -> None:
    records = [{"value": value, "partition": number % 2} for number, value in enumerate(values)]
    answer = cluster.send(cluster.ids[0], "POST", f"/topics/{topic}", {"records": records}, Content_Type=TEXT)
    assert isinstance(answer, Answer), answer
    assert all(each["error_code"] is None for each in answer.json()["offsets"]), answer


@pytest.fixture
def groups(fragile_cluster: Cluster) -> Iterator[Cluster]:
    """All nodes, an empty topic `t`, and no group `g`."""
    fragile_cluster.heal()
    fragile_cluster.create_topic("t", partitions=2)
    yield fragile_cluster
    fragile_cluster.heal()
    for name in INSTANCES:
        fragile_cluster.send(1, "DELETE", f"{GROUP}/instances/{name}")
    assert fragile_cluster.call("DELETE", "/consumer-groups/g").status in (204, 404)
    assert fragile_cluster.call("DELETE", "/topics/t").status == 204


def test_every_endpoint_at_every_node(groups: Cluster) -> None:
    one, two, three = groups.ids
    produce(groups, "t", "a", "b", "c", "d")
    path = consumer(groups, "i", "t", node_id=one)
    assert call(groups, "GET", path + "/subscription", node_id=two)["topics"] == ["t"]
    assert len(call(groups, "GET", path + "/assignments", node_id=three)["partitions"]) == 2
    values, token = read(groups, path, node_id=two, token=1, timeout=3000)
    again, same = read(groups, path, node_id=three, token=1, timeout=3000)
    assert (sorted(values), token) == (["a", "b", "c", "d"], 2)
    assert (again, same) == (values, token)
    call(groups, "POST", path + "/offsets", {"partitions": [{"topic": "t", "partition": 0, "offset": 1}]}, node_id=one)
    call(groups, "POST", path + "/offsets", {"offsets": [{"topic": "t", "partition": 1, "offset": 0}]}, node_id=one)
    asked = {"partitions": [{"topic": "t", "partition": 0}, {"topic": "t", "partition": 1}]}
    for method, tail in (("GET", "/offsets"), ("POST", "/offsets:query")):
        found = call(groups, method, path + tail, asked, node_id=three)["offsets"]
        assert [row["offset"] for row in found] == [1, 1]
    call(groups, "POST", path + "/offsets", b"", node_id=two)
    found = call(groups, "GET", path + "/offsets", node_id=three)["offsets"]
    assert [row["offset"] for row in found] == [2, 2]
    call(groups, "POST", path + "/positions//beginning", asked, node_id=one)
    assert sorted(read(groups, path, node_id=three, timeout=3000)[0]) == ["a", "b", "c", "d"]
    call(groups, "POST", path + "/positions/end", asked, node_id=one)
    assert read(groups, path, node_id=three, timeout=10)[0] == []
    seek = {"offsets": [{"topic": "t", "partition": 0, "offset": 1}]}
    call(groups, "POST", path + "/positions", seek, node_id=one)
    assert read(groups, path, node_id=two, timeout=3000)[0] == ["c"]
    past = {"timestamps": [{"topic": "t", "partition": 1, "timestamp": "2020-01-01T00:00:00Z"}]}
    call(groups, "POST", path + "/positions", past, node_id=one)
    assert read(groups, path, node_id=two, timeout=3000)[0] == ["b", "d"]
    call(groups, "DELETE", path + "/subscription", node_id=two)
    assert call(groups, "GET", path + "/records", node_id=one, expected=409)["error_code"] == 40903
    call(groups, "POST", path + "/assignments", asked, node_id=three)
    call(groups, "POST", path + "/subscription", {"topics": ["t"]}, node_id=one, expected=409)
    call(groups, "DELETE", path + "/", b"{}", node_id=three)
    assert call(groups, "DELETE", path, node_id=one, expected=404)["error_code"] == 40403


def test_bad_input_is_refused_by_its_code(groups: Cluster) -> None:
    path = consumer(groups, "i")
    for method, tail, body, code in (
        ("POST", "", {"name": "i"}, 40902),
        ("POST", "", {"auto.offset.reset": "sometimes"}, 42204),
        ("POST", "", b"{", 400),
        ("POST", "/instances/i/subscription", {}, 40903),
        ("POST", "/instances/i/subscription", {"topics": ["t"], "topic_pattern": "t"}, 40903),
        ("POST", "/instances/i/subscription", {"topic_pattern": "("}, 422),
        ("POST", "/instances/i/subscription", {"topics": "t"}, 422),
        ("POST", "/instances/x/subscription", {"topics": ["t"]}, 40403),
        ("POST", "/instances/i/positions", {"offsets": [{"topic": "t", "partition": 0, "offset": 1}]}, 40903),
        ("POST", "/instances/i/offsets", {"offsets": [{"topic": "x", "partition": 0, "offset": 1}]}, 40401),
        ("POST", "/instances/i/offsets", {"offsets": [{"topic": "t", "partition": 9, "offset": 1}]}, 40402),
        ("GET", "/instances/i/records?token=x", None, 40002),
        ("GET", "/instances/i/records?token=7", None, 40903),
    ):
        status = code if code < 1000 else code // 100
        answer = call(groups, method, GROUP + tail, body, expected=status)
        assert answer["error_code"] == code, (method, tail, body, answer)
    call(groups, "POST", path + "/subscription", {"topics": ["t"]})
    wrong = groups.send(groups.ids[0], "GET", path + "/records", Accept="application/vnd.kafka.json.v2+json")
    assert isinstance(wrong, Answer)
    assert wrong.json()["error_code"] == 40601
    token = call(groups, "GET", path + "/records?token=7", expected=409)
    assert token["error_code"] == 40904


@dataclass
class Reader:
    """Reads with tokens from whichever node answers, and remembers what was acknowledged by going on."""

    cluster: Cluster
    path: str
    values: list[str] = field(default_factory=list)
    longest_gap_s: float = 0.0
    failures: list[str] = field(default_factory=list)

    def run(self, stop: threading.Event) -> None:
        token, turn, last = 1, 0, time.monotonic()
        while not stop.is_set():
            node_id = self.cluster.ids[turn % len(self.cluster.ids)]
            text = f"{self.path}/records?token={token}&timeout=500"
            outcome = self.cluster.send(node_id, "GET", text, Accept=TEXT)
            if not (isinstance(outcome, Answer) and outcome.is_success):
                self.failures.append(str(outcome)[:200])
                turn += 1
                stop.wait(0.02)
                continue
            records = outcome.json()
            self.values += [record["value"] for record in records]
            token = int(outcome.headers["x-next-token"])
            if records:
                now = time.monotonic()
                self.longest_gap_s, last = max(self.longest_gap_s, now - last), now


def test_the_coordinators_node_is_killed_under_load(groups: Cluster) -> None:
    groups.create_topic("load", partitions=2)
    path = consumer(groups, "i", "load")
    described = groups.call("GET", "/consumer-groups/g").json()
    coordinator = int(described["coordinator"]["related"].rpartition("/")[2])
    reader, stop = Reader(groups, path), threading.Event()
    thread = threading.Thread(target=reader.run, args=(stop,))
    thread.start()
    try:
        with Load(groups, "load", partitions=2, pause_s=0.01) as load:
            wait_until(lambda: len(reader.values) > 200, what="the first records")
            groups.kill(coordinator)
            seen = len(reader.values)
            wait_until(lambda: len(reader.values) > seen + 500, what="records after the failover")
        written = [value for client in load.clients for value in client.acknowledged.values()]
        wait_until(lambda: set(written) <= set(reader.values), what="every acknowledged record at the reader")
    finally:
        stop.set()
        thread.join()
    assert len(reader.values) == len(set(reader.values)), "a record came twice to a reader with tokens"
    assert reader.longest_gap_s < 10, (reader.longest_gap_s, reader.failures)


@pytest.mark.slow
def test_commits_that_were_answered_survive_every_node(groups: Cluster) -> None:
    produce(groups, "t", *[f"v{n}" for n in range(20)])
    path = consumer(groups, "i", "t", **{"auto.commit.enable": False})
    read(groups, path, node_id=groups.ids[0], timeout=3000)
    call(groups, "POST", path + "/offsets", {})
    groups.kill_all()
    groups.start_again()
    wait_until(lambda: all(groups.leader_of("t", number) >= 0 for number in range(2)), what="leaders")
    found = call(groups, "GET", path + "/offsets")["offsets"]
    assert [row["offset"] for row in found] == [10, 10]


def test_two_consumers_share_and_a_dead_ones_partitions_move(groups: Cluster) -> None:
    one, two, three = groups.ids
    paths = [consumer(groups, name, "t", node_id=node, **{"consumer.instance.timeout.ms": timeout_ms})
             for name, node, timeout_ms in (("a", one, 60_000), ("b", two, 3_000))]  # fmt: skip

    def shares() -> list[int]:
        return [len(call(groups, "GET", path + "/assignments", node_id=three)["partitions"]) for path in paths[:1]]

    assert shares() == [1]
    wait_until(lambda: shares() == [2], what="the partitions of the consumer that went silent")
    gone = call(groups, "GET", paths[1] + "/assignments", node_id=one, expected=404)
    assert (gone["error_code"], gone["kafka_code"]) == (40403, 25)


@pytest.mark.slow
def test_the_command_line_reads_as_a_member_and_administers_the_group(groups: Cluster, tmp_path: Path) -> None:
    def groups_command(*arguments: str) -> Any:
        return json.loads(kraft("groups", *arguments, "--data", groups.data, "--json").stdout)

    produce(groups, "t", "a", "b", "c", "d")
    consume = ("consume", "t", "--group", "cli", "--data", groups.data)
    first = kraft(*consume).stdout
    assert sorted(line.split("\t")[-1] for line in first.splitlines()) == ["a", "b", "c", "d"]
    assert kraft(*consume).stdout == ""
    assert [(row["group"], row["state"]) for row in groups_command("list")] == [("cli", "EMPTY")]
    described = groups_command("describe", "cli")
    assert (described["total_lag"], len(described["lags"])) == (0, 2)
    assert groups_command("reset", "cli", "--shift", "-1", "--dry-run")[0]["new_offset"] == 1
    assert [row["new_offset"] for row in groups_command("reset", "cli", "--to", "earliest")] == [0, 0]
    assert groups_command("describe", "cli")["total_lag"] == 4
    assert groups.call("GET", "/consumer-groups/cli/lag-summary").json()["total_lag"] == 4
    offsets = tmp_path / "offsets.json"
    offsets.write_text(json.dumps([{"topic_name": "t", "partition_id": 0, "offset": 1}]))
    assert groups_command("reset", "cli", "--file", str(offsets))[0] == {
        "topic_name": "t", "partition_id": 0, "old_offset": 0, "new_offset": 1
    }  # fmt: skip
    consumer(groups, "i", "t", node_id=groups.ids[0])
    refused = kraft("groups", "delete", "g", "--data", groups.data, check=False)
    assert (refused.returncode, "40903" in refused.stderr) == (1, True)
    members = groups.call("GET", "/consumer-groups/g/consumers").json()["data"]
    assert [member["client_id"] for member in members] == ["i"]
    path = f"/consumer-groups/g/consumers/{members[0]['consumer_id']}/assignments"
    assert len(groups.call("GET", path).json()["data"]) == 2
    assert groups.call("GET", path + "/t/partitions/1").status == 200
    assert groups_command("delete", "cli")["deleted"]
    assert groups.call("GET", "/consumer-groups/cli").json()["error_code"] == 40405
