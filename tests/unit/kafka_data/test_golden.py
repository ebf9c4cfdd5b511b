"""Log directories that Apache Kafka itself wrote and shut down, taken in and given out again: golden/README.md."""

from __future__ import annotations

import json
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kraft.cli.files import dump_log, dump_metadata
from kraft.config.models import ClusterConfig
from kraft.config.parse import parse_config
from kraft.coordinators.groups.records import CommittedOffset, OffsetKey, decode_record
from kraft.coordinators.shares.records import decode_record as decode_share_state
from kraft.kafka_data import export, importing
from kraft.kafka_data.releases import NEWEST, Release, release_of
from kraft.kafka_data.source import committed_image
from kraft.layout import METADATA_FOLDER
from kraft.protocol.batches.records import ReadRecord, read_batches
from metadata.image import MetadataImage
from metadata.image_codec import encode_image
from tests.unit.kafka_data.world import FILES, configuration, content

GOLDEN = Path(__file__).parent / "golden"
NAMES = ("kafka-3.9.1", "kafka-4.1.0", "kafka-4.4.0", "formatted-4.4.0", "dynamic-4.4.0")
LOADED = NAMES[:3]
"""Those with users, ACLs, quotas, groups and transactions."""


def unpacked(name: str, folder: Path) -> Path:
    with tarfile.open(GOLDEN / f"{name}.tar.xz") as archive:
        archive.extractall(folder / "kafka", filter="data")
    return folder / "kafka"


def folders(kafka: Path) -> list[str]:
    return sorted(str(path) for path in kafka.glob("node-*")) or [str(kafka / "logs")]


def imported(kafka: Path, target: Path) -> importing.ImportPlan:
    plan = importing.make_plan(FILES, folders(kafka), target=str(target), dropped=(), copy=False)
    importing.fill(FILES, plan, on_bytes=lambda _: None)
    return plan


def cluster_of(data: Path) -> ClusterConfig:
    """What `cluster.toml` of an import has."""
    config, world = parse_config((data / "cluster.toml").read_text()), configuration(data)
    nodes = [
        world.nodes[node.id - 1].model_copy(
            update={"data": str(data / f"node-{node.id}"), "log_dirs": node.log_dirs, "roles": node.roles}
        )
        for node in config.nodes
    ]
    return world.model_copy(update={"cluster_id": config.cluster_id, "nodes": tuple(nodes)})


def exported(data: Path, target: Path, release: Release) -> Path:
    plan = export.make_plan(
        FILES, cluster_of(data), target=str(target), release=release, copy=False, rng=random.Random(1)
    )
    export.fill(FILES, plan, now_ms=5_000, on_bytes=lambda _: None)
    return target / "node-1/logs"


def image_of(data: Path) -> MetadataImage:
    voters = [(node.id, f"{node.data}/{METADATA_FOLDER}") for node in cluster_of(data).voters]
    return committed_image(FILES, voters)


def records(logs: Path, topic: str) -> Iterator[ReadRecord]:
    """The records of all partitions of a topic."""
    for folder in sorted(logs.glob(f"{topic}-*")):
        for path in sorted(folder.glob("*.log")):
            yield from read_batches(path.read_bytes())


def committed(logs: Path) -> dict[str, int]:
    """Group -> the sum of its committed offsets of orders."""
    found: dict[OffsetKey, int] = {}
    for record in records(logs, "__consumer_offsets"):
        each = decode_record(bytes(record.key or b""), record.value)
        if each and isinstance(each.key, OffsetKey) and isinstance(each.value, CommittedOffset):
            found[each.key] = each.value.offset
    sums: dict[str, int] = {}
    for key, offset in found.items():
        sums[key.group] = sums.get(key.group, 0) + offset
    return sums


@pytest.mark.parametrize("name", NAMES)
def test_kafkas_folders_are_taken_in_and_given_out_again(name: str, tmp_path: Path) -> None:
    kafka = unpacked(name, tmp_path)
    before = content(kafka)
    plan = imported(kafka, tmp_path / "data")
    assert content(kafka) == before
    assert encode_image(image_of(tmp_path / "data")) == encode_image(plan.image)
    assert all(each.isr for each in plan.image.all_partitions())
    exported(tmp_path / "data", tmp_path / "out", NEWEST)
    again = importing.make_plan(
        FILES, folders(tmp_path / "out"), target=str(tmp_path / "again"), dropped=(), copy=False
    )
    assert encode_image(again.image) == encode_image(plan.image)
    for each in plan.replicas.values():
        there = next((tmp_path / "out").glob(f"node-{each.broker}/logs*/{each.name}"))
        for path in Path(each.folder).glob("*.log"):
            assert (there / path.name).read_bytes() == path.read_bytes()


