"""Transactions over REST on three processes, some of which are killed: each verb is repeated after its answer was lost,
at another node, and what is committed is there exactly once."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import pytest

from kraft.client import Client
from kraft.client.response import Answer
from kraft.coordinators.java import abs_hash
from tests.integration.support.cluster import Cluster, kraft
from tests.integration.support.reading import TEXT
from tests.integration.support.transactional import committed
from tests.integration.support.waiting import NotYet, wait_until

STATE = "__transaction_state"
PARTITIONS = 4


@pytest.fixture
def nodes(fragile_cluster: Cluster) -> Cluster:
    fragile_cluster.heal()
    return fragile_cluster


class Producer:
    """A program that speaks HTTP: it asks any node, and asks another one again where there is no answer yet."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.named: dict[str, int] = {}

    def ask(
        self, verb: str, body: Any = None, *, node_id: int | None = None, key: str | None = None, **query: Any
    ) -> Answer:
        path = f"/transactions/{self.name}{verb}?{urlencode({**self.named, **query})}"
        headers = {"Content_Type": TEXT} if "/topics/" in verb else {}
        if key is not None:
            headers["Idempotency_Key"] = key
        found: list[Answer] = []

        def is_answered() -> bool:
            chosen = self.cluster.serving[0] if node_id is None else node_id
            outcome = self.cluster.send(chosen, "POST", path, body, **headers)
            if not isinstance(outcome, Answer) or outcome.status == 503:
                raise NotYet(f"{path} at node {chosen}: {outcome}")
            if "/topics/" in verb and any(each.get("retriable") for each in outcome.json().get("offsets", ())):
                raise NotYet(f"{path} at node {chosen}: {outcome}")
            found[:] = [outcome]
            return True

        wait_until(is_answered, what=f"an answer to {path}", deadline_s=60)
        return found[0]

    def begin(self, *, node_id: int | None = None) -> None:
        self.named = {}
        self.follow(self.ask("", {"transaction.timeout.ms": 60_000}, node_id=node_id))

    def follow(self, answer: Answer) -> None:
        assert answer.status == 200, answer
        self.named = {name: answer.json()[name] for name in ("producer_id", "producer_epoch")}

    def coordinator(self) -> int:
        topic = self.cluster.get(f"/topics/{STATE}/partitions")
        return self.cluster.leader_of(STATE, abs_hash(self.name) % len(topic))


def committed_offset(cluster: Cluster, group: str, topic: str) -> int:
    cluster_path = f"{cluster.v3}/consumer-groups/{group}/lags/{topic}/partitions/0"
    return int(cluster.get(cluster_path)["current_offset"])


