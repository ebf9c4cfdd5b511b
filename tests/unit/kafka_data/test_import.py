"""An export taken back is the same image and the same logs; what Kafka's folders may be like that are not taken."""

from __future__ import annotations

import errno
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE
from types import MappingProxyType
from typing import Any
from uuid import UUID

import hypothesis
import pytest
from hypothesis import strategies as st

from kraft.config.parse import parse_config
from kraft.kafka_data import export, importing
from kraft.kafka_data.copying import UNFINISHED, Volume, VolumeOf
from kraft.kafka_data.image_records import image_records, settings_left_out, topics_of
from kraft.kafka_data.kafka_image import KafkaImage, to_add
from kraft.kafka_data.metadata_log import Entry, encode_value, snapshot_batches
from kraft.kafka_data.releases import NEWEST, RELEASES
from kraft.kafka_data.replica import UnfitData
from kraft.kafka_data.source import committed_image
from kraft.layout import METADATA_FOLDER
from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.protocol.encoding import TopLevel
from kraft.protocol.messages.begin_transaction_record import BeginTransactionRecordData
from kraft.protocol.messages.broker_registration_change_record import BrokerRegistrationChangeRecordData
from kraft.protocol.messages.clear_elr_record import ClearElrRecordData
from kraft.protocol.messages.config_record import ConfigRecordData
from kraft.protocol.messages.delegation_token_record import DelegationTokenRecordData
from kraft.protocol.messages.end_transaction_record import EndTransactionRecordData
from kraft.protocol.messages.feature_level_record import FeatureLevelRecordData
from kraft.protocol.messages.no_op_record import NoOpRecordData
from kraft.protocol.messages.partition_change_record import PartitionChangeRecordData
from kraft.protocol.messages.partition_record import PartitionRecordData
from kraft.protocol.messages.register_broker_record import BrokerEndpoint, RegisterBrokerRecordData
from kraft.protocol.messages.register_controller_record import ControllerEndpoint, RegisterControllerRecordData
from kraft.protocol.messages.remove_topic_record import RemoveTopicRecordData
from kraft.protocol.messages.topic_record import TopicRecordData
from kraft.protocol.messages.unregister_controller_record import UnregisterControllerRecordData
from kraft.protocol.messages.voters_record import Endpoint, Voter, VotersRecordData
from kraft.protocol.messages.zk_migration_state_record import ZkMigrationStateRecordData
from kraft.protocol.scram import Credential
from metadata.acls import Acl, AclOperation, AclPattern, AclPermission, AclResource
from metadata.image import (
    MetadataImage,
    PartitionImage,
    TopicImage,
    acls_map,
    brokers_map,
    configs_map,
    quotas_map,
    topic_ids_map,
    topics_map,
    users_map,
)
from metadata.image_codec import encode_image
from metadata.records import NO_LEADER, LeaderRecovery
from tests.unit.kafka_data.test_export import IMAGE, LOGS, ORDERS, secured
from tests.unit.kafka_data.world import (
    FILES,
    NODES,
    Pieces,
    configuration,
    content,
    directory_id,
    records,
    write_cluster,
)

FIRST = "node-1/logs"


def exported(folder: Path, image: MetadataImage = IMAGE, logs: Mapping[str, Any] = LOGS) -> Path:
    """Kafka's folders, as an export makes them."""
    write_cluster(folder / "data", image, logs)
    target = str(folder / "kafka")
    plan = export.make_plan(
        FILES, configuration(folder / "data"), target=target, release=NEWEST, copy=False, rng=random.Random(1)
    )
    export.fill(FILES, plan, now_ms=5_000, on_bytes=lambda _: None)
    return folder / "kafka"


def folders_of(kafka: Path) -> list[str]:
    return [str(kafka / f"node-{node}") for node in NODES]


def planned(kafka: Path, *dropped: str, copy: bool = False, **given: Any) -> importing.ImportPlan:
    target = str(kafka.parent / "back")
    return importing.make_plan(FILES, folders_of(kafka), target=target, dropped=dropped, copy=copy, **given)


