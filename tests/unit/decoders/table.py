"""Every decoder of a node, with what it may raise: the one table that the fuzzer reads.

A row names the module in which the decoding stands; `test_every_decoder_is_in_the_table` finds modules that decode and
have no row. To add one: a function from bytes, what it says when it refuses, and a few samples that it takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import struct
import zlib
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from uuid import UUID

import msgspec
from crc32c import crc32c

from kraft.broker import node_facts
from kraft.broker.logins import Logins
from kraft.broker.principal import UserPrincipal, decode_user
from kraft.broker.tokens import BadToken, Tokens
from kraft.broker.users import Users
from kraft.config.parse import parse_config
from kraft.config.problems import ConfigError
from kraft.config.toml import parse_toml
from kraft.coordinators.groups import answers, instance, requests, subscriptions
from kraft.coordinators.groups.patterns import TopicPattern
from kraft.coordinators.groups.records import (
    CommittedOffset,
    GroupKey,
    InstanceKey,
    MalformedRecord,
    OffsetKey,
    StoredGroup,
    StoredMember,
    decode_record,
    encode_key,
    encode_value,
)
from kraft.coordinators.shares import records as share_state_records
from kraft.coordinators.shares.ack_ids import AckIds, Lock, id_of
from kraft.coordinators.shares.state import ShareKey, Snapshot
from kraft.coordinators.transactions import records as transaction_records
from kraft.coordinators.transactions.state import Phase, Transaction
from kraft.explain.facts import read_evidence
from kraft.http import embedded_records, raw_records
from kraft.http.authentication import HttpAuthentication
from kraft.http.console.launcher import asked_in
from kraft.http.errors import HttpError
from kraft.http.media import Format, is_latin_1, media_ranges, utf8_of_latin_1
from kraft.http.offset_spec import parse_timestamp
from kraft.http.record_counts import check_counts, objects_max
from kraft.http.streaming.splitter import ObjectSplitter
from kraft.http.v2.record_bodies import parse_produce
from kraft.http.v3.record_bodies import RouteRequest, parse_batch, parse_record
from kraft.http.v3.share_records import PLAIN as ACKNOWLEDGEMENTS
from kraft.kafka_data import metadata_log as kafka_metadata
from kraft.kafka_data.group_contents import read_group_contents
from kraft.kafka_data.older_groups import for_release
from kraft.kafka_data.releases import OLDEST
from kraft.kafka_data.replica import Replica, UnfitData, log_end_of
from kraft.protocol import apis, codec, scram
from kraft.protocol.apis import Api
from kraft.protocol.batches import batch_check, compression, header, markers
from kraft.protocol.batches.budget import Budget
from kraft.protocol.batches.records import NewRecord, build_batch, read_batches
from kraft.protocol.codec import Malformed, RequestHeader
from kraft.protocol.encoding import TopLevel
from kraft.protocol.errors import (
    InvalidRequest,
    KafkaError,
    NotController,
    NotCoordinator,
    NotLeaderOrFollower,
    SnapshotNotFound,
)
from kraft.protocol.messages.partition_change_record import PartitionChangeRecordData
from kraft.protocol.messages.sasl_authenticate_request import SaslAuthenticateRequestData
from kraft.protocol.messages.sasl_handshake_request import SaslHandshakeRequestData
from kraft.protocol.messages.topic_record import TopicRecordData
from kraft.runtime.tcp import TcpConnection
from kraft.wire.api_handler import CloseConnection
from kraft.wire.channels.controller import CONTROLLER_RPCS
from kraft.wire.client_login import MECHANISMS, ClientLogin, LoginRules
from kraft.wire.rpc import Rpc
from metadata import image_codec
from metadata import records as metadata_records
from metadata.controller.requests import AlterUsers, ScramUpsertion
from metadata.decode_errors import DECODE_ERRORS
from metadata.image import MetadataImage, TopicIdPartition
from metadata.quorum import command, durable, identity, journal, journal_format, record_file, snapshots, votes
from metadata.quorum.frame_auth import Hello, Refused, Seal, decode_hello, encode_hello
from metadata.quorum.link import message_of
from metadata.quorum.messages import MalformedMessage, checked
from metadata.settings import BrokerSettings, TopicSettings, broker_settings, canonical_value
from replication.log_validator import BatchRules, prepare_or_refuse
from replication.manager.status import FollowerMarks, ReplicaMarks
from replication.partition.log import AbortedTransaction
from replication.producers.state import Producer, ProducerBatch
from replication.shares.states import StateBatch
from replication.storage import indexes, names, producer_snapshot, text_files, transaction_index
from replication.storage.header_scan import DamagedLog, headers_from, whole_batch
from tests.conformance.groups.consumer_groups import consumer_records
from tests.support.controller_world import World as ControllerWorld
from tests.unit.coordinators.test_share_records import share_records
from tests.unit.decoders.files import Holding
from tests.unit.explain.cluster import node as node_evidence
from tests.unit.replication.harness.virtual import environment
from tests.unit.wire.fakes import FakeController, answered, handlers_of
from tests.unit.wire.test_controller_round_trips import CASES
from tests.unit.wire.test_server_defends_itself import EVERY_API

NOW_MS = 1_700_000_000_000


@dataclass(frozen=True, kw_only=True)
class Decoder:
    module: str
    decode: Callable[[bytes], object]
    refuses: tuple[type[Exception], ...]
    """All that may escape; nothing for one that takes what it can."""
    samples: Sequence[bytes]
    """That it takes."""
    near_misses: Sequence[bytes] = ()
    """That are nearly right, where damaged bytes seldom are."""
    reseal: Callable[[bytes], bytes] | None = None


# --- the quorum ------------------------------------------------------------------------------------------------

HELLO = Hello(cluster_id="c", sender=2, receiver=1, nonce=bytes(16), incarnation=b"x")
MESSAGES: tuple[dict[str, Any], ...] = (
    {
        "type": "append_entries",
        "term": 1,
        "commit_index": 2,
        "sequence": 3,
        "entries": [(b"c", 2, 1)],
        "prevLogIdx": 1,
        "prevLogTerm": 1,
    },
    {"type": "append_entries", "term": 1, "commit_index": 2, "sequence": 3, "serialized": (b"piece", True, False)},
    {"type": "next_node_idx", "term": 1, "next_node_idx": 3, "reset": False, "success": True, "sequence": 1},
    {"type": "request_vote", "term": 1, "last_log_index": 3, "last_log_term": 1},
    {"type": "pre_vote_request", "round": 1, "term": 1, "last_log_index": 3, "last_log_term": 1},
    {"type": "welcome", "life": 1, "term": 2, "index": 3},
)
RECORDS = (
    metadata_records.RegisterBrokerRecord(broker_id=1, incarnation_id=UUID(int=1), rest="h:1", kafka="h:2", rack="r"),
    metadata_records.TopicRecord(name="t", topic_id=UUID(int=2)),
    metadata_records.PartitionRecord(
        topic_id=UUID(int=2), partition=0, replicas=(1, 2), isr=(1,), leader=1, leader_epoch=0, partition_epoch=0
    ),
    metadata_records.ConfigRecord(resource_type="topic", resource_name="t", name="retention.ms", value="1"),
)
STRANGE_VALUES: tuple[Any, ...] = (
    None, True, -1, 2**63, 1.5, "", "append_entries", b"", [], [[]], [None], [1, 2, 3], {}, {"type": "newcomer"},
    functools.reduce(lambda inner, _: [inner], range(900), []),
)  # fmt: skip
COMMAND = command.encode_command(RECORDS, controller_epoch=1, expected_offset=0)
IMAGE = MetadataImage().apply(RECORDS)
ENCODED_IMAGE = image_codec.encode_image(IMAGE)
IMAGE_HEAD = struct.Struct(">8sBI")
SNAPSHOT_HEADER = snapshots.SnapshotHeader(
    previous=(b"a", 1, 1),
    last=(b"b", 2, 1),
    end_offset=3,
    controller_epoch=1,
    size=len(ENCODED_IMAGE),
    crc=zlib.crc32(ENCODED_IMAGE),
)
JOURNAL = journal_format.MAGIC + journal_format.encode_frame([(b"one", 1, 1), (b"two", 2, 1)])


def sealed_document(magic: bytes) -> Callable[[bytes], bytes]:
    return lambda payload: durable.encode_document(magic, payload)


def resealed_image(data: bytes) -> bytes:
    body = data[IMAGE_HEAD.size :]
    return IMAGE_HEAD.pack(b"KRAFTIMG", 1, zlib.crc32(body)) + body


def resealed_snapshot(payload: bytes) -> bytes:
    return durable.encode_document(snapshots.SNAPSHOT_MAGIC, payload) + ENCODED_IMAGE


def resealed_frame(data: bytes) -> bytes:
    payload = data[len(journal_format.MAGIC) + 12 :]
    return (
        journal_format.MAGIC + struct.pack(">4sII", b"KRFR", len(payload), zlib.crc32(payload, len(payload))) + payload
    )


def check_owner(data: bytes) -> None:
    owner = identity.Owner(cluster_id="c", node_id=1)
    identity.check_owner(Holding(data), "owner", owner)


def opened(data: bytes) -> None:
    Seal(b"k" * 32, is_dialer=True).open(memoryview(data))


QUORUM = {
    "hello": Decoder(
        module="metadata.quorum.frame_auth", decode=decode_hello, refuses=(Refused,), samples=[encode_hello(HELLO)]
    ),
    "seal": Decoder(module="metadata.quorum.frame_auth", decode=opened, refuses=(Refused,), samples=[b"x" * 40]),
    "message": Decoder(
        module="metadata.quorum.link",
        decode=lambda data: checked(message_of(memoryview(data))),
        refuses=(MalformedMessage,),
        samples=[msgspec.msgpack.encode(message) for message in MESSAGES],
        near_misses=[
            *(
                msgspec.msgpack.encode({**message, name: value})
                for message in MESSAGES
                for name in message
                for value in STRANGE_VALUES
            ),
            *map(msgspec.msgpack.encode, STRANGE_VALUES),
        ],
    ),
    "command": Decoder(
        module="metadata.quorum.command",
        decode=command.decode_command,
        refuses=(command.UnreadableCommand,),
        samples=[COMMAND],
    ),
    "metadata record": Decoder(
        module="metadata.records",
        decode=metadata_records.decode_record,
        refuses=(ValueError,),
        samples=[metadata_records.encode_record(record) for record in RECORDS],
    ),
    "metadata records": Decoder(
        module="metadata.records",
        decode=metadata_records.decode_records,
        refuses=(ValueError,),
        samples=[metadata_records.encode_records(RECORDS)],
    ),
    "evidence of a node": Decoder(
        module="kraft.explain.facts",
        decode=read_evidence,
        refuses=(ValueError,),
        samples=[msgspec.json.encode(node_evidence(1))],
    ),
    "document": Decoder(
        module="metadata.quorum.durable",
        decode=lambda data: durable.decode_document(data, magic=b"KRVOTE1\n", path="p"),
        refuses=(durable.QuorumStorageError,),
        samples=[durable.encode_document(b"KRVOTE1\n", b"payload")],
    ),
    "owner": Decoder(
        module="metadata.quorum.identity",
        decode=check_owner,
        refuses=(durable.QuorumStorageError,),
        samples=[msgspec.json.encode(identity.Owner(cluster_id="c", node_id=1))],
        reseal=sealed_document(b"KRMETA1\n"),
    ),
    "journal": Decoder(
        module="metadata.quorum.journal_format",
        decode=journal_format.parse_journal,
        refuses=(),
        samples=[JOURNAL],
        reseal=resealed_frame,
    ),
    "commit index": Decoder(
        module="metadata.quorum.journal",
        decode=lambda data: journal.saved_commit(data, path="p"),
        refuses=(durable.QuorumStorageError,),
        samples=[struct.pack(">Q", 7)],
        reseal=sealed_document(journal.COMMIT_MAGIC),
    ),
    "vote": Decoder(
        module="metadata.quorum.votes",
        decode=lambda data: votes.saved_term(Holding(data), "d"),
        refuses=(durable.QuorumStorageError,),
        samples=[struct.pack(">Qq", 3, 1)],
        reseal=sealed_document(b"KRVOTE1\n"),
    ),
    "observer's records": Decoder(
        module="metadata.quorum.record_file",
        decode=lambda data: list(record_file.parse_records(data)),
        refuses=(),
        samples=[b"KRRECS2\n" + struct.pack(">QI", 0, zlib.crc32(bytes(8)))],
    ),
    "quorum snapshot": Decoder(
        module="metadata.quorum.snapshots",
        decode=lambda data: snapshots.decode_snapshot(data, path="p"),
        refuses=(durable.QuorumStorageError,),
        samples=[msgspec.json.encode(SNAPSHOT_HEADER)],
        reseal=resealed_snapshot,
    ),
    "image": Decoder(
        module="metadata.image_codec",
        decode=image_codec.decode_image,
        refuses=(image_codec.CorruptSnapshot,),
        samples=[ENCODED_IMAGE],
        reseal=resealed_image,
    ),
}


# --- records and their files -----------------------------------------------------------------------------------

BATCHES = [
    build_batch(
        [NewRecord(b"k", b"v" * 50, [("h", b"x")], NOW_MS), NewRecord(None, None, [], NOW_MS)], compression=name
    )
    for name in header.CODEC_NAMES
]
RULES = BatchRules.of(TopicSettings())


INSTANCE = encode_key(InstanceKey("g", "i"))
OFFSETS_REPLICA = Replica(
    broker=1,
    topic="__consumer_offsets",
    partition=0,
    folder="__consumer_offsets-0",
    directory_id=UUID(int=1),
    topic_id=UUID(int=1),
    log_start=0,
    log_end=1,
    high_watermark=1,
    acknowledged=1,
    cleaned_to=None,
    last_epoch=0,
    segments=[0],
)


OFFSET_WITH_ID = bytes.fromhex("0004 0000000000000028 ffffffff 01 000001a211b54d3c 00")


def for_kafka_3_9(data: bytes) -> list[bytes]:
    file = Holding(data).open("00.log", read_only=True)
    batches = [(whole_batch(file, position, found), found) for position, found in headers_from(file, 0)]
    return [for_release(batch, found, OLDEST) for batch, found in batches]


def resealed_batch(data: bytes) -> bytes:
    """Length and CRC are right again."""
    if len(data) < header.HEADER_BYTES:
        return data
    batch = bytearray(data)
    batch[8:12] = struct.pack(">i", len(data) - header.LOG_OVERHEAD)
    batch[header.MAGIC_OFFSET] = 2
    batch[17:21] = struct.pack(">I", crc32c(bytes(batch[header.CRC_START :])))
    return bytes(batch)


def walked(data: bytes) -> object:
    return [*header.whole_batches(data)], header.end_within(data, upper_bound=10)


def resealed_producers(data: bytes) -> bytes:
    return struct.pack(">hI", 1, crc32c(data[6:])) + data[6:]


def aborted(data: bytes) -> object:
    held = Holding(data)
    index = transaction_index.TransactionIndex(held, "p", base_offset=0, bytes_max=1 << 20, is_there=True)
    index.load()
    return [index.overlapping(0, 10)]


def indexed(data: bytes, *, times: bool) -> object:
    if times:
        index = indexes.TimeIndex(Holding(data).file(), bytes_max=1 << 20)
        index.load()
        return index.lookup(5), index.last(), list(index.rows())
    offsets = indexes.OffsetIndex(Holding(data).file(), bytes_max=1 << 20)
    offsets.load(log_bytes=1 << 30)
    return offsets.lookup(5)


TRANSACTION = next(
    (bytes(record.key or b""), bytes(record.value or b""))
    for record in read_batches(
        transaction_records.encode_batch(
            [
                (
                    "a",
                    Transaction(
                        transactional_id="a",
                        producer_id=7,
                        previous_producer_id=6,
                        epoch=3,
                        timeout_ms=60_000,
                        phase=Phase.ONGOING,
                        partitions=frozenset({("t", 1), ("u", 2)}),
                        updated_ms=NOW_MS,
                    ),
                )
            ],
            timestamp_ms=NOW_MS,
        )
    )
)
SHARE_SNAPSHOT = next(
    (bytes(record.key or b""), bytes(record.value or b""))
    for record in read_batches(
        share_state_records.encode_batch(
            [
                (
                    ShareKey("g", UUID(int=7), 1),
                    Snapshot(
                        snapshot_epoch=1,
                        state_epoch=2,
                        leader_epoch=3,
                        start_offset=4,
                        delivery_complete_count=5,
                        created_ms=NOW_MS,
                        written_ms=NOW_MS,
                        batches=[StateBatch(6, 7, 2, 1), StateBatch(9, 9, 4, 5)],
                    ),
                )
            ],
            timestamp_ms=NOW_MS,
        )
    )
)
PRODUCERS = [
    (1, Producer(epoch=0, batches=(ProducerBatch(5, 9, 1, NOW_MS),), timestamp=NOW_MS, seen_ms=0)),
]
REPLICATION = {
    **{
        f"{name} records": Decoder(
            module="kraft.protocol.batches.compression",
            decode=partial(compression.decompress, codec=number, bytes_max=1 << 20),
            refuses=(KafkaError,),
            samples=[compression.compress(b"some bytes, some bytes" * 20, codec=number)],
        )
        for number, name in enumerate(header.CODEC_NAMES)
        if number
    },
    "batches of a disk": Decoder(
        module="kraft.protocol.batches.batch_check",
        decode=lambda data: batch_check.check_batches(data, expected=0, epoch_of=lambda _: -1),
        refuses=(batch_check.DamagedBatch,),
        samples=BATCHES,
        reseal=resealed_batch,
    ),
    "batches": Decoder(module="kraft.protocol.batches.header", decode=walked, refuses=(), samples=[b"".join(BATCHES)]),
    "batches of a client": Decoder(
        module="replication.log_validator",
        decode=lambda data: prepare_or_refuse(data, rules=RULES, now_ms=NOW_MS, budget=Budget()),
        refuses=(KafkaError,),
        samples=BATCHES,
        reseal=resealed_batch,
    ),
    "records of people": Decoder(
        module="kraft.protocol.batches.records",
        decode=lambda data: list(read_batches(data)),
        refuses=(KafkaError,),
        samples=BATCHES,
        reseal=resealed_batch,
    ),
    "transaction records": Decoder(
        module="kraft.coordinators.transactions.records",
        decode=lambda data: transaction_records.decode_record(TRANSACTION[0], data),
        refuses=(transaction_records.MalformedRecord,),
        samples=[TRANSACTION[1]],
    ),
    "metadata records of Kafka": Decoder(
        module="kraft.kafka_data.metadata_log",
        decode=lambda data: list(kafka_metadata.read_file(Holding(data), "00.log")),
        refuses=(kafka_metadata.UnreadableMetadata,),
        samples=[
            build_batch([NewRecord(None, kafka_metadata.encode_value(record, 0), [], NOW_MS)])
            for record in (TopicRecordData.make(name="t"), PartitionChangeRecordData.make(isr=[1]))
        ],
        reseal=resealed_batch,
    ),
    "keys of groups in an export": Decoder(
        module="kraft.kafka_data.group_contents",
        decode=lambda data: read_group_contents(Holding(data), [OFFSETS_REPLICA]),
        refuses=(UnfitData,),
        samples=[
            build_batch([NewRecord(encode_key(GroupKey("g")), None, [], NOW_MS), NewRecord(INSTANCE, b"", [], NOW_MS)])
        ],
        reseal=resealed_batch,
    ),
    "records of groups for an older Kafka": Decoder(
        module="kraft.kafka_data.older_groups",
        decode=for_kafka_3_9,
        refuses=(DamagedLog, KafkaError, MalformedRecord),
        samples=[build_batch([NewRecord(encode_key(OffsetKey("g", "t", 0)), OFFSET_WITH_ID, [], NOW_MS)])],
        reseal=resealed_batch,
    ),
    "end of a log in an export": Decoder(
        module="kraft.kafka_data.replica",
        decode=lambda data: log_end_of(Holding(data), "orders-0", 0),
        refuses=(UnfitData,),
        samples=[build_batch([NewRecord(None, b"v", [], NOW_MS)])],
    ),
    "share state records": Decoder(
        module="kraft.coordinators.shares.records",
        decode=lambda data: share_state_records.decode_record(SHARE_SNAPSHOT[0], data),
        refuses=(share_state_records.MalformedRecord,),
        samples=[SHARE_SNAPSHOT[1]],
    ),
    "markers": Decoder(
        module="kraft.protocol.batches.markers",
        decode=lambda data: [markers.marker_of(data, each) for _, each in header.whole_batches(data)],
        refuses=(KafkaError,),
        samples=[
            markers.build_marker(markers.Marker(is_commit, 3), producer_id=7, producer_epoch=1, timestamp_ms=NOW_MS)
            for is_commit in (True, False)
        ],
        reseal=resealed_batch,
    ),
    "index of aborted transactions": Decoder(
        module="replication.storage.transaction_index",
        decode=aborted,
        refuses=(indexes.CorruptIndex,),
        samples=[
            transaction_index.encode_entry(AbortedTransaction(1, 5, 8, 6))
            + transaction_index.encode_entry(AbortedTransaction(2, 6, 9, 10))
        ],
    ),
    "offset index": Decoder(
        module="replication.storage.indexes",
        decode=partial(indexed, times=False),
        refuses=(indexes.CorruptIndex,),
        samples=[struct.pack(">IIII", 1, 100, 5, 900)],
    ),
    "time index": Decoder(
        module="replication.storage.indexes",
        decode=partial(indexed, times=True),
        refuses=(indexes.CorruptIndex,),
        samples=[struct.pack(">qIqI", 1, 1, 5, 9)],
    ),
    "producers": Decoder(
        module="replication.storage.producer_snapshot",
        decode=producer_snapshot.decode_snapshot,
        refuses=(producer_snapshot.CorruptSnapshot,),
        samples=[producer_snapshot.encode_snapshot(PRODUCERS)],
        reseal=resealed_producers,
    ),
    "topic id": Decoder(
        module="replication.storage.names",
        decode=lambda data: names.uuid_of(data.decode("latin-1")),
        refuses=(ValueError,),
        samples=[names.uuid_text(UUID(int=77)).encode()],
    ),
    "names of folders and files": Decoder(
        module="replication.storage.names",
        decode=lambda data: (
            names.topic_partition_of(text := data[:255].decode("latin-1")),
            names.base_offset_of(text),
        ),
        refuses=(),
        samples=[b"topic-7", b"00000000000000000007.log"],
    ),
    "checkpoint": Decoder(
        module="replication.storage.text_files",
        decode=lambda data: text_files.read_offsets(Holding(data), "p"),
        refuses=(text_files.MalformedFile,),
        samples=[b"0\n2\nt 0 17\nt 1 4\n"],
    ),
    "leader epochs": Decoder(
        module="replication.storage.text_files",
        decode=lambda data: text_files.read_epochs(Holding(data), "p"),
        refuses=(text_files.MalformedFile,),
        samples=[b"0\n2\n0 0\n3 17\n"],
    ),
    "partition.metadata": Decoder(
        module="replication.storage.text_files",
        decode=lambda data: text_files.read_topic_id(Holding(data), "p"),
        refuses=(text_files.MalformedFile,),
        samples=[b"version: 0\ntopic_id: " + names.uuid_text(UUID(int=3)).encode()],
    ),
    "meta.properties": Decoder(
        module="replication.storage.text_files",
        decode=lambda data: text_files.read_properties(Holding(data), "p"),
        refuses=(),
        samples=[b"#\ncluster.id=c\nnode.id=1\nversion=1\n"],
    ),
}


# --- configuration ---------------------------------------------------------------------------------------------

CLUSTER_TOML = b"""
cluster_id = "c"
secret = "long enough"
[settings]
min.insync.replicas = 2
[[nodes]]
id = 1
roles = ["broker", "controller"]
settings.log.retention.ms = 5
rack = "r"
"""


def setting(data: bytes) -> str:
    model, _, rest = data.decode("latin-1").partition(" ")
    name, _, value = rest.partition("=")
    return canonical_value(BrokerSettings if model == "broker" else TopicSettings, name, value)


CONFIGURATION = {
    "cluster.toml": Decoder(
        module="kraft.config.parse",
        decode=lambda data: parse_config(data.decode("utf-8", "surrogateescape")),
        refuses=(ConfigError,),
        samples=[CLUSTER_TOML],
    ),
    "TOML": Decoder(
        module="kraft.config.toml",
        decode=lambda data: parse_toml(data.decode("utf-8", "surrogateescape"), file="f"),
        refuses=(ConfigError,),
        samples=[CLUSTER_TOML],
    ),
    "a setting": Decoder(
        module="metadata.settings",
        decode=setting,
        refuses=(KafkaError,),
        samples=[
            b"topic retention.ms=77",
            b"broker log.cleaner.min.cleanable.ratio=0.5",
            b"topic cleanup.policy=compact",
        ],
    ),
}


# --- groups ----------------------------------------------------------------------------------------------------

MEMBER = StoredMember(
    member_id="m",
    instance_id=None,
    client_id="c",
    client_host="h",
    rebalance_timeout_ms=1,
    session_timeout_ms=2,
    subscription=b"s",
    assignment=b"a",
)
GROUP = StoredGroup(
    protocol_type="consumer", generation=3, protocol="range", leader="m", state_timestamp=NOW_MS, members=(MEMBER,)
)
OFFSET = CommittedOffset(offset=7, metadata="m", commit_timestamp=NOW_MS)
SUBSCRIPTION = subscriptions.Subscription(topics=("a", "b"), owned=(("a", 0), ("a", 1)), generation=4)


def group_record(data: bytes) -> object:
    """Key and value behind one another, the key's length in front."""
    size = data[0] if data else 0
    return decode_record(data[1 : 1 + size], data[1 + size :])


