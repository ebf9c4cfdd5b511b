"""InitProducerId in every version: the bytes that Kafka's schema lays down, there and back, and what is refused."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import pytest

from kraft.protocol import apis, codec
from kraft.protocol.codec import RequestHeader
from kraft.protocol.errors import NotCoordinator
from kraft.protocol.transactions import Producer
from kraft.wire.api_handler import ApiHandler
from kraft.wire.channels.transactions import INIT_PRODUCER_ID, InitProducerId
from tests.support.node_call import node_call
from tests.unit.wire.fakes import handlers_of

API = INIT_PRODUCER_ID.api
VERSIONS = API.nodes
ANSWER = Producer(2**40 + 3, 0)


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
    return await handler(source).handle(node_call(message))


def handler(source: Source | None) -> ApiHandler:
    served = handlers_of(**({} if source is None else {"producer_ids": source})).get(API.key)
    assert served is not None
    return served


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
    message, *_ = codec.decode_request(apis.request_type(API), again, frame)
    assert (message.transactional_id, message.producer_id, message.producer_epoch) == (None, -1, -1)

    body = joined(codec.encode_body(asyncio.run(handled(message, Source())), version))
    assert body == response_bytes(version)
    reply = codec.decode_body(INIT_PRODUCER_ID.response, version, memoryview(body), 0)
    assert INIT_PRODUCER_ID.from_reply(asked, reply) == ANSWER


@pytest.mark.parametrize("version", VERSIONS)
def test_a_refusal_is_answered_in_the_version_of_the_question(version: int) -> None:
    message = INIT_PRODUCER_ID.to_request(InitProducerId(transactional_id="t"), 1)
    with pytest.raises(NotCoordinator, match="no broker role"):
        asyncio.run(handled(message, None))
    refused = handler(None).refuse(message, version, NotCoordinator(""))
    assert joined(codec.encode_body(refused, version)) == response_bytes(version, code=16, producer_id=-1, epoch=-1)


def test_a_node_without_a_broker_reports_who_to_ask() -> None:
    with pytest.raises(NotCoordinator, match="ask a broker"):
        asyncio.run(handled(INIT_PRODUCER_ID.to_request(InitProducerId(), 1), None))