def imported(kafka: Path, *dropped: str, **given: Any) -> Path:
    importing.fill(FILES, planned(kafka, *dropped, **given), on_bytes=lambda _: None)
    return kafka.parent / "back"


def image_of(data: Path) -> MetadataImage:
    return committed_image(FILES, [(node, f"{data}/node-{node}/{METADATA_FOLDER}") for node in NODES])


def test_an_export_taken_back_is_what_it_was(tmp_path: Path) -> None:
    kafka = exported(tmp_path, secured(IMAGE))
    before = content(kafka)
    back = imported(kafka)
    assert encode_image(image_of(back)) == encode_image(secured(IMAGE))
    for node in NODES:
        for name in ("orders-0", "orders-1"):
            assert content(back / f"node-{node}/logs/{name}") == content(tmp_path / f"data/node-{node}/logs/{name}")
    assert content(kafka) == before
    config = parse_config((back / "cluster.toml").read_text())
    assert [(node.id, node.roles) for node in config.nodes] == [(node, ("broker", "controller")) for node in NODES]
    assert config.nodes[0].log_dirs == (str(back / FIRST),)


def test_an_import_is_exported_again(tmp_path: Path) -> None:
    back = imported(exported(tmp_path))
    config = configuration(back)
    target = str(tmp_path / "again")
    plan = export.make_plan(FILES, config, target=target, release=NEWEST, copy=False, rng=random.Random(1))
    export.fill(FILES, plan, now_ms=5_000, on_bytes=lambda _: None)
    assert content(tmp_path / "again" / FIRST) == content(tmp_path / "kafka" / FIRST)


# --- any image ------------------------------------------------------------------------------------------------------

names = st.text("abcdefgh.-_", min_size=1, max_size=8) | st.just("__share_group_state")
uuids = st.integers(100, 2**128 - 1).map(lambda number: UUID(int=number))


@st.composite
def topics(draw: st.DrawFn) -> TopicImage:
    topic_id = draw(uuids)
    partitions: dict[int, PartitionImage] = {}
    for number in range(draw(st.integers(1, 4))):
        replicas = draw(st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True))
        size = draw(st.integers(1, len(replicas)))
        partitions[number] = PartitionImage(
            topic_id=topic_id,
            partition=number,
            replicas=tuple(replicas),
            isr=tuple(replicas[:size]),
            leader=NO_LEADER,
            leader_epoch=draw(st.integers(0, 2**31 - 1)),
            partition_epoch=draw(st.integers(0, 2**31 - 1)),
            adding_replicas=tuple(replicas[size:]),
            leader_recovery=draw(st.sampled_from(LeaderRecovery)),
        )
    return TopicImage(name=draw(names), topic_id=topic_id, partitions=MappingProxyType(partitions))


acls = st.builds(
    Acl,
    resource=st.sampled_from([each for each in AclResource if each > 1]),
    name=names,
    pattern=st.sampled_from([AclPattern.LITERAL, AclPattern.PREFIXED]),
    principal=names.map(lambda name: f"User:{name}"),
    host=st.sampled_from(["*", "10.0.0.1", "10.0.0.0/8"]),
    operation=st.sampled_from([each for each in AclOperation if each > 1]),
    permission=st.sampled_from([AclPermission.ALLOW, AclPermission.DENY]),
)
settings = st.dictionaries(
    st.sampled_from(["retention.ms", "segment.bytes", "min.insync.replicas"]), st.just("2000000"), min_size=1
)
quotas = st.dictionaries(
    st.sampled_from(["producer_byte_rate", "consumer_byte_rate"]), st.floats(1, 1e12), min_size=1
).map(lambda values: MappingProxyType(dict(sorted(values.items()))))
entities = st.sampled_from([(("user", "u"),), (("client-id", None),), (("client-id", "c"), ("user", None))])


