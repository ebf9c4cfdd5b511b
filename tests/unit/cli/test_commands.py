"""The commands against a scripted REST server: what they ask, what they print, how they fail."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from kraft.cli.explain import lines_of
from kraft.cli.main import main
from kraft.cli.partition_reads import start_offset
from kraft.cli.sources import RECORDS_PER_REQUEST_MAX, batches
from kraft.cli.topics import parse_assignment
from replication.producers.state import Producer, ProducerBatch
from replication.storage.producer_snapshot import encode_snapshot

CLUSTERS = {"data": [{"cluster_id": "c1"}]}
DEAD = "http://127.0.0.1:9"


@dataclass
class Script:
    """Answers by method and path (without the query); records what was asked."""

    url: str = ""
    answers: dict[str, Any] = field(default_factory=lambda: {"GET /v3/clusters": CLUSTERS})
    asked: list[tuple[str, Any]] = field(default_factory=list)

    def bodies(self, start: str) -> list[Any]:
        return [body for line, body in self.asked if line.startswith(start)]


def _body(document: Any) -> bytes:
    """In UTF-8, as a node writes it; bytes as they are."""
    return document if isinstance(document, bytes) else json.dumps(document, ensure_ascii=False).encode()


@pytest.fixture
def script() -> Iterator[Script]:
    script = Script()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            script.asked.append((f"{self.command} {self.path}", json.loads(body) if body else None))
            found = script.answers.get(f"{self.command} {self.path.partition('?')[0]}")
            status, document, headers = found if isinstance(found, tuple) else (200, found, {})
            if found is None:
                status, document = 404, {"error_code": 40401, "message": "Topic not found."}
            data = b"" if status == 204 else _body(document)
            self.send_response(status)
            for name, value in {"Content-Length": len(data), **headers}.items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    script.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield script
    server.shutdown()
    thread.join()
    server.server_close()


def run(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["kraft", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    captured = capsys.readouterr()
    code = ended.value.code
    return (code if isinstance(code, int) else 0), captured.out, captured.err


@pytest.fixture
def kraft(monkeypatch, capsys, script):
    return lambda *arguments: run(monkeypatch, capsys, *arguments, "--rest", script.url)


def test_topics_list_is_tab_separated_in_a_pipe_and_json_for_machines(kraft, script):
    topic = {"topic_name": "a", "partitions_count": 2, "replication_factor": 3}
    script.answers["GET /v3/clusters/c1/topics"] = {"data": [topic]}
    assert kraft("topics", "list") == (0, "topic\tpartitions\treplication_factor\na\t2\t3\n", "")
    code, out, _ = kraft("topics", "list", "--json")
    assert (code, json.loads(out)) == (0, [{"topic": "a", "partitions": 2, "replication_factor": 3}])


def test_topics_of_a_queue_are_arguments_or_options(kraft, script):
    script.answers["POST /v3/clusters/c1/share-groups"] = (201, {}, {})
    assert kraft("queues", "create", "work", "a", "--topic", "b", "--topic", "a")[:2] == (0, "queue work created\n")
    assert script.bodies("POST")[0]["topics"] == ["a", "b"]
    code, _, error = kraft("queues", "create", "work")
    assert (code, "kraft queues create work" in error) == (2, True), error


def redriven(*, is_complete: bool) -> dict[str, object]:
    row = {"topic_name": "m", "partition_id": 0, "offset": 4, "dead_letter_topic_name": "d", "state": "WAITS"}
    rows = [row | {"dead_letter_partition_id": 0, "dead_letter_offset": 1, "message": "rejected"}]
    return {"records": rows, "problems": [], "is_complete": is_complete}


@pytest.mark.parametrize("is_complete", [True, False])
def test_a_dry_run_reports_that_more_dead_letters_wait(kraft, script, is_complete):
    script.answers["POST /v3/clusters/c1/share-groups/q/records:redrive"] = redriven(is_complete=is_complete)
    code, out, error = kraft("queues", "redrive", "q", "--dry-run")
    assert (code, "rejected" in out) == (0, True)
    assert error == ("" if is_complete else "more dead letters wait: a dry run shows the first 1\n")


def test_an_explanation_shows_the_evidence_of_each_answer():
    evidence = {"leader": 1, "leader_epoch": 4}
    decider = {"question": "Q?", "rule": "L1", "explanation": "so", "node": 1, "age_ms": 5, "evidence": evidence}
    found = {"subject": "s", "state": "healthy", "since_ms": None, "node_id": 1, "summary": "well", "views": []}
    found |= {"unreached": {}, "events": [], "forgotten": False, "next": "", "fix": []}
    for decision in ("yes", "no", "unknown"):
        lines = lines_of(found | {"deciders": [decider | {"decision": decision}]}, now_ms=0)
        assert "      leader=1, leader_epoch=4 (node 1, 5 ms old)" in lines


def test_topics_create_sends_only_what_was_given(kraft, script):
    script.answers["POST /v3/clusters/c1/topics"] = (201, {"topic_name": "a"}, {})
    assert kraft("topics", "create", "a")[0] == 0
    assert kraft("topics", "create", "a", "--assignment", "1,2;2,3", "--config", "retention.ms=5")[0] == 0
    assert script.bodies("POST") == [
        {"topic_name": "a"},
        {
            "topic_name": "a",
            "replicas_assignments": {"0": [1, 2], "1": [2, 3]},
            "configs": [{"name": "retention.ms", "value": "5"}],
        },
    ]


def test_topics_alter_sets_deletes_and_grows(kraft, script):
    script.answers["POST /v3/clusters/c1/topics/a/configs:alter"] = (204, None, {})
    script.answers["PATCH /v3/clusters/c1/topics/a"] = {}
    code, out, _ = kraft("topics", "alter", "a", "--partitions", "4", "--config", "x=1", "--delete-config", "y")
    assert (code, out) == (0, "topic a altered\n")
    changes = [{"name": "x", "value": "1", "operation": "SET"}, {"name": "y", "operation": "DELETE"}]
    assert script.bodies("POST") == [{"data": changes}]
    assert script.bodies("PATCH") == [{"partitions_count": 4}]
    assert kraft("topics", "alter", "a")[0] == 2


def test_topics_describe_shows_the_isr(kraft, script):
    replicas = [{"broker": 1, "leader": True, "in_sync": True}, {"broker": 2, "leader": False, "in_sync": False}]
    partitions = [{"partition": 0, "leader": 1, "replicas": replicas}]
    script.answers["GET /topics/a"] = {"name": "a", "configs": {"retention.ms": "5"}, "partitions": partitions}
    script.answers["GET /topics/a/partitions/0/offsets"] = {"beginning_offset": 3, "end_offset": 9}
    code, out, _ = kraft("topics", "describe", "a", "--json")
    row = {"partition": 0, "leader": 1, "replicas": [1, 2], "isr": [1], "beginning_offset": 3, "end_offset": 9}
    assert (code, json.loads(out)["partitions"]) == (0, [row])


def test_the_servers_words_become_the_error(kraft):
    code, out, err = kraft("topics", "describe", "a")
    assert (code, out, err) == (1, "", "error: Topic not found. (error_code 40401)\n")


def test_wrong_usage_is_two(kraft):
    assert kraft("topics", "create", "a", "--config", "nonsense")[0] == 2
    assert kraft("topics", "create", "a", "--partitions", "many")[0] == 2


def test_a_lookup_turns_to_the_next_node(monkeypatch, capsys, script):
    script.answers["GET /v3/clusters/c1/topics"] = {"data": []}
    code, out, _ = run(monkeypatch, capsys, "topics", "list", "--json", "--rest", f"{DEAD},{script.url}")
    assert (code, out) == (0, "[]\n")


def test_when_nobody_answers_that_is_an_error(monkeypatch, capsys):
    code, _, err = run(monkeypatch, capsys, "status", "--rest", DEAD)
    assert code == 1
    assert "no node answers" in err
    assert DEAD in err


def test_produce_prints_where_each_record_is(kraft, script):
    places = [{"partition": 0, "offset": 5, "error_code": None}, {"partition": 1, "offset": 0, "error_code": None}]
    script.answers["POST /topics/a"] = {"offsets": places}
    code, out, _ = kraft("produce", "a", '{"n":1}', "2", "--format", "json", "--key", "k", "--acks", "1")
    assert (code, out) == (0, "0\t5\n1\t0\n")
    assert script.bodies("POST") == [{"records": [{"value": {"n": 1}, "key": "k"}, {"value": 2, "key": "k"}]}]
    assert "acks=1" in script.asked[-1][0]


def test_produce_stops_at_a_refused_record(kraft, script):
    refused = {"partition": 0, "offset": None, "error_code": 50003, "error": "NOT_ENOUGH_REPLICAS"}
    script.answers["POST /topics/a"] = {"offsets": [refused]}
    code, _, err = kraft("produce", "a", "x")
    assert code == 1
    assert "NOT_ENOUGH_REPLICAS" in err


def test_produce_refuses_what_is_no_json_before_sending(kraft, script):
    code, _, err = kraft("produce", "a", "{", "--format", "json")
    assert code == 1
    assert "is not JSON" in err
    assert script.asked == []


@pytest.mark.parametrize("options", [("--no-idempotence",), ("--acks", "1"), ("--acks", "0")])
def test_produce_without_key_is_not_repeated_when_unknown(monkeypatch, capsys, script, options):
    script.answers["POST /topics/a"] = {"offsets": []}
    with ThreadingHTTPServer(("127.0.0.1", 0), _Breaking) as breaking:
        thread = threading.Thread(target=breaking.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        rest = f"http://127.0.0.1:{breaking.server_port},{script.url}"
        code, _, err = run(monkeypatch, capsys, "produce", "a", "x", "--rest", rest, *options)
        breaking.shutdown()
        thread.join()
    assert code == 1
    assert "not known whether" in err
    assert script.asked == []


def test_idempotence_asks_for_all_acks(kraft, script):
    code, _, err = kraft("produce", "a", "x", "--idempotence", "--acks", "1")
    assert (code, script.asked) == (2, [])
    assert "needs acks=all" in err


class _Breaking(BaseHTTPRequestHandler):
    """Reads the request, then closes the connection without a word."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))

    def log_message(self, *_: object) -> None:
        pass


