"""A share group over REST: any of three real nodes receives and acknowledges, and a leader dies with locks held."""

from __future__ import annotations

import json
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from kraft.client import Client
from kraft.client.response import Answer
from kraft.testing.assertions import records_of
from kraft.testing.queues import Queue
from tests.integration.support.cluster import Cluster, kraft
from tests.integration.support.waiting import wait_until

SHORT_LOCK_MS = 15_000
"""The least that the cluster allows."""
LETTERS = 4_000
"""Eight turns of a redrive."""


@pytest.fixture
def nodes(fragile_cluster: Cluster) -> Cluster:
    fragile_cluster.heal()
    return fragile_cluster


def receive(nodes: Cluster, group: str, *topics: str, node_id: int | None = None, **more: Any) -> list[dict[str, Any]]:
    path = f"/share-groups/{group}/records:receive"
    body = {"topics": topics, "format": "STRING", **more}
    answer = nodes.call("POST", path, body, node_id=node_id)
    assert answer.status == 200, answer.json()
    records: list[dict[str, Any]] = answer.json()["records"]
    return records


def acknowledge(
    nodes: Cluster, group: str, records: Sequence[dict[str, Any]], kind: str = "accept", *, node_id: int | None = None
) -> Answer:
    acks = [{"ack_id": record["ack_id"], "type": kind} for record in records]
    return nodes.call("POST", f"/share-groups/{group}/records:acknowledge", {"acks": acks}, node_id=node_id)


def values(records: Sequence[dict[str, Any]]) -> list[str]:
    return [record["value"]["data"] for record in records]


def others(nodes: Cluster, *ids: int) -> list[int]:
    return [node_id for node_id in nodes.ids if node_id not in ids]


def test_what_was_produced_before_the_first_receive_is_received_at_any_node(nodes: Cluster):
    nodes.create_topic("work", partitions=3)
    for partition in range(3):
        nodes.write_all("work", [f"{partition}-{number}" for number in range(5)], partition=partition)
    found = receive(nodes, "workers", "work", node_id=1, max_wait_ms=10_000)
    found += receive(nodes, "workers", "work", node_id=2)
    assert sorted(values(found)) == sorted(f"{partition}-{number}" for partition in range(3) for number in range(5))
    assert {record["delivery_count"] for record in found} == {1}
    assert receive(nodes, "workers", "work", node_id=3) == [], "all of them are locked"
    accepted = acknowledge(nodes, "workers", found, node_id=3)
    assert accepted.status == 200, accepted.json()
    assert acknowledge(nodes, "workers", found, node_id=2).status == 200, "the same again: the same answer"
    assert acknowledge(nodes, "workers", found, "reject", node_id=2).status == 409, "not another word"


def test_a_long_poll_ends_when_a_record_comes_to_any_leader(nodes: Cluster):
    nodes.create_topic("news", partitions=3)
    assert receive(nodes, "readers", "news", node_id=1) == []
    began = time.monotonic()
    writing = threading.Timer(1.0, lambda: nodes.write_all("news", ["late"], partition=2))
    writing.start()
    found = receive(nodes, "readers", "news", node_id=1, max_wait_ms=15_000)
    writing.join()
    assert values(found) == ["late"]
    assert time.monotonic() - began < 10


def test_topics_come_in_the_order_of_priority(nodes: Cluster):
    nodes.create_topic("low")
    nodes.create_topic("high")
    nodes.write_all("low", ["l0", "l1"])
    nodes.write_all("high", ["h0", "h1"])
    assert values(receive(nodes, "both", "high", "low", max_records=3, max_wait_ms=10_000)) == ["h0", "h1", "l0"]


