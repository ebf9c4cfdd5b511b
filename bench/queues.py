"""`python -m bench.queues`: queues over REST beside share consumers, beside RabbitMQ, and the memory of a large one.

Rows, whose sides are measured in turn:

- `rest`: 8 workers receive 100 records and accept them, in two requests and in one with the next receive, beside 8
  share consumers that take 100 at a time, and beside 8 that take whole batches of the log, which have a thousand:
  processor time of the nodes for a record.
- `rabbitmq`: 1 KB published with confirmation, received and acknowledged, by Debian's rabbitmq-server 3.10 as a quorum
  queue of three nodes with RabbitMQ's PerfTest, and by this cluster. It needs rabbitmq-server, Java and `--perf-test`,
  the class path of com.rabbitmq:perf-test.
- `memory`: 100,000 records in flight and 2,000 share sessions.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
import statistics
import struct
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final, TypeAlias
from uuid import UUID

from confluent_kafka import AcknowledgeType, Producer, TopicCollection

from bench.client import Answer, Client, request
from bench.cluster import JSON, BenchError, process_cpu_s, process_resident_bytes
from bench.rabbitmq import OUTSTANDING, RabbitMq
from bench.shares import POLL_S, RECORD_BYTES, Counted, begin_at_the_start, fill, share_consume, share_consumer
from bench.sides import Here, Topics, bootstrap
from kraft.protocol.codec import decode_client_body, encode_body
from kraft.protocol.messages.share_fetch_request import FetchPartition, FetchTopic, ShareFetchRequestData
from kraft.protocol.messages.share_fetch_response import ShareFetchResponseData

ROWS: Final = ("rest", "rabbitmq", "memory")
ROUNDS: Final = 5
WORKERS: Final = 8
BATCH: Final = 100
PARTITIONS: Final = 6
REST_RECORDS: Final = 60_000
REST_WARM: Final = 5_000
SESSIONS: Final = 2_000
IN_FLIGHT: Final = 100_000
MEMORY_PARTITIONS: Final = 60
"""Each may have 2,000 records in flight."""
SHARE_FETCH_VERSION: Final = 2
RECORD_LIMIT: Final = 1
WAIT_S: Final = 120.0
_ACK_ID: Final = re.compile(rb'"ack_id":"([^"]+)"')

SESSION_WAIT_MS: Final = 5_000
MESSAGES: Final = 100_000
"""Messages of RabbitMQ."""
OURS: Final = 100_000

Figures: TypeAlias = dict[str, float]
Link: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]


# rest


def rest(side: Here, *, at_once: bool) -> Figures:
    """Workers that receive and accept over REST; `at_once`: a receive brings what became of the records before."""
    topics = Topics(side)
    name = topics.create(PARTITIONS)
    fill(side, name, PARTITIONS, 2 * (REST_WARM + REST_RECORDS))
    counted = Counted(side, warm=REST_WARM, count=REST_RECORDS)
    asyncio.run((_work_at_once if at_once else _work)(side, name, counted))
    topics.delete(name)
    return counted.figures()


async def _work(side: Here, name: str, counted: Counted) -> None:
    group = f"/v3/clusters/{side.cluster_id}/share-groups/{name}"
    await _create_group(side, name)
    receive = request("POST", f"{group}/records:receive", body=_wanted(name, b""), headers=JSON)

    async def worker(client: Client, deadline: float) -> None:
        while not counted.is_over and time.perf_counter() < deadline:
            ids = _ACK_ID.findall((await _ask(client, receive)).body)
            if not ids:
                continue
            body = b'{"acks":[%b]}' % _accepted(ids)
            accept = request("POST", f"{group}/records:acknowledge", body=body, headers=JSON)
            if (await _ask(client, accept)).status != 200:
                raise BenchError("not all records were accepted")
            counted.add(len(ids))

    await _in_parallel(side, worker)


async def _work_at_once(side: Here, name: str, counted: Counted) -> None:
    path = f"/v3/clusters/{side.cluster_id}/share-groups/{name}/records:receive"
    await _create_group(side, name)

    async def worker(client: Client, deadline: float) -> None:
        ids: list[bytes] = []
        while not counted.is_over and time.perf_counter() < deadline:
            answer = await _ask(client, request("POST", path, body=_wanted(name, _accepted(ids)), headers=JSON))
            records, _, results = answer.body.partition(b'"results":')
            if results.count(b'"error_code":null') != len(ids):
                raise BenchError(f"not all records were accepted: {results[:300]!r}")
            counted.add(len(ids))
            ids = _ACK_ID.findall(records)

    await _in_parallel(side, worker)


def _wanted(name: str, accepted: bytes) -> bytes:
    asked = json.dumps({"topics": [name], "max_records": BATCH, "max_wait_ms": 1_000}).encode()
    return asked[:-1] + b',"acknowledge":[%b]}' % accepted if accepted else asked


def _accepted(ids: Sequence[bytes]) -> bytes:
    return b",".join(b'{"ack_id":"%b","type":"accept"}' % each for each in ids)


async def _in_parallel(side: Here, worker: Callable[[Client, float], Awaitable[None]]) -> None:
    """Workers, each at one node."""
    nodes, deadline = list(side.rest.values()), time.perf_counter() + WAIT_S

    async def one(number: int) -> None:
        client = Client(nodes[number % len(nodes)])
        await worker(client, deadline)
        client.close()

    await asyncio.gather(*map(one, range(WORKERS)))


async def _create_group(side: Here, name: str) -> None:
    """It begins with the first record."""
    client = Client(next(iter(side.rest.values())))
    body = json.dumps({"share_group_id": name, "topics": [name]}).encode()
    await _ask(client, request("POST", f"/v3/clusters/{side.cluster_id}/share-groups", body=body, headers=JSON))
    client.close()


async def _ask(client: Client, data: bytes) -> Answer:
    answer = await client.ask(data)
    if answer.status >= 300:
        raise BenchError(f"{answer.status}: {answer.body[:300]!r}")
    return answer


# rabbitmq


def rabbitmq(rabbit: RabbitMq, classpath: str) -> Figures:
    """Messages a second that are published, confirmed, received and acknowledged, and the nodes' time for each."""
    before_s = sum(map(process_cpu_s, rabbit.pids.values()))
    rate = rabbit.publish_and_accept(classpath, size=RECORD_BYTES, count=MESSAGES)
    cpu_s = sum(map(process_cpu_s, rabbit.pids.values())) - before_s
    return {"records a second": rate, "nodes' CPU us a record": cpu_s / MESSAGES * 1e6}