@st.composite
def credentials(draw: st.DrawFn) -> Mapping[str, Credential]:
    mechanisms = sorted(draw(st.sets(st.sampled_from(["SCRAM-SHA-256", "SCRAM-SHA-512"]), min_size=1)))
    data = st.binary(min_size=1, max_size=64)
    made = {
        each: Credential(draw(data), draw(st.integers(4096, 9999)), draw(data), draw(data), each) for each in mechanisms
    }
    return MappingProxyType(made)


OTHER_CONFIGS = {
    ("broker", ""): {"log.retention.ms": "5"},
    ("broker", "2"): {"log.cleaner.threads": "2"},
    ("client-metrics", "m"): {"interval.ms": "1000", "match": "client_id=a"},
    ("group", "classic"): {"consumer.session.timeout.ms": "50000"},
    ("group", "queue"): {"share.auto.offset.reset": "earliest", "share.record.lock.duration.ms": "30000"},
    ("group", "letters"): {"errors.deadletterqueue.topic.name": "dead"},
}


@st.composite
def images(draw: st.DrawFn) -> MetadataImage:
    drawn = draw(st.lists(topics(), max_size=4, unique_by=(lambda each: each.name, lambda each: each.topic_id)))
    configs = {("topic", each.name): MappingProxyType(draw(settings)) for each in drawn if draw(st.booleans())}
    others = draw(st.sets(st.sampled_from(sorted(OTHER_CONFIGS))))
    configs |= {key: MappingProxyType(OTHER_CONFIGS[key]) for key in others}
    return MetadataImage(
        offset=draw(st.integers(0, 2**40)),
        controller_epoch=draw(st.integers(1, 2**31 - 1)),
        brokers=brokers_map({}),
        topics=topics_map({each.topic_id: each for each in drawn}),
        topic_ids=topic_ids_map({each.name: each.topic_id for each in drawn}),
        configs=configs_map(configs),
        acls=acls_map(draw(st.dictionaries(uuids, acls, max_size=4))),
        quotas=quotas_map(draw(st.dictionaries(entities, quotas))),
        users=users_map(draw(st.dictionaries(names, credentials(), max_size=3))),
        next_producer_id=draw(st.integers(0, 2**62)),
    )


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(image=images(), release=st.sampled_from(RELEASES))
def test_any_image_is_the_same_after_a_snapshot(
    tmp_path_factory: pytest.TempPathFactory, image: MetadataImage, release: Any
) -> None:
    from kraft.kafka_data.metadata_log import read_file

    hypothesis.assume(not settings_left_out(image, release))
    hypothesis.assume(len(list(topics_of(image, release))) == len(image.topics))
    path = tmp_path_factory.mktemp("snapshot") / "snapshot.checkpoint"
    made = image_records(image, release, directory_of=lambda *_: UUID(int=500))
    path.write_bytes(b"".join(snapshot_batches(made, epoch=image.controller_epoch, timestamp_ms=1)))
    back = KafkaImage()
    back.end_offset, back.epoch = image.next_offset, image.controller_epoch
    back.apply(read_file(FILES, str(path)), in_snapshot=True)
    assert encode_image(back.image()) == encode_image(image)
    assert back.features["metadata.version"] == release.metadata_version


# --- records after a snapshot ---------------------------------------------------------------------------------------


def replayed(*messages: TopLevel) -> KafkaImage:
    image = KafkaImage()
    image.apply(
        (Entry(offset, 3, 1, max(message.VERSIONS), message) for offset, message in enumerate(messages)),
        in_snapshot=False,
    )
    return image


def test_a_transaction_takes_effect_at_its_end() -> None:
    begin, end = BeginTransactionRecordData.make(name="x"), EndTransactionRecordData.make()
    made = TopicRecordData.make(name="t", topic_id=UUID(int=9))
    half = replayed(begin, made)
    assert (half.topics, half.is_half_written) == ({}, True)
    whole = replayed(begin, made, end)
    assert (list(whole.topics.values()), whole.end_offset, whole.is_half_written) == (["t"], 3, False)
    gone = replayed(made, RemoveTopicRecordData.make(topic_id=UUID(int=9)))
    assert not gone.topics