def test_release_reject_renew_and_implicit(nodes: Cluster):
    nodes.create_topic("words")
    nodes.write_all("words", ["a", "b", "c", "d"])
    first = receive(nodes, "all", "words", max_wait_ms=10_000, max_records=3)
    assert values(first) == ["a", "b", "c"]
    assert acknowledge(nodes, "all", first[:1], "release").status == 200
    assert acknowledge(nodes, "all", first[1:2], "reject").status == 200
    renewed = acknowledge(nodes, "all", first[2:], "renew").json()["results"][0]
    assert renewed["lock_until"] >= first[2]["lock_until"]
    again = receive(nodes, "all", "words", max_wait_ms=5_000, acknowledgement="implicit")
    assert [(record["value"]["data"], record["delivery_count"], record["ack_id"]) for record in again] == [
        ("a", 2, None),
        ("d", 1, None),
    ]
    assert acknowledge(nodes, "all", [{"ack_id": renewed["renewed_ack_id"]}]).status == 200
    mixed = acknowledge(nodes, "all", [first[0], first[2]], "accept")
    assert mixed.status == 207
    assert [row["kafka_code"] for row in mixed.json()["results"]] == [121, None]


def test_a_receive_brings_what_became_of_the_records_before(nodes: Cluster):
    nodes.create_topic("chained", partitions=3)
    for partition in range(3):
        nodes.write_all("chained", [f"{partition}-{number}" for number in range(4)], partition=partition)
    path = "/share-groups/chainers/records"

    def both(acks: Sequence[dict[str, Any]], *, node_id: int, **more: Any) -> dict[str, Any]:
        body = {"topics": ["chained"], "format": "STRING", "acknowledge": acks, **more}
        answer = nodes.call("POST", path + ":receive", body, node_id=node_id)
        assert answer.status == 200, answer.json()
        document: dict[str, Any] = answer.json()
        return document

    held = both([], node_id=1, max_wait_ms=10_000, max_records=8)["records"]
    while len(held) < 8:
        held += both([], node_id=1, max_wait_ms=10_000, max_records=8 - len(held))["records"]
    words = ["accept", "accept", "accept", "release", "reject", "renew", "accept", "accept"]
    acks = [{"ack_id": each["ack_id"], "type": word} for each, word in zip(held, words, strict=True)]
    acks.insert(2, {"ack_id": "forged", "type": "accept"})
    answer = both(acks, node_id=2)
    assert [row["kafka_code"] for row in answer["results"]] == [None, None, 42, *[None] * 6]
    assert [row["ack_id"] for row in answer["results"]] == [each["ack_id"] for each in acks]
    got = {record["value"]["data"]: record["delivery_count"] for record in answer["records"]}
    assert got.pop(held[3]["value"]["data"], 2) == 2, "it was released, at most in time for this receive"
    everything = {f"{partition}-{number}" for partition in range(3) for number in range(4)}
    assert got == dict.fromkeys(everything - {each["value"]["data"] for each in held}, 1)
    again = both(acks[:2] + acks[4:6], node_id=3)["results"]
    assert [row["error_code"] for row in again] == [None] * 4, "its answer might have been lost"
    another = [{"ack_id": held[0]["ack_id"], "type": "reject"}, {"ack_id": answer["results"][6]["renewed_ack_id"]}]
    another[1]["type"] = "accept"
    assert [row["kafka_code"] for row in both(another, node_id=3)["results"]] == [121, None]
    missing = {"topics": ["chained", "nowhere"], "acknowledge": [acks[7] | {"type": "reject"}]}
    assert nodes.call("POST", path + ":receive", missing, node_id=1).status == 404
    slow = {"topics": ["chained"], "acknowledge": [acks[7] | {"delay_ms": 5}]}
    refused = nodes.call("POST", path + ":receive", slow, node_id=1)
    assert (refused.status, refused.json()["message"]) == (400, "delay_ms=5 goes with release, not with accept")


@pytest.mark.long
def test_a_lock_that_ran_out_is_409_and_the_record_is_handed_out_again(nodes: Cluster):
    nodes.create_topic("slow")
    nodes.write_all("slow", ["once"])
    first = receive(nodes, "sleepers", "slow", max_wait_ms=10_000, lock_ms=SHORT_LOCK_MS)
    again: list[dict[str, Any]] = []

    def comes_again() -> bool:
        again.extend(receive(nodes, "sleepers", "slow", max_wait_ms=2_000))
        return bool(again)

    wait_until(comes_again, what="the record again", deadline_s=40)
    assert again[0]["delivery_count"] == 2
    late = acknowledge(nodes, "sleepers", first)
    assert (late.status, late.json()["kafka_code"]) == (409, 121)
    assert acknowledge(nodes, "sleepers", again).status == 200


