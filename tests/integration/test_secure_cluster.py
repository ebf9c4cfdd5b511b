"""Clusters for tests with TLS, a user and ACLs: what clients get, the faults that only security has, and links that
end TLS or let it pass."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError

from kraft.chaos.catalogue import SCENARIOS
from kraft.chaos.live import NobodyWatches
from kraft.chaos.workload.requests import produce_request, produce_result
from kraft.chaos.worlds.processes.cluster import Cluster as ChaosCluster
from kraft.chaos.worlds.processes.requests import RequestFilter
from kraft.chaos.worlds.processes.run import run_scenario
from kraft.chaos.worlds.spec import ClusterSpec, ScenarioError
from kraft.client import Client
from kraft.client.transport import Transport
from kraft.launcher.client_security import ClientSecurity
from kraft.launcher.python import PYTHON
from kraft.testing import Cluster, ClusterFailed, FaultCluster, Sent
from tests.integration.support.waiting import wait_until

pytestmark = [
    pytest.mark.long,
    pytest.mark.usefixtures("sockets_of_failed_logins"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
LIMIT_S = 60
PATIENCE_MS = 20_000


@pytest.fixture(scope="module")
def whole() -> Iterator[FaultCluster]:
    with FaultCluster(nodes=3, secure=True) as cluster:
        yield cluster


@pytest.fixture
def faults(whole: FaultCluster) -> Iterator[FaultCluster]:
    whole.begin_span()
    yield whole
    whole.end_span()


def write(cluster: Cluster | FaultCluster, topic: str, value: bytes, login: ClientSecurity | None = None) -> Sent:
    async def send() -> Sent:
        producer = AIOKafkaProducer(
            bootstrap_servers=cluster.bootstrap_servers,
            enable_idempotence=True,
            request_timeout_ms=5_000,
            retry_backoff_ms=50,
            **(login or cluster.security).aiokafka(),
        )
        try:
            await producer.start()
            placed = await producer.send_and_wait(topic, value)
        finally:
            await producer.stop()
        return Sent(topic, value, partition=placed.partition, offset=placed.offset)

    return asyncio.run(asyncio.wait_for(send(), LIMIT_S))


def can_write(cluster: Cluster | FaultCluster, topic: str, value: bytes) -> bool:
    try:
        write(cluster, topic, value)
    except KafkaError:
        return False
    return True


def is_trusted(cluster: Cluster | FaultCluster, node: int) -> bool:
    """Whether the certificate at a client's address of the node is valid."""
    host, _, port = cluster.bootstrap_servers.split(",")[node - 1].rpartition(":")
    context = ssl.create_default_context(cafile=str(cluster.security.ca))

    try:
        with context.wrap_socket(socket.create_connection((host, int(port)), LIMIT_S), server_hostname=host):
            return True
    except ssl.SSLCertVerificationError as error:
        return "expired" not in error.verify_message


# --- links ----------------------------------------------------------------------------------------------------------


def test_single_answers_are_changed_inside_tls(faults: FaultCluster) -> None:
    faults.create_topic("answers")
    faults.answer("Produce", error="NOT_LEADER_OR_FOLLOWER", times=2)
    sent = [write(faults, "answers", b"one")]
    faults.heal()
    faults.drop_answer("Produce", topic="answers")
    sent.append(write(faults, "answers", b"two"))
    verdict = faults.verdict(sent)
    assert (verdict.kept, verdict.lost, verdict.duplicated) == (2, 0, 0), str(verdict)
    assert not faults.never()


def test_a_leader_dies_and_nothing_is_lost(faults: FaultCluster) -> None:
    faults.create_topic("dies", configs={"min.insync.replicas": 2})
    sent = [write(faults, "dies", b"before")]
    faults.kill(faults.leader_of("dies"))
    sent.append(write(faults, "dies", b"after"))
    verdict = faults.verdict(sent)
    assert (verdict.kept, verdict.lost) == (2, 0), str(verdict)


def test_nobody_gets_in_without_a_login(faults: FaultCluster) -> None:
    wrong = faults.security.of("admin", "a guess")
    with pytest.raises(KafkaError):
        write(faults, "answers", b"x", wrong)


# --- faults of security ---------------------------------------------------------------------------------------------


def test_a_deleted_user_is_out_and_comes_back(faults: FaultCluster) -> None:
    faults.create_topic("user")
    login = faults.security

    async def story() -> None:
        options = {"bootstrap_servers": faults.bootstrap_servers, **login.aiokafka()}
        async with AIOKafkaConsumer("user", auto_offset_reset="earliest", **options) as consumer:
            await asyncio.to_thread(write, faults, "user", b"before")
            assert (await consumer.getone()).value == b"before"
            await asyncio.to_thread(faults.delete_user)
            with pytest.raises(KafkaError):
                await asyncio.to_thread(write, faults, "user", b"never")
            await asyncio.to_thread(faults.restore_user)
            await asyncio.to_thread(wait_until, lambda: can_write(faults, "user", b"after"), what="the user")
            assert (await consumer.getone()).value == b"after"

    asyncio.run(asyncio.wait_for(story(), LIMIT_S))
    with pytest.raises(ClusterFailed, match="nobody"):
        faults.delete_user("nobody")


