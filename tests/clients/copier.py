"""One instance that copies a topic to another, exactly once, until it is killed: librdkafka's consumer and producer.

    python -m tests.clients.copier BOOTSTRAP SOURCE SINK GROUP TRANSACTIONAL_ID PROTOCOL [CLIENT]

PROTOCOL is `classic` or `consumer` (KIP-848). CLIENT is the folder `client` of a cluster of `kraft up --secure`. A
transaction takes several batches for each of several partitions, so that its produces are pipelined; one of four is
aborted on purpose, and its records are read again. It ends with 1 when a broker answers what no producer goes on after.

librdkafka gives the sequences of records that an abort has taken out of its queues to the next ones ("advancing epoch
base msgid"), also if they had been sent before and wait to be sent again. If a leader that has died had them
replicated, the next transaction's records are repetitions to its successor, and are acknowledged and lost. So after an
abort that has purged anything another producer takes the transactional id over, with an epoch of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from tests.clients.login import login_of

RECORDS = 60
"""Of one transaction, at most."""
ABORTS_EVERY = 4
CALL_S = 60.0
TRANSACTION_TIMEOUT_MS = 120_000
"""Longer than a node is ever away, so that no transaction of an instance that lives is ended by its coordinator."""
SESSION_TIMEOUT_MS = 6_000


class Copier:
    def __init__(
        self, bootstrap: str, source: str, sink: str, group: str, name: str, protocol: str, client: str | None = None
    ) -> None:
        self._source, self._sink = source, sink
        login = login_of(None if client is None else Path(client))
        of_group: dict[str, Any] = {"group.protocol": protocol}
        if protocol == "classic":
            of_group["session.timeout.ms"] = SESSION_TIMEOUT_MS
        self._consumer = Consumer(
            {
                **login,
                "bootstrap.servers": bootstrap,
                "group.id": group,
                "enable.auto.commit": False,
                "auto.offset.reset": "error",  # offset 0 was committed for each partition before
                "isolation.level": "read_committed",
                "log_level": 0,
                **of_group,
            }
        )
        self._of_producer: dict[str, Any] = {
            **login,
            "bootstrap.servers": bootstrap,
            "transactional.id": name,
            "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
            "max.in.flight.requests.per.connection": 5,
            "batch.num.messages": 3,
            "linger.ms": 0,
            "log_level": 0,
        }
        self._producer = Producer(self._of_producer)
        self._has_purged = False
        """Whether librdkafka has given up records of this transaction that it may have sent."""
        self._committed = self._aborted = 0

    def run(self) -> None:
        self._begin_epoch()
        # With a callback librdkafka waits with a rebalance until it is called, between two transactions.
        self._consumer.subscribe([self._source], on_revoke=lambda *_: None, on_lost=lambda *_: None)
        while True:
            messages = [each for each in self._consumer.consume(RECORDS, 0.5) if each.error() is None]
            if messages:
                self._copy(messages)

    def _begin_epoch(self) -> None:
        self._again(lambda: self._producer.init_transactions(CALL_S))

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._has_purged = True

    def _copy(self, messages: list[Message]) -> None:
        member = self._consumer.consumer_group_metadata()
        self._has_purged = False
        self._producer.begin_transaction()
        is_wanted = (self._committed + self._aborted) % ABORTS_EVERY != ABORTS_EVERY - 1
        try:
            for each in messages:
                self._producer.produce(
                    self._sink, each.value(), partition=each.partition(), on_delivery=self._delivered
                )
                self._producer.poll(0)
            self._again(lambda: self._producer.send_offsets_to_transaction(_following(messages), member, CALL_S))
            if is_wanted:
                self._again(lambda: self._producer.commit_transaction(CALL_S))
        except KafkaException as failed:
            _end_if_fatal(failed)
            is_wanted = False
        if is_wanted:
            self._committed += 1
        else:
            self._again(lambda: self._producer.abort_transaction(CALL_S))
            self._rewind(messages)
            if self._has_purged:
                self._producer = Producer(self._of_producer)
                self._begin_epoch()
            self._aborted += 1
        print(self._committed, "committed,", self._aborted, "aborted", flush=True)

    def _again(self, step: Callable[[], object]) -> None:
        """Until it is done. Raises KafkaException when the transaction has to be aborted."""
        while True:
            try:
                step()
            except KafkaException as failed:
                _end_if_fatal(failed)
                if not failed.args[0].retriable():
                    raise
            else:
                return

    def _rewind(self, messages: list[Message]) -> None:
        """Partitions are taken from a member only while it consumes, so these are still its own."""
        first: dict[int, int] = {}
        for each in messages:
            first.setdefault(each.partition(), each.offset())
        for partition, offset in first.items():
            self._consumer.seek(TopicPartition(self._source, partition, offset))


def _following(messages: list[Message]) -> list[TopicPartition]:
    offsets = {(each.topic(), each.partition()): each.offset() + 1 for each in messages}
    return [TopicPartition(topic, partition, offset) for (topic, partition), offset in offsets.items()]


def _end_if_fatal(failed: KafkaException) -> None:
    error = failed.args[0]
    print("failed:", error.name(), error.str(), flush=True)
    if error.fatal():
        print("FATAL", error.name(), error.str(), flush=True)
        sys.exit(1)


if __name__ == "__main__":
    Copier(*sys.argv[1:]).run()
