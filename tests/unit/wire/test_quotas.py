"""A client beyond its quota learns how long it has to wait, and is not read meanwhile (KIP-219)."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kraft.broker.answer_budget import AnswerBudget
from kraft.broker.client_quotas import OWNER, ClientQuotas, Owner
from kraft.broker.principal import ANONYMOUS
from kraft.broker.processor_time import ProcessorTime
from kraft.protocol import codec
from kraft.protocol.encoding import TopLevel
from kraft.protocol.errors import ThrottlingQuotaExceeded
from kraft.protocol.messages.create_topics_request import CreateTopicsRequestData
from kraft.protocol.messages.create_topics_response import CreateTopicsResponseData
from kraft.protocol.messages.fetch_response import FetchableTopicResponse, FetchResponseData, PartitionData
from kraft.protocol.messages.list_offsets_response import ListOffsetsResponseData
from kraft.protocol.messages.produce_response import ProduceResponseData
from kraft.wire import session
from kraft.wire.api_handler import ApiHandler, Call, ClientConnection
from kraft.wire.budget import Budget
from kraft.wire.channels.forward import LIST_OFFSETS, PRODUCE
from kraft.wire.channels.replicas import FETCH
from kraft.wire.channels.topics import CREATE_TOPICS
from kraft.wire.handler_table import ApiHandlers
from kraft.wire.handlers.control import Control
from kraft.wire.large_requests import LargeRequests
from kraft.wire.session import Session, Shared
from metadata.image import QuotaEntity
from tests.unit.replication.harness.virtual import environment, run
from tests.unit.wire.test_session_bounds import Line, a_fetch, a_lookup, a_produce, served

USERS: QuotaEntity = (("user", None),)


class Handlers(dict[int, ApiHandler]):
    """Handlers of a node whose clients have these quotas."""

    awaited = staticmethod(str)

    def __init__(self, quota: str, begun: list[Any], around: Any, answer: TopLevel | Exception) -> None:
        def handle(call: Any) -> Any:
            begun.append((around.clock.monotonic_ms(), OWNER.get()))
            if isinstance(answer, Exception):
                raise answer
            return answer

        super().__init__({rpc.api.key: served(rpc, handle) for rpc in (PRODUCE, FETCH, LIST_OFFSETS, CREATE_TOPICS)})
        self.quotas = ClientQuotas({USERS: {quota: 10.0}})


async def story(quota: str, frames: list[bytes], answer: TopLevel | Exception) -> tuple[list[Any], Line]:
    """The frames come at once; when each of them began, and with which owner."""
    begun: list[Any] = []
    around = environment(1)
    line = Line()
    shared = Shared(
        clock=around.clock,
        handlers=cast(ApiHandlers, Handlers(quota, begun, around, answer)),
        bytes_max=1 << 20,
        produce_budget=Budget(1 << 20),
        answers=AnswerBudget(1 << 20),
        large=LargeRequests(around, items_max=1_000),
    )
    client = ClientConnection(peer=line.peer, listener="PLAINTEXT", principal=ANONYMOUS)
    served_ = Session(shared, cast(Any, line), client, takes_nodes=False)
    serving = asyncio.create_task(served_.serve())
    line.put(*frames)
    await around.clock.sleep(120_000)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    return begun, line


def throttle_ms(line: Line, number: int, kind: type[TopLevel], version: int) -> int:
    """The wait in an answer."""
    return decoded(line, number, kind, version).throttle_time_ms  # type: ignore[no-any-return]


def decoded(line: Line, number: int, kind: type[TopLevel], version: int) -> Any:
    data = memoryview(b"".join(bytes(part) for part in line.sent[number]))
    rpcs: list[Any] = [PRODUCE, FETCH, LIST_OFFSETS]
    api = next(rpc.api for rpc in rpcs if rpc.response is kind)
    _, offset = codec.decode_response_head(api, version, data)
    return codec.decode_body(kind, version, data, offset)


def test_a_produce_beyond_the_quota_mutes_the_connection() -> None:
    async def main() -> None:
        frames = [a_produce(200), a_produce(1), a_produce(1)]
        begun, line = await story("producer_byte_rate", frames, ProduceResponseData.make())
        size = len(frames[0])
        assert throttle_ms(line, 0, ProduceResponseData, PRODUCE.api.version) == (size - 100) * 100
        assert begun[1][0] - begun[0][0] >= (size - 100) * 100
        assert begun[0][1] == Owner("ANONYMOUS", "node-2-forward")
        assert len(begun) == 3

    run(main())


def test_a_fetch_is_counted_by_its_records() -> None:
    async def main() -> None:
        partition = PartitionData.make(records=bytes(150))
        answer = FetchResponseData.make(responses=[FetchableTopicResponse.make(partitions=[partition])])
        begun, line = await story("consumer_byte_rate", [a_fetch(), a_lookup()], answer)
        assert throttle_ms(line, 0, FetchResponseData, FETCH.api.version) == 5_000
        assert begun[1][0] - begun[0][0] >= 5_000

    run(main())


def test_a_fetch_beyond_the_quota_is_answered_empty() -> None:
    """Of a session that goes on it has the id, else none, so that the client begins a new one (KIP-219)."""

    async def main() -> None:
        partition = PartitionData.make(records=bytes(90))
        answer = FetchResponseData.make(
            session_id=7, responses=[FetchableTopicResponse.make(partitions=[partition])], throttle_time_ms=0
        )
        first, next_ = a_fetch(session_epoch=0), a_fetch(session_id=7, session_epoch=1)
        frames = [first, first, next_]
        _, line = await story("consumer_byte_rate", frames, answer)
        found = [decoded(line, number, FetchResponseData, FETCH.api.version) for number in range(3)]
        assert [len(each.responses) for each in found] == [1, 0, 0]
        assert [each.session_id for each in found] == [7, 0, 7]
        assert found[1].throttle_time_ms == 8_000
        _, line = await story("consumer_byte_rate", [a_fetch(), a_fetch(session_id=7, session_epoch=1)], answer)
        assert decoded(line, 1, FetchResponseData, FETCH.api.version).session_id == 7

    run(main())


class Slow(ProcessorTime):
    """As if each request took the loop for a second and a half."""

    def take_percent(self) -> float:
        return super().take_percent() + 150


def test_a_request_that_costs_too_much_time_mutes_for_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any request counts, and the answer to a fetch is empty (KIP-124)."""
    monkeypatch.setattr(session, "ProcessorTime", Slow)

    async def main() -> None:
        begun, line = await story("request_percentage", [a_lookup(), a_lookup()], ListOffsetsResponseData.make())
        assert begun[1][0] - begun[0][0] >= 1_000
        assert throttle_ms(line, 0, ListOffsetsResponseData, LIST_OFFSETS.api.version) == 1_000
        partition = PartitionData.make(records=bytes(90))
        answer = FetchResponseData.make(responses=[FetchableTopicResponse.make(partitions=[partition])])
        _, line = await story("request_percentage", [a_fetch()], answer)
        found = decoded(line, 0, FetchResponseData, FETCH.api.version)
        assert (len(found.responses), found.throttle_time_ms) == (0, 1_000)

    run(main())


