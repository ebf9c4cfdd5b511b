"""The same questions asked of a node of ours: error codes, null or empty, and signs are those of Apache Kafka."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from kraft.protocol.codec import decode_body
from tests.clients.golden import program
from tests.clients.golden.compare import differences, shape
from tests.clients.golden.files import load
from tests.clients.golden.known import FOR_BROKERS, is_known
from tests.clients.golden.peer import Exchange, Peer
from tests.clients.golden.record import SETTINGS
from tests.clients.golden.test_recorded import message_type
from tests.integration.conftest import run_cluster

WAITS = {
    "while it is made",
    "while it is loaded",
    "while it ends",
    "while it is assigned",
    "while the first ids are fetched",
    "with the id that it was given",
}
"""Asked until they succeed, or only where an id is given first: how often differs from run to run."""


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    """After the program: what was asked and answered."""
    folder = tmp_path_factory.mktemp("golden")
    for cluster in run_cluster(folder, settings=SETTINGS, roles={1: ("broker", "controller")}):
        host, _, port = cluster.nodes[0].kafka.rpartition(":")
        peer = Peer((host, int(port)))
        program.run(peer.ask)
        peer.close()
        yield peer


def test_no_question_closes_the_connection(ours: Peer) -> None:
    assert not [f"{api} {version} {name!r}" for api, version, name, _ in ours.broken]


def test_answers_look_like_those_of_kafka(ours: Peer) -> None:
    golden = {exchange.key: exchange for exchange in load()}
    found: dict[str, list[int]] = {}
    for exchange in ours.exchanges:
        if (exchange.api, exchange.version) in FOR_BROKERS:
            continue
        if exchange.key in golden and exchange.name not in WAITS:
            for path, mine, theirs in set(differences(_shape(exchange), _shape(golden[exchange.key]))):
                if not is_known(exchange, path):
                    difference = f"{exchange.api} {exchange.name!r}: {path} is {mine}, Kafka's is {theirs}"
                    found.setdefault(difference, []).append(exchange.version)
    lines = [f"{difference} (versions {', '.join(map(str, versions))})" for difference, versions in found.items()]
    assert not lines, f"{len(lines)} differences\n" + "\n".join(lines)


def test_what_brokers_ask_is_refused(ours: Peer) -> None:
    refused = [exchange for exchange in ours.exchanges if (exchange.api, exchange.version) in FOR_BROKERS]
    assert {(exchange.api, exchange.version) for exchange in refused} == FOR_BROKERS
    for exchange in refused:
        kind = message_type(exchange.api, "response")
        answer: Any = decode_body(kind, exchange.version, memoryview(exchange.response), 0)
        assert (answer.error_code, answer.results_by_transaction) == (31, ()), exchange.key


def test_the_same_questions_were_asked(ours: Peer) -> None:
    mine = {exchange.key for exchange in ours.exchanges if exchange.name not in WAITS}
    assert not sorted({exchange.key for exchange in load() if exchange.name not in WAITS} - mine)


def _shape(exchange: Exchange) -> object:
    return shape(
        decode_body(message_type(exchange.api, "response"), exchange.version, memoryview(exchange.response), 0)
    )
