"""Records produced to a route, through the real door: which topics they go to, and that it is all of them or none."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

import pytest

from kraft.client import AsyncClient, RecordRefused, ServerError
from kraft.coordinators import routed
from kraft.coordinators.routed import Batches, Outcomes, RoutedWrites
from kraft.coordinators.transactions.routing import Transactions
from kraft.http.v3.produce_route import route_produce_routes
from kraft.protocol.acks import ACKS_ALL
from kraft.protocol.errors import KafkaError, NotEnoughReplicas, RequestTimedOut
from kraft.protocol.primitives import Buffer
from metadata.image import TopicIdPartition
from metadata.records import ConfigRecord, RouteBindingRecord, RouteRecord
from metadata.routes import RouteKind
from replication.requests import ProduceOptions, ProduceOutcome
from tests.support.fake_gateway import FakeGateway
from tests.support.fake_transactions import FakeTransactions
from tests.unit.http.door import Answer, Door, with_door

V3 = "/v3/clusters/test-cluster"
BINDINGS = (("*.paid", "ledger"), ("eu.#", "mails"), ("small.#", "ledger"), ("small.#", "small"))


class World:
    def __init__(self, door: Door, transactions: FakeTransactions) -> None:
        self.door = door
        self.transactions = transactions

    async def produce(self, *entries: dict[str, Any] | str, query: str = "", **headers: str) -> Answer:
        body = {
            "entries": [
                {"id": str(number), "value": {"type": "STRING", "data": f"v{number}"}}
                | ({"routing_key": each} if isinstance(each, str) else each)
                for number, each in enumerate(entries)
            ]
        }
        path = f"{V3}/routes/orders/records:batch{query}"
        return await self.door.ask("POST", path, body, Content_Type="application/json", **headers)

    async def committed(self, topic: str) -> list[Any]:
        path = f"/topics/{topic}/partitions/0/records?offset=0&isolation_level=read_committed"
        answer = await self.door.ask("GET", path, Accept="application/vnd.kafka.binary.v2+json")
        return [record["value"] for record in answer.json]


def with_world(story: Callable[[World], Awaitable[None]]) -> None:
    fake = FakeGateway()
    fake.add_topic("ledger")
    fake.add_topic("mails")
    fake.add_topic("small", configs={"max.message.bytes": "200"})
    fake.apply(RouteRecord(name="orders", kind=RouteKind.PATTERN))
    for key, topic in BINDINGS:
        fake.apply(RouteBindingRecord(route="orders", key=key, topic=topic))
    transactions = FakeTransactions(fake)
    writes = RoutedWrites(1, cast(Transactions, transactions))

    async def run(door: Door) -> None:
        await story(World(door, transactions))

    with_door(run, fake, extra_routes=route_produce_routes(writes))


def places(answer: Answer) -> dict[str, list[tuple[str, int]]]:
    return {
        each["id"]: [(record["topic_name"], record["offset"]) for record in each["records"]]
        for each in answer.json["successes"]
    }


def failures(answer: Answer) -> dict[str, int]:
    return {each["id"]: each["error_code"] for each in answer.json["failures"]}


def test_each_goes_to_every_topic_that_matches() -> None:
    async def story(world: World) -> None:
        key = {"key": {"type": "STRING", "data": "eu.x"}}
        no_text = {"key": {"type": "BINARY", "data": "/w=="}}
        answer = await world.produce("us.paid", "eu.paid", key, "nowhere", {}, "x" * 256, no_text)
        assert answer.status == 207, answer.json
        assert places(answer) == {"0": [("ledger", 0)], "1": [("ledger", 1), ("mails", 1)], "2": [("mails", 0)]}
        assert failures(answer) == {"3": 42209, "4": 42209, "5": 40002, "6": 40002}
        assert "routing key 'nowhere'" in answer.json["failures"][0]["message"]
        assert (len(await world.committed("ledger")), len(await world.committed("mails"))) == (2, 2)
        again = await world.produce("eu.paid", "eu.paid")
        assert len(places(again)["1"]) == 2
        (known,) = world.transactions.known.values()
        assert known.transactional_id == "kraft.route.1.0", "the id is used again"

    with_world(story)


def expiring(topic: str) -> ConfigRecord:
    return ConfigRecord(resource_type="topic", resource_name=topic, name="record.expiry.enable", value="true")


def test_each_topic_has_to_take_the_times_of_an_entry() -> None:
    async def story(world: World) -> None:
        fake, end, later = world.door.gateway, {"expires_in_ms": 1_000}, {"deliver_in_ms": 1_000}
        fake.apply(
            ConfigRecord(resource_type="topic", resource_name="mails", name="record.expiry.enable", value="true")
        )
        mails, both = {"routing_key": "eu.x"}, {"routing_key": "eu.paid"}
        answer = await world.produce(mails | end, both | end, mails | later, "eu.x")
        assert places(answer) == {"0": [("mails", 0)], "3": [("mails", 1)]}
        assert failures(answer) == {"1": 422, "2": 422}
        sentences = [each["message"] for each in answer.json["failures"]]
        assert "of topic ledger, to which it goes; set record.expiry.enable=true" in sentences[0]
        assert "topic mails, to which it goes, is no delay topic" in sentences[1]
        fake.apply(
            ConfigRecord(resource_type="topic", resource_name="ledger", name="record.expiry.enable", value="true")
        )
        assert list(places(await world.produce(both | end))) == ["0"]

    with_world(story)


def refusing(fake: FakeGateway, topic: str) -> None:
    """The topic takes no record of a transaction any more."""
    plain = fake.produce

    async def produce(
        batches: Mapping[TopicIdPartition, Buffer], options: ProduceOptions
    ) -> Mapping[TopicIdPartition, ProduceOutcome]:
        refused = {where: data for where, data in batches.items() if fake.image.topics[where.topic_id].name == topic}
        done = await plain({where: data for where, data in batches.items() if where not in refused}, options)
        error = ProduceOutcome(error_code=NotEnoughReplicas.code, message="too few")
        return {**done, **dict.fromkeys(refused, error)}

    fake.produce = produce  # type: ignore[method-assign]


async def refused_by_one(world: World) -> None:
    refusing(world.door.gateway, "mails")
    answer = await world.produce("eu.paid", "us.paid", "eu.paid")
    assert len(await world.committed("ledger")) == 1, "the copies of the others are aborted"
    assert list(places(answer)) == ["1"], "what goes to one topic is not touched"
    assert failures(answer) == {"0": 50302, "2": 50302}
    assert "mails-0 refused it" in answer.json["failures"][0]["message"]
    assert answer.json["failures"][0]["retriable"] is True


def test_a_topic_that_refuses_leaves_nothing_in_the_others() -> None:
    with_world(refused_by_one)


async def dies_in_the_middle(world: World) -> None:
    """It does not come to the end of its transaction; the next one of the id, or its timeout, aborts the rest."""
    fake = world.door.gateway
    plain, stuck = fake.produce, asyncio.Event()

    async def produce(batches: Mapping[TopicIdPartition, Buffer], options: ProduceOptions) -> Any:
        first, *_ = batches
        await plain({first: batches[first]}, options)
        stuck.set()
        await asyncio.Event().wait()

    fake.produce = produce  # type: ignore[method-assign]
    dying = asyncio.create_task(world.produce("eu.paid"))
    await stuck.wait()
    before = await world.committed("ledger")
    dying.cancel()
    fake.produce = plain  # type: ignore[method-assign]
    await world.transactions.init("kraft.route.1.0", timeout_ms=30_000)
    assert len(fake.log("ledger").data) > 0, "half of it had been appended"
    assert (before, await world.committed("ledger"), await world.committed("mails")) == ([], [], [])


def test_a_node_that_dies_between_two_appends_leaves_half_to_nobody() -> None:
    with_world(dies_in_the_middle)


def test_half_a_route_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted bug: appends to several topics, one after the other, without a transaction."""

    async def write(_self: RoutedWrites, batches: Batches, *, gateway: FakeGateway, timeout_ms: int) -> Outcomes:
        options = ProduceOptions(ACKS_ALL, timeout_ms)
        return {
            where: [(await gateway.produce({where: data}, options))[where] for _, data in each]
            for where, each in batches.items()
        }

    monkeypatch.setattr(RoutedWrites, "write", write)
    with pytest.raises(AssertionError, match=r"\[\]"):
        with_world(dies_in_the_middle)
    with pytest.raises(AssertionError, match="aborted"):
        with_world(refused_by_one)


