"""A producer that numbers its records and remembers which were acknowledged, and the reader that checks them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from kraft.chaos.worlds.simulated.cluster import SimulatedCluster, SimulatedNode
from kraft.protocol.batches.records import NewRecord, build_batch, read_batches
from kraft.protocol.errors import KafkaError
from metadata.image import TopicIdPartition
from replication.requests import ProduceOptions, ReadOptions

TIMEOUT_MS = 2_000
GIVE_UP_S = 4.0
PAUSE_S = 0.02
READ_BYTES = 1_000_000
READ_S = 60


@dataclass(slots=True)
class Producer:
    """Sends each number once, with acks=all, to any node that runs; an unknown outcome is never sent again."""

    cluster: SimulatedCluster
    which: TopicIdPartition
    acked: dict[int, int] = field(default_factory=dict)
    """Number -> offset."""
    failed: int = 0
    is_stopping: bool = False

    async def run(self) -> None:
        rng = self.cluster.world.rng("producer")
        number = 0
        while not self.is_stopping:
            if alive := self.cluster.alive:
                await self._send(rng.choice(alive), number)
                number += 1
            await asyncio.sleep(rng.uniform(0, PAUSE_S))

    async def _send(self, node: SimulatedNode, number: int) -> None:
        assert node.node is not None
        record = NewRecord(None, b"%d" % number, [], node.machine.clock.wall_ms())
        produce = node.node.gateway.produce({self.which: build_batch([record])}, ProduceOptions(-1, TIMEOUT_MS))
        try:
            # A killed node never answers: the client's own timeout is outside all nodes.
            async with asyncio.timeout(GIVE_UP_S):
                outcome = (await node.machine.run(produce))[self.which]
        except (KafkaError, TimeoutError):
            self.failed += 1
            return
        if outcome.error_code:
            self.failed += 1
        else:
            self.acked[number] = outcome.base_offset


async def read_all(node: SimulatedNode, which: TopicIdPartition) -> dict[int, int]:
    """Offset -> number of every record, as a consumer of this node reads them."""
    assert node.node is not None
    gateway, found, offset = node.node.gateway, {}, 0
    async with asyncio.timeout(READ_S):
        while True:
            read = gateway.read(which, offset, ReadOptions(bytes_max=READ_BYTES))
            records = await node.machine.run(read)
            batch = list(read_batches(records.data, from_offset=offset))
            if not batch:
                return found
            found.update({record.offset: int(record.value or b"-1") for record in batch})
            offset = batch[-1].offset + 1


def check(producer: Producer, found: dict[int, int]) -> None:
    """Nothing acknowledged is lost or elsewhere, nothing is twice, offsets have no holes."""
    assert sorted(found) == list(range(len(found))), "offsets have holes"
    assert len(set(found.values())) == len(found), "a record that was sent once is in the log twice"
    for number, offset in producer.acked.items():
        assert found.get(offset) == number, (
            f"record {number} was acknowledged at {offset}; there is {found.get(offset)}"
        )