def test_consume_reads_to_the_high_watermark(kraft, script):
    records = [{"topic": "a", "key": None, "value": "x\ty", "partition": 0, "offset": 4, "timestamp": 7, "headers": []}]
    headers = {"X-Next-Offset": 5, "X-High-Watermark": 5}
    script.answers["GET /topics/a/partitions/0/records"] = (200, records, headers)
    code, out, _ = kraft("consume", "a", "--partition", "0", "--offset", "4")
    assert (code, out) == (0, "0\t4\t7\t-\tx\ty\n")
    assert json.loads(kraft("consume", "a", "--partition", "0", "--json")[1]) == records[0]
    assert "offset=4&" in script.asked[0][0]


def test_consume_prints_json_with_every_digit_and_on_one_line(kraft, script):
    value = b'{"a": 12345678901234567890123,\n "b": [0.1000000000000000055511151231257827, 1E+400], "b": "\\u00e9"}'
    text = '{"a":12345678901234567890123,"b":[0.1000000000000000055511151231257827,1E+400],"b":"\\u00e9"}'
    record = b'{"topic":"a","key":-0.0,"value":%s,"partition":0,"offset":4,"timestamp":7,"headers":[]}' % value
    headers = {"X-Next-Offset": 5, "X-High-Watermark": 5}
    script.answers["GET /topics/a/partitions/0/records"] = (200, b"[%s]" % record, headers)
    assert kraft("consume", "a", "--partition", "0", "--format", "json")[:2] == (0, f"0\t4\t7\t-0.0\t{text}\n")
    whole = f'{{"topic":"a","key":-0.0,"value":{text},"partition":0,"offset":4,"timestamp":7,"headers":[]}}\n'
    assert kraft("consume", "a", "--partition", "0", "--format", "json", "--json")[:2] == (0, whole)


