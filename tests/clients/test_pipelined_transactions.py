"""A producer that sends without waiting for answers, on one connection to a node that leads its partitions and
coordinates its transactional id: as Java's, franz-go's and librdkafka's do when both are the same node."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.protocol.messages.add_partitions_to_txn_request import (
    AddPartitionsToTxnRequestData,
    AddPartitionsToTxnTopic,
)
from kraft.protocol.messages.end_txn_request import EndTxnRequestData
from kraft.protocol.messages.find_coordinator_request import FindCoordinatorRequestData
from kraft.protocol.messages.init_producer_id_request import InitProducerIdRequestData
from kraft.protocol.messages.metadata_request import MetadataRequestData, MetadataRequestTopic
from kraft.protocol.messages.produce_request import PartitionProduceData, ProduceRequestData, TopicProduceData
from tests.clients.conftest import Kafka
from tests.clients.golden.peer import Peer
from tests.integration.support.waiting import wait_until

ADD_PARTITIONS, PRODUCE, END = 3, 10, 4
"""Versions of producers of transaction version 1."""
PRODUCE_THAT_ADDS, END_THAT_RAISES = 12, 5
"""Of transaction version 2."""
PARTITIONS = 3
WAIT_S = 30


class Producer:
    """A transactional producer at the node that does everything for it."""

    def __init__(self, peer: Peer, transactional_id: str, topic: str, partitions: list[int]) -> None:
        self.peer, self.id, self.topic, self.partitions = peer, transactional_id, topic, partitions
        init = InitProducerIdRequestData.make(
            transactional_id=transactional_id, transaction_timeout_ms=60_000, producer_id=-1, producer_epoch=-1
        )
        given: Any = wait_until(
            lambda: (answer := peer.ask("init", init, 4)).error_code == 0 and answer,  # type: ignore[attr-defined]
            deadline_s=WAIT_S,
            what="a producer id",
        )
        self.producer_id, self.epoch = given.producer_id, given.producer_epoch
        self.sequences = dict.fromkeys(partitions, 0)

    def add(self, *partitions: int) -> tuple[AddPartitionsToTxnRequestData, int]:
        topic = AddPartitionsToTxnTopic.make(name=self.topic, partitions=partitions)
        request = AddPartitionsToTxnRequestData.make(
            v3_and_below_transactional_id=self.id,
            v3_and_below_producer_id=self.producer_id,
            v3_and_below_producer_epoch=self.epoch,
            v3_and_below_topics=[topic],
        )
        return request, ADD_PARTITIONS

    def produce(self, *partitions: int, version: int) -> tuple[ProduceRequestData, int]:
        data = []
        for number in partitions:
            records = build_batch(
                [NewRecord(None, b"v", [], 1_700_000_000_000)],
                producer_id=self.producer_id,
                producer_epoch=self.epoch,
                base_sequence=self.sequences[number],
                is_transactional=True,
            )
            self.sequences[number] += 1
            data.append(PartitionProduceData.make(index=number, records=records))
        topic = TopicProduceData.make(name=self.topic, partition_data=data)
        request = ProduceRequestData.make(
            transactional_id=self.id, acks=-1, timeout_ms=WAIT_S * 1_000, topic_data=[topic]
        )
        return request, version

    def end(self, *, commits: bool, version: int) -> tuple[EndTxnRequestData, int]:
        request = EndTxnRequestData.make(
            transactional_id=self.id, producer_id=self.producer_id, producer_epoch=self.epoch, committed=commits
        )
        return request, version


@pytest.fixture
def producer(kafka: Kafka) -> Iterator[Producer]:
    topic = kafka.topic(partitions=PARTITIONS)
    host, _, port = kafka.servers[0].rpartition(":")
    with closing(Peer((host, int(port)))) as any_node:
        asked = MetadataRequestData.make(topics=[MetadataRequestTopic.make(name=topic)])
        known: Any = any_node.ask("leaders", asked, 12)
        leaders = {each.partition_index: each.leader_id for each in known.topics[0].partitions}
        while True:
            transactional_id = f"id-{uuid.uuid4().hex}"
            find = FindCoordinatorRequestData.make(key_type=1, coordinator_keys=[transactional_id])
            found: Any = wait_until(
                lambda find=find: (
                    (answer := any_node.ask("coordinator", find, 4).coordinators[0]).error_code == 0  # type: ignore[attr-defined]
                    and answer
                ),
                deadline_s=WAIT_S,
                what="a coordinator",
            )
            led = [number for number, leader in leaders.items() if leader == found.node_id]
            if led:
                break
    with closing(Peer((found.host, found.port))) as peer:
        yield Producer(peer, transactional_id, topic, led)


def codes(answer: Any) -> list[int]:
    """All error codes in it."""
    if hasattr(answer, "responses"):
        return [each.error_code for topic in answer.responses for each in topic.partition_responses]
    if hasattr(answer, "results_by_topic_v3_and_below"):
        return [
            each.partition_error_code
            for topic in answer.results_by_topic_v3_and_below
            for each in topic.results_by_partition
        ]
    return [answer.error_code]


def test_an_end_does_not_overtake_the_partitions_that_are_added_before_it(producer: Producer) -> None:
    """AddPartitionsToTxn waits for the markers of the transaction before, and EndTxn is sent right behind it."""
    (number, *_) = producer.partitions
    for round_number in range(100):
        requests = [producer.add(number), producer.end(commits=False, version=END)]
        answers = [codes(each) for each in producer.peer.pipeline(*requests)]
        assert answers == [[0], [0]], round_number


def test_batches_of_transaction_version_1_keep_their_order(producer: Producer) -> None:
    (number, *_) = producer.partitions
    for round_number in range(150):
        batches = [producer.produce(number, version=PRODUCE) for _ in range(5)]
        requests = [producer.add(number), *batches, producer.end(commits=True, version=END)]
        answers = [codes(each) for each in producer.peer.pipeline(*requests)]
        assert answers == [[0]] * 7, round_number


def test_batches_of_transaction_version_2_keep_their_order(producer: Producer) -> None:
    """Partitions are added by the batches themselves: {A}, {A, B} which asks about B, {A}."""
    first, *others = producer.partitions
    for round_number in range(100):
        sets = [[first], [first, *others], [first], [*others, first], [first]]
        batches = [producer.produce(*each, version=PRODUCE_THAT_ADDS) for each in sets]
        *answers, ended = producer.peer.pipeline(*batches, producer.end(commits=True, version=END_THAT_RAISES))
        assert all(code == 0 for each in answers for code in codes(each)), (round_number, list(map(codes, answers)))
        assert codes(ended) == [0], round_number
        producer.producer_id, producer.epoch = ended.producer_id, ended.producer_epoch  # type: ignore[attr-defined]
        producer.sequences = dict.fromkeys(producer.partitions, 0)