def test_a_change_with_a_leader_has_the_next_epoch() -> None:
    image = KafkaImage()
    image.topics[ORDERS.topic_id] = "orders"
    image.partitions[ORDERS.topic_id] = dict(ORDERS.partitions)

    def change(**fields: Any) -> PartitionImage:
        record = PartitionChangeRecordData.make(partition_id=0, topic_id=ORDERS.topic_id, **fields)
        image.apply([Entry(5, 1, 1, 0, record)], in_snapshot=False)
        return image.partitions[ORDERS.topic_id][0]

    before = ORDERS.partitions[0]
    smaller = change(isr=[1, 2])
    assert (smaller.isr, smaller.leader_epoch) == ((1, 2), before.leader_epoch)
    elected = change(leader=2)
    assert (elected.leader, elected.leader_epoch) == (NO_LEADER, before.leader_epoch + 1)
    assert elected.partition_epoch == before.partition_epoch + 2


def test_eligible_replicas_are_the_isr_where_a_stop_has_left_none() -> None:
    """Kafka 4.1 and newer stop like that: the last member leaves its ISR too (KIP-966)."""
    image = KafkaImage()
    made = TopicRecordData.make(name="t", topic_id=UUID(int=9))
    partition = PartitionRecordData.make(
        partition_id=0,
        topic_id=UUID(int=9),
        replicas=[3, 1, 2],
        isr=[1, 2],
        leader=1,
        leader_epoch=0,
        partition_epoch=0,
    )
    stopped = PartitionChangeRecordData.make(
        partition_id=0, topic_id=UUID(int=9), isr=[], leader=-1, eligible_leader_replicas=[2, 3]
    )
    entries = [Entry(place, 1, 1, max(each.VERSIONS), each) for place, each in enumerate((made, partition, stopped))]
    image.apply(entries, in_snapshot=False)
    found = image.image().topics[UUID(int=9)].partitions[0]
    assert (found.isr, found.leader_epoch) == ((3, 2), 1)
    image.apply([Entry(9, 1, 1, 0, ClearElrRecordData.make(topic_name="t"))], in_snapshot=False)
    with pytest.raises(UnfitData, match="t-0 has no replica that has all its records"):
        image.image()


def test_controllers_that_are_no_voters_are_known_apart() -> None:
    """One that has not joined yet is registered, too (KIP-853)."""

    def voter(number: int) -> Voter:
        endpoint = Endpoint.make(name="CONTROLLER", host="h", port=9_000 + number)
        return Voter.make(voter_id=number, voter_directory_id=UUID(int=500 + number), endpoints=[endpoint])

    def registered(number: int) -> TopLevel:
        endpoint = ControllerEndpoint.make(name="CONTROLLER", host="c", port=9_500 + number)
        return RegisterControllerRecordData.make(controller_id=number, end_points=[endpoint])

    image = replayed(
        VotersRecordData.make(voters=[voter(1), voter(2)]),
        *map(registered, (1, 2, 3, 4)),
        UnregisterControllerRecordData.make(controller_id=4),
    )
    assert image.voters == {1: ("h", 9_001), 2: ("h", 9_002)}
    assert image.controllers == {number: ("c", 9_500 + number) for number in (1, 2, 3)}


def test_security_to_be_added_is_listed(tmp_path: Path) -> None:
    endpoints = [
        BrokerEndpoint.make(name=name, security_protocol=code) for name, code in (("A", 0), ("B", 3), ("C", 1))
    ]
    image = replayed(RegisterBrokerRecordData.make(broker_id=1, end_points=endpoints))
    assert list(to_add(image)) == ["listeners with SSL, SASL_SSL: kafka_protocol, certificates and mechanisms"]
    back = imported(exported(tmp_path, secured(IMAGE)))
    line = "# To add: authorizer.class.name and super.users: without them the ACLs (1) have no effect"
    assert line in (back / "cluster.toml").read_text().splitlines()