def test_consume_of_committed_records_reads_to_the_last_stable_offset(kraft, script):
    record = {"topic": "a", "partition": 0, "offset": 4, "timestamp": 7, "key": None, "value": "x"}
    headers = {"X-Next-Offset": 5, "X-High-Watermark": 9, "X-Last-Stable-Offset": 5}
    script.answers["GET /topics/a/partitions/0/records"] = (200, [record], headers)
    code, out, _ = kraft("consume", "a", "--partition", "0", "--isolation", "read_committed")
    assert (code, out) == (0, "0\t4\t7\t-\tx\n")
    (asked,) = script.asked
    assert "isolation_level=read_committed" in asked[0]
    assert kraft("consume", "a", "--isolation", "committed")[0] == 2


def test_consume_of_a_group_creates_a_consumer_with_the_isolation_level(kraft, script):
    path = "/consumers/g/instances/i"
    script.answers["POST /consumers/g"] = {"instance_id": "i"}
    script.answers[f"POST {path}/subscription"] = (204, None, {})
    script.answers[f"GET {path}/assignments"] = {"partitions": [{"topic": "a", "partition": 0}]}
    script.answers[f"GET {path}/records"] = (200, [], {"X-Next-Token": 1})
    script.answers[f"DELETE {path}"] = (204, None, {})
    assert kraft("consume", "a", "--group", "g", "--isolation", "read_committed")[0] == 0
    assert script.bodies("POST")[0]["isolation.level"] == "read_committed"


