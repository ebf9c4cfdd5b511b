"""The plugin of pytest: fixtures `kafka_cluster`, `kafka_bootstrap`, `kafka_topic`, `kafka_rest_url`, `kafka_faults`.

Every run of pytest loads this module, whether it uses it or not: it imports no other module of ours before a fixture is
used. `kraft.testing.session` keeps the state of a run.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from kraft.testing.faults import FaultCluster
    from kraft.testing.session import KafkaCluster, KafkaSession

FIXTURES = frozenset(("kafka_cluster", "kafka_bootstrap", "kafka_topic", "kafka_rest_url", "kafka_faults"))
RUN = "kraft_run"
"""Key under which the controlling process of xdist passes the run's state to its workers."""
KEY = pytest.StashKey[dict[str, Any]]()
SESSION = "session"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("kafka", "Kafka clusters inside tests (kraft)")
    group.addoption(
        "--kafka-report",
        metavar="FOLDER",
        default="",
        help="write an HTML report of the cluster's timeline there for each test that fails and has used a cluster",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "kafka_cluster(nodes=3, settings={}, secure=False): this test gets a cluster of its own, so many nodes with "
        "these settings; with secure=True it has TLS, a user and ACLs",
    )
    config.addinivalue_line(
        "markers", "kafka_topic(partitions=1, replicas=None, configs={}): properties of the topic of `kafka_topic`"
    )
    state = getattr(config, "workerinput", {}).get(RUN)
    config.stash[KEY] = dict(state) if state else {"run": f"{os.getpid()}-{os.urandom(6).hex()}", "owner": os.getpid()}


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Hook of xdist in the controlling process: all workers of a run share one cluster."""
    node.workerinput[RUN] = {name: node.config.stash[KEY][name] for name in ("run", "owner")}


def pytest_unconfigure(config: pytest.Config) -> None:
    state = config.stash.get(KEY, {})
    session = state.get(SESSION)
    if session is not None:
        session.close()
    if state.get("owner") == os.getpid() and os.path.exists(_folder(state)):
        from kraft.testing.session import end_shared

        end_shared(_folder(state))


def _folder(state: dict[str, Any]) -> str:
    """Folder of the shared cluster, if there is one."""
    return os.path.join(tempfile.gettempdir(), f"kraft-{state['run']}")


def _session(config: pytest.Config) -> KafkaSession:
    state = config.stash[KEY]
    if SESSION not in state:
        from kraft.testing.session import KafkaSession

        state[SESSION] = KafkaSession(
            folder=_folder(state),
            owner_pid=state["owner"],
            lock=str(config.rootpath),
            report=config.getoption("kafka_report"),
        )
    session: KafkaSession = state[SESSION]
    return session


# --- around each test -----------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    if FIXTURES.isdisjoint(getattr(item, "fixturenames", ())):
        return (yield)
    marker = item.get_closest_marker("kafka_cluster")
    options = None if marker is None else _options(marker, ("nodes", "settings", "secure"))
    _session(item.config).begin(item.nodeid, own=options, has_faults="kafka_faults" in item.fixturenames)  # type: ignore[attr-defined]
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    result = yield
    session = item.config.stash[KEY].get(SESSION)
    if session is not None and (problem := session.never_met()):
        pytest.fail(problem, pytrace=False)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    session = item.config.stash[KEY].get(SESSION)
    if session is not None and report.failed and report.when != "teardown" and (timeline := session.timeline()):
        report.sections.append(("kafka cluster", timeline))
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """After the fixtures of the test have ended: heal all faults."""
    try:
        return (yield)
    finally:
        session = item.config.stash[KEY].get(SESSION)
        if session is not None:
            session.end()


def _options(marker: pytest.Mark, known: tuple[str, ...]) -> dict[str, Any]:
    unknown = [name for name in marker.kwargs if name not in known]
    if marker.args or unknown:
        what = ", ".join(unknown) or "values without a name"
        raise pytest.UsageError(f"pytest.mark.{marker.name} does not take {what}; it takes {', '.join(known)}")
    return dict(marker.kwargs)


# --- fixtures -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def kafka_cluster(pytestconfig: pytest.Config) -> KafkaCluster:
    """Three brokers, shared by all tests of the run: their addresses, the records of their topics, and the checker.

    In a test that is marked with `kafka_cluster`, or that uses `kafka_faults`, it is the cluster of that test."""
    return _session(pytestconfig).cluster


@pytest.fixture
def kafka_bootstrap(kafka_cluster: KafkaCluster) -> str:
    """bootstrap.servers: host:port,host:port."""
    return kafka_cluster.bootstrap_servers


@pytest.fixture
def kafka_rest_url(kafka_cluster: KafkaCluster) -> str:
    """Base URL of the HTTP port of one node."""
    return kafka_cluster.rest_url


@pytest.fixture
def kafka_topic(request: pytest.FixtureRequest, kafka_cluster: KafkaCluster) -> str:
    """The name of a new topic; `@pytest.mark.kafka_topic(partitions=3, configs={...})` sets its properties."""
    marker = request.node.get_closest_marker("kafka_topic")
    options = {} if marker is None else _options(marker, ("partitions", "replicas", "configs"))
    return kafka_cluster.new_topic(request.node.name, **options)


@pytest.fixture
def kafka_faults(pytestconfig: pytest.Config) -> FaultCluster:
    """A cluster that this test may break; no other test sees it meanwhile. Everything is healed afterwards."""
    return _session(pytestconfig).faults()
