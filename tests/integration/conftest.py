"""Fixtures of the tests that run real processes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.support.cluster import Cluster


@pytest.fixture
def stopped_cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster that the test starts itself, perhaps with a `config` of its own."""
    cluster = Cluster(data=str(tmp_path / "data"))
    try:
        yield cluster
    finally:
        cluster.destroy()
        sys.stderr.write(cluster.logs())  # pytest shows it for a failed test only


@pytest.fixture
def cluster(stopped_cluster: Cluster) -> Cluster:
    """Three ready nodes."""
    stopped_cluster.start()
    return stopped_cluster