def test_a_transaction_through_three_nodes(nodes: Cluster) -> None:
    nodes.create_topic("out", partitions=2)
    producer = Producer(nodes, "through-all")
    one, two, three = nodes.ids
    producer.begin(node_id=one)
    records = [{"value": "a", "partition": 0}, {"value": "b", "partition": 1}]
    answer = producer.ask("/topics/out", {"records": records}, node_id=two)
    assert [each["offset"] for each in answer.json()["offsets"]] == [0, 0]
    assert answer.headers["x-next-sequence"] == "0:1,1:1"
    answer = producer.ask("/topics/out/partitions/0", {"records": [{"value": "c"}]}, node_id=three, sequence="0:1,1:1")
    assert answer.json()["offsets"][0]["offset"] == 1
    for node_id in nodes.ids:
        end = nodes.get("/topics/out/partitions/0/offsets?isolation_level=read_committed", node_id=node_id)
        assert end["end_offset"] == 0, "nothing of it shows before the commit"
    producer.follow(producer.ask("/commit", node_id=three))
    for node_id in nodes.ids:
        wait_until(lambda n=node_id: committed(nodes, n, "out", 0) == ["a", "c"], what="what was committed")
        wait_until(lambda n=node_id: committed(nodes, n, "out", 1) == ["b"], what="what was committed")
    producer.ask("/topics/out/partitions/0", {"records": [{"value": "gone"}]}, node_id=one)
    producer.follow(producer.ask("/abort", node_id=two))
    for node_id in nodes.ids:
        wait_until(lambda n=node_id: committed(nodes, n, "out", 0) == ["a", "c"], what="the abort")


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["coordinator", "leader"])
def test_each_verb_is_repeated_after_the_death_of_a_node(nodes: Cluster, victim: str) -> None:
    """The first answer is taken for lost: kill -9 comes right after it, and another node is asked again."""
    topic, name, group = f"out-{victim}", f"killed-{victim}", f"g-{victim}"
    nodes.create_topic(topic)
    producer = Producer(nodes, name)

    def killed() -> None:
        nodes.kill(producer.coordinator() if victim == "coordinator" else nodes.leader_of(topic))

    def twice(verb: str, body: Any = None, **query: Any) -> Answer:
        first = producer.ask(verb, body, **query)
        assert first.is_success, first
        killed()
        again = producer.ask(verb, body, **query)
        assert again.status == first.status, (verb, first, again)
        if "/topics/" in verb:
            assert again.json()["offsets"] == first.json()["offsets"]
            assert again.headers["x-next-sequence"] == first.headers["x-next-sequence"]
        else:
            assert again.body == first.body, (verb, first, again)
        nodes.heal()
        return first

    producer.follow(twice("", {"transaction.timeout.ms": 60_000}, key="begun-once"))
    path = f"/topics/{topic}/partitions/0"
    answer = twice(path, {"records": [{"value": "1"}, {"value": "2"}]})
    twice(path, {"records": [{"value": "3"}]}, sequence=answer.headers["x-next-sequence"])
    for forgotten in ({}, {"sequence": answer.headers["x-next-sequence"]}):
        count = 1 if forgotten else 2
        other = producer.ask(path, {"records": [{"value": "not the first ones"}] * count}, **forgotten)
        assert (other.status, other.json()["error_code"], other.json()["kafka_code"]) == (400, 40002, 45), other
    twice("/offsets", {"group": group, "partitions": [{"topic": topic, "partition": 0, "offset": 2}]})
    producer.follow(twice("/commit"))
    for node_id in nodes.ids:
        wait_until(lambda n=node_id: committed(nodes, n, topic) == ["1", "2", "3"], what="what was committed")
    wait_until(lambda: committed_offset(nodes, group, topic) == 2, what="the committed offset")
    twice(path, {"records": [{"value": "gone"}]})
    twice("/offsets", {"group": group, "partitions": [{"topic": topic, "partition": 0, "offset": 4}]})
    producer.follow(twice("/abort"))
    for node_id in nodes.ids:
        wait_until(lambda n=node_id: committed(nodes, n, topic) == ["1", "2", "3"], what="what was committed")
    assert committed_offset(nodes, group, topic) == 2


def test_the_client_copies_from_topic_to_topic_exactly_once(nodes: Cluster) -> None:
    """A consumer's offsets are committed with what was made of its records; what was aborted comes again."""
    nodes.create_topic("from")
    nodes.create_topic("to", partitions=PARTITIONS)
    wanted = [str(number) for number in range(40)]
    nodes.write("from", wanted)
    urls = [node.rest for node in nodes.nodes]
    with Client(*urls) as client:
        copier = client.transactional_producer("copier")
        options = {"group": "copiers", "auto_offset_reset": "earliest", "enable_auto_commit": False}
        attempts, copied = 0, 0
        with client.consumer("from", isolation_level="read_committed", fetch_max_bytes=60, **options) as consumer:
            for records in consumer.batches():
                attempts += 1
                try:
                    with copier.transaction(consumer) as transaction:
                        for record in records:
                            transaction.send("to", record.value, key=str(record.offset))
                        if attempts % 3 == 1:
                            raise Interrupted
                except Interrupted:
                    continue
                copied += len(records)
                if copied == len(wanted):
                    break
        assert attempts > copied / len(wanted), "some were aborted"
        found = []
        with client.reader("to", offset="earliest", follows=False, isolation_level="read_committed") as reader:
            found = [str(record.text()) for record in reader]
        assert sorted(found, key=int) == wanted
        assert committed_offset(nodes, "copiers", "from") == len(wanted)


class Interrupted(Exception):
    pass


