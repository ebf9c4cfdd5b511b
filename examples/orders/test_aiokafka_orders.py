"""Tests of the order service against three real brokers: `pytest examples/orders/test_aiokafka_orders.py`."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiokafka_orders import Billing, Shop, place_all

from kraft.testing import Sent

PATIENCE_S = 60


def value(number: int) -> bytes:
    return json.dumps({"id": number, "price": 10 + number}).encode()


def test_every_order_gets_its_invoice(kafka_bootstrap, kafka_topic):
    async def story() -> dict[int, int]:
        async with Shop(kafka_bootstrap, kafka_topic) as shop:
            await place_all(shop, 20)
        billing = Billing(kafka_bootstrap, kafka_topic, {})
        await billing.bill(20)
        return billing.invoices

    assert asyncio.run(asyncio.wait_for(story(), PATIENCE_S)) == {number: 10 + number for number in range(20)}


@pytest.mark.kafka_topic(partitions=3)
def test_no_order_is_lost_or_doubled_when_a_leader_dies_in_mid_batch(
    kafka_faults, kafka_cluster, kafka_bootstrap, kafka_topic
):
    async def story() -> list[Sent]:
        async with Shop(kafka_bootstrap, kafka_topic) as shop:
            placing = asyncio.create_task(place_all(shop, 300))
            await asyncio.sleep(0.01)  # some are on their way; it does not matter how many
            await asyncio.to_thread(kafka_faults.kill, kafka_faults.leader_of(kafka_topic, 0))
            placed = await placing
        return [
            Sent(kafka_topic, value(number), key=str(number), partition=each.partition, offset=each.offset)
            for number, each in enumerate(placed)
        ]

    verdict = kafka_cluster.verdict(asyncio.run(asyncio.wait_for(story(), PATIENCE_S)))
    assert (verdict.kept, verdict.lost, verdict.duplicated) == (300, 0, 0), str(verdict)
    assert len(kafka_cluster.records(kafka_topic)) == 300


def test_an_order_is_billed_once_when_the_answer_to_a_commit_is_lost(kafka_faults, kafka_bootstrap, kafka_topic):
    invoices: dict[int, int] = {}

    async def story() -> None:
        async with Shop(kafka_bootstrap, kafka_topic) as shop:
            await place_all(shop, 5)
        kafka_faults.drop_answer("OffsetCommit", topic=kafka_topic)
        await Billing(kafka_bootstrap, kafka_topic, invoices).bill(5)
        async with Shop(kafka_bootstrap, kafka_topic) as shop:
            await shop.place({"id": 5, "price": 15})
        again = Billing(kafka_bootstrap, kafka_topic, invoices)
        await again.bill(6)
        assert again.repeated == 0, "the lost answer was to a commit that had been carried out"

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))
    assert invoices == {number: 10 + number for number in range(6)}


def test_a_shop_waits_for_a_broker_that_does_not_know_its_leader_yet(kafka_faults, kafka_bootstrap, kafka_topic):
    kafka_faults.answer("Produce", error="NOT_LEADER_OR_FOLLOWER", times=3, topic=kafka_topic)

    async def story() -> None:
        async with Shop(kafka_bootstrap, kafka_topic) as shop:
            await shop.place({"id": 1, "price": 11})

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))
