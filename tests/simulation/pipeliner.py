"""A transactional producer that speaks as Kafka's clients do: over real connections, five produces in flight on each.

It does everything right: batches of a partition are numbered and sent in their order, and again, from the first that
was not acknowledged, when all of them are answered; the end of a transaction is asked for until it is answered. So it
may be refused for a while only. An error that ends a client for good is a violation.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from kraft.chaos.history import Asked, Operation, Produce, Transaction
from kraft.chaos.workload.counts import Counts
from kraft.chaos.workload.requests import value_text
from kraft.client.outcome import Outcome
from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.protocol.encoding import TopLevel
from kraft.protocol.messages.add_partitions_to_txn_request import AddPartitionsToTxnRequestData, AddPartitionsToTxnTopic
from kraft.protocol.messages.end_txn_request import EndTxnRequestData
from kraft.protocol.messages.find_coordinator_request import FindCoordinatorRequestData
from kraft.protocol.messages.init_producer_id_request import InitProducerIdRequestData
from kraft.protocol.messages.produce_request import PartitionProduceData, ProduceRequestData, TopicProduceData
from kraft.protocol.transactions import Producer
from tests.simulation.oracle import Oracle
from tests.simulation.wire_client import WireClient

IN_FLIGHT_MAX: Final = 5
ANSWER_S: Final = 2.0
"""A connection that owes an answer for longer is given up."""
PAUSE_S: Final = 0.02
END_BEHIND_S: Final = (0.0, 0.003, 0.01, 0.03)
"""From a request to the EndTxn behind it: within the time for which a coordinator waits before it looks again."""
TRANSACTION_TIMEOUT_MS: Final = 600_000
"""Longer than a run: no coordinator ends a transaction by itself, so nobody is fenced."""
TRANSACTIONS: Final = 1
"""key_type of FindCoordinator."""
ACKED: Final = frozenset({0, 46})
"""46: it is in the log already."""
OUT_OF_ORDER: Final = 45
LOST: Final = 13
"""Stands for an answer that did not come."""
UNKNOWN: Final = frozenset({7, LOST, 20, 56})
"""It may be in the log."""
AGAIN: Final = frozenset({3, 5, 6, 7, 13, 14, 15, 16, 19, 20, 51, 56})
"""What every client tries again."""


class Cluster(Protocol):
    @property
    def brokers(self) -> tuple[int, ...]: ...
    def leader(self, topic: str, partition: int) -> int: ...
    def partitions(self, topic: str) -> tuple[int, ...]: ...


@dataclass(frozen=True, kw_only=True)
class PipelinerOptions:
    name: str
    topic: str
    transactional_id: str
    is_new: bool
    """Transaction version 2 (KIP-890); else 1."""
    requests: int
    """The batches of one transaction."""
    aborts_every: int
    loses_connections: float
    """How likely it is that a transaction loses its connections in the middle."""
    burst: int
    """So many transactions follow each other without a pause."""
    pause_ms: int
    is_hasty: bool
    """It asks for the end of a transaction that it aborts before it has an answer to what it has sent before."""


@dataclass(eq=False)
class _Batch:
    turn: int
    """Those of one turn that one node leads go into one request."""
    partition: int
    sequence: int
    values: tuple[str, ...]
    outcome: Outcome = "info"
    offset: int = -1
    code: int | None = None
    is_sent: bool = False
    may_be_written: bool = False
    """It was sent before, with an unknown outcome."""


@dataclass(eq=False)
class _Place:
    """A partition: what is to be sent, what is on its way, and what has come back."""

    waiting: deque[_Batch] = field(default_factory=deque)
    in_flight: list[_Batch] = field(default_factory=list)
    again: list[_Batch] = field(default_factory=list)
    acked_to: int = 0
    """The sequence that follows the last one that was acknowledged."""

    @property
    def is_left(self) -> bool:
        return bool(self.waiting or self.again)

    def settle(self) -> None:
        """What came back is sent again when nothing is on its way any more."""
        if self.again and not self.in_flight:
            self.waiting.extendleft(sorted(self.again, key=lambda each: -each.sequence))
            self.again.clear()


class _LostError(Exception):
    """The client ends, as Kafka's do after a fatal error."""