def keyed(key: bytes, value: bytes | None) -> bytes:
    return bytes([len(key)]) + key + (value or b"")


INSTANCE = instance.Instance(
    group="g", name="i", nonce="n", config=instance.InstanceConfig(), topics=("t",), positions=(("t", 0, 5),)
)
WATCHING = {
    "scope of facts": Decoder(
        module="kraft.broker.node_facts",
        decode=node_facts.decode_scope,
        refuses=DECODE_ERRORS,
        samples=[node_facts.encode_scope(node_facts.Scope(filter="t-0", exact=True, limit=1))],
    ),
    "facts of a node": Decoder(
        module="kraft.broker.node_facts",
        decode=node_facts.decode_facts,
        refuses=DECODE_ERRORS,
        samples=[
            node_facts.encode_facts(
                node_facts.NodeFacts(
                    node_id=1,
                    at_ms=2,
                    metadata_offset=3,
                    controller_id=1,
                    controller_epoch=4,
                    awaits="",
                    brokers={1: "active"},
                    links={2: {"fetch": True}},
                    totals=node_facts.Totals(
                        topics=1,
                        partitions=1,
                        leaders={1: 1},
                        offline=0,
                        under_min_isr=0,
                        under_replicated=0,
                        matched=1,
                        shown=1,
                    ),
                    partitions={"t-0": (1, 5, (1, 2), (1,), 2, 2)},
                    replicas={"t-0": ReplicaMarks("leader", 5, 0, 7, 7, 8, 100)},
                    followers={"t-0": {2: FollowerMarks(8, 3, 3)}},
                    epochs={"t-0": ((0, 0), (5, 6))},
                )
            )
        ],
    ),
}
GROUPS = {
    "group request": Decoder(
        module="kraft.coordinators.groups.requests",
        decode=requests.decode_request,
        refuses=(KafkaError,),
        samples=[
            requests.encode(requests.DescribeGroup(group="g")),
            requests.encode(
                requests.JoinGroup(
                    group="g",
                    client_id="c",
                    client_host="h",
                    session_timeout_ms=1,
                    rebalance_timeout_ms=2,
                    protocol_type="consumer",
                    protocols=(("range", b"x"),),
                )
            ),
        ],
    ),
    "group answer": Decoder(
        module="kraft.coordinators.groups.answers",
        decode=answers.decode_answer,
        refuses=DECODE_ERRORS,
        samples=[answers.encode(answers.GroupList(groups=()))],
    ),
    "instance": Decoder(
        module="kraft.coordinators.groups.instance",
        decode=instance.decode_instance,
        refuses=(MalformedRecord,),
        samples=[msgspec.json.encode(INSTANCE)],
    ),
    "group record": Decoder(
        module="kraft.coordinators.groups.records",
        decode=group_record,
        refuses=(MalformedRecord,),
        samples=[
            keyed(encode_key(GroupKey("g")), encode_value(GROUP)),
            keyed(encode_key(OffsetKey("g", "t", 0)), encode_value(OFFSET)),
            *[
                keyed(encode_key(each.key), encode_value(each.value))
                for each in (*consumer_records(), *share_records())
                if each.value is not None
            ],
        ],
    ),
    **{
        f"{protocol} subscription": Decoder(
            module="kraft.coordinators.groups.subscriptions",
            decode=lambda data, protocol=protocol: subscriptions.decode_subscription(data, protocol),
            refuses=(ValueError,),
            samples=[subscriptions.encode_subscription(SUBSCRIPTION, protocol)],
        )
        for protocol in ("range", "sticky", "cooperative-sticky")
    },
    "assignment": Decoder(
        module="kraft.coordinators.groups.subscriptions",
        decode=subscriptions.decode_assignment,
        refuses=(ValueError,),
        samples=[subscriptions.encode_assignment([("a", 0), ("a", 1), ("b", 0)])],
    ),
    "topic pattern": Decoder(
        module="kraft.coordinators.groups.patterns",
        decode=lambda data: TopicPattern(data.decode("utf-8", "surrogateescape")),
        refuses=(ValueError,),
        samples=[b"(a+)+b", b"flights-.*", b"[a-z]{1,9}"],
    ),
}