def test_the_leader_is_killed_with_locks_held(nodes: Cluster):
    leader = others(nodes, nodes.controller())[0]
    nodes.create_assigned("held", [leader, *others(nodes, leader)])
    nodes.write_all("held", ["done", "lost", "given"])
    other = others(nodes, leader)[0]
    held = receive(nodes, "keepers", "held", node_id=other, max_wait_ms=10_000)
    assert values(held) == ["done", "lost", "given"]
    assert acknowledge(nodes, "keepers", held[:1], node_id=other).status == 200
    assert acknowledge(nodes, "keepers", held[2:], "release", node_id=other).status == 200
    nodes.kill(leader)
    nodes.wait_for_leader("held", other_than=leader)
    done = {"ack_id": held[0]["ack_id"], "type": "accept"}
    repeated = {"topics": ["held"], "acknowledge": [done], "max_records": 1, "max_wait_ms": 10_000}
    with_records = nodes.call("POST", "/share-groups/keepers/records:receive", repeated, node_id=other).json()
    assert [row["error_code"] for row in with_records["results"]] == [None], "its answer might have been lost"
    assert acknowledge(nodes, "keepers", with_records["records"], "release", node_id=other).status == 200
    assert acknowledge(nodes, "keepers", held[:1], node_id=other).status == 200
    assert acknowledge(nodes, "keepers", held[2:], "release", node_id=other).status == 200
    ended = acknowledge(nodes, "keepers", held[1:2], node_id=other)
    assert (ended.status, ended.json()["kafka_code"]) == (409, 121), "nobody has accepted it"
    found = receive(nodes, "keepers", "held", node_id=other, max_wait_ms=10_000)
    assert values(found) == ["lost", "given"]
    assert acknowledge(nodes, "keepers", found, node_id=other).status == 200
    assert acknowledge(nodes, "keepers", held[1:2], node_id=other).status == 409, "another receiver has accepted it"


@pytest.mark.long
def test_a_record_that_was_released_for_later_waits_also_when_its_leader_dies(nodes: Cluster):
    leader = others(nodes, nodes.controller())[0]
    nodes.create_assigned("later", [leader, *others(nodes, leader)])
    nodes.write_all("later", ["now", "soon"])
    other = others(nodes, leader)[0]
    held = receive(nodes, "patient", "later", node_id=other, max_wait_ms=10_000)
    acks = [
        {"ack_id": held[0]["ack_id"], "type": "release", "delay_ms": 0},
        {"ack_id": held[1]["ack_id"], "type": "release", "delay_ms": 8_000},
    ]
    path = "/share-groups/patient/records"
    assert nodes.call("POST", path + ":acknowledge", {"acks": acks}, node_id=other).status == 200
    released = time.monotonic()
    (now, soon) = nodes.call("POST", path + ":peek", {}, node_id=other).json()["records"]
    assert (now["not_before"], now["state"], soon["state"]) == (None, "AVAILABLE", "AVAILABLE")
    assert 0 < soon["not_before"] - time.time() * 1_000 <= 8_000
    nodes.kill(leader)
    nodes.wait_for_leader("later", other_than=leader)
    again = receive(nodes, "patient", "later", node_id=other, max_wait_ms=5_000)
    assert values(again) == ["now"]
    again = receive(nodes, "patient", "later", node_id=other, max_wait_ms=20_000)
    assert [(record["value"]["data"], record["delivery_count"]) for record in again] == [("soon", 2)]
    assert time.monotonic() - released > 7.5
    wrong = {"acks": [{"ack_id": again[0]["ack_id"], "type": "accept", "delay_ms": 5}]}
    refused = nodes.call("POST", path + ":acknowledge", wrong, node_id=other)
    assert (refused.status, refused.json()["message"]) == (400, "delay_ms=5 goes with release, not with accept")
    wrong["acks"][0] |= {"type": "release", "delay_ms": 43_200_001}
    assert nodes.call("POST", path + ":acknowledge", wrong, node_id=other).status == 400


