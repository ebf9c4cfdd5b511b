"""Disks that are full, bytes that have changed, folders and nodes in the wrong place: a clear error, and nobody else
is disturbed."""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from kraft.client.response import Answer
from tests.integration.conftest import run_cluster
from tests.integration.support.cluster import Cluster
from tests.integration.support.configuration import QUICK_FAILURES
from tests.integration.support.load import Load
from tests.integration.support.reading import page, read_all, values, wait_for_values
from tests.integration.support.waiting import wait_until
from tests.support.ports import free_ports

SETTINGS = {**QUICK_FAILURES, "initial.broker.registration.timeout.ms": 30_001}
SMALL_SEGMENTS = {"segment_bytes": "20000"}


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    yield from run_cluster(tmp_path_factory.mktemp("damage"), settings=SETTINGS)


@pytest.fixture(autouse=True)
def _healed(nodes: Cluster) -> None:
    nodes.heal()


def followers_first(nodes: Cluster, leader: int) -> list[int]:
    return [leader, *(node_id for node_id in nodes.ids if node_id != leader)]


def fill(nodes: Cluster, topic: str, *, requests: int = 20) -> list[str]:
    """About a segment for each ten requests."""
    written = []
    for request in range(requests):
        batch = [f"{request}-{n}-" + "x" * 80 for n in range(20)]
        nodes.write_all(topic, batch)
        written += batch
    return written


def flip(path: Path, *, at: float) -> None:
    """One bit, at this share of the file."""
    data = bytearray(path.read_bytes())
    position = int(len(data) * at)
    with path.open("r+b") as file:
        file.seek(position)
        file.write(bytes([data[position] ^ 0x10]))


def segments(nodes: Cluster, node_id: int, topic: str) -> list[Path]:
    return sorted(nodes.folder(node_id, topic).glob("*.log"))


# Changed bytes


@pytest.mark.slow
def test_follower_with_damaged_log_copies_it_again(nodes: Cluster):
    nodes.create_assigned("crashed", followers_first(nodes, 1), **SMALL_SEGMENTS)
    written = fill(nodes, "crashed")
    wait_until(lambda: nodes.log_bytes(3, "crashed") == nodes.log_bytes(1, "crashed"), what="an equal copy")
    nodes.kill(3)
    flip(segments(nodes, 3, "crashed")[0], at=0.5)
    nodes.restart(3)
    nodes.wait_for_isr("crashed", 0, nodes.ids)
    wait_until(lambda: nodes.log_bytes(3, "crashed") == nodes.log_bytes(1, "crashed"), what="an equal copy")
    nodes.kill(1)
    nodes.wait_for_leader("crashed", other_than=1)
    wait_for_values(nodes, 3, "crashed", written)


def test_damage_under_running_leader(nodes: Cluster):
    for topic in ("head", "body"):
        nodes.create_assigned(topic, followers_first(nodes, 2), followers_first(nodes, 2), **SMALL_SEGMENTS)
    written = {topic: fill(nodes, topic) for topic in ("head", "body")}
    flip(segments(nodes, 2, "head")[0], at=0.5)
    flip(segments(nodes, 2, "body")[0], at=0.53)
    for topic in ("head", "body"):
        error = first_error(nodes, topic)
        assert (error.status, error.json()["kafka_code"]) == (422, 2), error
        for partition in (0, 1):
            nodes.write_all(topic, ["goes on"], partition=partition)
        assert values(nodes, 1, topic, 1) == ["goes on"]
    nodes.kill(2)
    for topic in ("head", "body"):
        nodes.wait_for_leader(topic, other_than=2)
        wait_for_values(nodes, 1, topic, [*written[topic], "goes on"])


def first_error(nodes: Cluster, topic: str) -> Answer:
    offset = 0
    while (answer := page(nodes, 1, topic, 0, f"offset={offset}&timeout=0&max_bytes=5000")).is_success:
        assert offset < int(answer.headers["x-high-watermark"]), "the damage was served as if it were sound"
        offset = int(answer.headers["x-next-offset"])
    return answer


