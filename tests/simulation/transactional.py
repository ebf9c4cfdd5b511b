"""The clients of the profiles "transactions" and "pipelined", judged by the checker of the chaos kit.

A few transactional ids, each with one instance after the other: an instance vanishes in mid-transaction, or is cut off
from all nodes while the next one begins, and its requests arrive late. Each instance commits the number of its
transaction as the offset of a group of its own. The two flows (before and since KIP-890) stand side by side, and a
reader of committed records follows. The topic is their own: plain producers write to the others.

Those of "transactions" are the kit's, which call what the Kafka listener calls. Those of "pipelined" speak to the
listener itself, over connections (`pipeliner`); there an instance is over before the next one begins.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from kraft.chaos.checkers.findings import Findings
from kraft.chaos.checkers.ledger import FOUND, Ledger
from kraft.chaos.checkers.transactions import TransactionCheck
from kraft.chaos.evidence import GroupOffset, LogRecord, ReadBack
from kraft.chaos.history import Operation, Produce, Read, Transaction
from kraft.chaos.workload.reader import Reader, ReaderOptions
from kraft.chaos.workload.transaction_client import TransactionPlan
from kraft.chaos.workload.transactor import Transactor, TransactorOptions
from kraft.chaos.worlds.simulated.client import ClientLink, SimulatedClient
from kraft.chaos.worlds.simulated.transaction_client import SimulatedTransactionClient
from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.protocol.batches.records import read_batches
from kraft.protocol.errors import KafkaError
from metadata.environment import ConnectionClosed
from metadata.image import TopicIdPartition
from tests.simulation.committed import LOOK_S, SETTLE_S, is_excused, leaders, read_committed, wait_decided
from tests.simulation.group_oracle import log_bytes
from tests.simulation.oracle import Oracle
from tests.simulation.pipeliner import Pipeliner, PipelinerOptions
from tests.simulation.transactional_plan import PIPELINED, PROFILES, TOPIC

if TYPE_CHECKING:
    from kraft.chaos.worlds.snapshot import Snapshot
    from tests.simulation.plan import Plan


@dataclass
class _Seen:
    """Stands for the kit's snapshot: where clients find leaders."""

    oracle: Oracle
    brokers: tuple[int, ...]

    def leader(self, topic: str, partition: int) -> int:
        found = self.oracle.image.topic(topic)
        return -1 if found is None or partition not in found.partitions else found.partitions[partition].leader

    def partitions(self, topic: str) -> tuple[int, ...]:
        found = self.oracle.image.topic(topic)
        return () if found is None else tuple(sorted(found.partitions))


class _ClientWorld:
    """Implements the `ClientWorld` of the chaos kit, as far as these clients need it."""

    def __init__(self, plan: Plan, oracle: Oracle) -> None:
        self.brokers = plan.brokers
        self.latest: Snapshot = _Seen(oracle, plan.brokers)  # type: ignore[assignment]
        self._oracle = oracle
        self._links: dict[str, dict[int, ClientLink]] = {}

    def now_us(self) -> int:
        return self._oracle.cluster.world.loop.now_us

    def links(self, name: str) -> dict[int, ClientLink]:
        return self._links.setdefault(name, {node: ClientLink() for node in self._oracle.cluster.nodes})

    def client(self, name: str, *, in_flight_max: int) -> SimulatedClient:
        return SimulatedClient(self._oracle.cluster, self.links(name).__getitem__)

    def transaction_client(self, name: str, plan: TransactionPlan) -> SimulatedTransactionClient:
        return SimulatedTransactionClient(self.client(name, in_flight_max=1), plan)