# --- HTTP (whole requests are in `test_bodies`) ----------------------------------------------------------------


def embedded(data: bytes, form: Format) -> bytes:
    batch = build_batch([NewRecord(data, data, [("h", data)], NOW_MS)])
    return embedded_records.encode_json(list(read_batches(batch)), form, topic="t", partition=0)


def split(data: bytes) -> object:
    splitter = ObjectSplitter(bytes_max=10_000)
    return [splitter.feed(data[at : at + 7]) for at in range(0, len(data), 7)]


V2 = {
    Format.BINARY: b'{"records": [{"key": "YQ==", "value": "YQ==", "partition": 0, "timestamp": 5}]}',
    Format.JSON: b'{"records": [{"key": {"a": 1}, "value": [1, 2.5, "x"], "headers": [{"key": "h"}]}]}',
    Format.TEXT: b'{"records": [{"key": "a", "value": "b"}], "value_schema_id": null}',
}
ACK_IDS = AckIds(b"key of the cluster")
LOCK = Lock(TopicIdPartition(UUID(int=1), 2), 3, 10, 4, 5, NOW_MS, 30_000, UUID(int=6))
HTTP = {
    "id of an acknowledgement": Decoder(
        module="kraft.coordinators.shares.ack_ids",
        decode=lambda data: ACK_IDS.reader("group", owner="")(data.decode("utf-8", "replace")),
        refuses=(InvalidRequest,),
        samples=[id_of(ACK_IDS.token("group", LOCK, owner=""), LOCK, 5).encode()],
    ),
    **{
        f"v2 {form.value}": Decoder(
            module="kraft.http.v2.record_bodies",
            decode=lambda data, form=form: parse_produce(data, form, now_ms=NOW_MS),
            refuses=(HttpError,),
            samples=[sample],
        )
        for form, sample in V2.items()
    },
    "counted records": Decoder(
        module="kraft.http.record_counts",
        decode=lambda data: check_counts(
            data, "records", objects=objects_max(data), items_max=3, headers_max=2, code=42208
        ),
        refuses=(HttpError,),
        samples=[
            b'{"records": [{"value": {"a": {"b": {}}}}, {"headers": [{"key": "h"}, {"key": "i"}]}]}',
            b'{"records": [{"value": {"a": {"b": {"c": {}}}}}], "more": [[[{}]]]}',
        ],
        near_misses=[b'{"records": [{}, {}, {}, {}]}', b'{"records": [{"headers": [{}, {}, {}]}]}'],
    ),
    "v3 record": Decoder(
        module="kraft.http.v3.record_bodies",
        decode=lambda data: parse_record(data, now_ms=NOW_MS),
        refuses=(HttpError,),
        samples=[
            b'{"key": {"type": "JSON", "data": {"a": 1}}, "value": {"type": "BINARY", "data": "YQ=="}}',
            b'{"partition_id": 1, "timestamp": "2024-01-01T00:00:00Z", "value": {"type": "STRING", "data": "x"}}',
        ],
    ),
    "acknowledgements of the usual form": Decoder(
        module="kraft.http.v3.share_records",
        decode=ACKNOWLEDGEMENTS.decode,
        refuses=(msgspec.DecodeError, UnicodeDecodeError, RecursionError),
        samples=[b'{"acks": [{"ack_id": "abc.0", "type": "accept"}, {"ack_id": "abc.1", "type": "renew"}]}'],
    ),
    "v3 batch": Decoder(
        module="kraft.http.v3.record_bodies",
        decode=lambda data: parse_batch(data, now_ms=NOW_MS, entries_max=5, is_strict=False),
        refuses=(HttpError,),
        samples=[
            b'{"entries": [{"id": "a", "key": {"type": "JSON", "data": {"a": 1}}, "partition_id": 1.0}]}',
            b'{"entries": [{"id": "a", "x": null, "headers": [{"name": "h", "value": "YQ=="}]}, {"id": "b"}]}',
        ],
    ),
    "v3 batch for a route": Decoder(
        module="kraft.http.v3.record_bodies",
        decode=lambda data: parse_batch(data, now_ms=NOW_MS, entries_max=5, is_strict=False, kind=RouteRequest),
        refuses=(HttpError,),
        samples=[
            b'{"entries": [{"id": "a", "routing_key": "a.b", "value": {"type": "STRING", "data": "x"}}]}',
            b'{"entries": [{"id": "a", "x": null, "headers": [{"name": "h", "value": "YQ=="}]}, {"id": "b"}]}',
        ],
    ),
    "length-prefixed records": Decoder(
        module="kraft.http.raw_records",
        decode=lambda data: raw_records.decode_records(data, now_ms=NOW_MS),
        refuses=(HttpError,),
        samples=[struct.pack(">i1si1sqii1si1s", 1, b"k", 1, b"v", NOW_MS, 1, 1, b"h", 1, b"x")],
    ),
    **{
        f"values as {form.value}": Decoder(
            module="kraft.http.embedded_records",
            decode=partial(embedded, form=form),
            refuses=(HttpError,),
            samples=[b'{"a": [1, "x"]}', b"text"],
        )
        for form in V2
    },
    "act of a console": Decoder(
        module="kraft.http.console.launcher",
        decode=asked_in,
        refuses=(HttpError,),
        samples=[b'{"do": "kill", "nodes": [1]}'],
    ),
    "objects of a stream": Decoder(
        module="kraft.http.streaming.splitter", decode=split, refuses=(), samples=[b'{"a": "\\"}"}\n {"b": {}}']
    ),
    "a time": Decoder(
        module="kraft.http.offset_spec",
        decode=lambda data: parse_timestamp(data.decode("latin-1")),
        refuses=(HttpError,),
        samples=[b"1700000000000", b"2024-01-01T00:00:00Z", b"2024-01-01T00:00:00.5+02:00", b"2024-01-01"],
    ),
    "media types": Decoder(
        module="kraft.http.media",
        decode=lambda data: (
            media_ranges(text := data.decode("latin-1")),
            is_latin_1(text),
            utf8_of_latin_1(data),
        ),
        refuses=(),
        samples=[b"application/json;q=0.5, text/*; charset=utf-8"],
    ),
}


