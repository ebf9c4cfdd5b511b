"""A client beyond its quota learns how long it has to wait, and is not read meanwhile (KIP-219)."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from kraft.broker.answer_budget import AnswerBudget
from kraft.broker.client_quotas import OWNER, ClientQuotas, Owner
from kraft.broker.principal import ANONYMOUS
from kraft.protocol import codec
from kraft.protocol.encoding import TopLevel
from kraft.protocol.errors import ThrottlingQuotaExceeded
from kraft.protocol.messages.fetch_response import FetchableTopicResponse, FetchResponseData, PartitionData
from kraft.protocol.messages.produce_response import ProduceResponseData
from kraft.wire.api_handler import ApiHandler, ClientConnection
from kraft.wire.budget import Budget
from kraft.wire.channels.forward import LIST_OFFSETS, PRODUCE
from kraft.wire.channels.replicas import FETCH
from kraft.wire.handler_table import ApiHandlers
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

        super().__init__({rpc.api.key: served(rpc, handle) for rpc in (PRODUCE, FETCH, LIST_OFFSETS)})
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
    session = Session(shared, cast(Any, line), client, takes_nodes=False)
    serving = asyncio.create_task(session.serve())
    line.put(*frames)
    await around.clock.sleep(120_000)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    return begun, line


def throttle_ms(line: Line, number: int, kind: type[TopLevel], version: int) -> int:
    """The wait in an answer."""
    data = memoryview(b"".join(bytes(part) for part in line.sent[number]))
    api = {ProduceResponseData: PRODUCE, FetchResponseData: FETCH}[cast(Any, kind)].api
    _, offset = codec.decode_response_head(api, version, data)
    return cast(Any, codec.decode_body(kind, version, data, offset)).throttle_time_ms  # type: ignore[no-any-return]


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
