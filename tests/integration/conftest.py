"""Fixtures of the tests that run real processes."""

from __future__ import annotations

import gc
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from kraft.launcher.forks import close_fork_server
from tests.integration.support.cluster import Cluster
from tests.integration.support.commands import COMMANDS
from tests.integration.support.configuration import QUICK_CHORES, QUICK_FAILURES, THREE, write_config
from tests.integration.support.forks import FORKS, ForkServer
from tests.scheduling import together


@pytest.fixture(autouse=True, scope="session")
def _forks() -> Iterator[None]:
    yield
    FORKS.close()
    COMMANDS.close()
    close_fork_server()


@pytest.fixture
def sockets_of_failed_logins() -> Iterator[None]:
    """aiokafka leaves the socket of a login that failed. It is collected with the test that made it, which ignores the
    warning, and not in another test, which then fails."""
    yield
    gc.collect()


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


# Starting a cluster costs as much as most of what is tested with it. The files that share one run in one process, one
# after the other: they stand in `tests/scheduling.py`. Each test makes topics of its own. The cluster ends with the
# last of these tests and not with the run: three idle nodes take a twentieth of a core.

SHARED: dict[str, Iterator[Cluster]] = {}


@pytest.fixture(scope="session")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three ready nodes. Who kills one brings it back."""
    yield from share("shared_cluster", run_cluster(tmp_path_factory.mktemp("shared"), settings=QUICK_CHORES))


@pytest.fixture(scope="session")
def fragile_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The same with short limits, so that a node that stops for seconds is noticed. Who needs all nodes heals first."""
    yield from share("fragile_cluster", run_cluster(tmp_path_factory.mktemp("fragile"), settings=QUICK_FAILURES))


def share(name: str, running: Iterator[Cluster]) -> Iterator[Cluster]:
    SHARED[name] = running
    yield next(running)
    end_shared(name)


def end_shared(name: str) -> None:
    """Unless it has ended."""
    if (running := SHARED.pop(name, None)) is not None:
        next(running, None)


@pytest.hookimpl(wrapper=True, trylast=True)  # inside of what captures output
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, None, None]:
    try:
        return (yield)
    finally:
        own = together(item.nodeid)
        if nextitem is None or together(nextitem.nodeid) != own:
            end_shared(own)


def run_cluster(
    folder: Path,
    *,
    settings: Mapping[str, Any],
    roles: Mapping[int, Sequence[str]] = THREE,
    racks: Mapping[int, str] | None = None,
    host: str | None = None,
    forks: ForkServer = FORKS,
    log_dirs: int = 1,
    secure: bool = False,
) -> Iterator[Cluster]:
    config = write_config(
        folder / "cluster.toml", settings=settings, roles=roles, racks=racks, host=host, log_dirs=log_dirs
    )
    cluster = Cluster(data=str(folder / "data"), config=config, forks=forks, is_secure=secure)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.destroy()
        sys.stderr.write(cluster.logs())
