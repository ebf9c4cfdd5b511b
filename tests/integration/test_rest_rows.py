"""Both REST dialects, row by row, on three real nodes that take turns: method, path, status, type and every field.

The document that they serve knows each of these statuses.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import run_cluster
from tests.integration.rest.asking import all_rows, ask
from tests.integration.rest.described import Described
from tests.integration.support.cluster import Cluster
from tests.integration.support.configuration import REPLICATED

ROWS_MIN = 450


@pytest.fixture
def new_cluster(tmp_path: Path) -> Iterator[Cluster]:
    settings = {**REPLICATED, "group.initial.rebalance.delay.ms": 0, "rest.allowed.hosts": "cluster.test"}
    yield from run_cluster(tmp_path, settings=settings, host="127.0.0.1")  # as the rows say


@pytest.mark.slow
def test_every_row_of_both_dialects(new_cluster: Cluster) -> None:
    urls = [node.rest for node in new_cluster.nodes]
    asked = list(ask(urls, all_rows(urls[0])))
    wrong = [f"{row}: {'; '.join(found)}" for row, found in asked if found]
    assert not wrong, "\n".join(wrong)
    described = Described(new_cluster.get("/openapi.json"))
    unknown = [f"{row}: {problem}" for row, _ in asked if (problem := described.problem(row)) is not None]
    assert not unknown, "\n".join(unknown)
    assert len(asked) > ROWS_MIN
    assert new_cluster.events("http_request_failed") == []
