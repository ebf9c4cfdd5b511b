"""What an export writes, and what it refuses before it writes anything."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr

from kraft.config.models import UserConfig
from kraft.coordinators.groups.records import CommittedOffset, InstanceKey, OffsetKey, encode_key, encode_value
from kraft.coordinators.groups.share_records import ShareEpochKey, StoredShareEpoch
from kraft.kafka_data.copying import UNFINISHED, Volume, VolumeOf
from kraft.kafka_data.export import ExportPlan, fill, make_plan
from kraft.kafka_data.metadata_log import read_file
from kraft.kafka_data.releases import OWN_TOPIC_SETTINGS, RELEASES, release_of, table, value_for
from kraft.kafka_data.replica import UnfitData
from kraft.kafka_data.voter_folder import LAST_INDEX
from kraft.layout import METADATA_FOLDER
from kraft.protocol.batches.header import header_at
from kraft.protocol.batches.records import NewRecord, build_batch, read_batches
from kraft.protocol.scram import credential, credential_of
from metadata.acls import Acl, AclOperation, AclPattern, AclPermission, AclResource
from metadata.image import MetadataImage, acls_map, configs_map, quotas_map, users_map
from metadata.records import BeginTransactionRecord, ConfigRecord
from metadata.settings import TopicSettings, settings_by_name
from tests.unit.kafka_data.world import (
    CLUSTER_ID,
    EPOCH,
    FILES,
    NODES,
    Pieces,
    append_metadata,
    configuration,
    content,
    directory_id,
    records,
    topic,
    with_topics,
    write_checkpoint,
    write_cluster,
    write_commit,
)

ORDERS = topic("orders", 2)
IMAGE = replace(with_topics(MetadataImage(), ORDERS), offset=99, controller_epoch=5, next_producer_id=3_000)
LOGS = {"orders-0": [records(b"a", b"b"), records(b"c", base_offset=2)], "orders-1": []}
FIRST = "node-1/logs"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_cluster(tmp_path / "data", IMAGE, LOGS)
    return tmp_path / "data"


def planned(data: Path, *, kafka: str | None = None, copy: bool = False, **given: Any) -> ExportPlan:
    return make_plan(
        FILES,
        configuration(data),
        target=str(data.parent / "out"),
        release=None if kafka is None else release_of(kafka),
        copy=copy,
        rng=random.Random(1),
        **given,
    )


def exported(data: Path, **options: Any) -> Path:
    fill(FILES, planned(data, **options), now_ms=5_000, on_bytes=lambda _: None)
    return data.parent / "out"


def messages(out: Path, node: int = 1) -> dict[str, list[Any]]:
    (path,) = (out / f"node-{node}/logs/__cluster_metadata-0").glob("*.checkpoint")
    found: dict[str, list[Any]] = {}
    for entry in read_file(FILES, str(path)):
        found.setdefault(entry.name, []).append(entry.message)
    return found


def test_every_node_gets_the_same_snapshot(data: Path) -> None:
    out = exported(data)
    names = {path.name: path.read_bytes() for path in out.glob("node-*/logs/__cluster_metadata-0/*.checkpoint")}
    assert list(names) == [f"{100:020d}-{5:010d}.checkpoint"]
    assert len({path.read_bytes() for path in out.glob("node-*/logs/__cluster_metadata-0/*.checkpoint")}) == 1
    state = json.loads((out / "node-2/logs/__cluster_metadata-0/quorum-state").read_text())
    assert (state["leaderEpoch"], state["votedId"], len(state["currentVoters"])) == (5, -1, 3)


def test_the_snapshot_has_what_the_image_has(data: Path) -> None:
    found = messages(exported(data))
    (features,) = [{each.name: each.feature_level for each in found["FeatureLevelRecord"]}]
    assert features == {"metadata.version": 21}
    assert [(each.name, each.topic_id) for each in found["TopicRecord"]] == [("orders", ORDERS.topic_id)]
    partition = found["PartitionRecord"][1]
    assert (partition.replicas, partition.isr, partition.leader) == (NODES, NODES, -1)
    assert (partition.leader_epoch, partition.partition_epoch) == (EPOCH, 7)
    assert partition.directories == tuple(map(directory_id, NODES))
    assert [each.next_producer_id for each in found["ProducerIdsRecord"]] == [3_000]


def test_closed_segments_are_shared_and_nothing_else(data: Path) -> None:
    before = content(data)
    out = exported(data)
    shared = [path.name for path in (out / FIRST).rglob("*") if path.is_file() and path.stat().st_nlink > 1]
    assert shared == [f"{0:020d}.log"]
    for name in ("orders-0", "orders-1"):
        assert content(out / FIRST / name) == content(data / FIRST / name)
    assert content(data) == before


def test_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    """10 GB in closed segments, of which only the names are read. The files have holes, and take no room."""
    closed = 54
    logs = {"orders-0": [records(b"x", base_offset=offset) for offset in range(closed + 1)]}
    write_cluster(tmp_path / "data", IMAGE, logs)
    for path in (tmp_path / "data").rglob("orders-0/*.log"):
        if int(path.stem) < closed:
            os.truncate(path, 64 << 20)
    tracemalloc.start()
    try:
        plan = planned(tmp_path / "data")
        fill(FILES, plan, now_ms=5_000, on_bytes=lambda _: None)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert plan.linked_bytes == 3 * closed * (64 << 20) > 10_000_000_000
    assert plan.copied_bytes < 10_000
    assert peak < 2 << 20, peak


def test_a_copy_shares_nothing(data: Path) -> None:
    out = exported(data, copy=True)
    assert not [path for path in out.rglob("*") if path.is_file() and path.stat().st_nlink > 1]
    assert content(out / FIRST / "orders-0") == content(data / FIRST / "orders-0")


def test_a_segment_that_may_be_cut_is_copied(data: Path) -> None:
    """The first segment ends above the high watermark of node 1."""
    write_checkpoint(data / FIRST / "replication-offset-checkpoint", {"orders-0": 1})
    out = exported(data)
    assert (out / FIRST / "orders-0" / f"{0:020d}.log").stat().st_nlink == 1
    assert (out / "node-2/logs/orders-0" / f"{0:020d}.log").stat().st_nlink == 2


def test_files_of_a_directory_are_those_of_kafka(data: Path) -> None:
    out = exported(data)
    properties = dict(line.split("=") for line in (out / "node-2/logs/meta.properties").read_text().splitlines())
    assert (properties["version"], properties["cluster.id"], properties["node.id"]) == ("1", CLUSTER_ID, "2")
    assert (out / FIRST / "recovery-point-offset-checkpoint").read_text() == "0\n2\norders 0 3\norders 1 0\n"
    assert json.loads((out / FIRST / ".kafka_cleanshutdown").read_text())["version"] == 0
    names = {path.name for path in (out / FIRST).iterdir() if path.is_dir()}
    assert names == {"orders-0", "orders-1", "__cluster_metadata-0"}
    server = (out / "node-2/server.properties").read_text()
    assert "controller.quorum.voters=1@127.0.0.1:9192,2@127.0.0.1:9193,3@127.0.0.1:9194\n" in server
    assert "listeners=PLAINTEXT://127.0.0.1:9093,CONTROLLER://127.0.0.1:9193\n" in server
    assert f"log.dirs={out}/node-2/logs\n" in server


# --- releases -------------------------------------------------------------------------------------------------------


def secured(image: MetadataImage, *, host: str = "*") -> MetadataImage:
    acl = Acl(
        resource=AclResource.TOPIC,
        name="orders",
        pattern=AclPattern.PREFIXED,
        principal="User:alice",
        host=host,
        operation=AclOperation.READ,
        permission=AclPermission.ALLOW,
    )
    password = credential_of(b"secret", salt=b"0123456789abcdef", iterations=4096, mechanism="SCRAM-SHA-512")
    return replace(
        image,
        acls=acls_map({UUID(int=7): acl}),
        quotas=quotas_map({(("client-id", None),): MappingProxyType({"producer_byte_rate": 1024.0})}),
        users=users_map({"alice": MappingProxyType({"SCRAM-SHA-512": password})}),
    )


def test_users_acls_and_quotas_come_along(tmp_path: Path) -> None:
    write_cluster(tmp_path / "data", secured(IMAGE), LOGS)
    found = messages(exported(tmp_path / "data"))
    (user,) = found["UserScramCredentialRecord"]
    assert (user.name, user.mechanism, user.iterations, user.salt) == ("alice", 2, 4096, b"0123456789abcdef")
    (acl,) = found["AccessControlEntryRecord"]
    assert (acl.id, acl.resource_type, acl.pattern_type) == (UUID(int=7), 2, 4)
    assert (acl.principal, acl.operation, acl.permission_type) == ("User:alice", 3, 3)
    (quota,) = found["ClientQuotaRecord"]
    assert (quota.entity[0].entity_type, quota.entity[0].entity_name, quota.key, quota.value) == (
        "client-id",
        None,
        "producer_byte_rate",
        1024.0,
    )


def test_the_lowest_release_that_needs_nothing_left_out_is_chosen(tmp_path: Path) -> None:
    write_cluster(tmp_path / "plain", IMAGE, LOGS)
    assert planned(tmp_path / "plain").release.name == "3.9"
    write_cluster(tmp_path / "ranges", secured(IMAGE, host="10.0.0.0/8"), LOGS)
    assert planned(tmp_path / "ranges").release.name == "4.4"
    queues = with_topics(IMAGE, ORDERS, topic("__share_group_state"))
    write_cluster(tmp_path / "queues", queues, LOGS)
    assert planned(tmp_path / "queues").release.name == "4.2"


def test_what_an_older_release_lacks_is_left_out_and_listed(tmp_path: Path) -> None:
    settings = {
        ("topic", "orders"): {"retention.ms": "5", "errors.deadletterqueue.group.enable": "true"},
        ("group", "g"): {"share.record.lock.duration.ms": "30000"},
        ("broker", ""): {"log.retention.ms": "9", "rest.allowed.hosts": "x"},
    }
    image = replace(
        with_topics(IMAGE, ORDERS, topic("__share_group_state")),
        configs=configs_map({key: MappingProxyType(values) for key, values in settings.items()}),
    )
    write_cluster(tmp_path / "data", image, LOGS)
    plan = planned(tmp_path / "data", kafka="4.1")
    text = "\n".join(plan.left_out)
    assert "setting errors.deadletterqueue.group.enable of topic orders: left out; Kafka 4.4 has it" in text
    assert "setting share.record.lock.duration.ms of group g" in text
    assert "setting rest.allowed.hosts of broker (all)" in text
    assert "Share groups" in text
    found = messages(exported(tmp_path / "data", kafka="4.1"))
    assert {each.name for each in found["TopicRecord"]} == {"orders"}
    assert {(each.resource_name, each.name) for each in found["ConfigRecord"]} == {
        ("orders", "retention.ms"),
        ("", "log.retention.ms"),
    }
    assert not list((tmp_path / "out").rglob("__share_group_state-0"))


def test_ranges_of_addresses_are_refused_for_an_older_release(tmp_path: Path) -> None:
    write_cluster(tmp_path / "data", secured(IMAGE, host="10.0.0.0/8"), LOGS)
    with pytest.raises(UnfitData, match=r"Kafka 4\.3 does not know: ACLs for a range of addresses"):
        planned(tmp_path / "data", kafka="4.3")


def test_records_of_groups_decide_too(tmp_path: Path) -> None:
    offsets = topic("__consumer_offsets")
    value = bytes.fromhex("0004 0000000000000028 ffffffff 01 000001a211b54d3c 00")
    stored = [
        NewRecord(encode_key(OffsetKey("new", "orders", 0)), value, [], 1),
        NewRecord(encode_key(InstanceKey("rest", "i-1")), b"\0\0{}", [], 1),
        NewRecord(encode_key(InstanceKey("gone", "i-2")), b"\0\0{}", [], 1),
        NewRecord(encode_key(InstanceKey("gone", "i-2")), None, [], 1),
    ]
    batch = build_batch(stored, leader_epoch=EPOCH)
    write_cluster(tmp_path / "data", with_topics(IMAGE, ORDERS, offsets), {**LOGS, "__consumer_offsets-0": [batch]})
    plan = planned(tmp_path / "data")
    assert plan.release.name == "4.1"
    assert [line for line in plan.left_out if "REST consumers (rest/i-1)" in line]
    assert not [line for line in plan.left_out if "gone" in line]
    (line,) = [line for line in planned(tmp_path / "data", kafka="4.0").left_out if "id of the topic" in line]
    assert "(new): left out; the offsets stay without the ids" in line


def test_group_records_are_written_again_for_a_kafka_that_cannot_read_them(tmp_path: Path) -> None:
    """Kafka 3.9 fails to load an offset of version 4, and 4.0 records of share groups with more fields than it had."""
    topic_id = "01 10 0000000000000000000000000000002a"  # one tagged field: tag 0, 16 bytes
    new = bytes.fromhex(f"0004 0000000000000028 00000007 03 6d64 000001a211b54d3c 01 00 {topic_id[3:]}")
    share = encode_key(ShareEpochKey("queue"))
    stored = [
        NewRecord(encode_key(OffsetKey("g", "orders", 0)), new, [], 1_000),
        NewRecord(share, encode_value(StoredShareEpoch(epoch=3, metadata_hash=1)), [], 1_001),
        NewRecord(encode_key(OffsetKey("g", "orders", 1)), None, [], 1_002),
    ]
    batches = [
        build_batch(
            stored, leader_epoch=EPOCH, producer_id=9, producer_epoch=2, base_sequence=4, is_transactional=True
        ),
        build_batch([NewRecord(share, None, [], 1_003)], base_offset=3, leader_epoch=EPOCH),
        build_batch([NewRecord(b"\0\2\0\1g", None, [], 1_004)], base_offset=4, leader_epoch=EPOCH),
    ]
    image = with_topics(IMAGE, ORDERS, topic("__consumer_offsets"))
    write_cluster(tmp_path / "data", image, {**LOGS, "__consumer_offsets-0": batches})
    before = content(tmp_path / "data")
    folder = exported(tmp_path / "data", kafka="3.9") / FIRST / "__consumer_offsets-0"
    assert content(tmp_path / "data") == before
    found = [(folder / f"{offset:020d}.log").read_bytes() for offset in (0, 3, 4)]
    assert found[2] == batches[2]
    headers = [header_at(batch) for batch in found]
    assert [header.next_offset for header in headers] == [3, 4, 5]
    assert headers[0]._replace(length=0, crc=0, record_count=3) == header_at(batches[0])._replace(length=0, crc=0)
    assert (headers[1].record_count, headers[1].leader_epoch) == (0, EPOCH)
    one, gone = read_batches(found[0])
    assert (one.offset, one.timestamp, gone.offset, gone.value) == (0, 1_000, 2, None)
    expected = CommittedOffset(offset=40, leader_epoch=7, metadata="md", commit_timestamp=0x1A211B54D3C)
    assert one.value == encode_value(expected)
    assert one.value[:2] == b"\0\3"
    assert {path.suffix for path in folder.iterdir()} == {".log", ".index", ".timeindex", ".metadata", ""}


def test_share_groups_stay_in_the_log_where_they_are_known(tmp_path: Path) -> None:
    stored = [NewRecord(encode_key(ShareEpochKey("queue")), encode_value(StoredShareEpoch(epoch=3)), [], 1)]
    batch = build_batch(stored, leader_epoch=EPOCH)
    image = with_topics(IMAGE, ORDERS, topic("__consumer_offsets"))
    write_cluster(tmp_path / "data", image, {**LOGS, "__consumer_offsets-0": [batch]})
    assert planned(tmp_path / "data").release.name == "4.2"
    folder = exported(tmp_path / "data") / FIRST / "__consumer_offsets-0"
    assert (folder / f"{0:020d}.log").read_bytes() == batch


def test_how_far_logs_are_compacted_comes_along(data: Path) -> None:
    write_checkpoint(data / FIRST / "cleaner-offset-checkpoint", {"orders-0": 2, "orders-1": 70, "gone-0": 5})
    out = exported(data)
    assert (out / FIRST / "cleaner-offset-checkpoint").read_text() == "0\n2\norders 0 2\norders 1 0\n"
    assert not (out / "node-2/logs/cleaner-offset-checkpoint").exists()


def test_delayed_and_expiring_records_are_listed(tmp_path: Path) -> None:
    settings = {
        ("topic", "orders"): {"delivery.target.topic": "mails", "record.expiry.enable": "true"},
        ("group", "g"): {"share.record.expiry.ms": "5"},
    }
    image = replace(IMAGE, configs=configs_map({key: MappingProxyType(values) for key, values in settings.items()}))
    write_cluster(tmp_path / "data", image, LOGS)
    plan = planned(tmp_path / "data")
    assert plan.release.name == "3.9"
    assert list(plan.left_out) == [
        "setting share.record.expiry.ms of group g: left out; Kafka has it not, or not as a dynamic setting",
        "setting delivery.target.topic of topic orders: left out; its records come along, and Kafka forwards none of "
        "them to mails: forward what is due, or cancel it, before you stop the cluster",
        "setting record.expiry.enable of topic orders: left out; Kafka hands out records that have expired",
    ]
    assert not messages(exported(tmp_path / "data")).get("ConfigRecord")


def test_each_setting_of_a_topic_is_of_kafka_or_ours() -> None:
    ours = {name for name, field in settings_by_name(TopicSettings).items() if field.description.startswith("Ours:")}
    assert ours == OWN_TOPIC_SETTINGS


def test_a_version_that_is_none_is_refused_with_those_that_are() -> None:
    assert release_of("4.1.0").name == "4.1"
    with pytest.raises(ValueError, match=r"there are 3\.9, 4\.0, 4\.1, 4\.2, 4\.3, 4\.4"):
        release_of("3.8")
    levels = [release.metadata_version for release in RELEASES]
    assert levels == sorted(levels)


# --- logins -----------------------------------------------------------------------------------------------------------


SECURED = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:root;User:admin",
    "sasl.enabled.mechanisms": "SCRAM-SHA-256,PLAIN,OAUTHBEARER",
    "ssl.keystore.location": "/certs/node.pem",
}


def logged_in(data: Path, *, protocol: str = "SASL_SSL", **users: str) -> tuple[ExportPlan, dict[str, str]]:
    """The plan, and `server.properties` of node 1."""
    world = configuration(data)
    nodes = tuple(node.model_copy(update={"kafka_protocol": protocol}) for node in world.nodes)
    found = tuple(UserConfig(name=name, password=SecretStr(password)) for name, password in users.items())
    config = world.model_copy(update={"nodes": nodes, "users": found, "settings": {**world.settings, **SECURED}})
    out = data.parent / "out"
    plan = make_plan(FILES, config, target=str(out), release=None, copy=False, rng=random.Random(1))
    fill(FILES, plan, now_ms=5_000, on_bytes=lambda _: None)
    lines = (out / "node-1/server.properties").read_text().splitlines()
    return plan, dict(line.split("=", 1) for line in lines)


def test_kafkas_nodes_log_in_as_the_super_user_of_cluster_toml(data: Path) -> None:
    plan, server = logged_in(data, admin='se"cr\\et', carl="ü c")
    assert server["listener.security.protocol.map"] == "CONTROLLER:SASL_SSL,PLAINTEXT:SASL_SSL"
    assert (server["ssl.keystore.type"], server["ssl.keystore.location"]) == ("PEM", "/certs/node.pem")
    assert server["sasl.mechanism.inter.broker.protocol"] == "SCRAM-SHA-256"
    assert server["sasl.mechanism.controller.protocol"] == "PLAIN"
    assert server["listener.name.plaintext.sasl.enabled.mechanisms"] == "SCRAM-SHA-256,PLAIN"
    assert server["listener.name.plaintext.scram-sha-256.sasl.jaas.config"] == (
        "org.apache.kafka.common.security.scram.ScramLoginModule required "
        'username="admin" password="se\\\\"cr\\\\\\\\et";'
    )
    assert server["listener.name.controller.plain.sasl.jaas.config"] == (
        "org.apache.kafka.common.security.plain.PlainLoginModule required "
        'username="admin" password="se\\\\"cr\\\\\\\\et" user_admin="se\\\\"cr\\\\\\\\et" user_carl="\\u00fc c";'
    )
    assert [line.partition(":")[0] for line in plan.left_out] == ["logins with PLAIN", "logins with OAUTHBEARER"]
    users = [
        (each.name, each.mechanism, each.iterations)
        for each in messages(data.parent / "out")["UserScramCredentialRecord"]
    ]
    assert users == [("admin", 1, 4096), ("admin", 2, 4096), ("carl", 1, 4096), ("carl", 2, 4096)]
    (record, *_) = messages(data.parent / "out")["UserScramCredentialRecord"]
    made = credential('se"cr\\et', salt=record.salt, mechanism="SCRAM-SHA-256")
    assert (made.stored_key, made.server_key) == (record.stored_key, record.server_key)


def test_what_kafkas_nodes_need_besides_is_listed(data: Path) -> None:
    """No super user has a password here, so that nobody can lend it."""
    plan, server = logged_in(data, carl="secret")
    assert server["listener.security.protocol.map"] == "CONTROLLER:SSL,PLAINTEXT:SASL_SSL"
    assert "sasl.mechanism.inter.broker.protocol" not in server
    assert "username" not in server["listener.name.plaintext.scram-sha-256.sasl.jaas.config"]
    kinds = [line.partition(":")[0] for line in plan.left_out]
    assert kinds[:2] == ["the right of nodes to speak to each other", "the login of nodes among themselves"]


def test_a_user_that_has_another_password_by_now_keeps_it(tmp_path: Path) -> None:
    image = secured(IMAGE)
    write_cluster(tmp_path / "data", image, LOGS)
    plan, server = logged_in(tmp_path / "data", alice="old", admin="x")
    assert plan.source.image.users["alice"] == image.users["alice"]
    assert "alice" not in server["listener.name.plaintext.plain.sasl.jaas.config"]


# --- refusals -------------------------------------------------------------------------------------------------------


def remove_marker(data: Path) -> None:
    (data / FIRST / ".kafka_cleanshutdown").unlink()


def other_node(data: Path) -> None:
    path = data / FIRST / "meta.properties"
    path.write_text(path.read_text().replace("node.id=1", "node.id=2"))


def other_cluster(data: Path) -> None:
    path = data / FIRST / "meta.properties"
    path.write_text(path.read_text().replace(CLUSTER_ID, "foreign"))


def repeated_directory(data: Path) -> None:
    ids = [line for line in (data / FIRST / "meta.properties").read_text().splitlines() if "directory" in line]
    path = data / "node-2/logs/meta.properties"
    lines = [line for line in path.read_text().splitlines() if "directory" not in line]
    path.write_text("\n".join([*lines, *ids]) + "\n")


def no_topic_id(data: Path) -> None:
    (data / FIRST / "orders-0/partition.metadata").unlink()


def other_topic_id(data: Path) -> None:
    (data / FIRST / "orders-0/partition.metadata").write_text("version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAEQ")


def newer_epoch(data: Path) -> None:
    (data / FIRST / "orders-0/leader-epoch-checkpoint").write_text(f"0\n1\n{EPOCH + 1} 0\n")


def shorter_log(data: Path) -> None:
    (data / FIRST / "orders-0" / f"{2:020d}.log").write_bytes(b"")


def start_beyond_end(data: Path) -> None:
    write_checkpoint(data / FIRST / "log-start-offset-checkpoint", {"orders-0": 50})


def shorter_everywhere(data: Path) -> None:
    """No replica has what the checkpoints know to be acknowledged."""
    for node in NODES:
        (data / f"node-{node}/logs/orders-0" / f"{2:020d}.log").write_bytes(b"")


def cut_checkpoint(data: Path) -> None:
    (data / FIRST / "replication-offset-checkpoint").write_text("0\n2\norders 0 3\n")


def setting(value: str) -> ConfigRecord:
    return ConfigRecord(resource_type="topic", resource_name="orders", name="retention.ms", value=value)


def different_metadata(data: Path) -> None:
    append_metadata(data, IMAGE, 1, setting("1"))
    append_metadata(data, IMAGE, 2, setting("2"))


def half_written(data: Path) -> None:
    for node in NODES:
        append_metadata(data, IMAGE, node, BeginTransactionRecord(name="a change"))


def newer_metadata(data: Path) -> None:
    append_metadata(data, IMAGE, 3, setting("1"), version=b"\x63")


def snapshot_on_a_minority(data: Path) -> None:
    """Only what was committed is in a snapshot, wherever that lies."""
    shutil.rmtree(data / "node-3" / METADATA_FOLDER)
    write_cluster(data.parent / "ahead", replace(IMAGE, offset=200), LOGS)
    os.rename(data.parent / "ahead/node-3" / METADATA_FOLDER, data / "node-3" / METADATA_FOLDER)


def older_majority(data: Path) -> None:
    """Two voters got their folders of yesterday."""
    append_metadata(data, IMAGE, 1, setting("1"))
    write_commit(data, 1, LAST_INDEX + 1)


def torn_log(data: Path) -> None:
    path = data / FIRST / "orders-0" / f"{2:020d}.log"
    path.write_bytes(path.read_bytes()[:-3])


def no_folder(data: Path) -> None:
    shutil.rmtree(data / FIRST / "orders-0")


def no_node(data: Path) -> None:
    shutil.rmtree(data / "node-3")


def damaged_snapshot(data: Path) -> None:
    path = data / "node-1" / METADATA_FOLDER / "snapshot"
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def unfinished_compaction(data: Path) -> None:
    (data / FIRST / "orders-0" / f"{0:020d}.log.swap").touch()


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        (remove_marker, "node 1 was not stopped in order"),
        (other_node, "node.id=2, and node 1 of this cluster has node.id=1"),
        (other_cluster, "cluster.id=foreign"),
        (repeated_directory, "has the directory.id of .*node-1"),
        (no_topic_id, "orders-0 has no partition.metadata"),
        (other_topic_id, "belongs to another topic of this name"),
        (newer_epoch, "has records of leader epoch 5, and the metadata knows 4"),
        (
            shorter_log,
            "orders-0 on node 1 is in sync by the metadata, ends at 2, and records up to 3 were acknowledged",
        ),
        (start_beyond_end, "log-start-offset-checkpoint has 50, and the log ends at 3"),
        (shorter_everywhere, "ends at 2, and records up to 3 were acknowledged"),
        (cut_checkpoint, "line 2 announces 2 entries, 1 follow"),
        (different_metadata, "voters 1 and 2 have different metadata at offset 100"),
        (half_written, "'a change', is half written"),
        (newer_metadata, "a newer version wrote it"),
        (snapshot_on_a_minority, "voter 3 has metadata that was committed up to offset 200, and a majority .* at 99"),
        (older_majority, "voter 1 has metadata that was committed up to offset 100, and a majority .* ends at 99"),
        (torn_log, "start the node, so that it repairs the log"),
        (no_folder, "orders-0 on node 1 has no folder"),
        (no_node, "node 3: there is no folder"),
        (damaged_snapshot, "the checksum is wrong"),
        (unfinished_compaction, "of a compaction that did not end"),
    ],
)
def test_data_that_kafka_would_lose_is_refused_in_words(data: Path, broken: Any, problem: str) -> None:
    broken(data)
    before = content(data)
    with pytest.raises(UnfitData, match=problem):
        exported(data)
    assert content(data) == before
    assert not (data.parent / "out").exists()


def test_a_node_that_runs_is_refused(data: Path) -> None:
    lock = FILES.lock_directory(str(data / FIRST))
    try:
        with pytest.raises(UnfitData, match="node 1 runs"):
            exported(data)
    finally:
        lock.release()


def test_what_only_a_minority_has_does_not_count(data: Path) -> None:
    append_metadata(data, IMAGE, 3, setting("1"))
    assert planned(data).snapshot.end_offset == 100
    append_metadata(data, IMAGE, 1, setting("1"))
    assert planned(data).snapshot.end_offset == 101


def test_no_node_starts_while_files_are_copied(data: Path) -> None:
    held: list[bool] = []

    def look(_: int) -> None:
        try:
            FILES.lock_directory(str(data / FIRST)).release()
        except BlockingIOError:
            held.append(True)

    FILES.lock_directory(str(data / FIRST)).release()  # as a node does that stops
    fill(FILES, planned(data), now_ms=5_000, on_bytes=look)
    assert all(held)
    assert len(held) > 10
    shutil.rmtree(data.parent / "out")
    plan = planned(data)
    remove_marker(data)
    with pytest.raises(UnfitData, match="node 1 was not stopped in order"):
        fill(FILES, plan, now_ms=5_000, on_bytes=lambda _: None)
    assert not (data.parent / "out").exists()


def test_a_target_that_no_list_of_kafka_can_have_is_refused(data: Path) -> None:
    with pytest.raises(UnfitData, match=r"has a comma, and log\.dirs of Kafka is a list"):
        make_plan(
            FILES, configuration(data), target=f"{data.parent}/a,b", release=None, copy=False, rng=random.Random(1)
        )


def test_a_target_that_is_not_empty_is_refused(data: Path) -> None:
    (data.parent / "out").mkdir()
    (data.parent / "out/mine").write_text("mine")
    with pytest.raises(UnfitData, match="is not empty"):
        planned(data)  # as a dry run does
    assert content(data.parent / "out") == {"mine": b"mine"}


def volumes(*, target_device: int = 1, free_bytes: int = 1 << 40) -> VolumeOf:
    """A target of this kind; the data is on device 1."""
    return lambda path: Volume(device=target_device if path.endswith("/out") else 1, free_bytes=free_bytes)


def test_a_target_without_room_is_refused(data: Path) -> None:
    needed = planned(data).copied_bytes
    assert planned(data, volume_of=volumes(free_bytes=needed + (64 << 20))).copied_bytes == needed
    with pytest.raises(
        UnfitData, match=rf"needs {needed:,} bytes for copies, and {needed + (64 << 20) - 1:,} are free"
    ):
        exported(data, volume_of=volumes(free_bytes=needed + (64 << 20) - 1))
    assert not (data.parent / "out").exists()


def test_another_file_system_takes_a_copy_that_was_agreed_to(data: Path) -> None:
    plan = planned(data, copy=True, volume_of=volumes(target_device=2))
    assert (plan.linked_bytes, plan.is_copied) == (0, True)
    with pytest.raises(
        UnfitData,
        match=rf"another file system than the data.* {plan.copied_bytes:,} bytes would.*repeat it with --copy",
    ):
        exported(data, volume_of=volumes(target_device=2))
    with pytest.raises(UnfitData, match=rf"needs {plan.copied_bytes:,} bytes for copies, and 5 are free"):
        exported(data, copy=True, volume_of=volumes(target_device=2, free_bytes=5))
    assert not (data.parent / "out").exists()


def test_two_mounts_of_one_file_system_need_a_copy(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have one device number, and no links between them."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    with monkeypatch.context() as patched:
        patched.setattr(os, "link", refuse)
        with pytest.raises(UnfitData, match=r"cannot be shared with .*: repeat it with --copy"):
            exported(data)
    assert not (exported(data, copy=True) / UNFINISHED).exists()


def test_an_export_that_was_interrupted_is_repeated(data: Path, tmp_path: Path) -> None:
    """After each piece that it copies."""
    before, pieces = content(data), Pieces()
    plan = planned(data)
    fill(FILES, plan, now_ms=5_000, on_bytes=pieces)
    expected = content(tmp_path / "out")
    assert pieces.count > 10
    shutil.rmtree(tmp_path / "out")
    for piece in range(1, pieces.count + 1):
        with pytest.raises(OSError, match="No space left"):
            fill(FILES, planned(data), now_ms=5_000, on_bytes=Pieces(piece))
        assert (tmp_path / "out" / UNFINISHED).exists()
    fill(FILES, plan, now_ms=5_000, on_bytes=lambda _: None)
    assert content(tmp_path / "out") == expected
    assert content(data) == before


def test_an_export_that_had_all_but_its_checkpoints_is_repeated(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("kraft.kafka_data.export.write_log_directory", cut)
        with pytest.raises(OSError, match="No space left"):
            exported(data)
    assert (data.parent / "out" / UNFINISHED).exists()
    assert not (exported(data) / UNFINISHED).exists()


def test_a_stray_folder_stays_behind_and_is_listed(data: Path) -> None:
    shutil.copytree(data / FIRST / "orders-1", data / FIRST / "gone-0")
    plan = planned(data)
    assert [line for line in plan.left_out if "gone-0" in line]
    assert not list(exported(data).rglob("gone-0"))


def test_a_segment_that_kafka_takes_not_is_as_large_as_it_takes(tmp_path: Path) -> None:
    image = replace(IMAGE, configs=configs_map({("topic", "orders"): MappingProxyType({"segment.bytes": "16384"})}))
    write_cluster(tmp_path / "data", image, LOGS)
    plan = planned(tmp_path / "data", kafka="4.1")
    assert "setting segment.bytes of topic orders: 16384 becomes 1048576; Kafka 4.1 takes no less" in plan.left_out
    assert [each.value for each in messages(exported(tmp_path / "data", kafka="4.1"))["ConfigRecord"]] == ["1048576"]
    assert value_for(release_of("3.9"), "segment.bytes", "16384") == "16384"


def test_the_table_in_the_documents_is_that_of_the_code() -> None:
    page = (Path(__file__).parents[3] / "docs/outgrowing.md").read_text(encoding="utf-8")
    begin, end = "<!-- kinds: made of kraft/kafka_data/releases.py -->", "<!-- end of kinds -->"
    shown = page.partition(begin)[2].partition(end)[0].split()
    rows = [f"- **{name}**: Kafka {since}; below: {below}" for name, since, below in table()]
    assert shown == " ".join(rows).split()


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"group.consumer.session.timeout.ms": 6_000}, "group.consumer.min.session.timeout.ms = 45000 is more than"),
        (
            {"replica.lag.time.max.ms": 300},
            "replica.fetch.wait.max.ms = 500 is more than",
        ),
        (
            {"log.cleaner.dedupe.buffer.size": 1 << 20},
            "has to be more than 1048576",
        ),
        ({"queued.max.request.bytes": 1024}, "queued.max.request.bytes = 1024 is less than socket.request.max.bytes"),
        ({"max.connections.per.ip": 0}, "max.connections.per.ip = 0 needs max.connections.per.ip.overrides"),
    ],
)
def test_settings_with_which_no_kafka_starts_are_refused(data: Path, settings: dict[str, Any], problem: str) -> None:
    world = configuration(data)
    first, *others = world.nodes
    nodes = (first, others[0].model_copy(update={"settings": settings}), others[1])
    config = world.model_copy(update={"nodes": nodes})
    with pytest.raises(UnfitData, match=f"does not start with the settings of node 2: .*{re.escape(problem)}"):
        make_plan(FILES, config, target=f"{data}-out", release=None, copy=False, rng=random.Random(1))


def test_settings_that_an_older_kafka_does_not_take_are_left_out(data: Path) -> None:
    own = {"group.consumer.assignors": "range", "group.share.max.size": 5, "consumer.instances.max": 7}
    world = configuration(data)
    config = world.model_copy(update={"settings": {**world.settings, **own}})

    def written(release: str) -> tuple[list[str], str]:
        target = data.parent / f"for-{release}"
        plan = make_plan(
            FILES, config, target=str(target), release=release_of(release), copy=False, rng=random.Random(1)
        )
        fill(FILES, plan, now_ms=5_000, on_bytes=lambda _: None)
        return list(plan.left_out), (target / "node-1/server.properties").read_text()

    listed, text = written("3.9")
    assert listed == [
        "setting consumer.instances.max of cluster.toml: left out; Kafka has it not",
        "setting group.consumer.assignors of cluster.toml: left out; Kafka 4.0 has it in this form",
        "setting group.share.max.size of cluster.toml: left out; Kafka 4.2 has it in this form",
    ]
    assert not {line for line in text.splitlines() if line.startswith("group.") and "initial" not in line}
    listed, text = written("4.2")
    assert listed == ["setting consumer.instances.max of cluster.toml: left out; Kafka has it not"]
    assert "\ngroup.consumer.assignors=range\n" in text
    assert "\ngroup.share.max.size=5\n" in text
