"""Produce for clients: what each version is answered."""

from __future__ import annotations

import asyncio
import struct
from uuid import UUID

import pytest

from kraft.protocol.batches.header import CRC_START, computed_crc
from kraft.protocol.encoding import ZERO_UUID
from kraft.protocol.messages.init_producer_id_request import InitProducerIdRequestData
from kraft.protocol.messages.init_producer_id_response import InitProducerIdResponseData
from kraft.protocol.messages.produce_request import PartitionProduceData, ProduceRequestData, TopicProduceData
from kraft.protocol.messages.produce_response import PartitionProduceResponse, ProduceResponseData
from kraft.wire.api_handler import CloseConnection
from metadata.image import TopicIdPartition
from tests.unit.replication.harness.cluster import TOPIC_ID
from tests.unit.replication.harness.virtual import run
from tests.unit.wire.handlers.brokers import NOW_MS, Brokers, Client, records

ALL_VERSIONS = range(3, 14)


def request(
    data: bytes | None, *, version: int, topic: str = "t", partition: int = 0, acks: int = -1, timeout_ms: int = 5_000
) -> ProduceRequestData:
    return ProduceRequestData.make(
        acks=acks,
        timeout_ms=timeout_ms,
        topic_data=[
            TopicProduceData.make(
                name=topic,
                topic_id=TOPIC_ID if version >= 13 else ZERO_UUID,
                partition_data=[PartitionProduceData.make(index=partition, records=data)],
            )
        ],
    )


async def produce(client: Client, data: bytes | None, *, version: int = 13, **how: object) -> PartitionProduceResponse:
    answer = await client.ask(request(data, version=version, **how), ProduceResponseData, version)  # type: ignore[arg-type]
    ((partition,),) = [topic.partition_responses for topic in answer.responses]
    return partition


@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_every_version_appends_by_name_or_by_id_and_reports_where(version: int) -> None:
    async def story() -> None:
        async with Brokers() as cluster:
            cluster.create()
            first = await produce(cluster.clients[1], records(b"a", b"b"), version=version)
            second = await produce(cluster.clients[1], records(b"c"), version=version, acks=1)
            assert (first.error_code, first.base_offset, second.error_code, second.base_offset) == (0, 0, 0, 2)
            assert first.log_start_offset == (0 if version >= 5 else -1)

    run(story())


def sealed(batch: bytes, position: int, form: str, value: int) -> bytes:
    """Changed at a place, with a CRC that fits."""
    changed = bytearray(batch)
    struct.pack_into(form, changed, position, value)
    if position >= CRC_START:
        struct.pack_into(">I", changed, 17, computed_crc(changed, 0, len(changed)))
    return bytes(changed)


BATCH = records(b"a", b"b")
ID = {"producer_id": 7, "producer_epoch": 0}


@pytest.mark.parametrize(
    ("data", "version", "code"),
    [
        (None, 13, 87),
        (b"", 13, 87),
        (b"x" * 16, 13, 87),
        (BATCH[:40], 13, 87),
        (sealed(BATCH, 16, ">b", 0), 3, 87),
        (sealed(BATCH, 16, ">b", 1), 13, 87),
        (BATCH + BATCH, 13, 87),
        (BATCH + b"x", 13, 87),
        (BATCH[:-1], 13, 2),
        (BATCH[:-1] + b"?", 13, 2),
        (records(b"a", compression="zstd"), 6, 76),
        (records(b"a", compression="zstd"), 7, 0),
        (sealed(BATCH, 21, ">h", 0x20), 13, 87),
        (sealed(BATCH, 21, ">h", 0x30), 13, 87),
        (sealed(BATCH, 21, ">h", 0x10), 13, 53),
        (sealed(BATCH, 21, ">h", 0x08), 13, 32),
        (sealed(BATCH, 21, ">h", 0x07), 13, 76),
        (sealed(BATCH, 43, ">q", -2), 13, 87),
        (sealed(BATCH, 43, ">q", 7), 13, 87),
        (records(b"a", timestamp_ms=NOW_MS + 10_000_000), 13, 32),
        (records(b"x" * 2_000_000), 13, 10),
    ],
)
def test_a_bad_batch_is_refused_with_kafkas_code_and_appends_nothing(
    data: bytes | None, version: int, code: int
) -> None:
    async def story() -> None:
        async with Brokers() as cluster:
            key = cluster.create()
            answer = await produce(cluster.clients[1], data, version=version)
            assert (answer.error_code, answer.base_offset) == (code, -1 if code else 0)
            assert cluster.nodes[1].manager._registry.replicas[key].log.log_end_offset == (0 if code else 1)
            if code and version >= 8:
                assert answer.error_message

    run(story())


