"""Read one topic as a group, write another, and lose nothing: run it twice at once, and kill a node.

    python examples/client/pipeline.py 127.0.0.1:8082

Writes 5,000 flights, reads them as a member of a group, writes the late ones to a second topic, commits after each
hundred only when those are acknowledged, and prints how many it saw.
"""

from __future__ import annotations

import asyncio
import sys

from kraft.client import AsyncClient, AsyncProducer, Record, ServerError, to_json

FLIGHTS = 5_000
COMMIT_EVERY = 100
LATE_MINUTES = 30


async def make_topics(kraft: AsyncClient) -> None:
    for name in ("example-flights", "example-late"):
        try:
            await kraft.admin.create_topic(name, partitions=3)
        except ServerError as error:
            if error.name != "TOPIC_ALREADY_EXISTS":
                raise


async def write_flights(kraft: AsyncClient) -> None:
    async with kraft.producer() as producer:
        for number in range(FLIGHTS):
            flight = {"number": number, "delay": number * 7 % 60}
            await producer.send("example-flights", to_json(flight), key=str(number))
        counts = await producer.flush()
    print(f"{counts.acknowledged} flights written in {counts.batches} batches")


async def pass_on(producer: AsyncProducer, record: Record) -> bool:
    """Whether the flight was late."""
    if record.json()["delay"] < LATE_MINUTES:
        return False
    await producer.send("example-late", record.value, key=record.key)
    return True


async def main(address: str) -> None:
    async with AsyncClient(address) as kraft:
        await make_topics(kraft)
        await write_flights(kraft)
        seen = late = 0
        consumer = kraft.consumer(
            "example-flights", group="example", auto_offset_reset="earliest", enable_auto_commit=False
        )
        async with kraft.producer() as producer, consumer:
            async for record in consumer:
                late += await pass_on(producer, record)
                seen += 1
                if seen % COMMIT_EVERY == 0:
                    await producer.flush()
                    await consumer.commit()
                if seen >= FLIGHTS:
                    break
            failed = producer.counts.refused + producer.counts.unknown
        print(f"{seen} flights seen, {late} were late, {failed} could not be passed on")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8082"))