def test_a_second_instance_fences_the_first(nodes: Cluster) -> None:
    nodes.create_topic("fenced")
    urls = [node.rest for node in nodes.nodes]
    with Client(*urls) as old, Client(*urls) as new:
        zombie = old.transactional_producer("only-one")
        with pytest.raises(Exception, match="fenced"):  # noqa: PT012, SIM117 - the commit is what fails
            with zombie.transaction() as transaction:
                transaction.send("fenced", "old")
                transaction.flush()
                with new.transactional_producer("only-one").transaction() as other:
                    other.send("fenced", "new")
        for node_id in nodes.ids:
            wait_until(lambda n=node_id: committed(nodes, n, "fenced") == ["new"], what="what was committed")


@pytest.mark.long
def test_what_a_client_that_vanished_left_open_ends_by_its_timeout(nodes: Cluster) -> None:
    nodes.create_topic("left")
    producer = Producer(nodes, "vanished")
    producer.follow(producer.ask("", {"transaction.timeout.ms": 1_000}))
    producer.ask("/topics/left", {"records": [{"value": "gone"}]})
    nodes.write("left", ["plain"])
    wait_until(lambda: committed(nodes, nodes.ids[0], "left") == ["plain"], what="the end of the transaction")
    answer = producer.ask("/commit")
    assert (answer.status, answer.json()["error_code"]) == (409, 40903), json.dumps(answer.json())


def test_commands_show_what_is_open_and_end_it(nodes: Cluster) -> None:
    nodes.create_topic("shown")
    producer = Producer(nodes, "shown-id")
    producer.begin()
    producer.ask("/topics/shown", {"records": [{"value": "a"}]})

    def reported(*arguments: str) -> Any:
        return json.loads(kraft("transactions", *arguments, "--json", "--data", nodes.data).stdout)

    (row,) = reported("list", "--pattern", "shown-.*")
    assert (row["state"], row["producer_id"]) == ("Ongoing", producer.named["producer_id"])
    assert int(row["coordinator"]) == producer.coordinator()
    assert reported("describe", "shown-id")["partitions"] == [{"topic_name": "shown", "partition_id": 0}]
    (row,) = reported("describe-producers", "shown", "0")
    assert (row["transaction_start_offset"], row["producer_epoch"]) == (0, producer.named["producer_epoch"])
    assert reported("find-hanging", "--topic", "shown", "--max-transaction-timeout", "0") == [], (
        "its coordinator ends it"
    )
    leader, coordinator = nodes.leader_of("shown"), producer.coordinator()
    where = '{partition="0",topic="shown"}'
    shown = metrics(nodes, leader)
    assert (shown[f"kraft_open_transactions{where}"], shown[f"kraft_last_stable_offset_lag{where}"]) == (1, 1)
    assert shown[f"kraft_open_transactions_oldest_seconds{where}"] >= 0
    known = metrics(nodes, coordinator)
    assert known["kraft_transactional_ids"] >= known["kraft_transactions_ongoing"] >= 1
    assert known["kraft_transactions_ongoing_ms_max"] > 0
    reported("abort", "shown", "0", "--start-offset", "0")
    wait_until(lambda: committed(nodes, nodes.ids[0], "shown") == [], what="the abort")
    (row,) = reported("describe-producers", "shown", "0")
    assert row["transaction_start_offset"] == -1
    assert f"kraft_open_transactions{where}" not in metrics(nodes, leader)
    dumped = kraft("log", "dump", str(nodes.folder(leader, "shown")), "--json").stdout.splitlines()
    rows = [json.loads(line) for line in dumped]
    assert [each["marker"] for each in rows if each.get("is_control")] == ["ABORT"]
    (entry,) = (each for each in rows if each["kind"] == "aborted_transaction")
    assert (entry["producer_id"], entry["first_offset"], entry["last_offset"]) == (producer.named["producer_id"], 0, 1)


def metrics(nodes: Cluster, node_id: int) -> dict[str, float]:
    answer = nodes.send(node_id, "GET", "/metrics")
    assert isinstance(answer, Answer)
    lines = (line.rpartition(" ") for line in answer.body.decode().splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}
