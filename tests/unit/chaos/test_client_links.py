"""A link of clients in front of a server of frames: each fault hits the requests it is about, and order is kept."""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest

from kraft.chaos.nemesis.kafka_apis import request_type
from kraft.chaos.worlds.processes.proxy.client_connection import AnswerFrames, ClientConnection, ClientRules
from kraft.chaos.worlds.processes.proxy.connection import Connection, Owner
from kraft.chaos.worlds.processes.proxy.rules import Flow, RequestRule, Rules
from kraft.protocol import codec
from kraft.protocol.encoding import TopLevel
from kraft.protocol.messages.heartbeat_response import HeartbeatResponseData
from kraft.protocol.messages.metadata_response import MetadataResponseData, MetadataResponseTopic
from kraft.protocol.messages.offset_commit_request import OffsetCommitRequestData, OffsetCommitRequestTopic
from kraft.protocol.messages.offset_commit_response import OffsetCommitResponseData
from kraft.protocol.messages.produce_request import ProduceRequestData
from tests.unit.chaos.test_message_framing import pieces
from tests.unit.chaos.test_proxy import Proxied, play, receive, until

NODE = 2
NOT_COORDINATOR = 16
DELAY_MS = 200
ORDERS = UUID(int=7)
Story = Callable[[Proxied, ClientRules], Awaitable[None]]


def tell(story: Story) -> None:
    shared = ClientRules()

    def build(loop: asyncio.AbstractEventLoop, owner: Owner) -> Connection:
        return ClientConnection(loop, owner, shared, random.Random(1), node=NODE)

    play(lambda proxied: story(proxied, shared), build=build)


def rule(do: Any, api: str = "Heartbeat", **fields: Any) -> RequestRule:
    code = NOT_COORDINATOR if do == "answer" else 0
    delay_ms = DELAY_MS if do == "delay" else 0
    defaults = {"number": 1, "error_code": code, "delay_ms": delay_ms, "times": 1}
    return RequestRule(do=do, api=api, api_key=request_type(api).API_KEY, **{**defaults, **fields})


def request(
    correlation: int, api: str = "Heartbeat", *, version: int = 3, message: TopLevel | None = None, client: bytes = b"c"
) -> bytes:
    kind = request_type(api)
    head = struct.pack(">hhih", kind.API_KEY, version, correlation, len(client)) + client
    parts: list[Any] = [head + (b"\0" if version >= kind.FLEXIBLE_FROM else b"")]
    kind.WRITERS[version](parts, kind.make() if message is None else message)  # type: ignore[attr-defined]
    body = b"".join(parts)
    return struct.pack(">i", len(body)) + body


def arrived(p: Proxied) -> list[int]:
    """Correlation ids of the requests that the server got."""
    return [int.from_bytes(frame[4:8]) for frame in p.server.arrived]


async def answers(reader: asyncio.StreamReader, count: int) -> list[bytes]:
    return [await receive(reader) for _ in range(count)]


def ids(frames: list[bytes]) -> list[int]:
    return [int.from_bytes(frame[:4]) for frame in frames]


def test_what_no_rule_is_about_goes_through_however_it_is_cut() -> None:
    async def story(p: Proxied, shared: ClientRules) -> None:
        shared.begin(rule("answer", "OffsetCommit"))
        reader, writer = await p.connect()
        for piece in pieces(b"".join(request(n) for n in range(40)), random.Random(3)):
            writer.write(piece)
            await asyncio.sleep(0.001)
        assert ids(await answers(reader, 40)) == list(range(40))
        assert arrived(p) == list(range(40))
        writer.close()

    tell(story)


