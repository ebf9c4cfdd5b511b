"""Three real nodes for the Kafka clients that nobody here wrote; `pytest tests/clients` needs the extra `clients`."""

from __future__ import annotations

import gc
import uuid
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.conftest import run_cluster
from tests.integration.support.cluster import Cluster
from tests.integration.support.commands import COMMANDS
from tests.integration.support.configuration import REPLICATED
from tests.integration.support.forks import FORKS

SETTINGS = {
    **REPLICATED,
    "group.initial.rebalance.delay.ms": 0,
    "log.segment.delete.delay.ms": 0,
    "group.consumer.min.heartbeat.interval.ms": 100,
    "group.consumer.heartbeat.interval.ms": 300,
    "group.consumer.min.session.timeout.ms": 1_000,
    "group.consumer.session.timeout.ms": 10_000,
}
"""Members of the consumer protocol beat often, so that a rebalance of three steps takes a second."""
FORGOTTEN_SOCKETS = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <(socket|function _SelectorTransport):pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(autouse=True)
def forgetting_sockets() -> Iterator[None]:
    """Some clients forget their sockets to nodes that were killed; their garbage is not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


def pytest_sessionfinish() -> None:
    """What the log of the last test has held on to until now."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The report of a test holds some of that garbage: it is collected in the setup of the next one."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(FORGOTTEN_SOCKETS)


@dataclass
class Kafka:
    """The cluster as a client's configuration sees it."""

    cluster: Cluster

    @property
    def servers(self) -> list[str]:
        return [node.kafka for node in self.cluster.nodes]

    @property
    def bootstrap_servers(self) -> str:
        return ",".join(self.servers)

    def topic(self, *, partitions: int = 1, name: str | None = None) -> str:
        """A new one."""
        name = name or f"topic-{uuid.uuid4().hex[:12]}"
        self.cluster.create_topic(name, partitions=partitions)
        return name


@pytest.fixture(autouse=True, scope="session")
def _forks() -> Iterator[None]:
    yield
    FORKS.close()
    COMMANDS.close()


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """Three ready nodes that are brokers and voters. Who kills one brings it back; each test makes its own topics."""
    for cluster in run_cluster(tmp_path_factory.mktemp("clients"), settings=SETTINGS):
        yield Kafka(cluster)


@pytest.fixture(autouse=True)
def _whole(request: pytest.FixtureRequest) -> None:
    """A node that the test before brought back takes part again, and every node knows: clients are told of all."""
    if "kafka" in request.fixturenames:
        request.getfixturevalue("kafka").cluster.heal()


@pytest.fixture(scope="session")
def creating_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """The same with auto.create.topics.enable."""
    settings = {**SETTINGS, "auto.create.topics.enable": True, "num.partitions": 3}
    for cluster in run_cluster(tmp_path_factory.mktemp("creating"), settings=settings):
        yield Kafka(cluster)
