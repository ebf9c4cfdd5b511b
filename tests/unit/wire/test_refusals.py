"""Every API that clients are served can be refused as a whole by who is no broker, in every version."""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from kraft.chaos.nemesis.kafka_apis import request_type
from kraft.chaos.nemesis.kafka_errors import error_of
from kraft.protocol import apis, codec
from kraft.protocol.encoding import Message
from kraft.protocol.messages.api_versions_response import ApiVersionsResponseData
from kraft.protocol.messages.fetch_response import FetchResponseData
from kraft.protocol.messages.produce_response import ProduceResponseData
from kraft.wire.handler_table import ROWS
from kraft.wire.refusals import Refusals

NO_TOKEN = 62
"""No node of ours ever answers it."""
UNSUPPORTED_VERSION = 35
LOADING, NOT_AVAILABLE, INVALID_EPOCH, CONCURRENT, FENCED = 14, 15, 47, 51, 90
CORRELATION = 77
REFUSALS = Refusals()
TOPIC_TYPE = 2


def filled(kind: type[Message]) -> Any:
    """A message with one item in each of its lists: where an answer has room for an error there has to be an item."""
    values: dict[str, Any] = {}
    for slot in kind.__slots__:
        text = kind.__annotations__[slot].removesuffix(" | None")
        item = re.fullmatch(r"Sequence\[(\w+)\]", text)
        values[slot] = [_one(kind, item[1], slot)] if item else _one(kind, text, slot)
    return kind.make(**values)  # type: ignore[attr-defined]


def _one(kind: type[Message], name: str, slot: str) -> Any:
    simple: dict[str, Any] = {
        "int": TOPIC_TYPE if slot.endswith("_type") else 1,
        "str": "name",
        "bool": False,
        "float": 1.0,
        "UUID": UUID(int=7),
        "Buffer": b"",
    }
    return simple[name] if name in simple else filled(getattr(sys.modules[kind.__module__], name))


def frame_of(name: str, version: int, **fields: Any) -> memoryview:
    kind = request_type(name)
    message = filled(kind)
    for field, value in fields.items():
        setattr(message, field, value)
    head = struct.pack(">hhih", kind.API_KEY, version, CORRELATION, 1) + b"c"
    parts: list[Any] = [head + (b"\0" if version >= kind.FLEXIBLE_FROM else b"")]
    kind.WRITERS[version](parts, message)
    return memoryview(b"".join(parts))


def answered(name: str, version: int, code: int = NO_TOKEN, **fields: Any) -> bytes | None:
    frame = frame_of(name, version, **fields)
    parts = REFUSALS.answer(codec.decode_request_head(frame), frame, error_of(code, "told"))
    return None if parts is None else b"".join(parts)


def codes_in(message: Any) -> Iterator[int]:
    for slot in message.__slots__:
        value = getattr(message, slot)
        if slot.endswith("error_code"):
            yield value
        elif isinstance(value, Message):
            yield from codes_in(value)
        elif isinstance(value, list | tuple):
            for item in value:
                if isinstance(item, Message):
                    yield from codes_in(item)


@pytest.mark.parametrize("key", ROWS, ids=lambda key: apis.BY_KEY[key].name)
def test_the_error_comes_back_in_every_version(key: int):
    api = apis.BY_KEY[key]
    assert REFUSALS.is_served(key)
    for version in api.clients:
        answer = answered(api.name, version)
        assert answer is not None, version
        response = REFUSALS._apis.get(key).response  # type: ignore[union-attr]
        is_flexible = version >= response.FLEXIBLE_FROM
        assert answer[: 4 + is_flexible] == struct.pack(">i", CORRELATION) + b"\0" * is_flexible
        decoded = codec.decode_body(response, version, memoryview(answer), 4 + is_flexible)
        found = set(codes_in(decoded))
        if (api.name, version) not in WITHOUT_ROOM:
            assert NO_TOKEN in found, (version, decoded)


WITHOUT_ROOM = {("DescribeLogDirs", 1), ("DescribeLogDirs", 2)}
"""Answers that have no error code in this version, in Kafka neither."""


def test_a_produce_that_asks_for_no_answer_gets_none():
    assert answered("Produce", 9, acks=0) is None


def test_what_no_broker_takes_is_not_answered_either():
    header = codec.RequestHeader(api_key=0, api_version=2, correlation_id=1, client_id=None)
    assert REFUSALS.answer(header, memoryview(b""), error_of(6, "")) is None
    frame = frame_of("Produce", 9)[:-3]
    assert REFUSALS.answer(codec.decode_request_head(frame), frame, error_of(6, "")) is None
    assert not REFUSALS.is_served(1_000)


def test_a_fetch_is_refused_in_its_session_and_a_produce_in_each_partition():
    fetch = codec.decode_body(FetchResponseData, 12, memoryview(answered("Fetch", 12) or b""), 5)
    assert (fetch.error_code, fetch.session_id) == (NO_TOKEN, 1)
    assert [each.error_code for topic in fetch.responses for each in topic.partitions] == [NO_TOKEN]
    produce = codec.decode_body(ProduceResponseData, 13, memoryview(answered("Produce", 13) or b""), 5)
    (topic,) = produce.responses
    assert topic.topic_id == UUID(int=7)
    assert [(each.index, each.base_offset, each.error_message) for each in topic.partition_responses] == [
        (1, -1, "told")
    ]


def test_api_versions_is_refused_so_that_any_client_can_read_it():
    key = apis.API_VERSIONS.key
    assert REFUSALS.is_served(key)
    for version, read_as, code in ((3, 3, NO_TOKEN), (3, 0, UNSUPPORTED_VERSION), (0, 0, NO_TOKEN)):
        answer = answered("ApiVersions", version, code)
        assert answer is not None
        response = codec.decode_body(ApiVersionsResponseData, read_as, memoryview(answer), 4)
        assert response.error_code == code
        assert [each.api_key for each in response.api_keys] == ([key] if code == UNSUPPORTED_VERSION else [])


@pytest.mark.parametrize(
    ("name", "version", "code", "reported"),
    [
        ("InitProducerId", 3, FENCED, INVALID_EPOCH),
        ("InitProducerId", 4, FENCED, FENCED),
        ("AddPartitionsToTxn", 1, FENCED, INVALID_EPOCH),
        ("AddPartitionsToTxn", 2, FENCED, FENCED),
        ("AddOffsetsToTxn", 1, FENCED, INVALID_EPOCH),
        ("AddOffsetsToTxn", 2, FENCED, FENCED),
        ("EndTxn", 1, FENCED, INVALID_EPOCH),
        ("EndTxn", 2, FENCED, FENCED),
        ("TxnOffsetCommit", 1, LOADING, NOT_AVAILABLE),
        ("TxnOffsetCommit", 1, CONCURRENT, NOT_AVAILABLE),
        ("TxnOffsetCommit", 2, CONCURRENT, LOADING),
    ],
)
def test_a_producer_receives_no_code_that_its_version_does_not_know(name: str, version: int, code: int, reported: int):
    """KIP-588, KAFKA-7296: an unknown code ends a transactional producer."""
    response = REFUSALS._apis.get(request_type(name).API_KEY).response  # type: ignore[union-attr]
    answer = answered(name, version, code)
    assert answer is not None
    decoded = codec.decode_body(response, version, memoryview(answer), 4 + (version >= response.FLEXIBLE_FROM))
    assert set(codes_in(decoded)) - {0} == {reported}