class TransactionalClients:
    """Nothing in a run of another profile."""

    def __init__(self, plan: Plan, oracle: Oracle) -> None:
        self._is_drawn = plan.profile in PROFILES
        self._is_pipelined = plan.profile == PIPELINED
        self._oracle = oracle
        self._client_world = _ClientWorld(plan, oracle)
        self._rng = random.Random(f"transactional clients {plan.seed}")
        self._history: list[Operation] = []
        self._places: list[asyncio.Task[None]] = []
        self._is_ending = asyncio.Event()
        self._groups: list[str] = []
        self._reader: Reader | None = None
        self._readback: list[ReadBack] = []
        self._committed: list[GroupOffset] | None = None

    def start(self, tasks: asyncio.TaskGroup) -> None:
        if not self._is_drawn:
            return
        for number in range(self._rng.choice((1, 1, 2) if self._is_pipelined else (1, 2, 3))):
            rng = random.Random(f"transactional id {self._rng.random()}")
            self._places.append(tasks.create_task(self._fill(f"x{number}", rng)))
        options = ReaderOptions(name="committed", topic=TOPIC, isolation="read_committed")
        self._reader = Reader(options, client_world=self._client_world, record=self._history.append)  # type: ignore[arg-type]
        tasks.create_task(self._reader.start())

    # --- one transactional id ---------------------------------------------------------------------------------------

    async def _fill(self, name: str, rng: random.Random) -> None:
        """One instance after the other, now and then two at once."""
        older: list[Transactor | Pipeliner] = []
        born = 0
        while not self._is_ending.is_set():
            one = self._pipeliner(name, born, rng) if self._is_pipelined else self._instance(name, born, rng)
            born += 1
            await one.start()
            await self._live(one, rng)
            if self._is_ending.is_set() or (self._is_pipelined and rng.random() < 0.7):
                older.append(one)
                if self._is_pipelined:
                    await one.finish()
            elif self._is_pipelined or rng.random() < 0.5:
                self._oracle.count("transactional client vanished")
                await one.silence()
            else:
                self._oracle.count("transactional client fell behind another")
                older.append(one)
                asyncio.get_running_loop().create_task(self._held_back(one, rng.uniform(0.1, 2)))
        await asyncio.gather(*(each.finish() for each in older))
        if self._is_pipelined:  # the last instance that vanished has left a transaction open
            last = self._pipeliner(name, born, rng)
            await last.start()
            await last.finish()

    def _instance(self, name: str, born: int, rng: random.Random) -> Transactor:
        group = f"{name}-{born}"
        self._groups.append(group)
        options = TransactorOptions(
            name=f"{name}n{born}",
            topic=TOPIC,
            transactional_id=name,
            flow=rng.choice(("old", "new")),
            rate=rng.choice((5, 20)),
            batches=rng.choice((1, 2, 4)),
            batch=rng.choice((1, 3)),
            aborts_every=rng.choice((0, 2, 3)),
            group=rng.choice((group, group, None)),
            work_ms=rng.choice((0, 20, 200)),
            transaction_timeout_ms=rng.choice((1_000, 2_000)),
            timeout_ms=rng.choice((1_000, 2_000)),
        )
        return Transactor(options, client_world=self._client_world, record=self._history.append)  # type: ignore[arg-type]

    def _pipeliner(self, name: str, born: int, rng: random.Random) -> Pipeliner:
        options = PipelinerOptions(
            name=f"{name}n{born}",
            topic=TOPIC,
            transactional_id=name,
            is_new=rng.random() < 0.5,
            requests=rng.choice((1, 3, 6)),
            aborts_every=rng.choice((0, 2, 3)),
            loses_connections=rng.choice((0.0, 0.1, 0.5)),
            burst=rng.choice((2, 3, 6)),
            pause_ms=rng.choice((100, 300)),
            is_hasty=rng.random() < 0.5,
        )
        return Pipeliner(
            options,
            oracle=self._oracle,
            cluster=self._client_world.latest,  # type: ignore[arg-type]
            record=self._history.append,
            is_excused=self._is_excused,
            rng=random.Random(f"pipeliner {rng.random()}"),
        )

    async def _live(self, one: Transactor | Pipeliner, rng: random.Random) -> None:
        """Until its time is over, it is fenced, or the run ends."""
        until = self._oracle.cluster.world.loop.time() + rng.uniform(0.3, 3)
        while not (self._is_ending.is_set() or one.counts.is_done):
            if self._oracle.cluster.world.loop.time() > until and (one.counts.uncommitted or self._is_pipelined):
                return
            await asyncio.sleep(0.02)

    async def _held_back(self, one: Transactor | Pipeliner, seconds: float) -> None:
        """What it asks for arrives late."""
        links = self._client_world.links(one.options.name).values()
        for link in links:
            link.holds_requests = True
        await asyncio.sleep(seconds)
        for link in links:
            link.holds_requests = False

    # --- the end ----------------------------------------------------------------------------------------------------

    async def finish(self) -> None:
        """After the last fault: every transaction ends, by its client or by its coordinator."""
        if not self._is_drawn:
            return
        self._is_ending.set()
        await asyncio.gather(*self._places)
        await wait_decided(self._oracle, (TOPIC,))
        assert self._reader is not None
        await self._reader.finish()
        await self._reader.close()

    async def read_back(self) -> None:
        """The committed records of a whole cluster."""
        if not self._is_drawn:
            return
        self._committed = [each for group in self._groups for each in await self._offsets(group)]
        self._readback = [await self._read_back(number) for number in self._client_world.latest.partitions(TOPIC)]

    def _is_excused(self) -> bool:
        return is_excused(self._oracle, (TOPIC,))

    async def _offsets(self, group: str) -> Sequence[GroupOffset]:
        world = self._oracle.cluster.world
        deadline = world.loop.time() + SETTLE_S
        while True:
            node = self._rng.choice(self._oracle.cluster.alive)
            assert node.node is not None
            try:
                async with asyncio.timeout(10):
                    answer = await node.machine.run(node.node.groups.ask(r.FetchOffsets(group=group)))
            except (KafkaError, ConnectionClosed, TimeoutError) as error:
                if world.loop.time() > deadline:
                    self._oracle.fail(f"no answer about the offsets of group {group}: {error}")
                await asyncio.sleep(LOOK_S)
                continue
            assert isinstance(answer, a.GroupOffsets), answer
            return [GroupOffset(group, row.topic, row.partition, row.offset) for row in answer.offsets]

    async def _read_back(self, number: int) -> ReadBack:
        topic = self._oracle.image.topic(TOPIC)
        assert topic is not None
        key = TopicIdPartition(topic.topic_id, number)
        (led,) = [each for each in leaders(self._oracle, (TOPIC,)) if each.key == key]
        data = log_bytes(led.replica.log)
        raw = [LogRecord(each.offset, -1, (each.value or b"").decode()) for each in read_batches(data)]
        committed, stable = await read_committed(self._oracle, key)
        return ReadBack(
            topic=TOPIC,
            partition=number,
            records=partial(iter, raw),
            high_watermark=led.state.high_watermark,
            committed=partial(iter, committed),
            last_stable_offset=stable,
        )

    def judge(self) -> None:
        """The checks of the kit's checker."""
        if not self._is_drawn or self._is_excused():
            return
        ledger, findings = Ledger(), Findings()
        check = TransactionCheck(ledger, findings)
        for operation in self._history:
            if isinstance(operation, Produce):
                ledger.add(operation)
                check.take_produce(operation)
            elif isinstance(operation, Transaction):
                check.take_end(operation)
            elif isinstance(operation, Read):
                check.take_read(operation)
        for each in self._readback:
            for record in each.records():
                ledger.flags[ledger.slot(record.value)] |= FOUND
        check.check(self._readback, self._committed)
        self._in_order()
        counts = check.counts()
        self._oracle.states["transaction committed"] += counts.committed
        self._oracle.states["transaction aborted"] += counts.aborted
        self._oracle.states["transaction of unknown outcome"] += counts.unknown
        for anomaly in findings.anomalies():
            self._oracle.fail(f"{anomaly.kind}: {anomaly.text}")

    def _in_order(self) -> None:
        """Each partition has the records of an instance once, in the order of sending."""
        for each in self._readback if self._is_pipelined else ():
            last: dict[str, int] = {}
            for record in each.records():
                name, _, number = record.value.partition(":")
                if number and int(number) <= last.get(name, -1):
                    self._oracle.fail(
                        f"reordered: {each.topic}-{each.partition} has {record.value} at offset {record.offset}, and "
                        f"number {last[name]} before it"
                    )
                last[name] = int(number or -1)