@pytest.mark.slow
def test_a_damaged_leader_gives_no_follower_a_bad_copy(nodes: Cluster):
    """R11: a follower that starts from nothing asks for the damage; the leader hands out nothing of it, gives the lead
    to the other replica, and takes what it lacks from there."""
    nodes.create_assigned("spread", followers_first(nodes, 3), min_insync_replicas="1", **SMALL_SEGMENTS)
    written = fill(nodes, "spread")
    nodes.kill(1)
    shutil.rmtree(nodes.folder(1, "spread"))
    flip(segments(nodes, 3, "spread")[0], at=0.53)
    nodes.restart_unready(1)
    wait_until(lambda: nodes.events("log_damaged", node_id=3), what="the leader to find the damage")
    nodes.wait_for_isr("spread", 0, [1, 2, 3])
    nodes.write_all("spread", ["goes on"])
    wait_for_values(nodes, 2, "spread", [*written, "goes on"])
    assert nodes.call("DELETE", "/topics/spread").status == 204


# Full disks


def limit_file_size(nodes: Cluster, node_id: int, size: int) -> None:
    """A write beyond fails (EFBIG), as on a full disk (Python ignores SIGXFSZ); files that are smaller go on."""
    hard = resource.RLIM_INFINITY
    resource.prlimit(nodes.node(node_id).pid, resource.RLIMIT_FSIZE, (size, hard))


BIG = "x" * 100_000
LIMIT = 1_500_000