def test_zookeeper_is_refused() -> None:
    with pytest.raises(UnfitData, match="finish the migration"):
        replayed(ZkMigrationStateRecordData.make(zk_migration_state=1))
    replayed(ZkMigrationStateRecordData.make(zk_migration_state=3))


# --- refusals -------------------------------------------------------------------------------------------------------


def append(kafka: Path, *messages: TopLevel, nodes: tuple[int, ...] = NODES, base_offset: int = 100) -> None:
    """Records after the snapshot of these nodes."""
    values = [NewRecord(None, encode_value(message, max(message.VERSIONS)), [], 1) for message in messages]
    for node in nodes:
        folder = kafka / f"node-{node}/logs/__cluster_metadata-0"
        (folder / f"{base_offset:020d}.log").write_bytes(build_batch(values, base_offset=base_offset, leader_epoch=5))


def setting(name: str, value: str = "true") -> TopLevel:
    return ConfigRecordData.make(resource_type=2, resource_name="orders", name=name, value=value)


def test_what_is_not_known_here_is_dropped_by_its_name_only(tmp_path: Path) -> None:
    kafka = exported(tmp_path)
    append(kafka, DelegationTokenRecordData.make(token_id="t"), setting("remote.copy.lag.ms", "5"))
    with pytest.raises(
        UnfitData, match=r"1 delegation tokens \(--drop delegation-tokens\); setting remote.copy.lag.ms"
    ):
        imported(kafka)
    with pytest.raises(UnfitData, match="--drop wrong: the data has nothing of that name; there are delegation-tokens"):
        imported(kafka, "wrong")
    back = imported(kafka, "delegation-tokens", "remote.copy.lag.ms")
    assert image_of(back).offset == 101
    assert not image_of(back).configs


def unclean(kafka: Path) -> None:
    (kafka / FIRST / ".kafka_cleanshutdown").unlink()


def old_properties(kafka: Path) -> None:
    path = kafka / FIRST / "meta.properties"
    path.write_text(path.read_text().replace("version=1", "version=0"))


def foreign(kafka: Path) -> None:
    path = kafka / FIRST / "meta.properties"
    path.write_text(
        "".join("cluster.id=x\n" if "cluster" in line else line for line in path.read_text().splitlines(True))
    )


def snapshot_on_a_minority(kafka: Path) -> None:
    for node in (2, 3):
        for path in (kafka / f"node-{node}/logs/__cluster_metadata-0").glob("*.checkpoint"):
            path.unlink()


def new_level(kafka: Path) -> None:
    append(kafka, FeatureLevelRecordData.make(name="metadata.version", feature_level=99))


def uncommitted(kafka: Path) -> None:
    append(kafka, setting("retention.ms", "1"), nodes=(2,))


def different(kafka: Path) -> None:
    append(kafka, setting("retention.ms", "1"), nodes=(2,))
    append(kafka, setting("retention.ms", "2"), nodes=(1, 3))


def half_written(kafka: Path) -> None:
    append(kafka, BeginTransactionRecordData.make(name="x"))


def tiered(kafka: Path) -> None:
    append(kafka, setting("remote.storage.enable"))


def stray(kafka: Path) -> None:
    (kafka / FIRST / "gone-0.a1b2-stray").mkdir()


def future(kafka: Path) -> None:
    (kafka / FIRST / f"orders-0.{'a' * 32}-future").mkdir()


def no_node(kafka: Path) -> None:
    shutil.rmtree(kafka / "node-3/logs")
    (kafka / "node-3/logs").mkdir()


def no_topic_id(kafka: Path) -> None:
    (kafka / FIRST / "orders-0/partition.metadata").unlink()


