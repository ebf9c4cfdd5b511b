"""Fixtures of the tests that run real processes."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from kraft.launcher.forks import close_fork_server
from tests.integration.support.cluster import Cluster
from tests.integration.support.commands import COMMANDS
from tests.integration.support.configuration import QUICK_CHORES, QUICK_FAILURES, THREE, write_config
from tests.integration.support.forks import FORKS, ForkServer


@pytest.fixture(autouse=True, scope="session")
def _forks() -> Iterator[None]:
    yield
    FORKS.close()
    COMMANDS.close()
    close_fork_server()


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


# Starting a cluster costs as much as most of what is tested with it. The files that share one run in one process:
# they stand in `tests/scheduling.py`. Each test makes topics of its own.


@pytest.fixture(scope="session")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three ready nodes. Who kills one brings it back."""
    yield from run_cluster(tmp_path_factory.mktemp("shared"), settings=QUICK_CHORES)


@pytest.fixture(scope="session")
def fragile_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The same with short limits, so that a node that stops for seconds is noticed. Who needs all nodes heals first."""
    yield from run_cluster(tmp_path_factory.mktemp("fragile"), settings=QUICK_FAILURES)


def run_cluster(
    folder: Path,
    *,
    settings: Mapping[str, Any],
    roles: Mapping[int, Sequence[str]] = THREE,
    racks: Mapping[int, str] | None = None,
    host: str | None = None,
    forks: ForkServer = FORKS,
    log_dirs: int = 1,
) -> Iterator[Cluster]:
    config = write_config(
        folder / "cluster.toml", settings=settings, roles=roles, racks=racks, host=host, log_dirs=log_dirs
    )
    cluster = Cluster(data=str(folder / "data"), config=config, forks=forks)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.destroy()
        sys.stderr.write(cluster.logs())