def test_foreign_and_forged_ids_are_refused(nodes: Cluster):
    nodes.create_topic("closed")
    nodes.write_all("closed", ["x"])
    (record,) = receive(nodes, "owners", "closed", max_wait_ms=10_000)
    for group, text in (
        ("thieves", record["ack_id"]),
        ("owners", record["ack_id"][:-8] + "".join(reversed(record["ack_id"][-8:]))),
        ("owners", "no id"),
        ("owners", ""),
    ):
        refused = acknowledge(nodes, group, [{"ack_id": text}])
        assert (refused.status, refused.json()["kafka_code"]) == (400, 42), text
    assert acknowledge(nodes, "owners", [record]).status == 200


def test_a_share_group_is_listed_described_reset_and_deleted(nodes: Cluster):
    nodes.create_topic("seen")
    nodes.write_all("seen", ["x", "y"])
    path = "/share-groups/listed"
    assert nodes.call("GET", path).status == 404
    found = receive(nodes, "listed", "seen", max_wait_ms=10_000, lock_ms=SHORT_LOCK_MS)
    assert acknowledge(nodes, "listed", found[:1]).status == 200
    group = nodes.call("GET", path, node_id=2).json()
    assert (group["state"], group["consumer_count"], group["partition_count"]) == ("EMPTY", 0, 1)
    listed = nodes.call("GET", "/share-groups", node_id=3).json()["data"]
    assert "listed" in {each["share_group_id"] for each in listed}
    assert nodes.call("GET", path + "/consumers").json()["data"] == []
    assert nodes.call("GET", "/consumer-groups/listed").status == 404
    (lag,) = nodes.call("GET", path + "/lags").json()["data"]
    assert (lag["topic_name"], lag["partition_id"], lag["start_offset"], lag["lag"]) == ("seen", 0, 1, 1)
    reset = nodes.call("POST", path + "/offsets:reset", {"to": "earliest", "topics": ["seen"]}).json()
    assert [(row["start_offset"], row["error_code"]) for row in reset["data"]] == [(0, None)]
    again: list[str] = []

    def comes_again() -> bool:
        again.extend(values(receive(nodes, "listed", "seen", max_wait_ms=1_000)))
        return "x" in again

    wait_until(comes_again, what="the first record again", deadline_s=60)
    assert nodes.call("DELETE", path).status == 204
    assert nodes.call("GET", path).status == 404


def test_settings_of_a_share_group_are_checked_before_anything_is_made(nodes: Cluster):
    nodes.create_topic("set")
    path = "/share-groups/settled/configs"

    def create(**configs: str) -> Answer:
        rows = [{"name": name, "value": value} for name, value in configs.items()]
        return nodes.call("POST", "/share-groups", {"share_group_id": "settled", "topics": ["set"], "configs": rows})

    high = create(**{"share.delivery.count.limit": "11"})
    assert (high.status, high.json()["kafka_code"]) == (400, 40)
    assert high.json()["message"].endswith("equal to group.share.max.delivery.count.limit, which is 10")
    assert create(**{"share.delivery.count.limt": "3"}).json()["message"].endswith("share.delivery.count.limit?")
    assert create(**{"consumer.session.timeout.ms": "46000"}).status == 404, "of another kind of group"
    assert nodes.call("GET", "/share-groups/settled").status == 404, "nothing was made"
    assert create(**{"share.auto.offset.reset": "latest", "share.delivery.count.limit": "2"}).status == 204
    rows = {row["name"]: row for row in nodes.call("GET", path, node_id=2).json()["data"]}
    assert rows["share.auto.offset.reset"]["value"] == "latest"
    assert (rows["share.delivery.count.limit"]["value"], rows["share.delivery.count.limit"]["is_default"]) == (
        "2",
        False,
    )
    change = {"data": [{"name": "share.delivery.count.limit", "operation": "DELETE"}]}
    assert nodes.call("POST", path + ":alter", change, node_id=3).status == 204