def lost_segment(kafka: Path) -> None:
    """Of the metadata log, on all nodes: what follows would fit what is before it."""
    append(kafka, setting("retention.ms", "1"), base_offset=105)


def lost_snapshot(kafka: Path) -> None:
    append(kafka, setting("retention.ms", "1"))
    for path in kafka.glob("node-*/logs/__cluster_metadata-0/*.checkpoint"):
        path.unlink()


def short_log(kafka: Path) -> None:
    for node in NODES:
        (kafka / f"node-{node}/logs/orders-0" / f"{2:020d}.log").write_bytes(b"")


def old_format(kafka: Path) -> None:
    """A message of Kafka 0.10: its magic is where that of a batch is."""
    path = kafka / FIRST / "orders-0" / f"{0:020d}.log"
    path.unlink()  # one file with the source of the export
    path.write_bytes(bytes(8) + (22).to_bytes(4, "big") + bytes(4) + b"\1" + bytes(17))


def registered(node: int, *directories: int) -> TopLevel:
    return RegisterBrokerRecordData.make(broker_id=node, log_dirs=[directory_id(number) for number in directories])


def other_node(kafka: Path) -> None:
    """Nodes 2 and 3 have changed their numbers."""
    append(kafka, *(registered(node, node) for node in NODES))
    for node, other in ((2, 3), (3, 2)):
        path = kafka / f"node-{node}/logs/meta.properties"
        path.write_text(path.read_text().replace(f"node.id={node}", f"node.id={other}"))


def missing_directory(kafka: Path) -> None:
    change = BrokerRegistrationChangeRecordData.make(broker_id=3, log_dirs=[directory_id(3), directory_id(33)])
    append(kafka, *(registered(node, node) for node in NODES), change)


def moved(kafka: Path) -> None:
    """Somebody has asked for it."""
    change = PartitionChangeRecordData.make(partition_id=0, topic_id=ORDERS.topic_id, replicas=[3, 2, 1])
    append(kafka, change, nodes=(3,))


def two_copies(kafka: Path) -> None:
    shutil.copytree(kafka / FIRST, kafka / "node-1/logs-2")


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        (unclean, "node 1 was not shut down cleanly"),
        (old_properties, "Move a cluster with ZooKeeper to KRaft"),
        (foreign, "import one cluster at a time"),
        (snapshot_on_a_minority, "node 1 has a snapshot of the metadata up to"),
        (new_level, "metadata.version is 99, and known are 7 to 33"),
        (uncommitted, "node 2 has metadata that was not committed .ConfigRecord at offset 100"),
        (different, "different metadata at offset 100"),
        (half_written, "half written"),
        (tiered, "topic orders is tiered"),
        (stray, "--drop stray-folders"),
        (future, "--drop future-folders"),
        (no_node, "node-3 has no meta.properties"),
        (two_copies, "one of them is a copy"),
        (moved, "node 3 has metadata that was not committed .PartitionChangeRecord at offset 100"),
        (no_topic_id, "orders-0 has no partition.metadata"),
        (lost_segment, "the log goes on at offset 105, and what is before it ends at 100"),
        (lost_snapshot, "the log goes on at offset 100, and what is before it ends at 0"),
        (short_log, "ends at 2, and records up to 3 were acknowledged"),
        (old_format, "has records in format 1"),
        (other_node, "node-3/logs/meta.properties has node.id=2, and .* its directory.id is of node 3"),
        (missing_directory, "node 3 has a log directory .directory.id=.* none of the folders: name all"),
    ],
)
def test_folders_that_are_not_taken_are_named(tmp_path: Path, broken: Any, problem: str) -> None:
    kafka = exported(tmp_path)
    broken(kafka)
    before = content(kafka)
    with pytest.raises(UnfitData, match=problem):
        imported(kafka)
    assert content(kafka) == before
    assert not (tmp_path / "back").exists()