def test_link_answers_in_order_instead_of_server() -> None:
    async def story(p: Proxied, shared: ClientRules) -> None:
        shared.begin(rule("answer", times=2))
        reader, writer = await p.connect()
        writer.write(request(1, "ListGroups", version=2) + request(2) + request(3) + request(4))
        found = await answers(reader, 4)
        assert ids(found) == [1, 2, 3, 4]
        for frame in found[1:3]:
            reported = codec.decode_body(HeartbeatResponseData, 3, memoryview(frame), 4)
            assert reported.error_code == NOT_COORDINATOR
        assert arrived(p) == [1, 4]
        assert [(fired.node, fired.version, fired.client_id) for fired in shared.table.take_fired()] == [
            (NODE, 3, "c")
        ] * 2
        writer.close()

    tell(story)


def test_times_counts_over_connections() -> None:
    async def story(p: Proxied, shared: ClientRules) -> None:
        shared.begin(rule("answer", times=3))
        for number in range(5):
            reader, writer = await p.connect()
            writer.write(request(number))
            await receive(reader)
            writer.close()
        assert arrived(p) == [3, 4]

    tell(story)


def test_dropped_answer_ends_connection_after_earlier_answers() -> None:
    async def story(p: Proxied, shared: ClientRules) -> None:
        shared.begin(rule("drop_answer"))
        reader, writer = await p.connect()
        writer.write(request(1, "ListGroups", version=2) + request(2) + request(3))
        assert ids(await answers(reader, 1)) == [1]
        assert await reader.read() == b"", "neither the answer nor one behind it"
        assert arrived(p)[:2] == [1, 2]
        writer.close()
        reader, writer = await p.connect()
        writer.write(request(4))
        assert ids(await answers(reader, 1)) == [4], "once"
        writer.close()

    tell(story)


def test_close_after_whole_answer() -> None:
    async def story(p: Proxied, shared: ClientRules) -> None:
        shared.begin(rule("close_after", "OffsetCommit"))
        reader, writer = await p.connect()
        big = OffsetCommitRequestData.make(group_id="g" * 30_000)
        writer.write(request(1) + request(2, "OffsetCommit", message=big) + request(3))
        found = await answers(reader, 2)
        assert ids(found) == [1, 2]
        assert len(found[1]) > 30_000
        assert await reader.read() == b""
        writer.close()

    tell(story)


def test_delayed_answer_delays_one_connection() -> None:
    async def story(p: Proxied, shared: ClientRules) -> None:
        shared.begin(rule("delay", "OffsetCommit"))
        shared.begin(rule("answer", "LeaveGroup", number=2))
        loop = asyncio.get_running_loop()
        reader, writer = await p.connect()
        other_reader, other = await p.connect()
        begun = loop.time()
        writer.write(request(1) + request(2, "OffsetCommit") + request(3) + request(4, "LeaveGroup"))
        other.write(request(9))
        assert ids(await answers(reader, 1)) == [1]
        assert ids(await answers(other_reader, 1)) == [9]
        await until(lambda: sorted(arrived(p)) == [1, 2, 3, 9], what="all that is not answered here is carried out")
        assert ids(await answers(reader, 3)) == [2, 3, 4]
        assert round((loop.time() - begun) * 1000) >= DELAY_MS, "whole milliseconds, which a float has not"
        writer.close()
        other.close()

    tell(story)


def test_healing_sends_delayed_answers_at_once() -> None:
    async def story(p: Proxied, shared: ClientRules) -> None:
        shared.begin(rule("delay", delay_ms=3_600_000))
        reader, writer = await p.connect()
        writer.write(request(1))
        await until(lambda: arrived(p) == [1], what="the request arrives")
        await until(lambda: p.link.counts().answers_bytes, what="its answer is on the way")
        await p.link.set_rules(Rules())
        assert ids(await answers(reader, 1)) == [1]
        writer.close()

    tell(story)


def test_acks_0_produce_delays_no_answer() -> None:
    async def story(p: Proxied, shared: ClientRules) -> None:
        p.server.answers = {1: None}
        shared.begin(rule("answer"))
        reader, writer = await p.connect()
        silent = ProduceRequestData.make(acks=0, timeout_ms=30_000, topic_data=[])
        writer.write(request(1, "Produce", version=9, message=silent) + request(2) + request(3))
        assert ids(await answers(reader, 2)) == [2, 3]
        assert arrived(p) == [1, 3]
        writer.close()

    tell(story)