# --- Kafka's protocol ------------------------------------------------------------------------------------------


def whole_request(data: bytes) -> tuple[TopLevel, int | None, bytes | None]:
    """As a connection takes it."""
    head = codec.decode_request_head(memoryview(data))
    api = apis.BY_KEY.get(head.api_key)
    if api is None or head.api_version not in api.nodes:
        raise Malformed("refused by its head")
    return codec.decode_request(apis.request_type(api), head, memoryview(data))


def understood_request(rpc: Rpc[Any, Any, Any, Any], data: bytes) -> object:
    """To what our handler gets of it."""
    message = whole_request(data)[0]
    if not isinstance(message, apis.request_type(rpc.api)):
        raise Malformed("another API's")
    with contextlib.suppress(*NOBODY):
        handled(rpc.api, message, reply=NotController())
    return message


NOBODY = (NotController, NotCoordinator, NotLeaderOrFollower, SnapshotNotFound, CloseConnection)
"""With what our handler refuses a request that it has read, as there is nobody here to carry it out."""


def handled(api: Api, message: TopLevel, *, reply: object) -> TopLevel:
    """What our handler answers a node, when the controller replies so."""
    controller = FakeController()
    controller.answer = reply
    return answered(handlers_of(environment=environment(1), controller=controller), message, api.version)