@pytest.mark.slow
def test_a_full_disk_of_a_follower_costs_its_place_in_the_isr_and_no_record(nodes: Cluster):
    nodes.create_assigned("full", followers_first(nodes, 1), followers_first(nodes, 3))
    with Load(nodes, "full", partitions=2, through=[3]) as load:
        limit_file_size(nodes, 2, LIMIT)
        for _ in range(2 * LIMIT // len(BIG)):
            nodes.write_all("full", [BIG])
        nodes.wait_for_isr("full", 0, [1, 3])
        load.wait_for_acknowledgements(50)
        limit_file_size(nodes, 2, resource.RLIM_INFINITY)
        nodes.wait_for_isr("full", 0, nodes.ids, deadline_s=60)
    assert load.errors == []
    for node_id in nodes.ids:
        verify_without(load, nodes, node_id)


@pytest.mark.slow
def test_a_full_disk_of_a_leader_costs_its_leadership_and_no_record(nodes: Cluster):
    """KIP-858: whoever writes, through whichever node, notices nothing but a pause."""
    nodes.create_assigned("moves", followers_first(nodes, 1), followers_first(nodes, 1))
    limit_file_size(nodes, 1, LIMIT)
    with Load(nodes, "moves", partitions=2, through=[1, 3]) as load:
        for _ in range(2 * LIMIT // len(BIG)):
            nodes.write_all("moves", [BIG])
        assert nodes.wait_for_leader("moves", 0, other_than=1) == 2
        assert nodes.leader_of("moves", 1) == 1, "the other partition has room"
        load.wait_for_acknowledgements(50)
        limit_file_size(nodes, 1, resource.RLIM_INFINITY)
        nodes.wait_for_isr("moves", 0, nodes.ids, deadline_s=60)
    assert all('"is_appended": true' in error for error in load.errors), "only what was in flight is in doubt (P7)"
    (moved,) = (event for event in nodes.events("leader_elected") if event["topic"] == "moves" and event["leader"] == 2)
    assert moved["reason"] == "log of a replica failed"
    assert nodes.events("replica_read_only", node_id=1)
    assert nodes.events("replica_works_again", node_id=1)
    for node_id in nodes.ids:
        verify_without(load, nodes, node_id)


def test_a_full_disk_of_the_only_replica_is_a_typed_error_until_there_is_space(nodes: Cluster):
    nodes.create_assigned("brim", [1], [1])
    limit_file_size(nodes, 1, LIMIT)
    acknowledged = 0
    while not (entry := nodes.write("brim", [BIG])[0])["error_code"]:
        acknowledged += 1
        assert acknowledged * len(BIG) < 2 * LIMIT, "the disk never filled"
    reported = {name: entry[name] for name in ("kafka_code", "retriable", "is_appended", "error_code")}
    assert reported == {"kafka_code": 56, "retriable": True, "is_appended": False, "error_code": 50003}
    nodes.write_all("brim", ["there is room in another file"], partition=1)
    assert values(nodes, 2, "brim") == [BIG] * acknowledged
    limit_file_size(nodes, 1, resource.RLIM_INFINITY)
    nodes.write_all("brim", ["room again"])
    for node_id in nodes.ids:
        assert values(nodes, node_id, "brim") == [*[BIG] * acknowledged, "room again"]


def verify_without(load: Load, nodes: Cluster, node_id: int) -> None:
    """The big records came from elsewhere."""
    for client in load.clients:
        found = read_all(nodes, node_id, load.topic, client.partition)
        by_offset = {record.offset: record.value for record in found}
        assert [by_offset.get(offset) for offset in client.acknowledged] == list(client.acknowledged.values())


# Folders and nodes in the wrong place


def run_node(config: Path, node_id: int, data: Path) -> tuple[int, str]:
    """Exit code and last words of a node that cannot start."""
    command = [
        sys.executable,
        "-m",
        "kraft",
        "node",
        "--config",
        str(config),
        "--id",
        str(node_id),
        "--data",
        str(data),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout + done.stderr


def stranger(nodes: Cluster, folder: Path, *replacements: tuple[str, str]) -> Path:
    """The cluster's configuration with something changed."""
    text = (Path(nodes.data) / "resolved.toml").read_text()
    config = folder / "stranger.toml"
    config.write_text(replaced(text, {**dict(replacements), "30001": "2000"}))
    return config


def replaced(text: str, changes: Mapping[str, str]) -> str:
    """Whole words, all at once: a port may be part of another number or of an id, and a new one may be an old one."""
    found = dict.fromkeys(changes, 0)

    def change(match: re.Match[str]) -> str:
        found[match[0]] += 1
        return changes[match[0]]

    words = "|".join(map(re.escape, changes))
    text = re.sub(rf"(?<![\w-])(?:{words})(?!\w)", change, text)
    assert all(found.values()), (found, text)
    return text


def test_config_change_keeps_other_numbers():
    text = 'id = "a4000130001"\nport = 40001\nother = 40002\nfolder = "/t-40001/node-40001"\n'
    changed = 'id = "a4000130001"\nport = 40002\nother = 7\nfolder = "/t-40001/node-40001"\n'
    assert replaced(text, {"40001": "40002", "40002": "7"}) == changed


def test_a_data_folder_of_another_cluster_is_refused(nodes: Cluster, tmp_path: Path):
    nodes.stop(3)
    cluster_id = tomllib.loads((Path(nodes.data) / "resolved.toml").read_text())["cluster_id"]
    before = nodes.log_bytes(3, "witness") if nodes.folder(3, "witness").exists() else b""
    config = stranger(nodes, tmp_path, (f'"{cluster_id}"', '"another"'))
    code, said = run_node(config, 3, Path(nodes.data))
    assert code == 1, said
    assert "another" in said, said
    assert cluster_id in said, said
    assert before == (nodes.log_bytes(3, "witness") if before else b"")
    nodes.restart(3)


def test_a_data_folder_of_another_node_is_refused(nodes: Cluster, tmp_path: Path):
    nodes.stop(3)
    config = stranger(nodes, tmp_path, ("node-3", "node-swapped"), ("node-2", "node-3"))
    nodes.stop(2)
    code, said = run_node(config, 2, Path(nodes.data))
    assert code == 1, said
    assert "node-3" in said, said
    nodes.restart_unready(2)
    nodes.restart(3)


def test_a_folder_in_use_is_refused(nodes: Cluster, tmp_path: Path):
    code, said = run_node(stranger(nodes, tmp_path, *own_ports(nodes, 1)), 1, Path(nodes.data))
    assert code == 1, said
    assert "in use" in said or "lock" in said.lower(), said
    assert nodes.state_of(1) == "active"


@pytest.mark.long
def test_a_second_node_with_an_id_that_lives_is_refused(nodes: Cluster, tmp_path: Path):
    nodes.create_assigned("twins", followers_first(nodes, 3))
    with Load(nodes, "twins", pause_s=0.02) as load:
        changes = [*own_ports(nodes, 3), (f"{nodes.data}/node-3", f"{tmp_path}/twin")]
        code, said = run_node(stranger(nodes, tmp_path, *changes), 3, tmp_path)
        assert code == 1, said
        assert "does no other process run under its id?" in said, said
        load.wait_for_acknowledgements(50)
    load.verify(node_id=2)
    assert {event["node"] for event in nodes.events("quorum_duplicate_node_id")} == {3}
    assert nodes.state_of(3) == "active"


def own_ports(nodes: Cluster, node_id: int) -> list[tuple[str, str]]:
    node = nodes.node(node_id)
    taken = [address.rpartition(":")[2] for address in (node.rest, node.kafka, str(node.quorum))]
    host = node.kafka.partition(":")[0]
    return [(port, str(free)) for port, free in zip(taken, free_ports(3, host=host), strict=True)]