def test_refused_acks_0_produce_closes_connection() -> None:
    async def story(p: Proxied, shared: ClientRules) -> None:
        shared.begin(rule("answer", "Produce"))
        reader, writer = await p.connect()
        silent = ProduceRequestData.make(acks=0, timeout_ms=30_000, topic_data=[])
        writer.write(request(1) + request(2, "Produce", version=9, message=silent))
        assert ids(await answers(reader, 1)) == [1]
        assert await reader.read() == b""
        assert arrived(p) == [1]
        writer.close()

    tell(story)


def test_topic_ids_are_learned_from_metadata() -> None:
    async def story(p: Proxied, shared: ClientRules) -> None:
        reported = MetadataResponseData.make(topics=[MetadataResponseTopic.make(name="orders", topic_id=ORDERS)])
        parts: list[Any] = [struct.pack(">i", 1) + b"\0"]
        MetadataResponseData.WRITERS[12](parts, reported)
        p.server.answers = {1: b"".join(parts)}
        shared.begin(rule("answer", "OffsetCommit", topic="orders"))
        reader, writer = await p.connect()
        commit = OffsetCommitRequestData.make(topics=[OffsetCommitRequestTopic.make(topic_id=ORDERS)])
        writer.write(request(1, "Metadata", version=12))
        assert await receive(reader) == p.server.answers[1]
        writer.write(request(2, "OffsetCommit", version=10, message=commit))
        frame = await receive(reader)
        answer = codec.decode_body(OffsetCommitResponseData, 10, memoryview(frame), 5)
        assert [topic.topic_id for topic in answer.topics] == [ORDERS]
        assert arrived(p) == [1]
        writer.close()

    tell(story)


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\xff\xff\xff\xff....", b"\x7f\xff\xff\xff...."])
def test_client_without_frames_is_disconnected(garbage: bytes) -> None:
    async def story(p: Proxied, shared: ClientRules) -> None:
        reader, writer = await p.connect()
        writer.write(garbage)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        assert not p.server.arrived
        writer.close()

    tell(story)


def test_a_frame_that_is_no_request_is_the_brokers_to_judge() -> None:
    async def story(p: Proxied, shared: ClientRules) -> None:
        shared.begin(rule("answer"))
        _, writer = await p.connect()
        writer.write(struct.pack(">i", 9) + b"\0\x0c\0\x03\0\0\0\x01\0")
        await until(lambda: p.server.arrived, what="it goes through")
        writer.close()

    tell(story)


def test_link_faults_apply_to_client_links() -> None:
    async def story(p: Proxied, shared: ClientRules) -> None:
        reader, writer = await p.connect()
        await p.link.set_rules(Rules(answers=Flow(is_held=True)))
        writer.write(request(1))
        await until(lambda: arrived(p) == [1], what="the request arrives")
        await p.link.set_rules(Rules())
        assert ids(await answers(reader, 1)) == [1]
        await p.link.set_rules(Rules(drop_answers=1))
        writer.write(request(2))
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await receive(reader)
        assert arrived(p) == [1, 2]
        writer.close()

    tell(story)


def test_rule_for_unserved_api_is_refused() -> None:
    with pytest.raises(LookupError, match="not served to clients"):
        ClientRules().load_for(rule("answer", "AlterPartition"))


def test_answers_are_cut_at_their_frames_however_they_come() -> None:
    frames = [struct.pack(">ii", 4 + size, number) + b"a" * size for number, size in enumerate((0, 1, 40, 7))]
    for seed in range(200):
        cut, seen, whole = AnswerFrames(), bytearray(), []
        for piece in pieces(b"".join(frames), random.Random(seed)):
            for number, part, is_first, is_last in cut.feed(piece):
                if is_first:
                    seen = bytearray()
                seen += part
                if is_last:
                    whole.append((number, bytes(seen)))
        assert whole == list(enumerate(frames)), seed