def test_a_refusal_names_the_records_at_fault_from_version_8_on() -> None:
    async def story() -> None:
        async with Brokers() as cluster:
            cluster.create(cleanup_policy="compact")
            for version in (7, 8, 13):
                answer = await produce(cluster.clients[1], records(b"a", b"b"), version=version)
                reported = [each.batch_index for each in answer.record_errors]
                assert (answer.error_code, reported) == (87, [0, 1] if version >= 8 else []), answer
                assert answer.log_start_offset == 0

    run(story())


def test_transactional_batch_without_id_is_refused() -> None:
    """As Kafka, which cannot ask whether the producer may use its id. With one, plain batches pass."""

    async def story() -> None:
        async with Brokers() as cluster:
            key = cluster.create()
            client = cluster.clients[1]
            batch = records(b"x", producer_id=7, producer_epoch=0, base_sequence=0, is_transactional=True)
            answer = await client.ask(request(batch, version=13), ProduceResponseData, 13)
            (refused,) = answer.responses[0].partition_responses
            assert refused.error_code == 53
            assert "transactional.id" in (refused.error_message or "")
            assert cluster.nodes[1].manager._registry.replicas[key].log.log_end_offset == 0
            plain = request(BATCH, version=13)
            plain.transactional_id = "t"
            answer = await client.ask(plain, ProduceResponseData, 13)
            assert answer.responses[0].partition_responses[0].error_code == 0

    run(story())


@pytest.mark.parametrize("beside", [False, True])
def test_transactional_batch_of_duplicate_partition_is_refused(beside: bool) -> None:
    async def story() -> None:
        async with Brokers() as cluster:
            cluster.create(partitions=2)
            batch = records(b"x", producer_id=7, producer_epoch=0, base_sequence=0, is_transactional=True)
            twice = request(batch, version=13)
            twice.transactional_id = "t"
            partitions = [PartitionProduceData.make(index=0, records=batch) for _ in range(2)]
            if beside:
                partitions.append(PartitionProduceData.make(index=1, records=BATCH))
            twice.topic_data[0].partition_data = partitions
            answer = await cluster.clients[1].ask(twice, ProduceResponseData, 13)
            ((*refused, last),) = [topic.partition_responses for topic in answer.responses]
            codes = [each.error_code for each in refused], last.error_code
            assert codes == (([87, 87], 0) if beside else ([87], 87)), answer

    run(story())


@pytest.mark.parametrize("version", range(6))
def test_idempotent_producers_get_an_id_each(version: int) -> None:
    """KIP-360: also one that lost its place, and names the id it had."""

    async def story() -> None:
        async with Brokers() as cluster:
            init = InitProducerIdRequestData.make(transactional_id=None, producer_id=7, producer_epoch=3)
            answers = [await cluster.clients[1].ask(init, InitProducerIdResponseData, version) for _ in range(2)]
            assert [(each.error_code, each.producer_epoch) for each in answers] == [(0, 0), (0, 0)]
            assert answers[0].producer_id != answers[1].producer_id

    run(story())


def test_sequences_of_an_idempotent_producer() -> None:
    """D1 to D5 through the door. log_start_offset is in every answer: Java tells retention from loss by it."""

    async def story() -> None:
        async with Brokers() as cluster:
            cluster.create()
            client = cluster.clients[1]

            async def sent(sequence: int, *values: bytes, producer_id: int = 7, epoch: int = 0) -> tuple[int, int, int]:
                data = records(*values, producer_id=producer_id, producer_epoch=epoch, base_sequence=sequence)
                answer = await produce(client, data, version=10)
                return answer.error_code, answer.base_offset, answer.log_start_offset

            assert await sent(5, b"a", b"b") == (0, 0, 0), "D5: any first sequence of an unknown producer"
            assert await sent(7, b"c") == (0, 2, 0)
            assert await sent(5, b"a", b"b") == (0, 0, 0), "D2: told the offset of the first time"
            assert await sent(9, b"e") == (45, -1, 0), "D1: a gap"
            for number in range(8, 13):
                assert await sent(number, b"x") == (0, number - 5, 0)
            assert await sent(7, b"c") == (45, -1, 0), "D3: more than five batches ago"
            assert await sent(1, b"y", epoch=1) == (45, -1, 0), "D4: a new epoch begins at 0"
            assert await sent(0, b"y", epoch=1) == (0, 8, 0)
            assert await sent(13, b"z") == (47, -1, 0), "D4: the old epoch is fenced"
            top = 2**31 - 1
            assert await sent(top, b"m", b"n", producer_id=8) == (0, 9, 0)
            assert await sent(1, b"o", producer_id=8) == (0, 11, 0), "D1: sequences begin again at 0"

    run(story())