class Pipeliner:
    """`start`, then `finish` or `silence`, as of a `Transactor`."""

    def __init__(
        self,
        options: PipelinerOptions,
        *,
        oracle: Oracle,
        cluster: Cluster,
        record: Callable[[Operation], None],
        is_excused: Callable[[], bool],
        rng: random.Random,
    ) -> None:
        self.options, self.counts = options, Counts()
        self._oracle, self._cluster, self._record, self._rng = oracle, cluster, record, rng
        self._is_excused = is_excused
        self._world = oracle.cluster.world
        self._connections: dict[int, WireClient] = {}
        self._coordinator = -1
        self._producer: Producer | None = None
        self._next_sequences: dict[int, int] = defaultdict(int)
        self._number = self._index = 0
        self._is_ending = False
        self._is_open = False
        """A broker has answered that a part of the transaction was done."""
        self._is_given_up = False
        self._is_lost = False
        """It was refused for good by a cluster that has lost what the client did."""
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._running = asyncio.get_running_loop().create_task(self._run(), name=self.options.name)

    async def finish(self) -> None:
        """Returns when its last transaction has ended."""
        self._is_ending = True
        if self._running is not None:
            await self._running

    async def silence(self) -> None:
        """End as a killed process does."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        self._close()

    def _close(self) -> None:
        for each in self._connections.values():
            each.close()
        self._connections.clear()
        self.counts.is_done = True

    async def _run(self) -> None:
        try:
            await self._init()
            while not self._is_ending:
                await self._transaction()
                if self._number % self.options.burst == 0:
                    await asyncio.sleep(self.options.pause_ms / 1_000)
                if self._producer is None:
                    await self._init()
        except _LostError:
            self._oracle.count("pipelining client refused for good by a cluster that had lost its data")
        finally:
            self._close()

    # --- one transaction --------------------------------------------------------------------------------------------

    async def _transaction(self) -> None:
        options, producer = self.options, self._producer
        assert producer is not None
        number, begun_us = self._number, self._world.loop.now_us
        self._number += 1
        self._is_open = self._is_given_up = False
        aborts = bool(options.aborts_every) and number % options.aborts_every == options.aborts_every - 1
        places = self._plan()
        batches = [each for place in places.values() for each in place.waiting]
        asked: Asked = "nothing"
        outcome: Outcome = "info"
        try:
            asked = "abort"
            is_hasty = aborts and options.is_hasty
            if is_hasty:
                is_ended = await self._send_with_end(producer, places)
            else:
                if not options.is_new:
                    await self._add(producer, places)
                await self._produce(producer, places)
                is_ended = False
                asked = "abort" if aborts or self._is_given_up else "commit"
            if not is_ended:
                await self._end(producer, is_commit=asked == "commit")
            outcome = "ok"
        finally:
            self._keep(number, begun_us, producer, batches, asked, outcome)
        if options.is_new:
            self._next_sequences.clear()
        elif any(each.is_sent and each.outcome != "ok" for each in batches):
            self._producer = None  # with sequences that nobody knows the state of a client asks for a new epoch
        for each in batches:
            if not each.is_sent:
                self._next_sequences[each.partition] = min(self._next_sequences[each.partition], each.sequence)
        self.counts.committed += asked == "commit"
        self.counts.aborted += asked == "abort"

    def _plan(self) -> dict[int, _Place]:
        """Requests to {A}, {A, B}, {A} and so on, in batches of one or two records."""
        partitions, rng = self._cluster.partitions(self.options.topic), self._rng
        places: dict[int, _Place] = {}
        first = rng.choice(partitions)
        for turn in range(self.options.requests):
            among = {first} if turn % 2 == 0 else {first, *rng.sample(partitions, rng.randint(1, len(partitions)))}
            for partition in sorted(among):
                count = rng.choice((1, 1, 2))
                values = tuple(value_text(self.options.name, self.counts.sent + n) for n in range(count))
                self.counts.sent += count
                sequence = self._next_sequences[partition]
                self._next_sequences[partition] += count
                place = places.setdefault(partition, _Place(acked_to=sequence))
                place.waiting.append(_Batch(turn, partition, sequence, values))
        return places

    # --- produces ---------------------------------------------------------------------------------------------------

    async def _produce(self, producer: Producer, places: dict[int, _Place]) -> None:
        """Until each batch is acknowledged, or the transaction is given up."""
        asked: set[asyncio.Task[None]] = set()
        loses = self._rng.random() < self.options.loses_connections
        try:
            while any(each.in_flight or (not self._is_given_up and each.is_left) for each in places.values()):
                has_sent = not self._is_given_up and await self._send(producer, places, asked)
                if loses and has_sent and self._rng.random() < 0.3:
                    loses = False
                    self._oracle.count("pipelining client lost its connection")
                    self._rng.choice(list(self._connections.values())).close()
                if asked:
                    _, asked = await asyncio.wait(asked, timeout=PAUSE_S, return_when=asyncio.FIRST_COMPLETED)
                else:
                    await asyncio.sleep(PAUSE_S)
        finally:
            for each in asked:
                each.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    async def _send(self, producer: Producer, places: dict[int, _Place], asked: set[asyncio.Task[None]]) -> bool:
        """All that may be sent now; whether that is anything."""
        has_sent = False
        for node in sorted({self._leader(partition) for partition in places} - {-1}):
            connection = await self._connection(node)
            if connection is None:
                continue
            while len([each for each in asked if each.get_name() == str(node) and not each.done()]) < IN_FLIGHT_MAX:
                batches = self._next(node, places)
                if not batches:
                    break
                answer = connection.ask(self._request(producer, batches), 12 if self.options.is_new else 11)
                response = self._taken(connection, answer, batches, places)
                asked.add(asyncio.get_running_loop().create_task(response, name=str(node)))
                has_sent = True
        return has_sent

    def _next(self, node: int, places: dict[int, _Place]) -> list[_Batch]:
        """The batches of the earliest turn."""
        ready = [
            place.waiting[0]
            for partition, place in sorted(places.items())
            if place.waiting and not place.again and self._leader(partition) == node
        ]
        turn = min((each.turn for each in ready), default=-1)
        batches = [each for each in ready if each.turn == turn]
        for each in batches:
            each.is_sent = True
            places[each.partition].in_flight.append(places[each.partition].waiting.popleft())
        return batches

    def _request(self, producer: Producer, batches: Iterable[_Batch]) -> ProduceRequestData:
        now_ms = self._world.loop.now_us // 1_000
        data = [
            PartitionProduceData.make(
                index=each.partition,
                records=build_batch(
                    [NewRecord(None, value.encode(), [], now_ms) for value in each.values],
                    producer_id=producer.producer_id,
                    producer_epoch=producer.epoch,
                    base_sequence=each.sequence,
                    is_transactional=True,
                ),
            )
            for each in batches
        ]
        return ProduceRequestData.make(
            transactional_id=self.options.transactional_id,
            acks=-1,
            timeout_ms=1_000,
            topic_data=[TopicProduceData.make(name=self.options.topic, partition_data=data)],
        )

    async def _taken(
        self, connection: WireClient, asked: asyncio.Future[Any], batches: Sequence[_Batch], places: dict[int, _Place]
    ) -> None:
        answer = await self._within(connection, asked)
        codes = {batch.partition: (LOST, -1) for batch in batches}
        if answer is not None:
            rows = answer.responses[0].partition_responses
            codes = {row.index: (row.error_code, row.base_offset) for row in rows}
        for batch in batches:
            self._take(places[batch.partition], batch, *codes[batch.partition])

    def _take(self, place: _Place, batch: _Batch, code: int, offset: int) -> None:
        place.in_flight.remove(batch)
        if code in ACKED:
            batch.outcome, batch.offset, batch.code = "ok", offset, 0
            place.acked_to = max(place.acked_to, batch.sequence + len(batch.values))
            self._is_open = True
        else:
            is_next = batch.sequence == place.acked_to
            if code == OUT_OF_ORDER and is_next and batch.may_be_written:
                # A leader that has restarted knows the last batch of each producer, and not those before it.
                self._oracle.count("pipelined transaction given up")
                self._is_given_up = True
            elif code not in AGAIN and (code != OUT_OF_ORDER or is_next):
                self._is_fatal(f"a produce to partition {batch.partition}, sequence {batch.sequence}", code)
            batch.may_be_written |= code in UNKNOWN
            self._oracle.count(f"pipelined produce refused, error {code}")
            place.again.append(batch)
        place.settle()

    # --- the coordinator --------------------------------------------------------------------------------------------

    async def _init(self) -> None:
        request = InitProducerIdRequestData.make(
            transactional_id=self.options.transactional_id,
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            producer_id=-1,
            producer_epoch=-1,
        )
        answer = await self._coordinated(request, 5, lambda response: response.error_code)
        self._producer = Producer(answer.producer_id, answer.producer_epoch)
        self._next_sequences.clear()

    async def _add(self, producer: Producer, places: Iterable[int]) -> None:
        await self._coordinated(self._addition(producer, places), 3, _code_of_addition)
        self._is_open = True

    def _addition(self, producer: Producer, places: Iterable[int]) -> AddPartitionsToTxnRequestData:
        return AddPartitionsToTxnRequestData.make(
            v3_and_below_transactional_id=self.options.transactional_id,
            v3_and_below_producer_id=producer.producer_id,
            v3_and_below_producer_epoch=producer.epoch,
            v3_and_below_topics=[AddPartitionsToTxnTopic.make(name=self.options.topic, partitions=sorted(places))],
        )

    async def _end(self, producer: Producer, *, is_commit: bool) -> None:
        """Asked again until it is answered. An abort of which nobody knows whether it has anything to abort may be
        refused by version 1."""
        may_be_nothing = not self._is_open and not self.options.is_new
        answer = await self._coordinated(
            self._ending(producer, is_commit=is_commit),
            self._end_version,
            lambda response: 0 if may_be_nothing and response.error_code == 48 else response.error_code,
        )
        self._ended(answer)

    def _ending(self, producer: Producer, *, is_commit: bool) -> EndTxnRequestData:
        return EndTxnRequestData.make(
            transactional_id=self.options.transactional_id,
            producer_id=producer.producer_id,
            producer_epoch=producer.epoch,
            committed=is_commit,
        )

    @property
    def _end_version(self) -> int:
        return 5 if self.options.is_new else 4

    def _ended(self, answer: Any) -> None:
        if self.options.is_new:
            if answer.producer_id != (self._producer or answer).producer_id:
                self._oracle.count("producer id rotated")
            self._producer = Producer(answer.producer_id, answer.producer_epoch)

    async def _send_with_end(self, producer: Producer, places: dict[int, _Place]) -> bool:
        """One request and, behind it on the same connection, EndTxn(abort): whether the transaction has ended. What
        is sent before does its work before, or is refused before."""
        node = await self._find_coordinator()
        connection = await self._connection(node) if node >= 0 else None
        if connection is None:
            return False
        first: asyncio.Future[Any]
        batches: list[_Batch] = []
        if self.options.is_new:
            batches = self._next(node, places)
            if not batches:
                return False
            first = connection.ask(self._request(producer, batches), 12)
        else:
            first = connection.ask(self._addition(producer, places), 3)
        await asyncio.sleep(self._rng.choice(END_BEHIND_S))
        if not first.done():
            self._oracle.count("end sent behind a request without an answer")
        second = connection.ask(self._ending(producer, is_commit=False), self._end_version)
        if batches:
            await self._taken(connection, first, batches, places)
        else:
            added = await self._within(connection, first)
            self._is_open = added is not None and not _code_of_addition(added)
        answer = await self._within(connection, second)
        if answer is None:
            return False
        code = answer.error_code
        if code == 48 and not self._is_open and not self.options.is_new:
            return False
        if code and code not in AGAIN:
            self._is_fatal(f"EndTxn with {producer}, {'after' if self._is_open else 'without'} an addition", code)
        if not code:
            self._ended(answer)
        return not code

    async def _coordinated(self, request: TopLevel, version: int, code_of: Callable[[Any], int]) -> Any:
        """The answer, which is no error."""
        while not self._is_lost:
            node = await self._find_coordinator()
            connection = await self._connection(node) if node >= 0 else None
            if connection is not None:
                answer = await self._within(connection, connection.ask(request, version))
                code = LOST if answer is None else code_of(answer)
                if not code:
                    return answer
                self._oracle.count(f"{type(request).__name__.removesuffix('RequestData')} refused, error {code}")
                if code not in AGAIN:
                    self._is_fatal(str(request), code)
                if code != 51:
                    self._coordinator = -1
            await asyncio.sleep(PAUSE_S)
        raise _LostError

    async def _find_coordinator(self) -> int:
        if self._coordinator < 0:
            node = self._rng.choice(self._cluster.brokers)
            connection = await self._connection(node)
            if connection is None:
                return -1
            request = FindCoordinatorRequestData.make(
                key_type=TRANSACTIONS, coordinator_keys=[self.options.transactional_id]
            )
            answer = await self._within(connection, connection.ask(request, 6))
            if answer is not None and not answer.coordinators[0].error_code:
                self._coordinator = answer.coordinators[0].node_id
        return self._coordinator

    # --- connections ------------------------------------------------------------------------------------------------

    def _leader(self, partition: int) -> int:
        return self._cluster.leader(self.options.topic, partition)

    async def _connection(self, node: int) -> WireClient | None:
        found = self._connections.get(node)
        if found is not None and found.is_open:
            return found
        target = self._oracle.cluster.nodes[node].machine.name
        made = await WireClient.connect(self._world, f"client {self.options.name}", target, within_s=ANSWER_S)
        if made is not None:
            self._connections[node] = made
        return made

    async def _within(self, connection: WireClient, answer: asyncio.Future[Any]) -> Any:
        """None: there is none, or not in time; then the connection has ended."""
        done, _ = await asyncio.wait((answer,), timeout=ANSWER_S)
        if not done:
            connection.close()
        return await answer

    def _is_fatal(self, what: str, code: int) -> None:
        """It did everything right."""
        self._is_lost = self._is_given_up = True
        if not self._is_excused():
            self._oracle.fail(f"client_ended: {self.options.name}: {what} was refused for good with error {code}")

    # --- the history ------------------------------------------------------------------------------------------------

    def _keep(
        self,
        number: int,
        begun_us: int,
        producer: Producer,
        batches: Sequence[_Batch],
        asked: Asked,
        outcome: Outcome,
    ) -> None:
        times = {"invoke_us": begun_us, "complete_us": self._world.loop.now_us}
        for each in batches:
            if each.is_sent:
                self._index += 1
                count = len(each.values)
                offsets = tuple(range(each.offset, each.offset + count)) if each.offset >= 0 else None
                self._record(
                    Produce(
                        process=self.options.name,
                        index=self._index,
                        topic=self.options.topic,
                        partition=each.partition,
                        acks="all",
                        records=tuple((None, value) for value in each.values),
                        outcome=each.outcome,
                        kafka_code=each.code,
                        offsets=offsets,
                        transaction=number,
                        **times,
                    )
                )
        self._index += 1
        self._record(
            Transaction(
                process=self.options.name,
                index=self._index,
                transactional_id=self.options.transactional_id,
                number=number,
                producer_id=producer.producer_id,
                epoch=producer.epoch,
                asked=asked,
                outcome=outcome,
                **times,
            )
        )


def _code_of_addition(response: Any) -> int:
    codes = [
        row.partition_error_code for each in response.results_by_topic_v3_and_below for row in each.results_by_partition
    ]
    return next((code for code in codes if code), 0)