def test_a_queue_from_the_command_line(nodes: Cluster):
    nodes.create_topic("lined")
    nodes.write_all("lined", ["x"])

    def queues(*arguments: str) -> Any:
        return json.loads(kraft("queues", *arguments, "--data", nodes.data, "--json").stdout)

    limit = "share.delivery.count.limit"
    assert queues("create", "line", "lined", "--config", f"{limit}=3") == {"queue": "line", "created": True}
    assert "line" in {row["share_group_id"] for row in queues("list")}
    found = receive(nodes, "line", "lined", max_wait_ms=10_000)
    assert values(found) == ["x"]
    assert acknowledge(nodes, "line", found).status == 200
    described = queues("describe", "line")
    assert described["consumers"] == []
    assert [(row["topic_name"], row["lag"]) for row in described["lags"]] == [("lined", 0)]
    assert (described["configs"][limit], described["configs"]["share.auto.offset.reset"]) == ("3", "earliest")
    assert queues("alter", "line", "--config", f"{limit}=4") == {"queue": "line", "altered": True}
    assert queues("describe", "line")["configs"][limit] == "4"
    assert [row["start_offset"] for row in queues("reset", "line", "lined", "--to", "earliest")] == [0]
    assert queues("delete", "line") == {"queue": "line", "deleted": True}
    assert kraft("queues", "describe", "line", "--data", nodes.data, check=False).returncode != 0


def test_peek_shows_what_waits_and_is_in_flight_and_locks_nothing(nodes: Cluster):
    nodes.create_topic("peeked", partitions=3)
    path = "/share-groups/lookers/records:peek"
    assert nodes.call("POST", path, {}).status == 404
    assert nodes.call("POST", "/share-groups", {"share_group_id": "lookers", "topics": ["peeked"]}).status == 204
    for partition in range(3):
        nodes.write_all("peeked", [f"{partition}-{number}" for number in range(3)], partition=partition)

    def peek(node_id: int, **more: Any) -> dict[str, tuple[str, int]]:
        answer = nodes.call("POST", path, {"format": "STRING", **more}, node_id=node_id)
        assert answer.status == 200, answer.json()
        rows = answer.json()["records"]
        assert all((row["lock_until"] is None) == (row["state"] != "ACQUIRED") for row in rows)
        return {row["value"]["data"]: (row["state"], row["delivery_count"]) for row in rows}

    everything = {f"{p}-{n}": ("AVAILABLE", 0) for p in range(3) for n in range(3)}
    assert peek(1) == peek(2) == peek(3) == everything
    held = receive(nodes, "lookers", "peeked", max_wait_ms=10_000, lock_ms=SHORT_LOCK_MS)
    assert len(held) == 9
    assert {record["delivery_count"] for record in held} == {1}, "nobody was handed anything by a look"
    by_value = {record["value"]["data"]: record for record in held}
    assert acknowledge(nodes, "lookers", [by_value["0-0"], by_value["1-1"]]).status == 200
    assert acknowledge(nodes, "lookers", [by_value["2-2"]], "release").status == 200
    assert acknowledge(nodes, "lookers", [by_value["2-0"]], "reject").status == 200
    expected = dict.fromkeys(everything, ("ACQUIRED", 1)) | {"2-2": ("AVAILABLE", 1)}
    expected = {name: known for name, known in expected.items() if name not in ("0-0", "1-1", "2-0")}
    assert peek(1) == peek(2) == peek(3) == expected
    assert len(peek(2, max_records=4)) == 4
    assert peek(2, topics=["lookers"]) == {}, "of no topic that it has"


def test_purge_skips_what_waits_also_while_locks_are_held(nodes: Cluster):
    nodes.create_topic("emptied", partitions=2)
    for partition in range(2):
        nodes.write_all("emptied", ["a", "b", "c"], partition=partition)
    held = receive(nodes, "purged", "emptied", max_wait_ms=10_000, max_records=4, lock_ms=SHORT_LOCK_MS)
    assert len(held) == 4
    assert acknowledge(nodes, "purged", held[:1]).status == 200
    asked = kraft("queues", "purge", "purged", "--data", nodes.data, stdin="n\n", check=False)
    assert asked.returncode != 0
    assert "of emptied, for ever; the topics keep them" in asked.stdout
    rows = json.loads(kraft("queues", "purge", "purged", "--yes", "--data", nodes.data, "--json").stdout)
    assert [(row["partition_id"], row["start_offset"]) for row in rows] == [(0, 3), (1, 3)]
    assert receive(nodes, "purged", "emptied", max_wait_ms=1_000) == []
    assert acknowledge(nodes, "purged", held[1:2]).status == 409, "nobody waits for it any more"
    nodes.write_all("emptied", ["new"], partition=1)
    assert values(receive(nodes, "purged", "emptied", max_wait_ms=10_000)) == ["new"]


