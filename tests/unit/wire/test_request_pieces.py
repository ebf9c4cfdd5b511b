"""Requests that are cut: their answers are those of the whole. What is counted while a request is read."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import replace
from typing import Any

import pytest

from kraft.protocol import codec
from kraft.protocol.encoding import Many, TooManyItems, TopLevel, counting
from kraft.protocol.errors import PolicyViolation
from kraft.protocol.messages.delete_topics_request import DeleteTopicsRequestData, DeleteTopicState
from kraft.protocol.messages.delete_topics_response import DeleteTopicsResponseData
from kraft.protocol.messages.describe_groups_request import DescribeGroupsRequestData
from kraft.protocol.messages.offset_fetch_request import OffsetFetchRequestData, OffsetFetchRequestTopic
from kraft.system_clock import SystemClock
from kraft.wire.api_handler import ApiHandler, Call, ClientConnection
from kraft.wire.large_requests import BYTES_PER_ITEM, ITEMS_FREE, items_paid, read
from kraft.wire.refusals import Refusals
from kraft.wire.request_pieces import PIECE_ITEMS, PIECES, in_pieces
from tests.support.dense_frames import DenseFrame, long_arrays, versions

ERROR = PolicyViolation("as a test says")
CASES = [(key, version) for key in PIECES for version in sorted({versions(key)[0], versions(key)[-1]})]


DESCRIBE_CONFIGS, ALTER_USER_SCRAM_CREDENTIALS = 32, 51


def api_of(key: int) -> ApiHandler:
    api = Refusals()._apis.get(key)
    assert api is not None, key
    return api


def asked(api: ApiHandler, version: int, frame: DenseFrame) -> Call[Any]:
    data = memoryview(frame.data)
    message, _ = read(api, codec.decode_request_head(data), data, items_max=1_000_000)
    connection = ClientConnection(peer="192.0.2.1:5", listener="PLAINTEXT")
    return Call(message=message, version=version, client_id=None, connection=connection)


async def cut(api: ApiHandler, call: Call[Any]) -> TopLevel:
    return await in_pieces(api, call, SystemClock(asyncio.get_running_loop()))


@pytest.mark.parametrize(("key", "version"), CASES)
def test_the_answer_to_the_pieces_is_the_answer_to_the_whole(key: int, version: int) -> None:
    """What the handler answers here is what refuses the piece, which names each of its items."""
    api, calls = api_of(key), []

    def handle(call: Call[Any]) -> TopLevel:
        calls.append(call)
        return api.refuse(call.message, call.version, ERROR)

    paths = sorted({each.asked[:depth] for each in PIECES[key] for depth in range(1, len(each.asked) + 1)})
    size = 400 if key == DESCRIBE_CONFIGS else 7_500  # of many brokers and groups it describes none
    for frame in long_arrays(key, version, size=size, all_keys=["distinct"], paths=paths):
        call = asked(api, version, frame)
        whole = api.refuse(call.message, version, ERROR)
        calls.clear()
        found = asyncio.run(cut(replace(api, handle=handle), call))
        if getattr(whole, "error_code", 0):
            assert len(calls) == 1, "a request that is refused as a whole is not gone on with"
        else:
            assert len(calls) > 1, frame
            pieces, at_once = (b"".join(codec.encode_body(each, version)) for each in (found, whole))
            if key == ALTER_USER_SCRAM_CREDENTIALS:  # sorted by user, in each piece
                assert sorted(pieces) == sorted(at_once), frame
            else:
                assert pieces == at_once, frame


def test_an_item_that_is_there_twice_refuses_the_request_where_the_api_does() -> None:
    api = api_of(45)
    frame = next(long_arrays(45, 1, size=8_000, all_keys=["same"]))
    handled: list[Any] = []
    call = asked(api, 1, frame)
    answer = asyncio.run(cut(replace(api, handle=handled.append), call))
    assert not handled
    assert answer.error_code == 42


def groups(count: int) -> memoryview:
    body = codec.encode_body(DescribeGroupsRequestData.make(groups=["g"] * count), 6)
    return memoryview(struct.pack(">hhih", 15, 6, 1, -1) + b"\0" + b"".join(body))


def test_items_are_counted_before_they_are_made() -> None:
    api, frame = api_of(15), groups(5_000)
    header = codec.decode_request_head(frame)
    with pytest.raises(TooManyItems):
        read(api, header, frame, items_max=4_999)
    message, items = read(api, header, frame, items_max=5_000)
    assert items == 5_000
    assert isinstance(message.groups, Many)
    assert list(message.groups) == ["g"] * 5_000
    assert items_paid(15, len(frame)) == ITEMS_FREE + len(frame) // BYTES_PER_ITEM


def test_tagged_fields_are_counted() -> None:
    frame = groups(1)[:-1].tobytes() + b"\x90\x4e" + b"\x63\0" * 10_000
    data = memoryview(frame)
    with pytest.raises(TooManyItems):
        read(api_of(15), codec.decode_request_head(data), data, items_max=9_999)


@pytest.mark.parametrize("version", [1, 7])
def test_many_is_what_was_sent(version: int) -> None:
    """Also arrays inside of it, and numbers, which stay as small as they were."""
    topics = [OffsetFetchRequestTopic.make(name=f"t{n}", partition_indexes=[n, 7]) for n in range(1_500)]
    topics.append(OffsetFetchRequestTopic.make(name="long", partition_indexes=range(5_000)))
    sent = OffsetFetchRequestData.make(group_id="g", topics=topics)
    frame = memoryview(b"".join(codec.encode_body(sent, version)))
    with counting(100_000) as counted:
        found = codec.decode_body(OffsetFetchRequestData, version, frame, 0)
    assert counted.items == 1_501 + 2 * 1_500 + 5_000
    assert isinstance(found.topics, Many)
    assert [(each.name, list(each.partition_indexes)) for each in found.topics] == [
        (each.name, list(each.partition_indexes)) for each in topics
    ]
    for at in (0, 63, 64, 1_000, 1_500, -1):
        assert found.topics[at].name == topics[at].name
    assert [each.name for each in found.topics[700:705]] == [each.name for each in topics[700:705]]
    with pytest.raises(IndexError):
        found.topics[1_501]
    assert found == codec.decode_body(OffsetFetchRequestData, version, frame, 0)
    assert len(found.topics) > PIECE_ITEMS


def test_a_refusal_of_many_items_has_its_text_once() -> None:
    api = api_of(DeleteTopicsRequestData.API_KEY)
    count = 10 * PIECE_ITEMS
    message = DeleteTopicsRequestData.make(topics=[DeleteTopicState.make(name=f"t{n}") for n in range(count)])

    async def refused() -> TopLevel:
        connection = ClientConnection(peer="192.0.2.1:5", listener="PLAINTEXT")
        call = Call(message=message, version=6, client_id=None, connection=connection)
        return await in_pieces(api, call, SystemClock(asyncio.get_running_loop()), ERROR)

    written = codec.encode_body(asyncio.run(refused()), 6)
    answer = codec.decode_body(DeleteTopicsResponseData, 6, memoryview(b"".join(written)), 0)
    assert [each.error_code for each in answer.responses] == [ERROR.code] * count
    texts = [each.error_message for each in answer.responses]
    assert texts == [ERROR.message] * PIECE_ITEMS + ["POLICY_VIOLATION"] * (count - PIECE_ITEMS)
