"""A cluster moves from plain to TLS, users and ACLs node by node, under load: no record is refused, lost or doubled.

The steps are those of docs/security.md: allow, prefer, clients to the new listener, and the last one.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from kraft.client.blocking_transport import send
from kraft.client.credentials import Credentials, remember
from kraft.client.response import Answer, Request
from kraft.config.models import ClusterConfig, ListenerConfig
from kraft.config.render import render
from kraft.launcher.client_security import first_user
from kraft.launcher.cluster_preparation import prepare
from kraft.launcher.configuration import write_whole
from kraft.launcher.ports import with_free_ports
from kraft.launcher.runfile import NodeRun, load_run, save_run
from kraft.launcher.secured import secured
from kraft.layout import OPERATOR_FILE, SECRET_FILE
from tests.integration.support.cluster import Cluster, kraft
from tests.integration.support.configuration import REPLICATED, write_config
from tests.integration.support.forks import FORKS
from tests.integration.support.waiting import wait_until
from tests.support.ports import own_host

pytestmark = pytest.mark.long
LISTENER = "SECURE"
PAUSE_S = 0.02
MORE = 20
"""Records that have to arrive in each step."""


class Load:
    """A producer in a thread of its own: one record after the other, until it is stopped."""

    def __init__(self, values: Iterator[int], **options: Any) -> None:
        self._values = values
        self._options = options
        self._is_over = threading.Event()
        self.written: list[int] = []
        self.problems: list[str] = []
        self._thread = threading.Thread(target=lambda: asyncio.run(self._write()))
        self._thread.start()

    async def _write(self) -> None:
        producer = AIOKafkaProducer(
            enable_idempotence=True, request_timeout_ms=20_000, retry_backoff_ms=50, **self._options
        )
        try:
            await producer.start()
            while not self._is_over.is_set():
                value = next(self._values)
                await producer.send_and_wait("moves", b"%d" % value, partition=value % 3)
                self.written.append(value)
                await asyncio.sleep(PAUSE_S)
        except (KafkaError, OSError) as error:
            self.problems.append(repr(error))
        finally:
            await producer.stop()

    def goes_on(self) -> None:
        """Wait until records of this moment have arrived."""
        wanted = len(self.written) + MORE
        wait_until(lambda: len(self.written) >= wanted or self.problems, deadline_s=60, what="records")
        assert not self.problems

    def end(self) -> None:
        self._is_over.set()
        self._thread.join(60)

    def stop(self) -> list[int]:
        self.end()
        assert not self.problems
        return self.written


def without_listeners(config: ClusterConfig) -> ClusterConfig:
    return config.model_copy(
        update={"nodes": tuple(each.model_copy(update={"listeners": ()}) for each in config.nodes)}
    )


def steps(first: ClusterConfig) -> dict[str, ClusterConfig]:
    """The configurations of the recipe after the plain one. They have certificates and a user, so the plain cluster has
    to have started: a folder with a user is not opened."""
    last = secured(first)
    certificates = {node.id: node.settings for node in last.nodes}
    nodes = tuple(
        node.model_copy(update={"settings": certificates[node.id], "listeners": secure.listeners})
        for node, secure in zip(first.nodes, last.nodes, strict=True)
    )
    names = ("ssl.truststore.location", "sasl.enabled.mechanisms")
    settings = {**first.settings, **{name: last.settings[name] for name in names}}
    allow = first.model_copy(update={"nodes": nodes, "settings": settings, "users": last.users, "tls_mode": "allow"})
    return {
        "allow": allow,
        "prefer": allow.model_copy(update={"tls_mode": "prefer"}),
        "require": last.model_copy(update={"tls_mode": "require"}),
    }


def write(config: ClusterConfig, path: str) -> None:
    secret_file = str(Path(config.data, SECRET_FILE))
    write_whole(secret_file, config.secret.get_secret_value() + "\n", mode=0o600)
    write_whole(str(Path(config.data, OPERATOR_FILE)), config.keys.operator.hex() + "\n", mode=0o600)
    write_whole(path, render(config, secret_file=secret_file), mode=0o600)


def roll(cluster: Cluster, config: ClusterConfig) -> None:
    """Restart the nodes one by one with another configuration."""
    run = load_run(cluster.data)
    assert run is not None
    write(config, run.config)
    for node in cluster.ids:
        run = load_run(cluster.data)
        assert run is not None
        save_run(run.with_nodes(_as_configured(each, config) if each.id == node else each for each in run.nodes))
        cluster.restart(node)
        wait_until(lambda: _is_whole(cluster), deadline_s=60, what="the whole ISR")


def _as_configured(node: NodeRun, config: ClusterConfig) -> NodeRun:
    own = config.node(node.id)
    ca = str(config.settings.get("ssl.truststore.location", "")) if own.rest_url.startswith("https") else None
    return replace(node, rest=own.rest_url, ca=ca, logs_in=own.rest_protocol == "SASL_SSL")


def _is_whole(cluster: Cluster) -> bool:
    return all(sorted(cluster.isr_of("moves", number)) == [1, 2, 3] for number in range(3))


def speaks_tls(address: str, ca: str) -> bool:
    host, _, port = address.rpartition(":")
    context = ssl.create_default_context(cafile=ca)
    try:
        with (
            socket.create_connection((host, int(port)), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return True
    except (ssl.SSLError, ConnectionError):
        return False


def answers_plain(address: str) -> bool:
    """Whether the Kafka port answers ApiVersions of a client without TLS."""
    host, _, port = address.rpartition(":")
    request = b"\0\0\0\x0a\0\x12\0\0\0\0\0\x01\xff\xff"
    try:
        with socket.create_connection((host, int(port)), timeout=10) as plain:
            plain.sendall(request)
            return plain.recv(8)[4:8] == b"\0\0\0\x01"
    except (ConnectionError, TimeoutError):
        return False


def test_a_cluster_moves_to_tls_without_an_outage(tmp_path: Path) -> None:
    host = own_host()
    path = write_config(tmp_path / "cluster.toml", host=host, settings=REPLICATED)
    first = prepare(path, data=str(tmp_path / "data"), free_ports=False)
    outside = (ListenerConfig(name=LISTENER, port=29_092),)
    listening = tuple(node.model_copy(update={"listeners": outside}) for node in first.nodes)
    first = with_free_ports(first.model_copy(update={"nodes": listening}))
    write(without_listeners(first), path)
    cluster = Cluster(data=first.data, config=path, forks=FORKS)
    values = iter(range(1_000_000))
    loads: list[Load] = []
    try:
        cluster.start(free_ports=False)
        found = steps(first)
        login, ca = first_user(Path(first.data, "client")), str(Path(first.data, "certs", "ca.pem"))
        cluster.create_topic("moves", partitions=3)
        kafka, quorum = cluster.node(1).kafka, cluster.node(1).quorum
        assert quorum is not None
        assert not speaks_tls(kafka, ca)
        plain = ",".join(node.kafka for node in cluster.nodes)
        loads.append(Load(values, bootstrap_servers=plain))
        roll(cluster, found["allow"])
        loads[0].goes_on()
        assert speaks_tls(kafka, ca)
        assert speaks_tls(quorum, ca)
        assert answers_plain(kafka)
        _asks_over_https(cluster.node(1), ca)
        roll(cluster, found["prefer"])
        loads[0].goes_on()
        secure = ",".join(f"{host}:{node.listeners[0].port}" for node in first.nodes)
        loads.append(Load(values, bootstrap_servers=secure, **login.aiokafka()))
        loads[1].goes_on()
        loads[0].stop()
        roll(cluster, found["require"])
        loads[1].goes_on()
        assert speaks_tls(kafka, ca)
        assert speaks_tls(quorum, ca)
        assert not answers_plain(kafka)
        written = [value for load in loads for value in load.stop()]
        lines = kraft("consume", "moves", "--data", cluster.data, "--json").stdout.splitlines()
        assert sorted(int(json.loads(line)["value"]) for line in lines) == sorted(written)
        assert kraft("users", "list", "--rest", cluster.node(1).rest, check=False).returncode != 0
    finally:
        for load in loads:
            load.end()
        cluster.destroy()


def _asks_over_https(node: NodeRun, ca: str) -> None:
    """Clients of HTTP may move, too: the port takes both."""
    url = node.rest.replace("http://", "https://")
    remember(url, Credentials(ca=ca))
    for base in (url, node.rest):
        assert isinstance(send(base, Request(method="GET", path="/topics")), Answer), base
