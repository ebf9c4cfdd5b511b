"""Three real nodes whose ports all have TLS: quorum, replication, HTTP and the command line."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from kraft.client import Client
from kraft.client.blocking_transport import send
from kraft.client.credentials import Credentials, remember
from kraft.client.response import Answer, Request
from kraft.config.models import NodeConfig
from kraft.launcher.certificates import CertificateAuthority
from kraft.launcher.configuration import load_config
from tests.integration.support.cluster import Cluster, kraft
from tests.integration.support.secured import secured_cluster
from tests.integration.support.waiting import wait_until

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    yield from secured_cluster(tmp_path_factory.mktemp("tls"), protocol="SSL")


def _certs(nodes: Cluster) -> Path:
    return Path(nodes.data).parent / "certs"


def test_records_pass_through_every_node(nodes: Cluster) -> None:
    nodes.create_topic("t", partitions=3)
    with Client(nodes.nodes[0].rest, ca=str(_certs(nodes) / "ca.pem")) as client:
        with client.producer() as producer:
            for number in range(30):
                producer.send("t", str(number).encode())
        assert {node.url.partition(":")[0] for node in client.nodes()} == {"https"}
    assert "hello" in kraft("topics", "create", "hello", "--data", nodes.data).stdout
    nodes.restart(2)
    assert nodes.call("GET", "/topics/t/partitions", node_id=2).is_success


def test_no_port_speaks_without_tls(nodes: Cluster) -> None:
    node = nodes.nodes[0]
    for address in (node.kafka, node.quorum, node.rest.removeprefix("https://")):
        assert address is not None
        outcome = send(f"http://{address}", Request(method="GET", path="/readyz", timeout_ms=5_000))
        assert not isinstance(outcome, Answer), outcome
        host, _, port = address.rpartition(":")
        certificate = ssl.get_server_certificate((host, int(port)), ca_certs=str(_certs(nodes) / "ca.pem"))
        assert certificate.startswith("-----BEGIN CERTIFICATE")


def test_a_foreign_ca_is_not_trusted(nodes: Cluster, tmp_path: Path) -> None:
    foreign = CertificateAuthority(str(tmp_path)).path
    url = nodes.nodes[0].rest.replace("https://", "https://user@")
    remember(url, Credentials(ca=foreign))
    outcome = send(url, Request(method="GET", path="/readyz", timeout_ms=5_000))
    assert "certificate verify failed" in getattr(outcome, "reason", ""), outcome


def test_a_certificate_is_replaced_without_a_restart(nodes: Cluster) -> None:
    folder = _certs(nodes)
    host, _, port = nodes.nodes[0].kafka.rpartition(":")
    before = ssl.get_server_certificate((host, int(port)))
    new = CertificateAuthority(str(folder)).node(_node(nodes))
    assert new == str(folder / "node-1.pem")

    wait_until(lambda: ssl.get_server_certificate((host, int(port))) != before, what="the new certificate")


def _node(nodes: Cluster) -> NodeConfig:
    return load_config(nodes.config, data=nodes.data).node(1)
