"""`kraft.testing.FaultCluster`: what its verdict sees, and what is left of it however its owner ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from kraft.protocol.batches.header import computed_crc
from kraft.testing import ClusterFailed, FaultCluster, Sent
from kraft.testing.assertions import judged, verdict_of
from tests.integration.support.waiting import wait_until

LIMIT_S = 120
CRC_AT = 17
"""Of a batch of version 2."""


@pytest.fixture(scope="module")
def whole() -> Iterator[FaultCluster]:
    with FaultCluster(nodes=3) as cluster:
        yield cluster


@pytest.fixture
def broken(whole: FaultCluster) -> Iterator[FaultCluster]:
    yield whole
    whole.end_span()


def send(cluster: FaultCluster, topic: str, values: list[bytes]) -> list[Sent]:
    async def story() -> list[Sent]:
        servers = cluster.bootstrap_servers
        async with AIOKafkaProducer(bootstrap_servers=servers, acks="all", retry_backoff_ms=50) as producer:
            reported = [await producer.send_and_wait(topic, value) for value in values]
        return [
            Sent(topic, value, partition=each.partition, offset=each.offset)
            for value, each in zip(values, reported, strict=True)
        ]

    return asyncio.run(story())


def forge(cluster: FaultCluster, node: int, topic: str, old: bytes, new: bytes) -> None:
    """Another value in the log of one replica, in a batch whose checksum is right."""
    assert len(old) == len(new)
    (log,) = (cluster.data / f"node-{node}").rglob(f"{topic}-0/*.log")
    data = bytearray(log.read_bytes())
    at = data.index(old)
    position = 0
    while True:
        size = 12 + struct.unpack_from(">i", data, position + 8)[0]
        if position + size > at:
            break
        position += size
    data[at : at + len(new)] = new
    struct.pack_into(">I", data, position + CRC_AT, computed_crc(data, position, size))
    log.write_bytes(data)


@pytest.mark.long
def test_the_verdict_compares_the_logs_of_the_replicas(broken: FaultCluster) -> None:
    """Clients see nothing of it: they read from the leader."""
    broken.create_topic("forged")
    values = [b"order-%02d" % number for number in range(20)]
    sent = send(broken, "forged", values)
    whole = broken.verdict(sent)
    assert (whole.kept, whole.findings, whole.is_clean) == (20, (), True)
    follower = next(node for node in broken.ids if node != broken.leader_of("forged"))
    broken.stop(follower)
    forge(broken, follower, "forged", b"order-07", b"order-xx")
    verdict = broken.verdict(sent)
    assert (verdict.kept, verdict.lost, verdict.is_clean) == (20, 0, False)
    (found,) = verdict.findings
    assert f"at offset {sent[7].offset} of forged-0" in found
    assert f"node {follower} has nothing" in found
    assert [record.value for record in broken.records("forged")] == values
    alone = judged(str(broken.data), sent, since_us=0, name="asked by somebody else")
    assert verdict_of(alone["verdict"]).findings == verdict.findings


def test_a_verdict_does_not_compare_what_replicas_compact_by_themselves(broken: FaultCluster) -> None:
    broken.create_topic("compacted", configs={"cleanup.policy": "compact"})
    sent = send_with_key(broken, "compacted")
    follower = next(node for node in broken.ids if node != broken.leader_of("compacted"))
    broken.stop(follower)
    forge(broken, follower, "compacted", b"order-1", b"order-x")
    assert broken.verdict(sent).is_clean


def send_with_key(cluster: FaultCluster, topic: str) -> list[Sent]:
    async def story() -> list[Sent]:
        servers = cluster.bootstrap_servers
        async with AIOKafkaProducer(bootstrap_servers=servers, acks="all", retry_backoff_ms=50) as producer:
            reported = await producer.send_and_wait(topic, b"order-1", key=b"k")
        return [Sent(topic, b"order-1", key=b"k", partition=reported.partition, offset=reported.offset)]

    return asyncio.run(story())


@pytest.mark.long
def test_async_tests_have_it_too_and_it_is_used_once() -> None:
    async def story() -> FaultCluster:
        async with FaultCluster(nodes=1) as cluster:
            assert cluster.state(1) == "running"
            return cluster

    cluster = asyncio.run(story())
    cluster.close()
    assert not cluster.data.parent.exists()
    with pytest.raises(ClusterFailed, match="does not run"):
        cluster.state(1)


# --- each fault has its effect, and is healed -------------------------------------------------------------------------


def others(cluster: FaultCluster, node: int) -> list[int]:
    return [each for each in cluster.ids if each != node]


def test_faults_of_nodes_and_their_disks(broken: FaultCluster) -> None:
    broken.create_topic("disks")
    full = broken.leader_of("disks")
    broken.fill_disk(full)
    sent = send(broken, "disks", [b"1"])
    assert broken.leader_of("disks") in others(broken, full), "who has no room leads nothing"
    broken.free_disk(full)
    broken.heal()
    lost = broken.leader_of("disks")
    broken.power_loss(lost)
    broken.pause(*others(broken, lost))
    assert [broken.state(node) for node in (lost, *others(broken, lost))] == ["down", "paused", "paused"]
    broken.resume(*others(broken, lost))
    broken.restart(lost)
    broken.stop(lost)
    assert broken.state(lost) == "down"
    verdict = broken.verdict(sent)
    assert (verdict.kept, verdict.is_clean) == (1, True), str(verdict)
    assert [broken.state(node) for node in broken.ids] == ["running"] * 3
    with pytest.raises(ClusterFailed, match="which nodes"):
        broken.kill()


def is_open(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), LIMIT_S).close()
    except ConnectionRefusedError:
        return False
    return True


def test_faults_of_links(broken: FaultCluster) -> None:
    broken.create_topic("links")
    alone = broken.leader_of("links")
    broken.partition([alone], others(broken, alone))
    wait_until(
        lambda: broken.leader_of("links") in others(broken, alone), what="a leader beside it", deadline_s=LIMIT_S
    )
    broken.heal()  # who is alone believes that it leads, and a client that asked it would wait there
    sent = send(broken, "links", [b"1"])
    address = broken.bootstrap_servers.split(",")[alone - 1]
    assert is_open(address)
    broken.cut("clients", alone)
    wait_until(lambda: not is_open(address), what="the end of the link", deadline_s=LIMIT_S)
    broken.heal()
    broken.slow("clients", broken.leader_of("links"), ms=300)
    begun = time.monotonic()
    sent += send(broken, "links", [b"2"])
    assert time.monotonic() - begun >= 0.3
    verdict = broken.verdict(sent)
    assert (verdict.kept, verdict.is_clean) == (2, True), str(verdict)
    with pytest.raises(ClusterFailed, match="9 is no end"):
        broken.cut(9)


def test_faults_of_requests_and_those_that_none_has_met(broken: FaultCluster) -> None:
    broken.create_topic("asked")
    broken.begin_span()
    broken.answer("Produce", error="NOT_LEADER_OR_FOLLOWER", times=2, topic="asked")
    broken.close_after("Produce", topic="asked")
    broken.delay("Metadata", ms=300, times=1)
    broken.drop_answer("EndTxn")
    begun = time.monotonic()
    sent = send(broken, "asked", [b"1"])
    assert time.monotonic() - begun >= 0.3
    (never,) = broken.never()
    assert "EndTxn" in never
    verdict = broken.verdict(sent)
    assert (verdict.kept, verdict.duplicated) == (1, 0), str(verdict)
    assert broken.end_span() == {"is_whole": True, "problem": ""}
    with pytest.raises(ClusterFailed, match="did you mean Produce"):
        broken.answer("Produced", error=6)


# --- how owners end -------------------------------------------------------------------------------------------------

OWNER = """
import json, time
from kraft.testing import FaultCluster
cluster = FaultCluster(nodes=3).start()
cluster.create_topic("orders")
cluster.pause(2)
cluster.cut(1, 3)
print(json.dumps(str(cluster.data)), flush=True)
time.sleep(600)
"""


def below(pid: int) -> set[int]:
    """Processes that it has started, and those that they have."""
    parents: dict[int, list[int]] = {}
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(name))
    found, new = set[int](), [pid]
    while new:
        new = [child for each in new for child in parents.get(each, [])]
        found |= set(new)
    return found


def exists(pid: int) -> bool:
    """As more than a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def all_are_gone(pids: set[int]) -> None:
    for pid in pids:
        wait_until(lambda gone=pid: not exists(gone), what=f"the end of process {pid}", deadline_s=LIMIT_S)


@pytest.mark.long
def test_an_owner_that_is_killed_leaves_no_process_no_link_and_no_folder() -> None:
    """A node stands still and a link is cut at that moment."""
    with subprocess.Popen([sys.executable, "-P", "-c", OWNER], stdout=subprocess.PIPE, text=True) as owner:
        try:
            assert owner.stdout is not None
            folder = Path(json.loads(owner.stdout.readline())).parent
            started = below(owner.pid)
            assert len(started) >= 6, "the host, the links, the process that forks and its nodes"
            os.kill(owner.pid, signal.SIGKILL)
            all_are_gone(started)
            wait_until(lambda: not folder.exists(), what="the end of the folder", deadline_s=LIMIT_S)
        finally:
            owner.kill()


@pytest.mark.long
def test_killed_host_leaves_nothing() -> None:
    cluster = FaultCluster(nodes=3).start()
    try:
        started = below(cluster.host_pid)
        assert len(started) >= 5
        os.kill(cluster.host_pid, signal.SIGKILL)
        all_are_gone(started)
        with pytest.raises(ClusterFailed, match="has ended"):
            cluster.heal()
    finally:
        cluster.close()
    assert not cluster.data.parent.exists()
