"""What is counted of Kafka clients, and that a client cannot make the counts grow without end."""

from __future__ import annotations

from kraft.http.metrics import Metrics
from kraft.wire.api_handler import ClientConnection
from kraft.wire.client_counts import (
    CLIENT_ID_LENGTH_MAX,
    CLIENT_IDS_MAX,
    OTHERS,
    SOFTWARE_MAX,
    ClientCounts,
    software,
)


def connection(name: str, version: str = "1", listener: str = "PLAINTEXT") -> ClientConnection:
    return ClientConnection(peer="h:1", listener=listener, software_name=name, software_version=version)


def lines(counts: ClientCounts, *connections: ClientConnection) -> dict[str, float]:
    text = Metrics(dict, lambda: counts.measures(connections)).exposition().decode()
    samples = [line.rpartition(" ") for line in text.splitlines() if line.startswith("kraft_kafka")]
    return {name: float(value) for name, _, value in samples}


def test_requests_and_answers_are_counted_by_api_and_by_client():
    counts = ClientCounts()
    for _ in range(3):
        name = counts.begun(0, "app", 100)
    counts.answered(0, name, 40, 2_500_000)
    counts.begun(18, None, 5)
    found = lines(counts)
    assert found['kraft_kafka_requests_total{api="Produce"}'] == 3
    assert found['kraft_kafka_requests_bytes_total{api="Produce"}'] == 300
    assert found['kraft_kafka_requests_answers_total{api="Produce"}'] == 1
    assert found['kraft_kafka_requests_answer_bytes_total{api="Produce"}'] == 40
    assert found['kraft_kafka_requests_seconds_total{api="Produce"}'] == 2.5
    assert found['kraft_kafka_requests_total{api="ApiVersions"}'] == 1
    assert found['kraft_kafka_client_requests_total{client_id="app"}'] == 3
    assert found['kraft_kafka_client_requests_total{client_id=""}'] == 1


def test_client_ids_beyond_a_number_are_counted_together():
    counts = ClientCounts()
    for number in range(2 * CLIENT_IDS_MAX):
        counts.answered(3, counts.begun(3, f"client-{number}", 1), 1, 1)
    counts.begun(3, "client-0", 1)
    found = lines(counts)
    clients = {name: value for name, value in found.items() if name.startswith("kraft_kafka_client_requests_total")}
    assert len(clients) == CLIENT_IDS_MAX + 1
    assert clients[f'kraft_kafka_client_requests_total{{client_id="{OTHERS}"}}'] == CLIENT_IDS_MAX
    assert clients['kraft_kafka_client_requests_total{client_id="client-0"}'] == 2


def test_a_long_client_id_and_an_api_that_is_not_there_are_kept_short():
    counts = ClientCounts()
    assert counts.begun(0, "x" * 30_000, 1) == "x" * CLIENT_ID_LENGTH_MAX
    for key in range(1_000, 3_000):
        counts.begun(key, "x", 1)
    assert lines(counts)['kraft_kafka_requests_total{api="unknown"}'] == 2_000


def test_connections_are_reported_by_listener_and_library():
    counts = ClientCounts()
    counts.refused = 7
    found = lines(counts, connection("librdkafka"), connection("librdkafka"), connection("librdkafka", "2", "OUTSIDE"))
    assert found['kraft_kafka_connections{listener="PLAINTEXT",software="librdkafka",version="1"}'] == 2
    assert found['kraft_kafka_connections{listener="OUTSIDE",software="librdkafka",version="2"}'] == 1
    assert found["kraft_kafka_connections_refused_total"] == 7


def test_libraries_beyond_a_number_are_counted_together():
    found = software([connection("a"), *(connection("b", str(number)) for number in range(200))])
    assert len(found) == SOFTWARE_MAX + 1
    assert sum(found.values()) == 201
