"""A controller whose metadata is damaged says so and does not start; emptied, it comes back, and counts again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import run_cluster
from tests.integration.support.cluster import Cluster
from tests.integration.support.configuration import QUICK_FAILURES
from tests.integration.support.reading import wait_for_values
from tests.integration.support.waiting import wait_until

NOTHING_IS_TORN = b"\xff"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    yield from run_cluster(tmp_path_factory.mktemp("wiped"), settings=QUICK_FAILURES)


def metadata_of(nodes: Cluster, node_id: int) -> Path:
    return Path(nodes.node(node_id).data) / "__cluster_metadata"


def newcomer_events(nodes: Cluster, node_id: int) -> list[str]:
    names = ("quorum_newcomer", "quorum_newcomer_settled")
    return [str(event["event"]) for event in nodes.events(*names, node_id=node_id)]


@pytest.mark.slow
def test_a_damaged_controller_refuses_and_an_emptied_one_comes_back(nodes: Cluster):
    nodes.create_topic("kept", min_insync_replicas="2")
    nodes.write_all("kept", [f"{n}" for n in range(50)])
    victim = next(node_id for node_id in nodes.ids if node_id != nodes.controller())
    assert newcomer_events(nodes, victim) == ["quorum_newcomer", "quorum_newcomer_settled"]  # a new cluster
    nodes.kill(victim)
    journal = metadata_of(nodes, victim) / "journal"
    journal.write_bytes(journal.read_bytes()[:-1] + NOTHING_IS_TORN)
    nodes.restart_unready(victim)
    wait_until(lambda: not nodes.is_running(victim), what="the damaged controller to give up")
    said = Path(nodes.node(victim).log).read_text()
    assert f"{journal}: the last frame is damaged" in said
    assert "empty this node's __cluster_metadata folder" in said

    shutil.rmtree(metadata_of(nodes, victim))
    nodes.restart(victim)
    wait_until(lambda: newcomer_events(nodes, victim)[2:] == ["quorum_newcomer", "quorum_newcomer_settled"], what="it")
    nodes.heal()
    # Its vote makes the next controller: one of the other two is away, and what was written is there.
    nodes.kill(nodes.controller())
    wait_until(lambda: nodes.controller() in nodes.serving, what="another controller")
    nodes.wait_for_leader("kept")
    wait_for_values(nodes, victim, "kept", [f"{n}" for n in range(50)])