def understood_reply(rpc: Rpc[Any, Any, Any, Any], request: object, data: bytes) -> object:
    frame = memoryview(data)
    _, offset = codec.decode_response_head(rpc.api, rpc.api.version, frame)
    message = codec.decode_body(rpc.response, rpc.api.version, frame, offset)
    return rpc.replied(request, message)


def request_bytes(rpc: Rpc[Any, Any, Any, Any], request: object) -> bytes:
    head = RequestHeader(
        api_key=rpc.api.key, api_version=rpc.api.version, correlation_id=1, client_id="node-1-fetch", timeout_ms=5
    )
    return b"".join(codec.encode_request(rpc.api, head, rpc.to_request(request, 1)))


def reply_bytes(rpc: Rpc[Any, Any, Any, Any], request: object, reply: object) -> bytes:
    message = handled(rpc.api, rpc.to_request(request, 1), reply=reply)
    return b"".join(codec.encode_response(rpc.response, rpc.api.version, 1, message))


def refused_bytes(rpc: Rpc[Any, Any, Any, Any], request: object) -> bytes:
    handler = handlers_of().get(rpc.api.key)
    assert handler is not None
    message = handler.refuse(rpc.to_request(request, 1), rpc.api.version, InvalidRequest("no"))
    return b"".join(codec.encode_response(rpc.response, rpc.api.version, 1, message))