def test_voters_of_the_log_are_those_that_joined(tmp_path: Path) -> None:
    """Node 2 is a controller that is registered, and has not joined; node 3 has two log directories."""
    plan = imported(unpacked("dynamic-4.4.0", tmp_path), tmp_path / "data")
    assert plan.cluster.voters == [1]
    assert plan.dropped == ["node 2, which is neither a broker nor a voter"]
    nodes = [(node.id, node.roles, len(node.log_dirs)) for node in cluster_of(tmp_path / "data").nodes]
    assert nodes == [(1, ("controller",), 1), (3, ("broker",), 2)]
    ends = {name: each.log_end for (topic, name, _), each in plan.replicas.items() if topic == "orders"}
    assert ends == {0: 99, 1: 101, 2: 99, 3: 101}


@pytest.mark.parametrize("name", LOADED)
def test_metadata_of_kafka_is_taken_over(name: str, tmp_path: Path) -> None:
    image = imported(unpacked(name, tmp_path), tmp_path / "data").image
    assert {"orders", "compacted", "ledger", "queue", "__consumer_offsets"} <= set(image.topics_by_name)
    assert "gone" not in image.topics_by_name
    assert dict(image.configs["topic", "compacted"])["cleanup.policy"] == "compact"
    (acl,) = image.acls.values()
    assert (acl.principal, acl.name) == ("User:alice", "orders")
    assert list(image.users["alice"]) == ["SCRAM-SHA-256"]
    assert dict(image.quotas[(("user", "alice"),)]) == {"consumer_byte_rate": 1_048_576.0}
    assert image.next_producer_id >= 1_000


@pytest.mark.parametrize("name", ["kafka-3.9.1", "kafka-4.1.0"])
def test_records_are_at_their_offsets(name: str, tmp_path: Path) -> None:
    kafka = unpacked(name, tmp_path)
    expected = json.loads((kafka / "expected.json").read_text())
    imported(kafka, tmp_path / "data")
    logs = tmp_path / "data/node-1/logs"
    for topic in ("orders", "compacted"):
        found = [
            [each.offset, (each.key or b"").decode(), (each.value or b"").decode()] for each in records(logs, topic)
        ]
        assert found == [each for name in sorted(expected["records"]) if name.startswith(topic)
                         for each in expected["records"][name]]  # fmt: skip
    assert [each.value for each in records(logs, "ledger")] == [b"committed", b"aborted"]
    assert committed(logs)["readers"] == expected["readers"]


def test_what_clients_have_seen_of_kafka_4_4_is_there(tmp_path: Path) -> None:
    imported(unpacked("kafka-4.4.0", tmp_path), tmp_path / "data")
    logs = tmp_path / "data/node-1/logs"
    values = [each.value for each in records(logs, "orders")]
    assert (values.count(b"x" * 1_000), values.count(b"kafka")) == (4_000, 500)
    assert {group: committed(logs)[group] for group in ("readers", "modern")} == {"readers": 1_500, "modern": 1_500}
    assert min(each.offset for each in records(logs, "timed")) == 400
    states = [decode_share_state(bytes(each.key or b""), each.value) for each in records(logs, "__share_group_state")]
    assert states
    assert None not in states
    assert (logs / "cleaner-offset-checkpoint").read_text().splitlines()[2:]


@pytest.mark.parametrize("name", LOADED[1:])
def test_offsets_of_a_newer_kafka_are_given_to_3_9_in_its_form(name: str, tmp_path: Path) -> None:
    imported(unpacked(name, tmp_path), tmp_path / "data")
    logs = exported(tmp_path / "data", tmp_path / "out", release_of("3.9"))

    def versions(folder: Path) -> set[int]:
        return {
            int.from_bytes(each.value[:2], "big")
            for each in records(folder, "__consumer_offsets")
            if each.value and each.key and each.key[:2] == b"\0\1"
        }

    before = tmp_path / "data/node-1/logs"
    assert 4 in versions(before)
    assert versions(logs) == {3}
    assert committed(logs) == committed(before)
    keys = {bytes(each.key or b"")[:2] for each in records(logs, "__consumer_offsets")}
    assert not keys & {bytes((0, number)) for number in range(10, 16)}


@pytest.mark.parametrize("name", NAMES)
def test_kafkas_metadata_is_dumped(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kafka = unpacked(name, tmp_path)
    dump_metadata(folders(kafka)[0], as_json=True)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"TopicRecord", "PartitionRecord", "FeatureLevelRecord"} <= {row["type"] for row in rows}


def test_kafkas_logs_are_dumped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each of them, that of the metadata too, whose indexes have room to grow: 10 MiB of zeros, no entries."""
    logs = Path(folders(unpacked("kafka-4.4.0", tmp_path))[0])
    partitions = [path.parent for path in logs.rglob("partition.metadata")]
    assert "__cluster_metadata-0" in {path.name for path in partitions}
    for path in partitions:
        dump_log(str(path), as_json=True)  # damage would be a CommandFailed
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        batches = [row for row in rows if row["kind"] == "batch"]
        entries = [row for row in rows if row["kind"] in ("offset_entry", "time_entry")]
        assert len(entries) <= 2 * len(batches), path
        assert not [row for row in entries if row.get("timestamp", 1) == 0 or row.get("position", 1) == 0], path


def test_an_archive_is_small() -> None:
    assert {path.name for path in GOLDEN.glob("*.xz") if path.stat().st_size > 100_000} == set()
