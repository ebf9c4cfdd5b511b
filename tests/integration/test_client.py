"""The client against real nodes: nothing is lost and nobody notices when the node it talks to dies."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from kraft.client import AsyncClient, AsyncProducer, Client, Delivery, Record, RecordRefused, RecordUnknown, Sent
from kraft.client.connection import Connection
from tests.integration.support.cluster import Cluster

pytestmark = pytest.mark.slow

RECORDS = 20_000
PARTITIONS = 3
CHUNK = 100
PAUSE_S = 0.04
KEPT_BACK = 6_000
"""Records that go out one by one until the last node is killed: every death meets a producer at work."""


@pytest.fixture(scope="module")
def cluster(fragile_cluster: Cluster) -> Cluster:
    return fragile_cluster


def talks_to(client: AsyncClient, cluster: Cluster) -> int:
    """The node that its next request goes to, if no leader is preferred."""
    connection = client._connection
    assert isinstance(connection, Connection)
    url = connection.nodes.choose(connection.world.clock.monotonic_ms())
    return next(node.id for node in cluster.nodes if node.rest == url)


async def write_numbers(producer: AsyncProducer, topic: str, are_killed: asyncio.Event) -> list[Sent]:
    sent: list[Sent] = []
    while len(sent) < RECORDS:
        is_held = len(sent) >= RECORDS - KEPT_BACK and not are_killed.is_set()
        for number in range(len(sent), min(len(sent) + (1 if is_held else CHUNK), RECORDS)):
            sent.append(await producer.send(topic, str(number), key=str(number % 1_000)))
        await asyncio.sleep(PAUSE_S)
    return sent


async def read_until(source: object, wanted: int, seen: list[Record], is_over: asyncio.Event) -> None:
    """Into `seen`, until so many different values are there, or it is over."""
    values: set[bytes | None] = set()
    async for record in source:  # type: ignore[attr-defined]
        seen.append(record)
        values.add(record.value)
        if len(values) >= wanted or is_over.is_set():
            return


async def kill_two(client: AsyncClient, cluster: Cluster, topic: str, are_killed: asyncio.Event) -> None:
    """The node that the client talks to; and, once that one is back, the leader of partition 0 as it is then."""
    await asyncio.sleep(1)
    victim = talks_to(client, cluster)
    await asyncio.to_thread(cluster.kill, victim)
    await asyncio.sleep(0.5)
    await asyncio.to_thread(cluster.restart, victim)
    await asyncio.to_thread(cluster.heal)
    victim = await asyncio.to_thread(cluster.leader_of, topic)
    await asyncio.to_thread(cluster.kill, victim)
    await asyncio.sleep(0.5)
    are_killed.set()
    await asyncio.to_thread(cluster.restart, victim)


async def outcomes_of(sent: list[Sent]) -> dict[str, int | str]:
    """By value: the offset of an acknowledged record, else what it is."""
    found: dict[str, int | str] = {}
    for number, each in enumerate(sent):
        try:
            found[str(number)] = (await each).offset
        except RecordRefused:
            found[str(number)] = "refused"
        except RecordUnknown:
            found[str(number)] = "unknown"
    return found


def test_two_deaths_during_produce_and_consume(cluster: Cluster) -> None:
    topic = "client-deaths"
    cluster.create_topic(topic, partitions=PARTITIONS)

    async def story() -> tuple[dict[str, int | str], list[Sent], list[Record], list[Record], list[Record]]:
        one_address = cluster.nodes[0].rest
        tailed: list[Record] = []
        shared: list[Record] = []
        is_over = asyncio.Event()
        async with AsyncClient(one_address) as client, asyncio.TaskGroup() as tasks:
            reader = client.reader(topic, offset="earliest")
            member = client.consumer(topic, group="client-deaths", auto_offset_reset="earliest")
            tasks.create_task(read_until(reader, RECORDS, tailed, is_over))
            tasks.create_task(read_until(member, RECORDS, shared, is_over))
            are_killed = asyncio.Event()
            killing = tasks.create_task(kill_two(client, cluster, topic, are_killed))
            async with client.producer() as producer:
                sent = await write_numbers(producer, topic, are_killed)
            outcomes = await outcomes_of(sent)
            assert producer.counts.attempts > producer.counts.batches, "no attempt failed: nothing was proved"
            await killing
            if set(outcomes.values()) & {"refused", "unknown"}:
                is_over.set()
        async with AsyncClient(one_address) as client, client.reader(topic, offset="earliest", follows=False) as again:
            stored = [record async for record in again]
        return outcomes, sent, tailed, shared, stored

    outcomes, sent, tailed, shared, stored = asyncio.run(asyncio.wait_for(story(), 240))

    assert len(outcomes) == RECORDS
    assert all(each.is_done for each in sent)
    counts = Counter("acknowledged" if isinstance(each, int) else each for each in outcomes.values())
    assert counts == {"acknowledged": RECORDS}, "every attempt can be repeated safely, so all get through"
    by_place = {(record.partition, record.offset): record for record in stored}
    for number, each in enumerate(sent):
        record = by_place[each.partition, each.result().offset]
        assert record.value == str(number).encode(), f"record {number} is not where it was acknowledged"
    copies = Counter(record.value for record in stored)
    twice = [value for value, count in copies.items() if count > 1]
    assert not twice, f"{len(twice)} records are there twice, as {twice[:5]}"
    for partition in range(PARTITIONS):
        numbers = [int(record.text() or "") for record in stored if record.partition == partition]
        assert numbers == sorted(numbers), f"partition {partition} is out of order"
    assert [r.value for r in tailed if r.partition == 0] == [r.value for r in stored if r.partition == 0]
    assert {record.value for record in tailed} == {record.value for record in stored}
    assert {record.value for record in shared} == {record.value for record in stored}, "the group missed records"


def test_a_blocking_program_survives_the_death_of_the_node_it_named(cluster: Cluster) -> None:
    topic = "client-blocking"
    cluster.create_topic(topic)
    victim = cluster.nodes[1]
    with Client(victim.rest) as client:
        with client.producer() as producer:
            first = producer.send_and_wait(topic, "before")
            cluster.kill(victim.id)
            second = producer.send_and_wait(topic, "after")
        assert client.admin.describe_topic(topic).partitions[0].leader != victim.id
        with client.reader(topic, offset="earliest", follows=False) as reader:
            found = [(record.offset, record.text()) for record in reader]
    assert isinstance(first, Delivery)
    assert found == [(first.offset, "before"), (second.offset, "after")]
    cluster.restart(victim.id)
    cluster.heal()


def test_a_consumer_gives_back_what_it_did_not_iterate_over(cluster: Cluster) -> None:
    topic = "client-gives-back"
    cluster.create_topic(topic, partitions=2)

    async def story() -> list[str | None]:
        async with AsyncClient(cluster.nodes[0].rest) as client:
            async with client.producer() as producer:
                for number in range(100):
                    await producer.send(topic, str(number), partition=number % 2)
            seen = []
            for _ in range(4):
                async with client.consumer(topic, group="gives-back", auto_offset_reset="earliest") as member:
                    async for record in member:
                        seen.append(record.text())
                        if len(seen) % 25 == 0:
                            break
            assert (await client.admin.describe_group("gives-back")).total_lag == 0
            return seen

    seen = asyncio.run(asyncio.wait_for(story(), 120))
    assert sorted(seen, key=lambda text: int(text or "")) == [str(number) for number in range(100)]


def test_a_record_whose_processing_fails_comes_again(cluster: Cluster) -> None:
    topic = "client-comes-again"
    cluster.create_topic(topic)

    async def member_reads(client: AsyncClient, *, fails_at: str | None) -> list[str | None]:
        seen = []
        async with client.consumer(topic, group="comes-again", auto_offset_reset="earliest") as member:
            async for record in member:
                if record.text() == fails_at:
                    raise ValueError(fails_at)
                seen.append(record.text())
                if record.text() == "9":
                    break
        return seen

    async def story() -> list[str | None]:
        async with AsyncClient(cluster.nodes[0].rest) as client:
            async with client.producer() as producer:
                for number in range(10):
                    await producer.send(topic, str(number))
            with pytest.raises(ValueError, match="4"):
                await member_reads(client, fails_at="4")
            return await member_reads(client, fails_at=None)

    assert asyncio.run(asyncio.wait_for(story(), 120)) == [str(number) for number in range(4, 10)]


ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "client.md").read_text(), re.DOTALL)


def run_python(*arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_programs_of_the_documentation_run(cluster: Cluster) -> None:
    assert len(BLOCKS) == 2
    address = cluster.nodes[0].rest.removeprefix("http://")
    outputs = [run_python("-c", block.replace("127.0.0.1:8082", address)) for block in BLOCKS]
    assert outputs[0].splitlines()[-1] == "b'LGA' on time"
    assert outputs[1] == "", "no record failed"


def test_the_example_sees_every_flight(cluster: Cluster) -> None:
    output = run_python(str(ROOT / "examples" / "client" / "pipeline.py"), cluster.nodes[2].rest)
    assert "5000 flights seen" in output
    assert "0 could not be passed on" in output


def test_a_program_that_forgets_to_close_still_delivers_and_ends(cluster: Cluster) -> None:
    cluster.create_topic("client-forgets")
    program = (
        "from kraft.client import Client\n"
        f"producer = Client({cluster.nodes[0].rest!r}).producer(linger_ms=2000)\n"
        "producer.send('client-forgets', 'left over')\n"
    )
    run_python("-c", program)
    with (
        Client(cluster.nodes[0].rest) as client,
        client.reader("client-forgets", offset="earliest", follows=False) as reader,
    ):
        assert [record.text() for record in reader] == ["left over"]