def test_what_is_within_the_quota_is_read_at_once() -> None:
    async def main() -> None:
        begun, line = await story("consumer_byte_rate", [a_produce(500), a_produce(500)], ProduceResponseData.make())
        assert begun[0][0] == begun[1][0]
        assert throttle_ms(line, 0, ProduceResponseData, PRODUCE.api.version) == 0

    run(main())


def test_a_refused_change_has_the_time_to_wait() -> None:
    async def main() -> None:
        error = ThrottlingQuotaExceeded("wait")
        error.wait_ms = 700
        begun, line = await story("producer_byte_rate", [a_produce(1), a_lookup()], error)
        assert throttle_ms(line, 0, ProduceResponseData, PRODUCE.api.version) == 700
        assert begun[1][0] - begun[0][0] >= 700

    run(main())


@pytest.mark.parametrize(("version", "is_permissive"), [(5, True), (6, False)])
def test_an_older_client_is_known_to_the_controller(version: int, is_permissive: bool) -> None:
    """It does not know error 89: what it asks is done, and it waits afterwards (KIP-599)."""

    async def main() -> None:
        asked: list[Owner | None] = []

        class Gateway:
            settings = SimpleNamespace(request_timeout_ms=30_000)

            async def control(self, request: object, *, timeout_ms: int) -> str:
                asked.append(OWNER.get())
                return "done"

        control = Control(cast(Any, SimpleNamespace(environment=environment(1), gateway=Gateway())))
        OWNER.set(Owner("alice", "app"))
        call = Call(
            message=CreateTopicsRequestData.make(),
            version=version,
            client_id=None,
            connection=ClientConnection(peer="h:1", listener="PLAINTEXT"),
        )
        assert await control.ask(call, cast(Any, "request")) == "done"
        assert asked == [Owner("alice", "app", is_permissive)]

    run(main())


def test_a_change_that_was_done_beyond_the_quota_mutes_the_connection() -> None:
    answered = CreateTopicsResponseData.make(throttle_time_ms=3_000)

    async def main() -> None:
        begun, _ = await story("controller_mutation_rate", [a_creation(), a_creation()], answered)
        assert begun[1][0] - begun[0][0] >= 3_000

    run(main())


def a_creation() -> bytes:
    """The frame of a CreateTopics."""
    api = CREATE_TOPICS.api
    header = codec.RequestHeader(api_key=api.key, api_version=api.version, correlation_id=1, client_id="node-2-forward")
    parts = codec.encode_request(api, header, CreateTopicsRequestData.make(timeout_ms=1_000))
    return b"".join(map(bytes, parts))