def test_dead_letters_of_a_queue_are_shown_without_those_of_others(nodes: Cluster):
    nodes.create_topic("letters")
    nodes.create_topic("dlq.letters", **{"errors.deadletterqueue.group.enable": "true"})
    nodes.write_all("letters", ["good", "bad"])
    named = "errors.deadletterqueue.topic.name=dlq.letters"
    for queue, reason in (("first", "no address"), ("second", "too late")):
        kraft(
            "queues", "create", queue, "letters", "--config", named,
            "--config", "errors.deadletterqueue.copy.record.enable=true", "--data", nodes.data,
        )  # fmt: skip
        found = receive(nodes, queue, "letters", max_wait_ms=10_000)
        acks = [{"ack_id": found[1]["ack_id"], "type": "reject", "reason": reason}]
        assert nodes.call("POST", f"/share-groups/{queue}/records:acknowledge", {"acks": acks}).status == 200

    def shown() -> list[dict[str, Any]]:
        text = kraft("queues", "peek", "first", "--dead-letters", "--data", nodes.data, "--json").stdout
        return list(json.loads(text))

    wait_until(lambda: bool(shown()), what="the dead letter", deadline_s=30)
    (letter,) = shown()
    assert (letter["topic"], letter["offset"], letter["value"]) == ("letters", "1", "bad")
    assert (letter["message"], letter["delivery.count"]) == ("no address", "1")
    rows = json.loads(kraft("queues", "redrive", "first", "--data", nodes.data, "--json").stdout)
    assert [(row["offset"], row["state"], row["message"]) for row in rows] == [(1, "REDRIVEN", "no address")]
    (back,) = receive(nodes, "first", "letters", max_wait_ms=10_000)
    named = {each["name"]: b64decode(each["value"]) for each in back["headers"]}
    assert (back["offset"], back["value"]["data"]) == (2, "bad")
    assert named["kraft.redriven.from"].startswith(b"dlq.letters-0@")
    assert json.loads(kraft("queues", "redrive", "first", "--data", nodes.data, "--json").stdout) == [], "each once"
    named_wrongly = kraft("queues", "redrive", "first", "--record", "letters:0", "--data", nodes.data, check=False)
    assert "as in mails:0:17" in named_wrongly.stderr
    missing = kraft("queues", "redrive", "first", "--record", "letters:0:0", "--data", nodes.data, check=False)
    assert "no dead letter of letters-0@0 waits in dlq.letters" in missing.stderr
    without = kraft("queues", "peek", "none", "--dead-letters", "--data", nodes.data, check=False)
    assert "has no dead letter topic" in without.stderr


