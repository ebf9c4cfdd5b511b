"""Our messages against bytes that others made: written by hand after Kafka's schemas, and by aiokafka's own codec."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any
from uuid import UUID

from aiokafka.protocol import admin
from aiokafka.protocol.api import RequestHeader_v1, RequestHeader_v2, ResponseHeader_v1
from kio.schema.request_header.v2.header import RequestHeader as KioRequestHeader
from kio.schema.response_header.v1.header import ResponseHeader as KioResponseHeader
from kio.serial import entity_reader

from kraft.protocol import apis, codec
from kraft.protocol.codec import RequestHeader
from kraft.protocol.encoding import TopLevel
from kraft.protocol.errors import NotController
from kraft.protocol.messages.delete_records_request import DeleteRecordsRequestData
from kraft.protocol.messages.fetch_request import FetchRequestData
from kraft.protocol.messages.produce_request import ProduceRequestData
from kraft.protocol.messages.sasl_handshake_request import SaslHandshakeRequestData
from kraft.wire.api_versions import node_versions
from kraft.wire.channels.forward import DELETE_RECORDS, PRODUCE, DeleteRecords, ProduceRequest
from kraft.wire.channels.replicas import FETCH
from kraft.wire.terms import name_of
from metadata.image import TopicIdPartition
from replication.partition.log import EpochEnd
from replication.requests import (
    FetchedPartition,
    FetchPartition,
    FetchRequest,
    FetchResponse,
    ProduceOptions,
    ProduceOutcome,
)
from tests.unit.wire.fakes import FakeReplicas, answered, handlers_of

TOPIC = UUID(bytes=bytes(range(16)))
ID = TOPIC.bytes


def joined(parts: Any) -> bytes:
    return b"".join(bytes(part) for part in parts)


def body_of(entity: Any, version: int) -> bytes:
    return joined(codec.encode_body(entity, version))


def header(api: apis.Api, client_id: str | None = "node-2-fetch") -> RequestHeader:
    return RequestHeader(api_key=api.key, api_version=api.version, correlation_id=9, client_id=client_id)


FETCH_REQUEST = FetchRequest(
    replica_id=2,
    replica_epoch=33,
    wait_ms_max=500,
    bytes_min=1,
    bytes_max=1000,
    session_id=7,
    session_epoch=8,
    partitions=(
        FetchPartition(
            topic_id=TOPIC,
            partition=3,
            current_leader_epoch=4,
            fetch_offset=5,
            last_fetched_epoch=6,
            log_start_offset=2,
            bytes_max=900,
        ),
    ),
    forgotten=(TopicIdPartition(TOPIC, 1),),
)
FETCH_REQUEST_V17 = (
    struct.pack(">iiibii", 500, 1, 1000, 0, 7, 8)
    + b"\x02" + ID
    + b"\x02" + struct.pack(">iiqiqi", 3, 4, 5, 6, 2, 900) + b"\0"
    + b"\0"
    + b"\x02" + ID + b"\x02" + struct.pack(">i", 1) + b"\0"
    + b"\x01"  # rack id ""
    + b"\x01\x01\x0d" + struct.pack(">iq", 2, 33) + b"\0"  # tag 1: replica state
)  # fmt: skip


def test_fetch_request_v17() -> None:
    assert body_of(FETCH.to_request(FETCH_REQUEST, 0), 17) == FETCH_REQUEST_V17
    replicas = FakeReplicas()
    message = codec.decode_body(FetchRequestData, 17, memoryview(FETCH_REQUEST_V17), 0)
    answered(handlers_of(replicas=replicas), message, 17)
    assert replicas.fetched == [FETCH_REQUEST]


FETCH_RESPONSE = FetchResponse(
    session_id=7,
    partitions=(
        FetchedPartition(
            topic_id=TOPIC,
            partition=3,
            error_code=6,
            high_watermark=10,
            last_stable_offset=9,
            log_start_offset=1,
            diverging_epoch=EpochEnd(4, 8),
            current_leader=(5, 6),
            records=b"opaque",
        ),
    ),
)
FETCH_RESPONSE_V17 = (
    struct.pack(">ihi", 0, 0, 7)
    + b"\x02" + ID
    + b"\x02" + struct.pack(">ihqqq", 3, 6, 10, 9, 1)
    + b"\0"  # no aborted transactions: null
    + struct.pack(">i", -1)
    + b"\x07opaque"
    + b"\x02" + b"\x00\x0d" + struct.pack(">iq", 4, 8) + b"\0" + b"\x01\x09" + struct.pack(">ii", 5, 6) + b"\0"
    + b"\0"
    + b"\0"
)  # fmt: skip


def _fetched() -> TopLevel:
    replicas = FakeReplicas()
    replicas.fetch_answer = FETCH_RESPONSE
    return answered(handlers_of(replicas=replicas), FETCH.to_request(FETCH_REQUEST, 0), 17)


def test_fetch_response_v17() -> None:
    assert body_of(_fetched(), 17) == FETCH_RESPONSE_V17
    entity = codec.decode_body(FETCH.response, 17, memoryview(FETCH_RESPONSE_V17), 0)
    assert FETCH.from_reply(FETCH_REQUEST, entity) == FETCH_RESPONSE


PRODUCE_REQUEST = ProduceRequest(batches={TopicIdPartition(TOPIC, 1): b"batch"}, options=ProduceOptions(-1, 1500))
PRODUCE_REQUEST_V13 = (
    b"\0"  # no transactional id: null
    + struct.pack(">hi", -1, 1500)
    + b"\x02" + ID + b"\x02" + struct.pack(">i", 1) + b"\x06batch" + b"\0" + b"\0"
    + b"\0"
)  # fmt: skip


def test_produce_request_v13() -> None:
    assert body_of(PRODUCE.to_request(PRODUCE_REQUEST, 0), 13) == PRODUCE_REQUEST_V13
    message = codec.decode_body(ProduceRequestData, 13, memoryview(PRODUCE_REQUEST_V13), 0)
    assert _produced(message, ProduceOutcome())[1] == (PRODUCE_REQUEST.batches, PRODUCE_REQUEST.options)


def _produced(message: ProduceRequestData, outcome: ProduceOutcome) -> tuple[TopLevel, object]:
    """What is answered, and what the replicas were asked."""
    replicas = FakeReplicas()
    replicas.outcomes = {TopicIdPartition(TOPIC, 1): outcome}
    return answered(handlers_of(replicas=replicas), message, 13), replicas.produced[0]


def test_a_plain_produce_response_is_kafkas_to_the_byte() -> None:
    """An outcome without anything that Kafka lacks has no tagged field of ours."""
    outcome = ProduceOutcome(base_offset=10, log_append_time_ms=1_700_000_000_123, log_start_offset=2)
    expected = (
        b"\x02" + ID
        + b"\x02" + struct.pack(">ihqqq", 1, 0, 10, 1_700_000_000_123, 2) + b"\x01" + b"\0" + b"\0"
        + b"\0"
        + struct.pack(">i", 0)
        + b"\0"
    )  # fmt: skip
    assert body_of(_produced(PRODUCE.to_request(PRODUCE_REQUEST, 0), outcome)[0], 13) == expected


def test_request_headers_are_those_of_aiokafka() -> None:
    flexible, old = admin.DeleteRecordsRequest_v2([], 10_000, {}), admin.SaslHandShakeRequest_v1("SCRAM-SHA-256")
    ours = joined(
        codec.encode_request(
            apis.DELETE_RECORDS, header(apis.DELETE_RECORDS), DeleteRecordsRequestData.make(timeout_ms=10_000)
        )
    )
    theirs = RequestHeader_v2(flexible, correlation_id=9, client_id="node-2-fetch").encode() + flexible.encode()
    assert ours == theirs
    handshake = SaslHandshakeRequestData.make(mechanism="SCRAM-SHA-256")
    ours = joined(codec.encode_request(apis.SASL_HANDSHAKE, header(apis.SASL_HANDSHAKE), handshake))
    assert ours == RequestHeader_v1(old, correlation_id=9, client_id="node-2-fetch").encode() + old.encode()


def test_delete_records_is_that_of_aiokafka() -> None:
    theirs = admin.DeleteRecordsRequest_v2([(name_of(TOPIC), [(2, -1, {})], {})], 10_000, {})
    asked = DeleteRecords(partition=TopicIdPartition(TOPIC, 2), offset=-1, timeout_ms=10_000)
    assert body_of(DELETE_RECORDS.to_request(asked, 0), 2) == theirs.encode()


def test_headers_are_those_of_kio() -> None:
    frame = joined(codec.encode_request(apis.FETCH, header(apis.FETCH, "ü"), FETCH.to_request(FETCH_REQUEST, 0)))
    read, size = entity_reader(KioRequestHeader)(frame, 0)
    assert (read.request_api_key, read.request_api_version, read.correlation_id, read.client_id) == (1, 17, 9, "ü")
    assert frame[size:] == FETCH_REQUEST_V17
    frame = joined(codec.encode_response(FETCH.response, 17, 9, _fetched()))
    response, size = entity_reader(KioResponseHeader)(frame, 0)
    assert (response.correlation_id, frame[size:]) == (9, FETCH_RESPONSE_V17)


def test_a_peer_that_does_not_know_our_header_tags_skips_them() -> None:
    handler = handlers_of().get(apis.FETCH.key)
    assert handler is not None
    refused = handler.refuse(FETCH.to_request(FETCH_REQUEST, 0), 17, NotController())
    frame = joined(codec.encode_response(FETCH.response, 17, 9, refused, refused=NotController("ask node 2")))
    stream = BytesIO(frame)
    assert ResponseHeader_v1.decode(stream).correlation_id == 9
    assert stream.read() == body_of(refused, 17)
    read, offset = codec.decode_response_head(apis.FETCH, 17, memoryview(frame))
    assert (read.refusal, frame[offset:]) == ((41, "ask node 2"), body_of(refused, 17))


def test_aiokafka_reads_our_api_versions() -> None:
    for version, response_class in (
        (0, admin.ApiVersionResponse_v0),
        (1, admin.ApiVersionResponse_v1),
        (2, admin.ApiVersionResponse_v2),
    ):
        answered, entity = node_versions(version)
        read = response_class.decode(BytesIO(body_of(entity, version)))
        assert (answered, read.error_code) == (version, 0)
        assert {key: (low, high) for key, low, high in read.api_versions} == {
            api.key: (api.nodes[0], api.nodes[-1]) for api in apis.BY_KEY.values() if api.nodes
        }
