"""After a busy run of a secure cluster no password, token or key is in its logs, events, answers, reports or arguments.

The secrets are looked for in every file of the cluster but those that are there to hold them, which only their owner
may read.
"""

from __future__ import annotations

import asyncio
import json
import os
import stat
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.abc import AbstractTokenProvider
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from kraft.client.blocking_transport import send
from kraft.client.credentials import Credentials, credentials_for, remember
from kraft.client.response import Answer, Request
from kraft.launcher.client_security import ClientSecurity
from kraft.launcher.processes import is_alive
from kraft.launcher.runfile import load_run
from kraft.layout import OPERATOR_FILE, SECRET_FILE
from kraft.testing import FaultCluster
from tests.integration.support.cluster import kraft
from tests.integration.support.waiting import wait_until

pytestmark = [
    pytest.mark.long,
    pytest.mark.usefixtures("sockets_of_failed_logins"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
ALICE: Final = "of alice, and of nobody else"
GUESS: Final = "a guess that somebody else may use as a password"
CERTIFICATE_PASSWORD: Final = "a password of a key that has none"
HOLDS_SECRETS: Final = frozenset({"certs", "client", OPERATOR_FILE, SECRET_FILE, "resolved.toml"})
SETTINGS: Final = {
    "sasl.enabled.mechanisms": "SCRAM-SHA-256,SCRAM-SHA-512,PLAIN,OAUTHBEARER",
    "sasl.oauthbearer.unsecured.tokens.enable": True,
    "ssl.key.password": CERTIFICATE_PASSWORD,
}
ENDLESS: Final = ("/kraft/changes", "/kraft/events", "/kraft/live", "/records")
"""Parts of routes whose answers have no end."""
LIMIT_S: Final = 60


class Token(AbstractTokenProvider):  # type: ignore[misc]  # the class of a library without types
    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    async def token(self) -> str:
        return self._text


def _part(document: dict[str, Any]) -> str:
    return b64encode(json.dumps(document).encode()).decode().rstrip("=")


UNSECURED: Final = f"{_part({'alg': 'none'})}.{_part({'sub': 'admin', 'exp': 4_000_000_000, 'jti': 'walked'})}."


@pytest.fixture(scope="module")
def cluster() -> Iterator[FaultCluster]:
    with FaultCluster(nodes=3, secure=True, settings=SETTINGS) as found:
        _be_busy(found)
        yield found


@pytest.fixture(scope="module")
def secrets(cluster: FaultCluster) -> dict[str, bytes]:
    """Name -> what must not be found."""
    data, login = cluster.data, cluster.security
    found = {
        "the password of admin": login.password,
        "the password of alice": ALICE,
        "a wrong password": GUESS,
        "ssl.key.password": CERTIFICATE_PASSWORD,
        "the secret of the cluster": (data / SECRET_FILE).read_text().strip(),
        "the operator's key": (data / OPERATOR_FILE).read_text().strip(),
        "a token": UNSECURED,
        "Basic of admin": b64encode(f"{login.user}:{login.password}".encode()).decode(),
        "Basic of a guess": b64encode(f"alice:{GUESS}".encode()).decode(),
    }
    for path in (data / "certs").glob("*.pem"):
        if "PRIVATE KEY" in path.read_text():
            found[f"the key of {path.name}"] = path.read_text().split("-----")[2].split()[0]
    assert sum("the key of" in name for name in found) == 4
    return {name: text.encode() for name, text in found.items()}


def _be_busy(cluster: FaultCluster) -> None:
    cluster.create_topic("busy", partitions=3)
    password = cluster.data.parent / "alice.password"
    password.touch(mode=0o600)
    password.write_text(ALICE)
    data = ("--data", str(cluster.data))
    kraft("users", "add", "alice", "--password-file", str(password), *data)
    password.unlink()
    kraft("acls", "create", "--principal", "User:alice", "--operation", "All", "--topic", "busy", *data)
    kraft("quotas", "set", "--user", "alice", "producer_byte_rate=1048576", *data)
    admin, url = cluster.security, cluster.rest_urls[1]
    guess = admin.of("alice", GUESS)
    tokens = {key: value for key, value in admin.aiokafka().items() if not key.startswith("sasl")}
    tokens |= {"sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_provider": Token(UNSECURED)}
    logins = [admin, admin.of("alice", ALICE, mechanism="SCRAM-SHA-256"), admin.of("alice", ALICE, mechanism="PLAIN")]
    cluster.drop_answer("Produce", topic="busy")
    asyncio.run(asyncio.wait_for(_clients(cluster, [*(each.aiokafka() for each in logins), tokens], guess), LIMIT_S))
    own = credentials_for(url)
    try:
        for credentials in (admin.credentials(), guess.credentials(), Credentials(ca=str(admin.ca), token=UNSECURED)):
            remember(url, credentials)
            for path in ("/topics", "/topics/busy", "/kraft/users", "/v3/clusters"):
                assert isinstance(send(url, Request(method="GET", path=path)), Answer)
    finally:
        remember(url, own)
    cluster.kill(2)
    cluster.restart(2)
    cluster.expire_certificate(3)
    cluster.heal()


async def _clients(cluster: FaultCluster, logins: list[dict[str, Any]], guess: ClientSecurity) -> None:
    servers = cluster.bootstrap_servers
    for options in logins:
        async with AIOKafkaProducer(bootstrap_servers=servers, enable_idempotence=False, **options) as producer:
            for number in range(20):
                await producer.send_and_wait("busy", b"%d" % number, partition=number % 3)
    async with AIOKafkaConsumer("busy", bootstrap_servers=servers, auto_offset_reset="earliest", **logins[0]) as reader:
        assert (await reader.getone()).value is not None
    wrong = AIOKafkaProducer(bootstrap_servers=servers, **guess.aiokafka())
    with pytest.raises(KafkaError):
        await wrong.start()
    await wrong.stop()


def assert_none(secrets: dict[str, bytes], where: str, data: bytes) -> None:
    found = [name for name, secret in secrets.items() if secret in data]
    assert not found, f"{where} has {', '.join(found)}"


# --- the walk -------------------------------------------------------------------------------------------------------


def test_files_have_no_secret_but_those_that_hold_one(cluster: FaultCluster, secrets: dict[str, bytes]) -> None:
    names = set()
    for path in cluster.data.parent.rglob("*"):
        if not path.is_file():
            continue
        names.add(path.name)
        if HOLDS_SECRETS.isdisjoint(path.relative_to(cluster.data.parent).parts):
            assert_none(secrets, str(path), path.read_bytes())
        elif path.name != "ca.pem":
            assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
    assert {"node.log", "events.jsonl", "audit.jsonl", "cluster.json"} <= names


def test_answers_over_http_have_none(cluster: FaultCluster, secrets: dict[str, bytes]) -> None:
    url, answered = cluster.rest_urls[1], 0
    for path in sorted(_paths(cluster)):
        answer = send(url, Request(method="GET", path=path, timeout_ms=20_000))
        assert isinstance(answer, Answer), (path, answer)
        assert_none(secrets, path, answer.body + repr(answer.headers).encode())
        answered += answer.is_success
    assert answered > 30


def _paths(cluster: FaultCluster) -> Iterator[str]:
    """Those of the OpenAPI document, with names that exist."""
    answer = send(cluster.rest_urls[1], Request(method="GET", path="/openapi.json"))
    assert isinstance(answer, Answer)
    names = {"cluster_id": cluster.cluster_id, "broker_id": "1", "topic": "busy", "partition": "0", "user": "alice"}
    for path, operations in answer.json()["paths"].items():
        if "get" not in operations or any(part in path for part in ENDLESS):
            continue
        for name, value in names.items():
            path = path.replace(f"{{{name}}}", value)
        yield path.replace("{name}", "ssl.key.password").replace("{", "").replace("}", "")


def test_described_settings_have_none(cluster: FaultCluster, secrets: dict[str, bytes]) -> None:
    async def described() -> str:
        admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap_servers, **cluster.security.aiokafka())
        await admin.start()
        try:
            return str(await admin.describe_configs([ConfigResource(ConfigResourceType.BROKER, "1")]))
        finally:
            await admin.close()

    text = asyncio.run(asyncio.wait_for(described(), LIMIT_S))
    assert "ssl.key.password" in text
    assert_none(secrets, "DescribeConfigs", text.encode())


def test_commands_and_reports_show_none(cluster: FaultCluster, secrets: dict[str, bytes], tmp_path: Path) -> None:
    for command in (("status",), ("users", "list"), ("acls", "list"), ("quotas", "list"), ("topics", "list")):
        shown = kraft(*command, "--data", str(cluster.data))
        assert_none(secrets, " ".join(command), (shown.stdout + shown.stderr).encode())
    folder = str(cluster.data / "node-1")
    assert_none(secrets, "metadata dump", kraft("metadata", "dump", folder, "--json").stdout.encode())
    lines = cluster.timeline(name="walk", report=str(tmp_path))
    assert_none(secrets, "the timeline", json.dumps(lines).encode())
    pages = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert pages
    for path in pages:
        assert_none(secrets, path.name, path.read_bytes())
    assert_none(secrets, "repr", repr(cluster.security).encode())


def test_arguments_of_processes_have_none(cluster: FaultCluster, secrets: dict[str, bytes]) -> None:
    run = load_run(str(cluster.data))
    assert run is not None
    nodes = [node.pid for node in run.nodes if is_alive(node.pid)]
    assert len(nodes) == 3
    for pid in [*nodes, cluster.host_pid, os.getpid()]:
        assert_none(secrets, f"process {pid}", Path(f"/proc/{pid}/cmdline").read_bytes())
        if pid in nodes:
            assert_none(secrets, f"environment of {pid}", Path(f"/proc/{pid}/environ").read_bytes())
    wait_until(lambda: cluster.state(1) == "running", what="node 1")
