"""What of a connection may begin while an earlier request is not done: no client sees a state without what it sent.

Each API of the table is held by the test as the first of a pipelined pair, and sent as the second one.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from kraft.protocol import apis
from kraft.protocol.encoding import TopLevel
from kraft.wire.api_handler import ApiHandler, Call
from kraft.wire.handler_table import ROWS, ApiHandlers, Order
from kraft.wire.node_parts import NodeParts
from kraft.wire.refusals import Refusals
from tests.unit.wire.fakes import loopback, run, until
from tests.unit.wire.handlers.test_session import DIALED, Client, dial, framed

PRODUCE, FETCH, LIST_OFFSETS, HEARTBEAT = 0, 1, 2, 12
OF_EACH_ORDER = (PRODUCE, LIST_OFFSETS, HEARTBEAT)
READS = {1, 2, 3, 9, 10, 15, 16, 23, 29, 32, 35, 46, 48, 50, 55, 60, 61, 65, 66, 69, 71, 72, 74, 75, 77, 78, 87, 90}
"""What changes nothing that a client could see; whoever adds an API says here what it is."""


class Held(ApiHandlers):
    """Handlers of all APIs, which end when the test says so."""

    def __init__(self) -> None:
        super().__init__(cast(NodeParts, None))
        self.begun: list[int] = []
        self.ends: list[asyncio.Future[None]] = []
        real = Refusals()._apis
        for key in ROWS:
            api = real.get(key)
            assert api is not None
            self._loaded[key] = ApiHandler(
                request=api.request, response=api.response, handle=self._handle, refuse=api.refuse
            )

    @property
    def metadata_offset(self) -> int:
        return 1

    async def _handle(self, call: Call[Any]) -> TopLevel | None:
        key = type(call.message).API_KEY
        end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.begun.append(key)
        self.ends.append(end)
        await end
        return self._loaded[key].response.make()  # type: ignore[attr-defined, no-any-return]

    def send(self, client: Client, key: int) -> None:
        request = self._loaded[key].request
        flexible = apis.BY_KEY[key].clients[-1] >= request.FLEXIBLE_FROM
        client.raw(framed(key, apis.BY_KEY[key].clients[-1], request.make(), key, tags=b"\0" if flexible else b""))  # type: ignore[attr-defined]


def begins_at_once(first: int, second: int) -> bool:
    """Whether the second request begins while the first of the same connection is held; it does in any case later."""
    results: list[bool] = []

    async def main() -> None:
        held = Held()
        async with loopback(clients=held) as world:
            client, other = await dial(world), await dial(world)
            try:
                held.send(client, first)
                held.send(client, second)
                await until(lambda: held.begun[:1] == [first])
                held.send(other, FETCH)  # what another connection sends later has begun: so would the second
                await until(lambda: held.begun[-1:] == [FETCH])
                await asyncio.sleep(0)
                results.append(len(held.begun) == 3)
                held.ends[0].set_result(None)
                await until(lambda: len(held.begun) == 3)
                for end in held.ends:
                    end.done() or end.set_result(None)
                assert [(await client.answer())[0] for _ in range(2)] == [first, second]
            finally:
                for each in DIALED:
                    each.writer.close()
                DIALED.clear()

    run(main())
    return results[0]


def test_each_api_has_its_order() -> None:
    assert {key for key, row in ROWS.items() if row.order is Order.READ} == READS
    assert [key for key, row in ROWS.items() if row.order is Order.PRODUCE] == [PRODUCE]


@pytest.mark.parametrize("second", OF_EACH_ORDER)
@pytest.mark.parametrize("first", [key for key, row in ROWS.items() if row.order is Order.WRITE])
def test_nothing_begins_behind_a_write_that_is_not_done(first: int, second: int) -> None:
    assert not begins_at_once(first, second)


@pytest.mark.parametrize("first", [HEARTBEAT, PRODUCE])
@pytest.mark.parametrize("second", ROWS)
def test_only_produces_overlap_a_produce_and_nothing_a_write(first: int, second: int) -> None:
    assert begins_at_once(first, second) == (first == second == PRODUCE)


@pytest.mark.parametrize("second", [PRODUCE, LIST_OFFSETS, HEARTBEAT, 26])
def test_nothing_waits_for_a_long_poll(second: int) -> None:
    assert begins_at_once(FETCH, second)
