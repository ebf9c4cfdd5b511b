"""Tests of the order service on confluent-kafka: `pytest examples/orders/test_confluent_orders.py`."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("confluent_kafka")

from confluent_orders import Billing, Shop

from kraft.testing import Sent


def test_every_order_gets_its_invoice(kafka_bootstrap, kafka_topic):
    Shop(kafka_bootstrap, kafka_topic).place_all(20)
    billing = Billing(kafka_bootstrap, kafka_topic, {})
    billing.bill(20)
    assert billing.invoices == {number: 10 + number for number in range(20)}


@pytest.mark.kafka_topic(partitions=3)
def test_no_order_is_lost_or_doubled_when_a_leader_dies_in_mid_batch(
    kafka_faults, kafka_cluster, kafka_bootstrap, kafka_topic
):
    reports = Shop(kafka_bootstrap, kafka_topic).place_all(
        300, then=lambda: kafka_faults.kill(kafka_faults.leader_of(kafka_topic, 0))
    )
    by_id = sorted(reports, key=lambda message: int(message.key()))
    sent = [
        Sent(kafka_topic, each.value(), key=each.key(), partition=each.partition(), offset=each.offset())
        for each in by_id
    ]
    verdict = kafka_cluster.verdict(sent)
    assert (verdict.kept, verdict.lost, verdict.duplicated) == (300, 0, 0), str(verdict)
    assert [json.loads(record.value)["id"] for record in kafka_cluster.records(kafka_topic)] != []


def test_an_order_is_billed_once_when_the_answer_to_a_commit_is_lost(kafka_faults, kafka_bootstrap, kafka_topic):
    Shop(kafka_bootstrap, kafka_topic).place_all(5)
    kafka_faults.drop_answer("OffsetCommit", topic=kafka_topic)
    billing = Billing(kafka_bootstrap, kafka_topic, {})
    billing.bill(5)
    assert billing.invoices == {number: 10 + number for number in range(5)}


def test_a_shop_asks_again_when_a_broker_does_not_lead(kafka_faults, kafka_bootstrap, kafka_topic):
    kafka_faults.answer("Produce", error="NOT_LEADER_OR_FOLLOWER", times=3, topic=kafka_topic)
    assert len(Shop(kafka_bootstrap, kafka_topic).place_all(1)) == 1