def test_an_end_whose_answer_is_lost_is_said_to_be_unknown() -> None:
    async def story(world: World) -> None:
        plain = world.transactions.end

        async def end(*named: Any, **how: Any) -> Any:
            await plain(*named, **how)
            raise RequestTimedOut("no answer")

        world.transactions.end = end  # type: ignore[method-assign]
        (failure,) = (await world.produce("eu.paid")).json["failures"]
        assert failure["is_appended"] is None
        assert failure["message"].startswith("in all of its topics or in none")
        world.transactions.end = plain  # type: ignore[method-assign]
        assert len(places(await world.produce("eu.paid"))["0"]) == 2

    with_world(story)


def test_the_client_sends_to_a_route() -> None:
    async def story(world: World) -> None:
        async with AsyncClient(str(world.door.client.make_url(""))) as client:
            copies = await client.send_to_route("orders", "x", routing_key="eu.paid", headers={"h": b"1"})
            assert [(copy.topic, copy.offset) for copy in copies] == [("ledger", 0), ("mails", 0)]
            (copy,) = await client.send_to_route("orders", b"y", key="us.paid", timestamp=copies[0].timestamp)
            assert (copy.topic, copy.offset, copy.timestamp) == ("ledger", 2, copies[0].timestamp)
            with pytest.raises(RecordRefused, match="no binding"):
                await client.send_to_route("orders", "z", routing_key="nowhere")
            with pytest.raises(ServerError, match="no route 'none'"):
                await client.send_to_route("none", "z")

    with_world(story)