def produced_and_accepted(side: Here) -> Figures:
    """The same with librdkafka: one producer with as many records under way, and one share consumer."""
    topics = Topics(side)
    name = topics.create(1)
    begin_at_the_start(topics.admin, name)
    counted = Counted(side, warm=OURS // 10, count=OURS)
    room, deadline = threading.Semaphore(OUTSTANDING), time.perf_counter() + WAIT_S

    def is_going_on() -> bool:
        return not counted.is_over and time.perf_counter() < deadline

    def consume() -> None:
        consumer = share_consumer(side, name)
        while is_going_on():
            messages = consumer.poll(POLL_S)
            for message in messages:
                consumer.acknowledge(message, AcknowledgeType.ACCEPT)
            counted.add(len(messages))
        consumer.close()

    consuming = threading.Thread(target=consume)
    consuming.start()
    producer = Producer({**bootstrap(side), "acks": "all", "enable.idempotence": True, "linger.ms": 1})
    while is_going_on():
        while not room.acquire(blocking=False):
            producer.poll(POLL_S)
        producer.produce(name, b"." * RECORD_BYTES, partition=0, on_delivery=lambda *_: room.release())
    producer.flush(WAIT_S)
    consuming.join()
    topics.delete(name)
    return counted.figures()


# memory


def memory(side: Here) -> Figures:
    """Resident memory of the nodes, before and with share sessions that have records in flight."""
    topics = Topics(side)
    name = topics.create(MEMORY_PARTITIONS)
    fill(side, name, MEMORY_PARTITIONS, IN_FLIGHT + IN_FLIGHT // 5)
    described = topics.admin.describe_topics(TopicCollection([name]))[name].result(WAIT_S)
    found = described.topic_id
    topic_id = UUID(int=found.get_most_significant_bits() % 2**64 << 64 | found.get_least_significant_bits() % 2**64)
    leaders = {each.id: each.leader.id for each in described.partitions}
    before = sum(map(process_resident_bytes, side.pids.values()))
    locked, grown = asyncio.run(_hold(side, name, topic_id, leaders))
    topics.delete(name)
    return {"MB before": before / 1e6, "MB more": (grown - before) / 1e6, "records in flight": float(locked)}


async def _hold(side: Here, name: str, topic_id: UUID, leaders: Mapping[int, int]) -> tuple[int, int]:
    """How many records the sessions have together, and the memory of the nodes while they have them."""
    await _create_group(side, name)
    links = [await _connect(side.addresses[leaders[at % MEMORY_PARTITIONS]]) for at in range(SESSIONS)]
    locked = 0
    for at, link in enumerate(links):
        locked += await _open_session(link, name, f"member-{at}", topic_id, at % MEMORY_PARTITIONS)
    grown = sum(map(process_resident_bytes, side.pids.values()))
    for _, writer in links:
        writer.close()
    return locked, grown


async def _connect(address: str) -> Link:
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def _open_session(link: Link, group: str, member: str, topic_id: UUID, partition: int) -> int:
    """A share session of one partition; how many records it has now."""
    wanted = FetchTopic.make(topic_id=topic_id, partitions=[FetchPartition.make(partition_index=partition)])
    asked = ShareFetchRequestData.make(
        group_id=group,
        member_id=member,
        max_wait_ms=SESSION_WAIT_MS,
        min_bytes=1,
        max_bytes=2**20,
        max_records=IN_FLIGHT // SESSIONS,
        batch_size=IN_FLIGHT // SESSIONS,
        share_acquire_mode=RECORD_LIMIT,
        topics=[wanted],
    )
    body = b"".join(encode_body(asked, SHARE_FETCH_VERSION))
    head = struct.pack(">hhih", ShareFetchRequestData.API_KEY, SHARE_FETCH_VERSION, 1, -1) + b"\0"
    reader, writer = link
    writer.write(struct.pack(">i", len(head) + len(body)) + head + body)
    (size,) = struct.unpack(">i", await reader.readexactly(4))
    answer = decode_client_body(
        ShareFetchResponseData, SHARE_FETCH_VERSION, memoryview(await reader.readexactly(size)), 5
    )
    if answer.error_code:
        raise BenchError(f"no share session: {answer.error_code} {answer.error_message}")
    return sum(
        each.last_offset - each.first_offset + 1
        for topic in answer.responses
        for part in topic.partitions
        for each in part.acquired_records
    )


# all


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.queues", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(ROWS), metavar="ROWS", help=f"of {', '.join(ROWS)}, by comma")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--perf-test", metavar="CLASSPATH", help="of com.rabbitmq:perf-test, for the row rabbitmq")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: ended"))  # not without ending the nodes
    wanted = asked.only.split(",")
    if "rabbitmq" in wanted and not asked.perf_test:
        parser.error("the row rabbitmq needs --perf-test: the class path of com.rabbitmq:perf-test, such as 'libs/*'")
    here = Here()
    rabbit = None
    try:
        if "rest" in wanted:
            consumers = partial(share_consume, here, partitions=PARTITIONS, consumers=WORKERS)
            alike = partial(consumers, at_a_time=BATCH)
            both, once = partial(rest, here, at_once=False), partial(rest, here, at_once=True)
            compare("receive and accept 100 at a time, 8 workers", asked.rounds, alike, consumers, both, once)
        if "memory" in wanted:
            compare(f"{IN_FLIGHT:,} records in flight, {SESSIONS:,} sessions", 1, partial(memory, here))
        if "rabbitmq" in wanted:
            rabbit = RabbitMq()
            measures = partial(rabbitmq, rabbit, asked.perf_test), partial(produced_and_accepted, here)
            compare("1 KB published, confirmed, received and acknowledged", asked.rounds, *measures)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        here.close()
        if rabbit is not None:
            rabbit.close()
    return 0


def compare(name: str, rounds: int, *measures: Callable[[], Figures]) -> None:
    """Rounds in turn; the medians, and each divided by the first."""
    found = [[measure() for measure in measures] for _ in range(rounds)]
    print(name)
    for figure in found[0][0]:
        values = [[round_[at][figure] for round_ in found] for at in range(len(measures))]
        medians = [statistics.median(each) for each in values]
        text = "; ".join(
            f"{median:,.2f} ({', '.join(f'{value:,.1f}' for value in each)})"
            for median, each in zip(medians, values, strict=True)
        )
        ratio = "".join(f"  x {median / medians[0]:.2f}" for median in medians[1:])
        print(f"  {figure:26}{text}{ratio}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
