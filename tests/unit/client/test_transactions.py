"""Transactions of the client, through the real door and a coordinator in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

import pytest

from kraft.client import AsyncClient, AsyncTransactionalProducer, Client, ClientClosed, ConfigError, KraftError
from kraft.client.errors import OutcomeUnknown, ServerError
from kraft.client.response import Request, Response, Unknown
from kraft.client.transport import Transport
from kraft.coordinators.groups.routing import Groups
from kraft.coordinators.transactions.decide import TimeIsOver
from kraft.coordinators.transactions.routing import Transactions
from kraft.http.v2.transactions import transaction_routes
from kraft.protocol.batches.header import whole_batches
from tests.support.fake_gateway import FakeGateway
from tests.support.fake_transactions import FakeTransactions
from tests.unit.http.door import Door, with_door
from tests.unit.http.test_transactions import FakeGroups


class Told:
    def __init__(self, door: Door, client: AsyncClient, transactions: FakeTransactions) -> None:
        self.gateway, self.client, self.transactions = door.gateway, client, transactions

    async def committed(self, topic: str = "t") -> list[str | None]:
        options = {"isolation_level": "read_committed"}
        async with self.client.reader(topic, offset="earliest", follows=False, **options) as reader:
            return [record.text() async for record in reader]


def with_url(run: Callable[[Door, str, FakeTransactions], Awaitable[None]], *, partitions: int = 1) -> None:
    fake = FakeGateway()
    fake.add_topic("t", partitions)
    transactions = FakeTransactions(fake)
    routes = transaction_routes(cast(Transactions, transactions), cast(Groups, FakeGroups()))

    async def whole(door: Door) -> None:
        await run(door, str(door.client.make_url("")), transactions)

    with_door(whole, fake, extra_routes=routes)


def with_client(story: Callable[[Told], Awaitable[None]], *, partitions: int = 1) -> None:
    async def run(door: Door, url: str, transactions: FakeTransactions) -> None:
        async with AsyncClient(url, retry_backoff_ms=1, reconnect_backoff_ms=1) as client:
            await story(Told(door, client, transactions))

    with_url(run, partitions=partitions)


def test_leaving_it_commits_and_an_exception_aborts() -> None:
    async def story(reported: Told) -> None:
        producer = reported.client.transactional_producer("one")
        async with producer.transaction() as transaction:
            await transaction.send("t", "a")
            await transaction.send("t", "b", key="k", headers={"h": b"1"})
            assert await reported.committed() == []
        with pytest.raises(ZeroDivisionError):  # noqa: PT012 - leaving the context is what raises
            async with producer.transaction() as transaction:
                await transaction.send("t", "gone")
                await transaction.flush()
                raise ZeroDivisionError
        async with producer.transaction() as transaction:
            await transaction.send("t", "c")
        assert await reported.committed() == ["a", "b", "c"]
        known = reported.transactions.known["one"]
        assert (known.epoch, known.partitions) == (3, frozenset()), "one epoch each, and the id was taken over once"
        with pytest.raises(ClientClosed):
            await transaction.send("t", "late")

    with_client(story)


def test_records_leave_in_batches_whose_sequences_follow_each_other() -> None:
    async def story(reported: Told) -> None:
        options = {"max_request_size": 400, "buffer_memory": 1_000, "compression_type": "gzip"}
        producer = reported.client.transactional_producer("one", **options)
        async with producer.transaction() as transaction:
            for number in range(40):
                await transaction.send("t", f"{number}" * 20, partition=number % 3)
            with pytest.raises(KraftError, match=r"max\.request\.size=400"):
                await transaction.send("t", "x" * 500)
        for partition in range(3):
            sequence = 0
            for _, header in whole_batches(reported.gateway.log("t", partition).data):
                if not header.is_control:
                    assert (header.base_sequence, header.producer_epoch) == (sequence, 0)
                    sequence += header.record_count
            assert sequence in (13, 14)
        assert len(await reported.committed()) == 40

    with_client(story, partitions=3)


class Lossy(Transport):
    """Every answer about a transaction is lost the first time."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.lost: set[str] = set()

    async def send(self, base_url: str, request: Request) -> Response:
        answer = await super().send(base_url, request)
        if "/transactions/" in request.path and request.path not in self.lost:
            self.lost.add(request.path)
            return Unknown(reason="lost")
        return answer


def test_lost_answers_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kraft.client.asynchronous.Transport", Lossy)

    async def story(reported: Told) -> None:
        producer = reported.client.transactional_producer("one", max_request_size=100)
        for value in ("a", "b"):
            async with producer.transaction() as transaction:
                for number in range(10):
                    await transaction.send("t", f"{value}{number}")
        assert await reported.committed() == [f"{value}{number}" for value in "ab" for number in range(10)]
        markers = [header for _, header in whole_batches(reported.gateway.log("t").data) if header.is_control]
        assert len(markers) == 2
        assert reported.transactions.known["one"].epoch == 2, "one for each transaction: the id was taken over once"

    with_client(story)


UNANSWERED_MS = 2_000
"""How long is tried what nobody answers; what comes before it has as long on a busy machine."""


class Mute(Transport):
    """Nobody hears the answers to beginnings for a while."""

    is_mute = True

    async def send(self, base_url: str, request: Request) -> Response:
        answer = await super().send(base_url, request)
        is_beginning = request.path.endswith("/transactions/one")
        return Unknown(reason="lost") if is_beginning and Mute.is_mute else answer