def test_with_acks_0_nothing_is_answered_and_an_error_closes_the_connection() -> None:
    async def story() -> None:
        async with Brokers() as cluster:
            key = cluster.create()
            client = cluster.clients[1]
            assert await client.send(request(BATCH, version=9, acks=0), 9) is None
            log = cluster.nodes[1].manager._registry.replicas[key].log
            assert log.log_end_offset == 2
            transactional = request(
                records(b"x", producer_id=7, producer_epoch=0, base_sequence=0, is_transactional=True),
                version=9,
                acks=0,
            )
            for bad in (
                request(BATCH, version=9, acks=0, topic="unknown"),
                request(BATCH, version=9, acks=0, partition=1),
                request(BATCH[:-1], version=9, acks=0),
                transactional,
            ):
                with pytest.raises(CloseConnection):
                    await client.send(bad, 9)
            with pytest.raises(CloseConnection):
                await cluster.clients[2].send(request(BATCH, version=9, acks=0), 9)
            assert log.log_end_offset == 2

    run(story())


def test_who_does_not_lead_reports_who_does_from_version_10_on() -> None:
    """KIP-951."""

    async def story() -> None:
        async with Brokers() as cluster:
            key = cluster.create()
            for version in ALL_VERSIONS:
                answer = await cluster.clients[2].ask(request(BATCH, version=version), ProduceResponseData, version)
                (partition,) = answer.responses[0].partition_responses
                assert partition.error_code == 6
                leader = (partition.current_leader.leader_id, partition.current_leader.leader_epoch)
                endpoints = [(each.node_id, each.host, each.port) for each in answer.node_endpoints]
                expected = ((1, 0), [(1, "k", 1)]) if version >= 10 else ((-1, -1), [])
                assert (leader, endpoints) == expected
            cluster.fence(1)
            answer = await cluster.clients[2].ask(request(BATCH, version=13), ProduceResponseData, 13)
            (partition,) = answer.responses[0].partition_responses
            assert partition.current_leader.leader_id == -1, "a leader that is not alive is no hint"
            assert not answer.node_endpoints
            cluster.elect(key, -1, (1,))
            assert (await produce(cluster.clients[1], BATCH)).error_code == 6

    run(story())


def test_unknown_topics_and_partitions() -> None:
    async def story() -> None:
        async with Brokers() as cluster:
            key = cluster.create()
            client = cluster.clients[1]
            assert (await produce(client, BATCH, version=12, topic="unknown")).error_code == 3
            assert (await produce(client, BATCH, version=12, partition=1)).error_code == 3
            assert (await produce(client, BATCH, version=13, partition=1)).error_code == 3
            cluster.remove_topic()
            assert (await produce(client, BATCH, version=12)).error_code == 3
            assert (await produce(client, BATCH, version=13)).error_code == 100
            cluster.create(topic_id=UUID(int=9))
            assert (await produce(client, BATCH, version=13)).error_code == 100, "the id of the deleted one"
            assert (await produce(client, BATCH, version=12)).error_code == 0
            other = TopicIdPartition(UUID(int=9), 0)
            assert cluster.nodes[1].manager._registry.replicas[other].log.log_end_offset == 2
            cluster.create("__consumer_offsets", topic_id=UUID(int=10))
            assert (await produce(client, BATCH, version=12, topic="__consumer_offsets")).error_code == 17
            assert key != other

    run(story())