SERVER_FIRST = b"r=abcSERVER,s=" + b"c2FsdHNhbHRzYWx0" + b",i=4096"
CREDENTIAL = scram.credential("p", salt=b"s" * 16)


def scram_server(data: bytes) -> object:
    server = scram.ScramServer(CREDENTIAL, user=scram.CLUSTER_USER, nonce="SERVER")
    first, _, final = data.partition(b"|")
    server.first(first)
    return server.final(final)


def scram_client(data: bytes) -> object:
    client = scram.ScramClient(user=scram.CLUSTER_USER, password="p", nonce="abc")
    client.first()
    first, _, final = data.partition(b"|")
    client.final(first)
    client.verify(final)
    return None


class _Inline:
    """Workers that work at once, so that a login needs no loop."""

    async def run(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)


class _Standing:
    """A clock that stands still."""

    def monotonic_ms(self) -> int:
        return 1_000

    def wall_ms(self) -> int:
        return 1_700_000_000_000


WORLD: Any = replace(environment(1), workers=_Inline(), clock=_Standing())
SETTINGS = broker_settings({"sasl.oauthbearer.unsecured.tokens.enable": True})
USERS = Users(WORLD, image=MetadataImage, passwords={"alice": "p"}, key=b"k" * 32)
TOKENS = Tokens(WORLD, lambda: SETTINGS)
UNSECURED = b"eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSIsImV4cCI6OTk5OTk5OTk5OX0."
BEARER = b"n,,\x01auth=Bearer " + UNSECURED + b"\x01\x01"


