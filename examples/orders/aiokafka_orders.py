"""A small order service on aiokafka: a shop takes orders, and billing writes one invoice for each of them."""

from __future__ import annotations

import asyncio
import json

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer


class Shop:
    """An order that was placed is in the topic once, whatever happens to a broker meanwhile."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._topic = topic
        self._producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, retry_backoff_ms=50, linger_ms=2
        )

    async def __aenter__(self) -> Shop:
        await self._producer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()

    async def place(self, order: dict[str, object]) -> object:
        """Returns when it is safe. Raises aiokafka's KafkaError."""
        return await self._producer.send_and_wait(
            self._topic, json.dumps(order).encode(), key=str(order["id"]).encode()
        )


class Billing:
    """Reads orders as a member of a group. An order that is read again, because its commit is unknown, gets no second
    invoice."""

    def __init__(self, bootstrap: str, topic: str, invoices: dict[int, int]) -> None:
        self.invoices = invoices
        """Order id -> invoice; in a real service, a table with the order's id as its key."""
        self.repeated = 0
        self._consumer = AIOKafkaConsumer(
            topic,
            bootstrap_servers=bootstrap,
            group_id=f"billing-{topic}",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            retry_backoff_ms=50,
        )

    async def bill(self, count: int) -> None:
        """Run until there are so many invoices."""
        await self._consumer.start()
        try:
            while len(self.invoices) < count:
                found = await self._consumer.getmany(timeout_ms=1_000)
                for record in (record for records in found.values() for record in records):
                    self._bill(json.loads(record.value))
                if found:
                    await self._consumer.commit()
        finally:
            await self._consumer.stop()

    def _bill(self, order: dict[str, int]) -> None:
        if order["id"] in self.invoices:
            self.repeated += 1
            return
        self.invoices[order["id"]] = order["price"]


async def place_all(shop: Shop, count: int) -> list[object]:
    return await asyncio.gather(*(shop.place({"id": number, "price": 10 + number}) for number in range(count)))