def test_what_one_partition_is_refused_does_not_concern_the_others() -> None:
    async def story() -> None:
        async with Brokers() as cluster:
            cluster.create(partitions=2)
            data = [PartitionProduceData.make(index=number, records=BATCH) for number in (0, 7, 1, 1)]
            known = TopicProduceData.make(name="t", partition_data=data)
            unknown = TopicProduceData.make(name="u", partition_data=data[:1])
            asked = ProduceRequestData.make(acks=-1, timeout_ms=5_000, topic_data=[known, unknown])
            answer = await cluster.clients[1].ask(asked, ProduceResponseData, 9)
            reported = [[(p.index, p.error_code) for p in topic.partition_responses] for topic in answer.responses]
            assert [topic.name for topic in answer.responses] == ["t", "u"]
            assert reported == [[(0, 0), (7, 3), (1, 87), (1, 87)], [(0, 3)]], (
                "two batches for one partition are too many"
            )

    run(story())


def test_too_few_replicas_a_timeout_and_acks() -> None:
    async def story() -> None:
        async with Brokers() as cluster:
            key = cluster.create(min_insync_replicas=2)
            cluster.cut |= {(2, 1), (3, 1)}
            client = cluster.clients[1]
            late = await produce(client, BATCH, timeout_ms=300)
            assert (late.error_code, late.base_offset) == (7, -1)
            assert (await produce(client, BATCH, acks=1)).base_offset == 2, "what timed out is in the log"
            cluster.change_isr(key, (1,))
            few = await produce(client, BATCH)
            assert (few.error_code, few.log_start_offset) == (19, 0)
            assert (await produce(client, BATCH, acks=1)).base_offset == 4
            assert (await produce(client, BATCH, acks=2)).error_code == 21

    run(story())


def test_a_deposed_leader_answers_who_waits_with_6() -> None:
    async def story() -> None:
        async with Brokers() as cluster:
            key = cluster.create()
            cluster.cut |= {(2, 1), (3, 1)}
            waiting = asyncio.ensure_future(produce(cluster.clients[1], BATCH))
            await asyncio.sleep(0.01)
            cluster.elect(key, 2, (2, 3))
            answer = await waiting
            assert (answer.error_code, answer.current_leader.leader_id) == (6, 2)

    run(story())


@pytest.mark.parametrize("version", [3, 13])
def test_append_time(version: int) -> None:
    async def story() -> None:
        async with Brokers() as cluster:
            cluster.create(message_timestamp_type="LogAppendTime")
            first = await produce(cluster.clients[1], records(b"a", timestamp_ms=5), version=version)
            assert first.log_append_time_ms >= NOW_MS
            cluster.configure("t", "message.timestamp.type", "CreateTime")
            assert (await produce(cluster.clients[1], BATCH, version=version)).log_append_time_ms == -1

    run(story())


def test_requests_take_effect_in_their_order_also_when_one_waits_for_a_worker() -> None:
    """Idempotent producers have five under way, and each must find those before it in the log."""

    async def story() -> None:
        async with Brokers() as cluster:
            key = cluster.create()
            client = cluster.clients[1]

            def sent(sequence: int, count: int, size: int) -> asyncio.Future[PartitionProduceResponse]:
                data = records(*[b"x" * size] * count, compression="gzip", **ID, base_sequence=sequence)
                return asyncio.ensure_future(produce(client, data))

            large = sent(0, 2_000, 1_000)
            small = sent(2_000, 1, 10)
            await asyncio.sleep(0)
            assert cluster.nodes[1].manager._registry.replicas[key].log.log_end_offset == 0, "a worker looks at it"
            answers = await asyncio.gather(large, small)
            assert [(each.error_code, each.base_offset) for each in answers] == [(0, 0), (0, 2_000)]

    run(story())


def test_who_goes_while_a_worker_looks_at_its_records_holds_up_nobody() -> None:
    async def story() -> None:
        async with Brokers() as cluster:
            cluster.create()
            client = cluster.clients[1]
            large = records(*[b"x" * 1_000] * 2_000, compression="gzip")
            leaving = [asyncio.ensure_future(produce(client, large)) for _ in range(3)]
            await asyncio.sleep(0)
            for each in leaving:
                each.cancel()
            await asyncio.gather(*leaving, return_exceptions=True)
            assert (await produce(client, BATCH)).error_code == 0
            assert cluster.nodes[1].manager.produce._under_way == 0

    run(story())