def new_logins() -> Logins:
    return Logins(users=USERS, tokens=TOKENS, clock=WORLD.clock, settings=lambda: SETTINGS, operator_key=b"k" * 32)


def login(mechanism: str) -> Callable[[bytes], object]:
    """What a client sends first, and what it sends after that."""

    def decode(data: bytes) -> object:
        rules = LoginRules(logins=new_logins(), mechanisms=MECHANISMS, clock=WORLD.clock, rng=random.Random(1))
        client = ClientLogin(rules, host="h")
        client.handshake(SaslHandshakeRequestData.make(mechanism=mechanism))
        for part in data.split(b"|", 1):
            at_once(client.authenticate(SaslAuthenticateRequestData.make(auth_bytes=part)))
        return None

    return decode


def at_once(waiting: Coroutine[Any, Any, Any]) -> Any:
    try:
        waiting.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits for something")


def authorization(data: bytes) -> object:
    checker = HttpAuthentication(logins=new_logins(), is_encrypted=True)
    return at_once(checker._login(data.decode("latin-1"), "h"))


def user_credential(data: bytes) -> object:
    salt, _, salted = data.partition(b"|")
    upsertion = ScramUpsertion(name="u", mechanism="SCRAM-SHA-256", iterations=4_096, salt=salt, salted_password=salted)
    return ControllerWorld().decide(AlterUsers(upsertions=(upsertion,)))


