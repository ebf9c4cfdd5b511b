"""InitProducerId in every version: the bytes that Kafka's schema lays down, there and back, and what is refused."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import pytest

from kraft.protocol.errors import CoordinatorNotAvailable, NotCoordinator
from kraft.wire import codec
from kraft.wire.codec import RequestHeader
from kraft.wire.handlers.producer_ids import producer_id_handlers
from kraft.wire.handlers.served import Call
from kraft.wire.messages.producer_ids import INIT_PRODUCER_ID, InitProducerId, ProducerIdAndEpoch
from kraft.wire.principal import Principal

API = INIT_PRODUCER_ID.api
VERSIONS = range(API.version_min, API.version + 1)
ANSWER = ProducerIdAndEpoch(producer_id=2**40 + 3, epoch=0)


class Source:
    async def next_id(self) -> int:
        return ANSWER.producer_id


def request_bytes(version: int) -> bytes:
    """transactional id null, timeout 1500; from version 3 an id and an epoch, from version 2 compact with tags."""
    head = b"\0" if version >= 2 else struct.pack(">h", -1)
    given = struct.pack(">qh", -1, -1) if version >= 3 else b""
    return head + struct.pack(">i", 1_500) + given + (b"\0" if version >= 2 else b"")


def response_bytes(version: int, *, code: int = 0, producer_id: int = ANSWER.producer_id, epoch: int = 0) -> bytes:
    return struct.pack(">ihqh", 0, code, producer_id, epoch) + (b"\0" if version >= 2 else b"")


def joined(parts: Any) -> bytes:
    return b"".join(bytes(part) for part in parts)


async def handled(message: Any, source: Source | None) -> Any:
    (served,) = producer_id_handlers(source)
    return await served.handle(Call(message=message, principal=Principal(2, "forward"), timeout_ms=None))


def test_versions_are_those_of_kafka() -> None:
    assert list(VERSIONS) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_request_and_its_answer_there_and_back(version: int) -> None:
    asked = InitProducerId()
    header = RequestHeader(api_key=API.key, api_version=version, correlation_id=7, client_id="c")
    frame = memoryview(joined(codec.encode_request(API, header, INIT_PRODUCER_ID.to_request(asked, 1_500))))
    assert bytes(frame).endswith(request_bytes(version))
    again = codec.decode_request_head(frame)
    assert (again.api_version, again.correlation_id) == (version, 7)
    message, _ = codec.decode_request(API, again, frame)
    assert INIT_PRODUCER_ID.from_request(message) == asked

    body = joined(codec.encode_body(asyncio.run(handled(message, Source())), version))
    assert body == response_bytes(version)
    reply = codec.decode_body(INIT_PRODUCER_ID.response, version, memoryview(body), 0)
    assert INIT_PRODUCER_ID.from_reply(asked, reply) == ANSWER


@pytest.mark.parametrize("version", VERSIONS)
def test_a_refusal_is_answered_in_the_version_of_the_question(version: int) -> None:
    message = INIT_PRODUCER_ID.to_request(InitProducerId(transactional_id="t"), 1)
    with pytest.raises(NotCoordinator, match="no broker role"):
        asyncio.run(handled(message, Source()))
    refused = INIT_PRODUCER_ID.refuse(message, NotCoordinator.code)
    assert joined(codec.encode_body(refused, version)) == response_bytes(version, code=16, producer_id=-1, epoch=-1)


def test_a_node_without_a_broker_says_who_to_ask() -> None:
    with pytest.raises(CoordinatorNotAvailable, match="ask a broker"):
        asyncio.run(handled(INIT_PRODUCER_ID.to_request(InitProducerId(), 1), None))
