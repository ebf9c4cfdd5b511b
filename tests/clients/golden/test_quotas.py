"""Clients beyond their quotas are answered here as Apache Kafka has answered them: codes, waits, who is not read on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients.golden.quotas import KNOWN, differences, play, read
from tests.clients.golden.record import SETTINGS
from tests.integration.conftest import run_cluster


@pytest.mark.long
def test_answers_beyond_quotas_are_those_of_kafka(tmp_path: Path) -> None:
    for cluster in run_cluster(tmp_path, settings=SETTINGS, roles={1: ("broker", "controller")}):
        host, _, port = cluster.nodes[0].kafka.rpartition(":")
        rows = play((host, int(port)))
    found = differences(rows, read())
    assert {name: text for name, text in found.items() if name not in KNOWN} == {}
    assert found.keys() >= KNOWN.keys(), "these do not differ any more"
