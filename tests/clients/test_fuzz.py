"""Twenty seconds of damaged requests with a fixed seed; `python -m tests.clients.fuzz` takes as long as it is told."""

from __future__ import annotations

from pathlib import Path

from tests.clients.fuzz import fuzz
from tests.clients.fuzz_before_login import fuzz_before_login, secured_nodes
from tests.clients.golden.record import SETTINGS
from tests.integration.conftest import run_cluster

SECONDS = 20


def test_nothing_before_a_login_harms_a_node_or_its_users(tmp_path: Path) -> None:
    with secured_nodes(tmp_path) as cluster:
        outcome = fuzz_before_login(cluster, seed=14, seconds=SECONDS)
        assert not outcome.problems, "\n".join(outcome.problems)
        assert outcome.ends.keys() >= {"answered", "closed"}, outcome.ends


def test_no_request_harms_a_node_or_its_other_clients(tmp_path: Path) -> None:
    for cluster in run_cluster(tmp_path, settings=SETTINGS, roles={1: ("broker", "controller")}):
        outcome = fuzz(cluster, seed=14, seconds=SECONDS)
        assert not outcome.problems, "\n".join(outcome.problems)
        assert outcome.ends.keys() >= {"answered", "closed"}, outcome.ends
