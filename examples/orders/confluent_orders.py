"""The order service on confluent-kafka (librdkafka): a shop takes orders, and billing writes one invoice for each."""

from __future__ import annotations

import json
import time

from confluent_kafka import Consumer, KafkaException, Message, Producer


class Shop:
    def __init__(self, bootstrap: str, topic: str) -> None:
        self._topic = topic
        self._producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 2})

    def place_all(self, count: int, *, then: object = None) -> list[Message]:
        """Returns when all are safe; `then` is called when half of them are on their way. Raises KafkaException."""
        reports: list[Message] = []
        for number in range(count):
            order = json.dumps({"id": number, "price": 10 + number}).encode()
            self._producer.produce(
                self._topic, order, key=str(number), on_delivery=lambda error, message: reports.append(message)
            )
            if number == count // 2 and callable(then):
                self._producer.poll(0.05)
                then()
        left = self._producer.flush(60)
        failed = [message for message in reports if message.error()]
        if left or failed:
            raise KafkaException(failed[0].error() if failed else f"{left} orders are still on their way")
        return reports


class Billing:
    def __init__(self, bootstrap: str, topic: str, invoices: dict[int, int]) -> None:
        self.invoices = invoices
        self.repeated = 0
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": f"billing-{topic}",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
            }
        )
        self._consumer.subscribe([topic])

    def bill(self, count: int, *, within_s: float = 60) -> None:
        """Run until there are so many invoices."""
        end = time.monotonic() + within_s
        try:
            while len(self.invoices) < count:
                if time.monotonic() > end:
                    raise TimeoutError(f"{len(self.invoices)} of {count} orders were billed")
                message = self._consumer.poll(1)
                if message is None:
                    continue
                if message.error():
                    raise KafkaException(message.error())
                self._bill(json.loads(message.value()))
                self._commit(message)
        finally:
            self._consumer.close()

    def _bill(self, order: dict[str, int]) -> None:
        if order["id"] in self.invoices:
            self.repeated += 1
            return
        self.invoices[order["id"]] = order["price"]

    def _commit(self, message: Message) -> None:
        """A commit may be repeated: it only sets the next offset."""
        for attempt in range(5):
            try:
                self._consumer.commit(message, asynchronous=False)
                return
            except KafkaException:
                if attempt == 4:
                    raise