def transaction(name: str, **fields: object) -> dict[str, object]:
    coordinator = {"related": "http://h:1/v3/clusters/c1/brokers/2"}
    return {"transactional_id": name, "producer_id": 7, "state": "Ongoing", "coordinator": coordinator, **fields}


def open_producer(start_offset: int, *, minutes: int, producer_id: int = 7) -> dict[str, int]:
    return {
        "producer_id": producer_id,
        "producer_epoch": 1,
        "last_sequence": 3,
        "last_timestamp_ms": int(time.time() * 1_000) - minutes * 60_000,
        "coordinator_epoch": -1,
        "transaction_start_offset": start_offset,
    }


def test_transactions_list_and_describe(kraft, script):
    script.answers["GET /v3/clusters/c1/transactions"] = {"data": [transaction("one")]}
    code, out, _ = kraft("transactions", "list", "--state", "Ongoing", "--duration-ms", "5", "--pattern", "o.*")
    assert (code, out) == (0, "transactional_id\tcoordinator\tproducer_id\tstate\none\t2\t7\tOngoing\n")
    assert script.asked[-1][0].endswith("/transactions?state=Ongoing&duration_ms=5&pattern=o.%2A")
    partitions = [{"topic_name": "a", "partition_id": 0}]
    found = transaction("one/two", producer_epoch=4, timeout_ms=60_000, started_ms=1, partitions=partitions)
    script.answers["GET /v3/clusters/c1/transactions/one%2Ftwo"] = found
    code, out, _ = kraft("transactions", "describe", "one/two")
    assert code == 0
    assert {"producer_epoch\t4", "started_ms\t1", "topic_name\tpartition_id", "a\t0"} <= set(out.splitlines())
    reported = json.loads(kraft("transactions", "describe", "one/two", "--json")[1])
    assert (reported["partitions"], reported["coordinator"]) == (partitions, "2")


def test_transactions_abort_reports_which(kraft, script):
    path = "POST /v3/clusters/c1/topics/a/partitions/0/transactions:abort"
    script.answers[path] = (204, None, {})
    assert kraft("transactions", "abort", "a", "0")[0] == 2
    assert kraft("transactions", "abort", "a", "0", "--producer-id", "7")[0] == 2
    assert kraft("transactions", "abort", "a", "0", "--start-offset", "5")[0] == 0
    assert kraft("transactions", "abort", "a", "0", "--producer-id", "7", "--producer-epoch", "1")[0] == 0
    assert script.bodies("POST") == [
        {"start_offset": 5},
        {"producer_id": 7, "producer_epoch": 1, "coordinator_epoch": 0},
    ]