def test_unknown_begin_is_repeated_with_same_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kraft.client.asynchronous.Transport", Mute)
    monkeypatch.setattr(Mute, "is_mute", True)

    async def run(door: Door, url: str, transactions: FakeTransactions) -> None:
        async with AsyncClient(url, default_api_timeout_ms=UNANSWERED_MS, retry_backoff_ms=50) as client:
            producer = client.transactional_producer("one")
            with pytest.raises(OutcomeUnknown):
                async with producer.transaction():
                    raise AssertionError("it has not begun")
            assert transactions.known["one"].epoch == 0
            monkeypatch.setattr(Mute, "is_mute", False)
            patient = client._open.settings.model_copy(update={"default_api_timeout_ms": 60_000})
            monkeypatch.setattr(client._open, "settings", patient)
            async with producer.transaction() as transaction:
                await transaction.send("t", "a")
            assert transactions.known["one"].epoch == 1, "raised by the commit alone"
            async with client.transactional_producer("one").transaction():
                assert transactions.known["one"].epoch == 2, "another instance takes it over"

    with_url(run)


def test_one_that_was_fenced_reports_it_from_then_on() -> None:
    async def story(reported: Told) -> None:
        zombie = reported.client.transactional_producer("one")
        with pytest.raises(ServerError, match="fenced") as caught:  # noqa: PT012 - leaving the context is what raises
            async with zombie.transaction() as transaction:
                await transaction.send("t", "old")
                async with reported.client.transactional_producer("one").transaction() as other:
                    await other.send("t", "new")
        assert caught.value.error_code == 40905
        with pytest.raises(ServerError, match="fenced"):
            async with zombie.transaction():
                raise AssertionError("it does not begin")
        assert await reported.committed() == ["new"]

    with_client(story)


def test_a_transaction_whose_time_is_over_fails_and_the_next_one_goes_on() -> None:
    async def story(reported: Told) -> None:
        producer = reported.client.transactional_producer("one", transaction_timeout_ms=10)
        with pytest.raises(ServerError, match="nothing to commit"):  # noqa: PT012 - leaving the context is what raises
            async with producer.transaction() as transaction:
                await transaction.send("t", "gone")
                await transaction.flush()
                reported.transactions.now_ms += 10
                reported.transactions.ask("one", TimeIsOver())
        async with producer.transaction() as transaction:
            await transaction.send("t", "kept")
        assert await reported.committed() == ["kept"]

    with_client(story)


def test_what_cannot_be_is_refused_before_anything_is_sent() -> None:
    async def story(reported: Told) -> None:
        with pytest.raises(ConfigError, match=r"transactional\.id is empty"):
            reported.client.transactional_producer("")
        with pytest.raises(ConfigError, match=r"transaction\.timeout\.ms"):
            reported.client.transactional_producer("one", transaction_timeout_ms=0)
        producer = reported.client.transactional_producer("one")
        with pytest.raises(ConfigError, match=r"enable\.auto\.commit=False"):
            producer.transaction(reported.client.consumer("t", group="g"))
        async with producer.transaction():
            with pytest.raises(KraftError, match="is open; end it first"):
                async with producer.transaction():
                    raise AssertionError("it does not begin")
        assert reported.gateway.log("t").end == 0

    with_client(story)


def test_closing_the_client_aborts_what_is_open() -> None:
    async def run(door: Door, url: str, transactions: FakeTransactions) -> None:
        client = AsyncClient(url)
        async with client:
            producer = client.transactional_producer("one")
            assert isinstance(producer, AsyncTransactionalProducer)
            transaction = await producer.transaction().__aenter__()
            await transaction.send("t", "gone")
            await transaction.flush()
        assert transactions.known["one"].phase.kafka_name == "CompleteAbort"
        assert door.gateway.log("t").transactions()[0] == 2, "nothing is open"

    with_url(run)


class Deaf(Transport):
    """No node hears of an abort."""

    async def send(self, base_url: str, request: Request) -> Response:
        if "/abort" in request.path:
            return Unknown(reason="lost")
        return await super().send(base_url, request)


def test_an_abort_that_no_node_hears_of_hides_no_other_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("kraft.client.asynchronous.Transport", Deaf)

    async def run(door: Door, url: str, transactions: FakeTransactions) -> None:
        async with AsyncClient(url, default_api_timeout_ms=UNANSWERED_MS, retry_backoff_ms=50) as client:
            producer = client.transactional_producer("one")
            with pytest.raises(ZeroDivisionError):  # noqa: PT012 - leaving the context is what raises
                async with producer.transaction() as transaction:
                    await transaction.send("t", "gone")
                    raise ZeroDivisionError
            assert "ends by its timeout" in caplog.text
        async with AsyncClient(url, default_api_timeout_ms=UNANSWERED_MS, retry_backoff_ms=50) as client:
            await client.transactional_producer("one").transaction().__aenter__()
        assert transactions.known["one"].epoch == 1, "the second one took the id over"

    with_url(run)


def test_the_blocking_twin() -> None:
    async def run(door: Door, url: str, transactions: FakeTransactions) -> None:
        def whole() -> list[str | None]:
            with Client(url, retry_backoff_ms=1) as client:
                producer = client.transactional_producer("one")
                for values in (["a", "b"], ["c"]):
                    with producer.transaction() as transaction:
                        for value in values:
                            transaction.send("t", value)
                with pytest.raises(ZeroDivisionError), producer.transaction() as transaction:  # noqa: PT012 - leaving the context is what raises
                    transaction.send("t", "gone")
                    transaction.flush()
                    raise ZeroDivisionError
                options = {"isolation_level": "read_committed"}
                with client.reader("t", offset="earliest", follows=False, **options) as reader:
                    return [record.text() for record in reader]

        assert await asyncio.to_thread(whole) == ["a", "b", "c"]
        assert transactions.known["one"].epoch == 3

    with_url(run)