def test_what_one_topic_cannot_hold_goes_to_none() -> None:
    async def story(world: World) -> None:
        large = {"routing_key": "small.x", "value": {"type": "STRING", "data": "x" * 500}}
        answer = await world.produce(large, "small.y")
        assert failures(answer) == {"0": 50002}
        assert "topic small:" in answer.json["failures"][0]["message"]
        assert places(answer) == {"1": [("ledger", 0), ("small", 0)]}
        assert len(await world.committed("ledger")) == 1

    with_world(story)


def test_a_key_is_for_entries_of_one_topic() -> None:
    async def story(world: World) -> None:
        answer = await world.produce("us.paid", Idempotency_Key="k")
        assert places(answer) == {"0": [("ledger", 0)]}
        assert places(await world.produce("us.paid", Idempotency_Key="k")) == {"0": [("ledger", 0)]}
        refused = await world.produce("us.paid", "eu.paid", Idempotency_Key="other")
        assert (refused.status, "goes to ledger, mails" in refused.json["message"]) == (422, True)
        assert len(await world.committed("ledger")) == 1

    with_world(story)


def test_bad_bodies() -> None:
    async def story(world: World) -> None:
        assert (await world.produce()).json["error_code"] == 42208
        partition = await world.produce({"routing_key": "us.paid", "partition_id": 0})
        assert partition.status == 422
        missing = await world.door.ask(
            "POST", f"{V3}/routes/none/records:batch", {"entries": []}, Content_Type="application/json"
        )
        assert missing.json["error_code"] == 40407

    with_world(story)


def test_too_many_transactions_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routed, "IDS_MAX", 0)
    writes = RoutedWrites(1, cast(Transactions, None))
    with pytest.raises(KafkaError, match="send the same again") as refusal:
        asyncio.run(writes.write({}, gateway=cast(Any, None), timeout_ms=30_000))
    assert refusal.value.retriable