def test_transactions_that_hang_are_those_that_no_coordinator_will_end(kraft, script):
    base = "GET /v3/clusters/c1"
    script.answers["GET /topics"] = ["a"]
    script.answers["GET /topics/a/partitions"] = [{"partition": 0, "leader": 1}, {"partition": 1, "leader": 2}]
    script.answers[f"{base}/topics/a/partitions/0/producers"] = {
        "data": [open_producer(5, minutes=20), open_producer(-1, minutes=20), open_producer(9, minutes=14)]
    }
    script.answers[f"{base}/topics/a/partitions/1/producers"] = {"data": [open_producer(8, minutes=20)]}
    script.answers[f"{base}/transactions"] = {"data": [transaction("one")]}
    in_one = {"partitions": [{"topic_name": "a", "partition_id": 1}]}
    script.answers[f"{base}/transactions/one"] = transaction("one", **in_one)
    code, out, _ = kraft("transactions", "find-hanging", "--json")
    assert code == 0
    (found,) = json.loads(out)
    assert (found["topic"], found["partition"], found["start_offset"], found["duration_min"]) == ("a", 0, 5, 20)
    script.answers[f"{base}/transactions"] = {"data": []}
    assert [each["partition"] for each in json.loads(kraft("transactions", "find-hanging", "--json")[1])] == [0, 1]
    only = ("--topic", "a", "--broker-id", "2", "--max-transaction-timeout", "10")
    assert [each["start_offset"] for each in json.loads(kraft("transactions", "find-hanging", *only, "--json")[1])] == [
        8
    ]
    assert kraft("transactions", "find-hanging", "--partition", "0")[0] == 2


def test_consume_follows_all_partitions_at_once_until_the_limit(kraft, script):
    script.answers["GET /topics/a/partitions"] = [{"partition": 0}, {"partition": 1}]
    for number in (0, 1):
        record = {"topic": "a", "partition": number, "offset": 0, "timestamp": 7, "key": "k", "value": "v"}
        headers = {"X-Next-Offset": 1, "X-High-Watermark": 9}
        script.answers[f"GET /topics/a/partitions/{number}/records"] = (200, [record], headers)
    code, out, _ = kraft("consume", "a", "--follow", "--max", "5")
    assert code == 0
    lines = out.splitlines()
    assert len(lines) == 5
    assert {line.split("\t")[0] for line in lines} == {"0", "1"}


def test_consume_follow_ends_with_the_servers_words(kraft, script):
    code, out, err = kraft("consume", "a", "--partition", "7", "--follow")
    assert (code, out) == (1, "")
    assert "Topic not found" in err


def test_elect_fails_when_a_partition_has_no_new_leader(kraft, script):
    script.answers["GET /topics/a/partitions"] = [{"partition": 0}, {"partition": 1}]
    fine = {"topic_name": "a", "partition_id": 0, "error_code": 40002, "message": "not needed", "kafka_code": 84}
    bad = {"topic_name": "a", "partition_id": 1, "error_code": 50302, "message": "no replica", "kafka_code": 83}
    script.answers["POST /v3/clusters/c1/elections"] = {"data": [fine]}
    assert kraft("elect", "a", "0")[0] == 0
    script.answers["POST /v3/clusters/c1/elections"] = {"data": [fine, bad]}
    code, _, err = kraft("elect", "a", "--type", "unclean")
    assert code == 1
    assert "1 of 2" in err
    wanted = [{"topic_name": "a", "partition_id": 0}, {"topic_name": "a", "partition_id": 1}]
    assert script.bodies("POST")[-1] == {"election_type": "unclean", "partitions": wanted}