def test_an_expired_certificate_is_shown_over_links_and_by_the_node(faults: FaultCluster) -> None:
    assert is_trusted(faults, 2)
    faults.expire_certificate(2)
    assert not is_trusted(faults, 2)
    assert is_trusted(faults, 1)
    with Client(faults.rest_urls[1]) as client:
        assert {node.url for node in client.nodes()} == set(faults.rest_urls.values())
    faults.heal()
    assert is_trusted(faults, 2)
    lines = faults.timeline(name="expired")["timeline"]
    assert any("certificate of node 2 has expired" in line for line in lines), lines


def test_a_cluster_without_links_has_the_same_faults() -> None:
    with Cluster(nodes=1, secure=True) as cluster:
        login = cluster.security
        assert login.password not in repr(login)
        write(cluster, "t", b"1")
        cluster.expire_certificate(1)
        wait_until(lambda: not is_trusted(cluster, 1), what="the expired certificate")
        cluster.renew_certificate(1)
        wait_until(lambda: is_trusted(cluster, 1), what="the new certificate")
        cluster.delete_user()
        wait_until(lambda: not can_write(cluster, "t", b"2"), what="the end of the user")
        cluster.restore_user()
        wait_until(lambda: can_write(cluster, "t", b"3"), what="the user")


def test_a_cluster_without_security_refuses_its_faults() -> None:
    with Cluster(nodes=1) as cluster:
        for fault in (lambda: cluster.expire_certificate(1), cluster.delete_user, lambda: cluster.security):
            with pytest.raises(ClusterFailed, match="secure=True"):
                fault()


# --- kraft exec, and scenarios --------------------------------------------------------------------------------------

COMMAND = """
import json, os, subprocess, sys
from kraft.client import Client
with Client(*os.environ["KRAFT_REST"].split(",")) as client:
    client.admin.create_topic("t", partitions=1)
subprocess.run([*json.loads(sys.argv[1]), "-m", "kraft", "produce", "t", "x"], check=True, stdout=subprocess.DEVNULL)
folder = os.environ["KRAFT_CLIENT"]
print(json.dumps({"files": sorted(os.listdir(folder)), "user": os.environ["KRAFT_USER"]}))
"""


@pytest.mark.parametrize("options", [(), ("--faults",)])
def test_exec_gives_its_command_the_login(options: tuple[str, ...]) -> None:
    command = [*PYTHON, "-m", "kraft", "exec", "--secure", *options, "--", sys.executable, "-c", COMMAND]
    done = subprocess.run([*command, json.dumps(PYTHON)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    reported = json.loads(done.stdout)
    assert reported["user"] == "admin"
    assert {"ca.pem", "client.properties", "librdkafka.conf", "netrc", "password"} <= set(reported["files"])


@pytest.mark.parametrize("client", ["rest", "kafka"])
def test_a_story_has_its_verdict_over_tls(client: str) -> None:
    story = SCENARIOS["lost-answer-idempotent" if client == "rest" else "follower-cut-from-leader"]
    run = run_scenario(story, seed=1, watcher=NobodyWatches(), clients=client, tls="ended")  # type: ignore[arg-type]
    result = asyncio.run(run)
    assert result.exit_code == 0, result.problems


def test_links_cut_and_delay_tls_that_passes_from_end_to_end(tmp_path: Path) -> None:
    async def story() -> None:
        spec = ClusterSpec.of(3, settings={"replica.lag.time.max.ms": 1_500, "replica.fetch.backoff.ms": 50})
        async with ChaosCluster.start(spec, directory=tmp_path, tls="passed", is_open_outside=True) as cluster:
            await cluster.admin.create_topic("t", assignment=[[1, 2, 3]], configs={"min.insync.replicas": 2})
            with pytest.raises(ScenarioError, match="end to end"):
                await cluster.links.drop_answers(None, 1, purpose="rest")
            with pytest.raises(ScenarioError, match="end to end"):
                await cluster.requests.drop_answer("Produce", which=RequestFilter())
            await cluster.links.delay(None, None, delay_ms=20)
            await cluster.links.cut(2, 1, purpose="fetch")
            await cluster.observer.until(lambda seen: 2 not in seen.isr("t", 0), describe="node 2 out of the ISR")
            assert await _written(cluster) == "ok"
            await cluster.links.heal()
            await cluster.observer.until(lambda seen: 2 in seen.isr("t", 0), describe="node 2 in the ISR")

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(story())


async def _written(cluster: ChaosCluster) -> str:
    request = produce_request("t", 0, [(None, "c:1")], acks="all", timeout_ms=PATIENCE_MS)
    async with Transport() as transport:
        address = await cluster.links.client_address("c", 1)
        return produce_result(await transport.send(address, request), acks="all").outcome
