"""A transactional producer made of aiokafka's, through links of its own, with the flow before KIP-890.

The library retries by itself. The attempts of an end are counted, because the outcomes of attempts before the last one
are unknown. After a fatal error the library's producer is replaced by a new one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import IllegalOperation, KafkaError, ProducerFenced

from kraft.chaos.workload.client import Batch, ProduceResult
from kraft.chaos.workload.kafka_client import METADATA_AGE_MS, NO_LOGIN, RETRY_BACKOFF_MS, Address, lead_through
from kraft.chaos.workload.transaction_client import StepResult, TransactionPlan, of_end
from kraft.protocol.errors import InvalidProducerEpoch

END_TXN_KEY: Final = 26
CLOSE_LIMIT_S: Final = 2.0


class KafkaTransactionClient:
    """Implements `TransactionClient`."""

    def __init__(
        self,
        name: str,
        address: Address,
        plan: TransactionPlan,
        *,
        brokers: Sequence[int],
        login: Mapping[str, Any] = NO_LOGIN,
    ) -> None:
        """`address`: `host:port` of this client's link to the Kafka port of a broker. `login`: arguments of aiokafka
        with which the client logs in."""
        self._login = login
        self._name = name
        self._address = address
        self._plan = plan
        self._brokers = brokers
        self._addresses: dict[int, str] = {}
        self._producer: AIOKafkaProducer | None = None
        self._ends_sent = 0
        self._has_failed = False
        """A batch of this transaction was not acknowledged: the log may lack sequences that the library has used."""

    async def open(self, nodes: Sequence[int]) -> None:
        for node in sorted({*self._brokers, *nodes}):
            self._addresses[node] = await self._address(self._name, node)

    async def begin(self, node: int) -> StepResult:
        try:
            async with asyncio.timeout(2 * self._plan.timeout_ms / 1000):
                producer = await self._started(node)
                await producer.begin_transaction()
                self._has_failed = False
        except (KafkaError, OSError, TimeoutError, AssertionError) as error:
            await self._throw_away()
            return StepResult(outcome="info", kafka_code=_code_of(error), error=_text_of(error))
        manager = producer._txn_manager
        return StepResult(outcome="ok", producer_id=manager.producer_id, epoch=manager.producer_epoch)

    async def produce(self, node: int, batch: Batch) -> ProduceResult:
        producer = self._producer
        assert producer is not None, "no transaction has begun"
        built = producer.create_batch()
        for _, value in batch.records:
            added = built.append(key=None, value=value.encode(), timestamp=None)
            assert added is not None, "the batch is too long"
        try:
            async with asyncio.timeout(2 * batch.timeout_ms / 1000):
                sent = await producer.send_batch(built, batch.topic, partition=batch.partition)
                metadata = await sent
        except (KafkaError, OSError, TimeoutError, AssertionError) as error:
            self._has_failed = True
            return ProduceResult(outcome="info", kafka_code=_code_of(error), error=_text_of(error))
        end = metadata.offset + len(batch.records)
        return ProduceResult(
            outcome="ok", kafka_code=0, offsets=tuple(range(metadata.offset, end)) if metadata.offset >= 0 else None
        )

    async def add_offsets(self, node: int, group: str, topic: str, offsets: Mapping[int, int]) -> StepResult:
        assert self._producer is not None, "no transaction has begun"
        positions = {TopicPartition(topic, partition): offset for partition, offset in offsets.items()}
        try:
            async with asyncio.timeout(2 * self._plan.timeout_ms / 1000):
                await self._producer.send_offsets_to_transaction(positions, group)
        except (KafkaError, OSError, TimeoutError, AssertionError) as error:
            return StepResult(outcome="info", kafka_code=_code_of(error), error=_text_of(error))
        return StepResult(outcome="ok")

    async def end(self, node: int, *, is_commit: bool) -> StepResult:
        producer = self._producer
        assert producer is not None, "no transaction has begun"
        self._ends_sent = 0
        try:
            async with asyncio.timeout(4 * self._plan.timeout_ms / 1000):
                await (producer.commit_transaction() if is_commit else producer.abort_transaction())
        except (KafkaError, OSError, TimeoutError, AssertionError) as error:
            await self._throw_away()
            code = _code_of(error)
            outcome = "fail" if not self._ends_sent else of_end(code)
            return StepResult(outcome=outcome, attempts=max(self._ends_sent, 1), kafka_code=code, error=_text_of(error))
        if self._has_failed:
            await self._throw_away()
        return StepResult(outcome="ok", attempts=max(self._ends_sent, 1))

    async def close(self) -> None:
        """Close the connections, without a request to the coordinator."""
        await self._throw_away()

    async def _started(self, node: int) -> AIOKafkaProducer:
        if self._producer is None:
            first = self._addresses[node]
            producer = AIOKafkaProducer(
                bootstrap_servers=[first, *(at for at in self._addresses.values() if at != first)],
                client_id=self._name,
                transactional_id=self._plan.transactional_id,
                transaction_timeout_ms=self._plan.transaction_timeout_ms,
                request_timeout_ms=self._plan.timeout_ms,
                retry_backoff_ms=RETRY_BACKOFF_MS,
                metadata_max_age_ms=METADATA_AGE_MS,
                **self._login,
            )
            self._producer = producer
            lead_through(producer.client, self._addresses)
            self._count_ends(producer.client)
            await producer.start()
        return self._producer

    def _count_ends(self, client: Any) -> None:
        send = client.send

        async def counted(node_id: int, request: Any, **options: Any) -> Any:
            self._ends_sent += getattr(request, "API_KEY", None) == END_TXN_KEY
            return await send(node_id, request, **options)

        client.send = counted

    async def _throw_away(self) -> None:
        producer, self._producer = self._producer, None
        if producer is None:
            return
        await producer.client.close()
        stopping = asyncio.get_running_loop().create_task(producer.stop())
        await asyncio.wait([stopping], timeout=CLOSE_LIMIT_S)
        stopping.cancel()
        await asyncio.gather(stopping, return_exceptions=True)


def _code_of(error: BaseException) -> int | None:
    """The library raises `ProducerFenced` for every InvalidProducerEpoch; that exception has no code."""
    if isinstance(error, ProducerFenced):
        return InvalidProducerEpoch.code
    if isinstance(error, IllegalOperation) or not isinstance(error, KafkaError):
        return None
    code = getattr(error, "errno", None)
    return code if code is not None and code > 0 else None


def _text_of(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