def test_reassign_starts_cancels_and_lists(kraft, script):
    path = "/v3/clusters/c1/topics/a/partitions/0/reassignment"
    script.answers |= {f"POST {path}": (204, None, {}), f"DELETE {path}": (204, None, {})}
    script.answers["GET /v3/clusters/c1/topics/-/partitions/-/reassignment"] = {"data": []}
    assert kraft("reassign", "a", "0", "--replicas", "2,3,1")[0] == 0
    assert script.bodies("POST") == [{"replicas": [2, 3, 1]}]
    assert kraft("reassign", "a", "0", "--cancel")[1] == "reassignment of a-0 cancelled\n"
    assert kraft("reassign", "--json")[1] == "[]\n"


@pytest.mark.parametrize(
    "arguments",
    [("-h",), ("up", "-h"), ("node", "-h"), ("node", "kill", "-h"), ("log", "dump", "-h"), ("produce", "-h")],
)
def test_every_help_can_be_read(monkeypatch, capsys, arguments):
    code, out, _ = run(monkeypatch, capsys, *arguments)
    assert code == 0
    assert "Usage: kraft" in out


def test_config_checks_a_file(monkeypatch, capsys, tmp_path):
    path = tmp_path / "cluster.toml"
    path.write_text("[[nodes]]\nid = 1\nrest_prt = 1\n")
    code, _, err = run(monkeypatch, capsys, "config", str(path))
    assert code == 1
    assert f"{path}:3: rest_prt: unknown key; did you mean rest_port?" in err
    path.write_text("[[nodes]]\nid = 1\n")
    assert run(monkeypatch, capsys, "config", str(path))[0] == 0


def test_a_node_that_is_not_in_the_file_is_an_error(monkeypatch, capsys, tmp_path):
    path = tmp_path / "cluster.toml"
    path.write_text("[[nodes]]\nid = 1\n")
    data = str(tmp_path / "d")
    code, _, err = run(monkeypatch, capsys, "node", "--config", str(path), "--id", "4", "--data", data)
    assert code == 1
    assert "there is no node 4; the nodes are 1" in err


def test_log_dump_shows_a_checkpoint_and_reports_where_no_log_is(monkeypatch, capsys, tmp_path):
    path = tmp_path / "replication-offset-checkpoint"
    code, _, err = run(monkeypatch, capsys, "log", "dump", str(tmp_path))
    assert code == 1
    assert "holds no log" in err
    path.write_text("0\n1\norders 0 17\n")
    for asked in (path, tmp_path):
        code, out, _ = run(monkeypatch, capsys, "log", "dump", str(asked), "--json")
        assert code == 0
        assert json.loads(out)["lines"] == ["0", "1", "orders 0 17"]
    other = tmp_path / "orders.txt"
    other.write_text("")
    assert "checkpoint file" in run(monkeypatch, capsys, "log", "dump", str(other))[2]


def test_log_dump_shows_the_producers_of_a_snapshot_and_what_is_wrong_with_one(monkeypatch, capsys, tmp_path):
    path = tmp_path / f"{9:020d}.snapshot"
    batch = ProducerBatch(last_sequence=4, last_offset=8, offset_delta=1, timestamp=1_000)
    path.write_bytes(encode_snapshot([(77, Producer(epoch=2, batches=(batch,), timestamp=1_000, seen_ms=-1))]))
    for asked in (path, tmp_path):
        code, out, _ = run(monkeypatch, capsys, "log", "dump", str(asked), "--json")
        row = json.loads(out)
        assert (code, row["kind"], row["producer_id"], row["producer_epoch"]) == (0, "producer", 77, 2)
        assert [row[name] for name in ("first_sequence", "last_sequence", "first_offset", "last_offset")] == [
            3,
            4,
            7,
            8,
        ]
    path.write_bytes(path.read_bytes()[:-1])
    code, out, err = run(monkeypatch, capsys, "log", "dump", str(path), "--json")
    assert (code, json.loads(out)["kind"]) == (1, "error")
    assert "damaged" in err


def test_ctrl_c_while_a_command_is_loaded_leaves_no_traceback(monkeypatch, capsys):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("kraft.cli.main.build_app", interrupted)
    assert run(monkeypatch, capsys, "status") == (130, "", "")