@pytest.mark.long
def test_checks_of_a_queue_name_each_record_and_what_became_of_it(nodes: Cluster):
    nodes.create_topic("checked")
    nodes.create_topic("dlq.checked", **{"errors.deadletterqueue.group.enable": "true"})
    named = "errors.deadletterqueue.topic.name=dlq.checked"
    kraft("queues", "create", "checkers", "checked", "--config", named, "--data", nodes.data)
    nodes.write_all("checked", ["done", "held", "bad", "waits"])
    urls = [node.rest for node in nodes.nodes]
    queue = Queue("checkers", rest_urls=lambda: urls, records=lambda topic: records_of(urls, topic))
    found = receive(nodes, "checkers", "checked", max_wait_ms=10_000, max_records=3)
    assert acknowledge(nodes, "checkers", found[:1]).status == 200
    acks = [{"ack_id": found[2]["ack_id"], "type": "reject", "reason": "no address"}]
    assert nodes.call("POST", "/share-groups/checkers/records:acknowledge", {"acks": acks}).status == 200
    queue.assert_dead_letters(b"bad")
    failed = failure(lambda: queue.assert_accepted_once(["done", "done", "held", "strange"]))
    assert failed.splitlines() == [
        "expected 4 records of queue checkers accepted once; but",
        "  b'done': accepted 2 times",
        "  b'strange': accepted, and in none of ['checked']",
        "  checked-0@1 b'held': ACQUIRED, delivered 1 times, although it was accepted",
        "  checked-0@2 b'bad': never accepted; it is a dead letter: no address",
        "  checked-0@3 b'waits': never accepted; it is AVAILABLE, delivered 0 times",
    ]
    assert failure(lambda: queue.assert_nothing_in_flight(0)).splitlines() == [
        "expected nothing of queue checkers in flight; but",
        "  checked-0@1 b'held': ACQUIRED, delivered 1 times",
    ]
    assert failure(lambda: queue.assert_dead_letters("held", within_s=0)).splitlines() == [
        "expected dead letters of queue checkers: b'held'; but",
        "  b'held': no dead letter; checked-0@1 b'held': ACQUIRED, delivered 1 times",
        "  checked-0@2 b'bad': no address (delivered 1 times)",
    ]
    found += receive(nodes, "checkers", "checked", max_wait_ms=10_000)
    assert acknowledge(nodes, "checkers", [found[1], found[3]]).status == 200
    queue.assert_nothing_in_flight()
    queue.assert_accepted_once([b"done", b"held", b"waits"], besides=[b"bad"])


def failure(check: Callable[[], None]) -> str:
    with pytest.raises(AssertionError) as raised:
        check()
    return str(raised.value)


@pytest.mark.long
def test_a_node_that_is_killed_while_it_redrives_brings_each_back_once(nodes: Cluster):
    """Also for readers of uncommitted records."""
    (victim,) = others(nodes, nodes.controller())[:1]
    there = others(nodes, victim)
    nodes.create_assigned("back", there)
    nodes.create_assigned("dlq.back", there, **{"errors.deadletterqueue.group.enable": "true"})
    configs = [{"name": "errors.deadletterqueue.topic.name", "value": "dlq.back"}]
    group = {"share_group_id": "redrivers", "topics": ["back"], "configs": configs}
    assert nodes.call("POST", "/share-groups", group).status == 204
    with Client(*(node.rest for node in nodes.nodes)) as client, client.producer() as producer:
        for number in range(LETTERS):
            named = {"topic": "back", "partition": "0", "offset": str(number), "group": "redrivers"}
            headers = {f"__dlq.errors.{name}": text.encode() for name, text in named.items()}
            producer.send("dlq.back", f"{number}", headers=headers)
        assert producer.flush().acknowledged == LETTERS

    def redrive(node_id: int) -> bool | None:
        """Whether all is brought back; None: the node does not answer."""
        answer = nodes.send(node_id, "POST", f"{nodes.v3}/share-groups/redrivers/records:redrive", {})
        if not isinstance(answer, Answer):
            return None
        return answer.status == 200 and bool(answer.json()["is_complete"])

    def redrive_until_it_dies() -> None:
        while redrive(victim) is False:
            pass

    thread = threading.Thread(target=redrive_until_it_dies)
    thread.start()
    path = "/topics/back/partitions/0"
    wait_until(lambda: nodes.get(path + "/offsets", node_id=there[0])["end_offset"] > LETTERS // 8)
    nodes.kill(victim)
    thread.join()
    assert nodes.get(path + "/offsets", node_id=there[0])["end_offset"] < LETTERS, "it was too quick"
    wait_until(lambda: redrive(there[0]), deadline_s=60)
    found: list[int] = []
    offset = 0
    while offset < nodes.get(path + "/offsets", node_id=there[0])["end_offset"]:
        url = f"{path}/records?offset={offset}&isolation_level=read_uncommitted&timeout=0"
        records = json.loads(nodes.send(there[0], "GET", url, Accept="application/vnd.kafka.json.v2+json").body)
        if not records:
            break
        found += [int(record["value"]) for record in records]
        offset = records[-1]["offset"] + 1
    assert sorted(found) == list(range(LETTERS))