def test_a_missing_node_is_named(tmp_path: Path) -> None:
    kafka = exported(tmp_path)
    folders = [str(kafka / "node-1"), str(kafka / "node-2")]
    with pytest.raises(UnfitData, match="node 3 is a member of the cluster"):
        importing.make_plan(FILES, folders, target=str(tmp_path / "back"), dropped=(), copy=False)
    with pytest.raises(UnfitData, match="only 1 of them are here"):
        importing.make_plan(FILES, folders[:1], target=str(tmp_path / "back"), dropped=(), copy=False)


def test_a_node_without_partitions_and_without_a_vote_is_left_out(tmp_path: Path) -> None:
    """Such as a controller that has not joined the voters (KIP-853)."""
    kafka = exported(tmp_path)
    idle = kafka / "node-9/logs"
    idle.mkdir(parents=True)
    text = (kafka / FIRST / "meta.properties").read_text().replace("node.id=1", "node.id=9")
    lines = [line for line in text.splitlines(True) if "directory.id" not in line]
    (idle / "meta.properties").write_text("".join([*lines, "directory.id=AAAAAAAAAAAAAAAAAAAJJw\n"]))
    target = str(tmp_path / "back")
    plan = importing.make_plan(FILES, [*folders_of(kafka), str(idle)], target=target, dropped=(), copy=False)
    assert plan.dropped == ["node 9, which is neither a broker nor a voter"]
    importing.fill(FILES, plan, on_bytes=lambda _: None)
    config = parse_config((tmp_path / "back/cluster.toml").read_text())
    assert [node.id for node in config.nodes] == list(NODES)


def test_a_tail_without_meaning_is_cut(tmp_path: Path) -> None:
    kafka = exported(tmp_path)
    append(kafka, NoOpRecordData.make(), nodes=(2,))
    assert image_of(imported(kafka)).offset == IMAGE.offset


def test_a_tail_of_nodes_that_were_stopped_one_by_one_is_cut(tmp_path: Path) -> None:
    """The last voter fences brokers and changes ISRs, and no majority is left that could agree."""
    kafka = exported(tmp_path)
    fenced = BrokerRegistrationChangeRecordData.make(broker_id=1, fenced=1)
    out = PartitionChangeRecordData.make(partition_id=0, topic_id=ORDERS.topic_id, isr=[3], leader=3)
    append(kafka, fenced, out, nodes=(3,))
    assert encode_image(image_of(imported(kafka))) == encode_image(IMAGE)


HOLD = """import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_kafka_that_runs_is_refused(tmp_path: Path) -> None:
    """Java's locks are those of fcntl: of a process, not of a file that is open."""
    kafka = exported(tmp_path)
    lock = kafka / FIRST / ".lock"
    with subprocess.Popen([sys.executable, "-S", "-c", HOLD, lock], stdin=PIPE, stdout=PIPE) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(UnfitData, match=r"node 1 runs: .*node-1/logs is in use; stop Kafka first"):
            imported(kafka)
        holder.kill()
    assert not (tmp_path / "back").exists()
    imported(kafka)


def test_no_kafka_starts_while_files_are_copied(tmp_path: Path) -> None:
    kafka = exported(tmp_path)
    lock = kafka / FIRST / ".lock"
    lock.touch()
    found: set[bool] = set()

    def start(_: int) -> None:
        if not found:
            with subprocess.Popen([sys.executable, "-S", "-c", HOLD, lock], stdin=PIPE, stdout=PIPE) as holder:
                holder.communicate(b"")
            found.add(holder.returncode == 0)

    importing.fill(FILES, planned(kafka), on_bytes=start)
    assert found == {False}


def test_a_node_of_ours_that_runs_on_the_folder_is_refused(tmp_path: Path) -> None:
    kafka = exported(tmp_path)
    lock = FILES.lock_directory(str(kafka / FIRST))
    with pytest.raises(UnfitData, match="node 1 runs"):
        imported(kafka)
    lock.release()
    imported(kafka)