def test_requests_are_bounded_and_in_order():
    entries = [{"value": n} for n in range(RECORDS_PER_REQUEST_MAX + 1)]
    sizes = [len(batch) for batch in batches(entries)]
    assert sizes == [RECORDS_PER_REQUEST_MAX, 1]
    large = list(batches({"value": "x" * 400_000} for _ in range(3)))
    assert [len(batch) for batch in large] == [2, 1]


@pytest.mark.parametrize(
    ("text", "asked"),
    [("earliest", "earliest"), ("12", "12"), ("ts:5", "ts:5"), ("2013-01-01T05:00:00Z", "ts:2013-01-01T05:00:00Z")],
)
def test_offsets_as_people_write_them(text, asked):
    assert start_offset(text) == asked


def test_an_assignment_is_one_list_per_partition():
    assert parse_assignment("1,2;3,1") == {"0": [1, 2], "1": [3, 1]}


HOSTILE = "a\x1b]0;owned\x07\x1b[2J\x9b31m\u202eb\r\nc\x7f"


def printed_on_a_terminal(*arguments: str) -> str:
    """What a person's terminal is sent by the command, run as a process of its own."""
    master, slave = pty.openpty()
    command = [sys.executable, "-P", "-m", "kraft", *arguments]
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave) as process:
        os.close(slave)
        seen = b""
        while True:
            try:
                part = os.read(master, 65_536)
            except OSError:  # Linux says so when the last one has closed the other side
                break
            if not part:
                break
            seen += part
        process.wait(60)
    os.close(master)
    return seen.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("arguments", [(), ("--json",), ("--format", "json")])
def test_a_terminal_is_shown_control_characters_and_a_pipe_gets_them(script, kraft, arguments):
    record = {"topic": "a", "partition": 0, "offset": 4, "timestamp": 7, "key": HOSTILE, "value": HOSTILE}
    headers = {"X-Next-Offset": 5, "X-High-Watermark": 5}
    script.answers["GET /topics/a/partitions/0/records"] = (200, [record], headers)
    command = ("consume", "a", "--partition", "0", *arguments, "--rest", script.url)
    shown = printed_on_a_terminal(*command)
    assert not set(shown) & set("\x1b\x07\x9b\u202e\r\x7f"), repr(shown)
    assert shown.count("\n") == 1
    for text in ("\\u001b", "\\u009b", "\\u202e", "\\u007f", "owned"):
        assert text in shown
    piped = subprocess.run([sys.executable, "-P", "-m", "kraft", *command], capture_output=True, check=True).stdout
    if not arguments:
        assert piped.decode() == f"0\t4\t7\t{HOSTILE}\t{HOSTILE}\n"
    else:
        assert "\x9b31m\u202e" in piped.decode()


def test_names_in_tables_and_errors_are_shown_too(script):
    script.answers["GET /v3/clusters/c1/consumer-groups"] = (
        404, {"error_code": 404, "message": f"no group {HOSTILE}"}, {},
    )  # fmt: skip
    shown = printed_on_a_terminal("groups", "list", "--rest", script.url)
    assert "owned" in shown
    assert not set(shown) & set("\x1b\x07\x9b\u202e"), repr(shown)


def test_acls_name_a_user_as_a_resource(script, monkeypatch, capsys) -> None:
    script.answers["POST /v3/clusters/c1/acls:batch"] = (201, {}, {})
    asked = ("--principal", "User:bob", "--operation", "DescribeTokens", "--user-principal", "User:alice")
    code, _, _ = run(monkeypatch, capsys, "acls", "create", *asked, "--rest", script.url)
    assert code == 0
    [made] = script.bodies("POST")[0]["data"]
    assert (made["resource_type"], made["resource_name"], made["operation"]) == (
        "USER",
        "User:alice",
        "DESCRIBE_TOKENS",
    )
    code, _, err = run(monkeypatch, capsys, "acls", "create", "--principal", "User:bob", "--rest", script.url)
    assert code
    assert "--user-principal" in err