class _Transport:
    """What a connection asks of one while it reads."""

    def get_extra_info(self, name: str) -> object:
        return None

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_arguments, **_options: None


def framed(data: bytes) -> object:
    """A stream of frames, in pieces of any size, of a peer that may send 10,000 bytes in each."""
    loop = asyncio.new_event_loop()
    try:
        connection = TcpConnection(loop, frame_bytes_max=10_000)
        connection._transport = _Transport()  # type: ignore[assignment]
        taken = 0
        while taken < len(data) and not connection.is_closed:
            room = connection.get_buffer(-1)
            piece = data[taken : taken + min(len(room), 1 + taken % 97)]
            room[: len(piece)] = piece
            connection.buffer_updated(len(piece))
            taken += len(piece)
        return [bytes(frame) for frame in connection._frames]
    finally:
        loop.close()


RPCS = {rpc.api.name: (rpc, request) for rpc, request in EVERY_API.values()}
REPLIED: dict[str, tuple[Any, Any, Any]] = {
    CONTROLLER_RPCS[type(request)].api.name: (CONTROLLER_RPCS[type(request)], request, reply)
    for request, reply in CASES
}
PRINCIPAL = Decoder(
    module="kraft.broker.principal",
    decode=decode_user,
    refuses=(ValueError,),
    samples=[UserPrincipal("alice", "10.0.0.7").encode()],
)
WIRE = {
    "principal of a forwarded request": PRINCIPAL,
    "frames": Decoder(
        module="kraft.runtime.tcp",
        decode=framed,
        refuses=(),
        samples=[struct.pack(">i", 5) + b"hello" + struct.pack(">i", 0)],
    ),
    **{
        f"{name} request": Decoder(
            module="kraft.protocol.codec",
            decode=partial(understood_request, rpc),
            refuses=(Malformed, KafkaError),
            samples=[request_bytes(rpc, request)],
        )
        for name, (rpc, request) in RPCS.items()
    },
    **{
        f"{name} refusal": Decoder(
            module="kraft.protocol.codec",
            decode=partial(understood_reply, rpc, request),
            refuses=(Malformed, KafkaError),
            samples=[refused_bytes(rpc, request)],
        )
        for name, (rpc, request) in RPCS.items()
    },
    **{
        f"{name} reply": Decoder(
            module="kraft.protocol.codec",
            decode=partial(understood_reply, rpc, request),
            refuses=(Malformed, KafkaError),
            samples=[reply_bytes(rpc, request, reply)],
        )
        for name, (rpc, request, reply) in REPLIED.items()
    },
    "SCRAM of a client": Decoder(
        module="kraft.protocol.scram",
        decode=scram_server,
        refuses=(scram.ScramFailed,),
        samples=[b"n,,n=__cluster__,r=abc|c=biws,r=abcSERVER,p=" + b"YWJj" * 8, b"n,,n=__cluster__,r=abc"],
    ),
    "SCRAM of a server": Decoder(
        module="kraft.protocol.scram",
        decode=scram_client,
        refuses=(scram.ScramFailed,),
        samples=[SERVER_FIRST + b"|v=" + b"YWJj" * 8, SERVER_FIRST + b"|e=no"],
    ),
    "login with SCRAM": Decoder(
        module="kraft.wire.client_login",
        decode=login("SCRAM-SHA-512"),
        refuses=(),
        samples=[b"n,,n=alice,r=abc|c=biws,r=abcSERVER,p=" + b"YWJj" * 8, b"n,,n=__cluster__,r=abc"],
    ),
    "login with PLAIN": Decoder(
        module="kraft.wire.client_login", decode=login("PLAIN"), refuses=(), samples=[b"\0alice\0p", b"alice\0alice\0x"]
    ),
    "login with a token": Decoder(
        module="kraft.wire.client_login", decode=login("OAUTHBEARER"), refuses=(), samples=[BEARER + b"|\x01"]
    ),
    "token": Decoder(
        module="kraft.broker.tokens",
        decode=lambda data: TOKENS.check(data.decode("latin-1")),
        refuses=(BadToken,),
        samples=[UNSECURED],
    ),
    "Authorization of a request": Decoder(
        module="kraft.http.authentication",
        decode=authorization,
        refuses=(HttpError,),
        samples=[b"Basic YWxpY2U6cA==", b"bearer " + UNSECURED],
    ),
    "credential of a user": Decoder(
        module="metadata.controller.decide.users",
        decode=user_credential,
        refuses=(),
        samples=[b"salt|" + b"p" * 32],
    ),
}


def all_decoders() -> Iterator[tuple[str, Decoder]]:
    for part in (QUORUM, REPLICATION, CONFIGURATION, WATCHING, GROUPS, HTTP, WIRE):
        yield from part.items()


DECODERS: Mapping[str, Decoder] = dict(all_decoders())