def test_a_target_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    kafka = exported(tmp_path)
    (tmp_path / "back").mkdir()
    (tmp_path / "back/mine").write_text("mine")
    with pytest.raises(UnfitData, match="back is not empty; name a folder that is, or that does not exist"):
        imported(kafka)
    assert content(tmp_path / "back") == {"mine": b"mine"}
    shutil.rmtree(tmp_path / "back")
    (tmp_path / "back").write_text("mine")
    with pytest.raises(UnfitData, match="back is no folder"):
        imported(kafka)
    assert (tmp_path / "back").read_text() == "mine"


def test_a_target_in_a_log_directory_is_refused(tmp_path: Path) -> None:
    """Kafka would not start on that directory again."""
    kafka = exported(tmp_path)
    folders = [str(kafka / FIRST), *folders_of(kafka)]  # one is named twice
    for target in (kafka / FIRST, kafka / FIRST / "back"):
        with pytest.raises(UnfitData, match=r"is in .*node-1/logs, which stays as it is: name a folder elsewhere"):
            importing.make_plan(FILES, folders, target=str(target), dropped=(), copy=False)


def test_a_target_without_room_or_on_another_file_system_is_refused(tmp_path: Path) -> None:
    kafka = exported(tmp_path)

    def on(device: int, free_bytes: int = 1 << 40) -> VolumeOf:
        return lambda path: Volume(device=device if path.endswith("/back") else 1, free_bytes=free_bytes)

    needed, whole = planned(kafka).copied_bytes, planned(kafka, copy=True).copied_bytes
    assert needed < whole
    for message, device, free_bytes, copy in (
        (f"needs {needed:,} bytes for copies, and 7 are free there", 1, 7, False),
        (f"needs {whole:,} bytes for copies, and {needed:,} are free there", 2, needed, True),
        (
            rf"another file system than the data.*: {whole:,} bytes would be copied.*; repeat it with --copy",
            2,
            1,
            False,
        ),
    ):
        with pytest.raises(UnfitData, match=message):
            imported(kafka, copy=copy, volume_of=on(device, free_bytes))
    assert not (tmp_path / "back").exists()
    plan = planned(kafka, copy=True, volume_of=on(2))
    assert (plan.linked_bytes, plan.copied_bytes) == (0, whole)


def test_an_import_that_was_interrupted_is_repeated(tmp_path: Path) -> None:
    """After each piece that it copies, and before the last file."""
    kafka = exported(tmp_path)
    before, pieces = content(kafka), Pieces()
    importing.fill(FILES, planned(kafka), on_bytes=pieces)
    expected = content(tmp_path / "back")
    assert pieces.count > 10
    shutil.rmtree(tmp_path / "back")
    for piece in range(1, pieces.count + 1):
        with pytest.raises(OSError, match="No space left"):
            importing.fill(FILES, planned(kafka), on_bytes=Pieces(piece))
        assert (tmp_path / "back" / UNFINISHED).exists()
    assert content(imported(kafka)) == expected
    assert content(kafka) == before


def test_an_import_that_had_all_but_its_checkpoints_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka = exported(tmp_path)

    def cut(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("kraft.kafka_data.importing.write_log_directory", cut)
        with pytest.raises(OSError, match="No space left"):
            imported(kafka)
    assert (tmp_path / "back" / UNFINISHED).exists()
    assert encode_image(image_of(imported(kafka))) == encode_image(IMAGE)
    assert json.loads((tmp_path / "back" / FIRST / ".kafka_cleanshutdown").read_text())


def test_an_empty_file_of_epochs_is_left_out(tmp_path: Path) -> None:
    """Kafka has one in each log without records."""
    kafka = exported(tmp_path, replace(IMAGE), {"orders-0": [records(b"a")], "orders-1": []})
    (kafka / FIRST / "orders-1/leader-epoch-checkpoint").touch()
    assert not (imported(kafka) / FIRST / "orders-1/leader-epoch-checkpoint").exists()
