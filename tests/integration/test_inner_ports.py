"""Strangers at the quorum's port, topic ids that are not there, and replicas striped over racks, on real nodes."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator
from uuid import UUID

import pytest

from kraft.protocol.errors import UnknownTopicId
from metadata.quorum.frame_auth import MAC_BYTES, NONCE_BYTES, Hello, encode_hello
from replication.requests import CONSUMER, FetchPartition, FetchRequest
from tests.integration.conftest import run_cluster
from tests.integration.support.cluster import Cluster
from tests.integration.support.configuration import BOTH, REPLICATED
from tests.integration.support.inside import forward

pytestmark = pytest.mark.slow

RACKS = {1: "a", 2: "a", 3: "b", 4: "b"}
WAIT_S = 30


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("racks")
    roles = {1: BOTH, 2: BOTH, 3: BOTH, 4: ("broker",)}
    yield from run_cluster(folder, settings=REPLICATED, roles=roles, racks=RACKS)


def test_replicas_lie_on_as_many_racks_as_there_are(nodes: Cluster):
    """S10."""
    nodes.create_topic("striped", partitions=8, replication_factor=2)
    partitions = nodes.call("GET", "/topics/striped/partitions").json()["data"]
    placed = []
    for partition in partitions:
        path = f"/topics/striped/partitions/{partition['partition_id']}/replicas"
        placed.append([replica["broker_id"] for replica in nodes.call("GET", path).json()["data"]])
    assert len(placed) == 8
    assert all({RACKS[broker] for broker in replicas} == {"a", "b"} for replicas in placed), placed
    assert {broker for replicas in placed for broker in replicas} == set(RACKS)


def test_a_fetch_of_a_topic_id_that_is_not_there_is_answered_100(nodes: Cluster):
    fetch = FetchPartition(
        topic_id=UUID(int=99),
        partition=0,
        current_leader_epoch=-1,
        fetch_offset=0,
        last_fetched_epoch=-1,
        log_start_offset=-1,
        bytes_max=1_000,
    )
    request = FetchRequest(
        replica_id=CONSUMER, replica_epoch=-1, wait_ms_max=0, bytes_min=0, bytes_max=1_000, partitions=(fetch,)
    )
    answer = forward(nodes, 1, lambda channel: channel.fetch(request))
    assert [partition.error_code for partition in answer.partitions] == [UnknownTopicId.code]


@pytest.mark.parametrize(("sender", "cluster"), [(2, None), (99, None), (4, None), (2, "another")])
def test_the_quorums_port_refuses_who_has_not_the_secret_or_no_vote(nodes: Cluster, sender: int, cluster: str | None):
    """A voter's name alone is worth nothing: its first sealed frame is wrong. The node goes on."""
    cluster_id = nodes.get("/v3/clusters")["data"][0]["cluster_id"]
    rng = random.Random(sender)
    hello = Hello(
        cluster_id=cluster or cluster_id,
        sender=sender,
        receiver=1,
        nonce=rng.randbytes(NONCE_BYTES),
        incarnation=rng.randbytes(16),
    )
    host, port = str(nodes.node(1).quorum).split(":")
    with socket.create_connection((host, int(port)), timeout=WAIT_S) as connection:
        for frame in (encode_hello(hello), rng.randbytes(MAC_BYTES + 20)):
            connection.sendall(struct.pack(">i", len(frame)) + frame)
        answered = _until_closed(connection)
    assert len(answered) < 1_000, "a stranger was told something"
    assert nodes.is_running(1)
    nodes.wait_for_state(1, "active")


def _until_closed(connection: socket.socket) -> bytes:
    """A timeout fails the test: the other side has to close."""
    data = b""
    try:
        while part := connection.recv(4096):
            data += part
    except ConnectionError:
        pass
    return data
