"""Both clients through the real HTTP door, over a gateway in memory: the same words on both sides."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from kraft.client import (
    AsyncAdmin,
    AsyncClient,
    AsyncConsumer,
    AsyncProducer,
    AsyncReader,
    AsyncTransaction,
    AsyncTransactionalProducer,
    Client,
    ClientClosed,
    ConfigError,
    Producer,
    ServerError,
    TopicPartition,
    synchronous,
)
from kraft.client.records import to_json
from tests.support.transactional_batches import ending, in_transaction, plain
from tests.unit.http.door import Door, with_door


def with_client(story: Callable[[AsyncClient], Awaitable[None]]) -> None:
    """The nodes that the gateway tells of do not exist: the client has to stay with the address it was given."""

    async def run(door: Door) -> None:
        async with AsyncClient(str(door.client.make_url("")), retry_backoff_ms=1, reconnect_backoff_ms=1) as client:
            await story(client)

    with_door(run)


def with_blocking(story: Callable[[Client], None]) -> None:
    async def run(door: Door) -> None:
        url = str(door.client.make_url(""))

        def whole() -> None:
            with Client(url, retry_backoff_ms=1, reconnect_backoff_ms=1) as client:
                story(client)

        await asyncio.to_thread(whole)

    with_door(run)


def test_a_topic_from_creation_to_deletion() -> None:
    async def story(client: AsyncClient) -> None:
        admin = client.admin
        await admin.create_topic("flights", partitions=2, replication_factor=3, configs={"retention.ms": 1000})
        assert await admin.list_topics() == ("flights",)
        topic = await admin.describe_topic("flights")
        assert (topic.name, topic.replication_factor, len(topic.partitions)) == ("flights", 3, 2)
        assert set(topic.partitions[0].replicas) == {1, 2, 3}
        assert not topic.partitions[0].is_under_replicated
        configs = await admin.describe_configs("flights")
        assert (configs["retention.ms"].value, configs["retention.ms"].is_default) == ("1000", False)
        await admin.alter_configs("flights", {"retention.ms": None, "cleanup.policy": "compact"})
        configs = await admin.describe_configs("flights")
        assert configs["retention.ms"].is_default
        assert configs["cleanup.policy"].value == "compact"
        await admin.create_partitions("flights", 5)
        assert len((await admin.describe_topic("flights")).partitions) == 5
        await admin.delete_topic("flights")
        with pytest.raises(ServerError) as caught:
            await admin.describe_topic("flights")
        assert (caught.value.name, caught.value.status) == ("UNKNOWN_TOPIC_OR_PARTITION", 404)

    with_client(story)


def test_a_route_from_creation_to_deletion() -> None:
    async def story(client: AsyncClient) -> None:
        admin = client.admin
        for topic in ("mails", "ledger"):
            await admin.create_topic(topic)
        await admin.create_route("orders", kind="pattern", bindings=[("eu.#", "mails"), ("*.paid", "ledger")])
        route = await admin.describe_route("orders")
        assert (route.name, route.kind) == ("orders", "pattern")
        assert route.bindings == (("*.paid", "ledger"), ("eu.#", "mails"))
        assert await admin.list_routes() == (route,)
        assert await admin.try_route("orders", "eu.paid") == ("ledger", "mails")
        await admin.alter_route("orders", add=[("#", "mails")], remove=[("eu.#", "mails")])
        assert await admin.try_route("orders", "a b&c") == ("mails",)
        with pytest.raises(ServerError, match="there is no topic 'gone'") as caught:
            await admin.alter_route("orders", add=[("x", "gone"), ("y", "mails")])
        assert caught.value.code == 3
        assert await admin.try_route("orders", "y") == ("mails",), "all or none"
        await admin.delete_route("orders")
        with pytest.raises(ServerError, match="there is no route 'orders'"):
            await admin.describe_route("orders")

    with_client(story)


def test_the_cluster_its_leaders_and_its_replicas() -> None:
    async def story(client: AsyncClient) -> None:
        admin = client.admin
        await admin.create_topic("t", assignment=[[1, 2, 3], [2, 3, 1]])
        cluster = await admin.describe_cluster()
        assert cluster.cluster_id == "test-cluster"
        assert [broker.broker_id for broker in cluster.brokers] == [1, 2, 3]
        assert isinstance(await admin.elect_leaders([TopicPartition("t", 0)]), tuple)
        await admin.reassign(TopicPartition("t", 0), [2, 3, 1])
        await admin.cancel_reassignment(TopicPartition("t", 0))
        assert isinstance(await admin.list_reassignments(), tuple)
        await admin.alter_cluster_configs({"log.retention.ms": 5_000})

    with_client(story)


def test_records_there_and_back() -> None:
    async def story(client: AsyncClient) -> None:
        await client.admin.create_topic("t", partitions=2)
        async with client.producer(compression_type="gzip") as producer:
            first = await producer.send(
                "t", to_json({"n": 1}), key="k", partition=1, headers={"trace": b"\x00", "none": None}, timestamp=12_345
            )
            null = await producer.send("t", None, key=b"\xff", partition=1, timestamp=12_400)
        assert (first.result().offset, null.result().offset, first.result().timestamp) == (0, 1, 12_345)
        async with client.reader("t", offset="earliest", follows=False) as reader:
            one, two = [record async for record in reader]
        assert (one.json(), one.key, one.timestamp) == ({"n": 1}, b"k", 12_345)
        assert one.headers == (("trace", b"\x00"), ("none", None))
        assert (two.value, two.key, two.offset) == (None, b"\xff", 1)
        at = datetime.fromtimestamp(12.4, tz=UTC)
        async with client.reader("t", partitions=[1], offset=at, follows=False) as reader:
            assert [record.offset async for record in reader] == [1]

    with_client(story)


def test_a_reader_of_committed_records_sees_nothing_else() -> None:
    async def run(door: Door) -> None:
        door.gateway.add_topic("t")
        log = door.gateway.log("t")
        gone = [in_transaction(7, b"gone"), plain(b"plain"), in_transaction(7, b"gone"), ending(7, commits=False)]
        for batch in (*gone, in_transaction(8, b"kept"), ending(8, commits=True), in_transaction(9, b"open")):
            log.append(batch)
        url = str(door.client.make_url(""))
        async with AsyncClient(url, retry_backoff_ms=1, reconnect_backoff_ms=1) as client:

            async def seen(**options: Any) -> list[str]:
                async with client.reader("t", follows=False, **options) as reader:
                    return [record.text() async for record in reader]

            committed = {"isolation_level": "read_committed"}
            assert await seen(offset="earliest", **committed) == ["plain", "kept"]
            assert await seen(offset="earliest", max_partition_fetch_bytes=1, **committed) == ["plain", "kept"]
            assert await seen(offset=datetime.fromtimestamp(1, tz=UTC), **committed) == ["plain", "kept"]
            assert await seen(offset="latest", **committed) == []
            assert await seen(offset="earliest") == ["gone", "plain", "gone", "kept", "open"]
            log.waited_for.clear()
            async with client.reader("t", offset="latest", **committed) as reader, asyncio.timeout(30):
                waiting = asyncio.ensure_future(anext(aiter(reader)))
                await log.waited_for.wait()
                log.append(ending(9, commits=True))
                assert (await waiting).text() == "open"
            with pytest.raises(ConfigError, match=r"isolation\.level"):
                client.reader("t", isolation_level="committed")

    with_door(run)


def test_a_blocking_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kraft.client.producer.UNKNOWN_TOPIC_WAIT_MS", 50)

    def story(client: Client) -> None:
        client.admin.create_topic("t", partitions=2)
        with client.producer(linger_ms=1) as producer:
            sent = [producer.send("t", str(number), partition=number % 2) for number in range(500)]
            unknown = producer.send("nowhere", "x")
            finished: list[object] = []
            sent[-1].add_done_callback(finished.append)
            assert sent[0].result(timeout_ms=30_000).offset == 0
            assert producer.flush().acknowledged == 500
            with pytest.raises(ServerError, match="'nowhere' does not exist"):
                unknown.result()
            assert finished == [sent[-1]]
        with pytest.raises(ClientClosed):
            producer.send("t", "late")
        with client.reader("t", offset="earliest", follows=False) as reader:
            begun = [record for record, _ in zip(reader, range(3), strict=False)]
            rest = [record for records in reader.batches() for record in records]
        # zip takes one more from the reader than it gives on.
        assert len(begun) + len(rest) == 499
        assert {each.partition for each in reader.positions} == {0, 1}

    with_blocking(story)


def test_many_threads_share_one_producer() -> None:
    def story(client: Client) -> None:
        client.admin.create_topic("t")
        with client.producer() as producer:

            def write(name: int) -> None:
                for number in range(300):
                    producer.send("t", f"{name}:{number}")

            threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert producer.counts.acknowledged == 1_200
        with client.reader("t", offset="earliest", follows=False) as reader:
            texts = [str(record.text()) for record in reader]
        for name in range(4):
            assert [text for text in texts if text.startswith(f"{name}:")] == [f"{name}:{n}" for n in range(300)]

    with_blocking(story)


@pytest.mark.parametrize("option", [{"value": 5}, {"value": b"", "headers": {"a": 5}}, {"value": b"", "partitoin": 1}])
def test_what_is_no_record_is_refused_where_it_is_sent(option: dict[str, Any]) -> None:
    with synchronous.Client("127.0.0.1:1") as client, client.producer() as producer:
        with pytest.raises(TypeError):
            producer.send("t", **option)
        assert producer.flush().refused == 0


def test_an_error_leaves_no_thread_and_closing_twice_is_nothing() -> None:
    def story(client: Client) -> None:
        client.close()
        client.close()
        with pytest.raises(ClientClosed):
            client.admin.list_topics()

    with_blocking(story)
    with pytest.raises(ConfigError):
        Client("no address at all")
    with pytest.raises(ConfigError):
        Client("127.0.0.1:1", lingers=3)
    assert not [thread for thread in threading.enumerate() if thread.name == "kraft-client"]


def test_a_client_that_is_not_open_reports_it() -> None:
    with pytest.raises(ClientClosed, match="async with"):
        AsyncClient("127.0.0.1:1").producer()


@pytest.mark.parametrize(
    ("asynchronous", "blocking"),
    [
        (AsyncClient, synchronous.Client),
        (AsyncAdmin, synchronous.Admin),
        (AsyncReader, synchronous.Reader),
        (AsyncConsumer, synchronous.Consumer),
        (AsyncProducer, Producer),
        (AsyncTransactionalProducer, synchronous.TransactionalProducer),
        (AsyncTransaction, synchronous.Transaction),
    ],
)
def test_the_blocking_twin_has_the_same_names(asynchronous: type[object], blocking: type[object]) -> None:
    inner = {"poll", "poll_or_stop", "progress", "buffered_bytes", "take", "begin", "ended", "post", "abort_or_warn"}
    wanted = {name for name, _ in inspect.getmembers(asynchronous) if not name.startswith("_")} - inner
    assert wanted <= {name for name, _ in inspect.getmembers(blocking)}
