"""Brokers that have just died, as this one knows before the controller does.

A client that loses the connection to a leader asks the next broker who leads now, within a millisecond. An answer from
before the election would send it back to the dead broker, and librdkafka asks a second time after a second only. So a
broker whose own fetches from that leader have just broken off lets such a question wait for the election, for
`ELECTION_WAIT_MS` at most: then the link may be broken and the leader alive.

The client may know it first: Linux closes the sockets of a killed process one by one, the youngest at the beginning,
files between them, and the one that a follower fetches by is old. So a leader is named to a client that asks by topic
only after it has answered a small request, or has not for `LOOK_MS`.

And a broker that has just been fenced is named for some seconds more, with nothing that it leads. librdkafka drops a
broker that is named no more together with the partitions that it is about to move elsewhere, and finds them again in a
second (seen with 2.12). At Kafka it hardly happens: a dead broker is named there until its session is over, 9 s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import suppress
from typing import Final, Protocol

from kraft.broker.metadata_publisher import MetadataPublisher
from metadata.delta import MetadataDelta
from metadata.environment import Clock
from metadata.image import MetadataImage

ELECTION_WAIT_MS: Final = 500
"""After the connection broke. A broker whose port refuses is fenced after some tens of milliseconds."""
LOOK_MS: Final = 100
"""For the answer of a leader that lives, which takes less than one."""
NAMED_MS: Final = 5_000
"""A client has asked for metadata a few times by then: it begins when its connection breaks."""


class Connections(Protocol):
    """To the leaders that this broker fetches from."""

    def lost(self, since_ms: int) -> Collection[int]:
        """The nodes whose connection broke at or after that time in milliseconds, and is not open again."""

    async def look(self, node_id: int) -> None:
        """Returns when that node has answered, or its connection is `lost`."""


class LostBrokers:
    def __init__(self, connections: Connections, *, publisher: MetadataPublisher, clock: Clock) -> None:
        self._connections = connections
        self._looks: dict[int, asyncio.Future[None]] = {}
        """Those under way, one for each node: all who ask meanwhile share it."""
        self._publisher = publisher
        self._clock = clock
        self._fenced_ms: dict[int, int] = {}
        """When it was fenced, by broker, until it is unfenced or `NAMED_MS` have passed."""
        publisher.subscribe(self._on_metadata)

    def are_awaited(self) -> bool:
        """Whether an election is to be expected at once."""
        return bool(self._unfenced(self._publisher.image))

    async def seen(self, node_ids: Collection[int]) -> None:
        """Returns when each has answered or is known to be lost, or after `LOOK_MS`."""
        waits = [asyncio.shield(self._look_at(node_id)) for node_id in node_ids]
        with suppress(TimeoutError):
            async with self._clock.timeout(LOOK_MS):
                await asyncio.gather(*waits, return_exceptions=True)

    def _look_at(self, node_id: int) -> asyncio.Future[None]:
        look = self._looks.get(node_id)
        if look is None:
            look = self._looks[node_id] = asyncio.ensure_future(self._connections.look(node_id))
            look.add_done_callback(lambda _: self._looks.pop(node_id))
        return look

    async def fenced(self) -> None:
        """Returns when the controller has fenced them, or is not going to soon."""
        await self._publisher.wait_for(lambda image: not self._unfenced(image), timeout_ms=ELECTION_WAIT_MS)

    def lately_fenced(self) -> tuple[int, ...]:
        """Their ids, ascending."""
        if self._fenced_ms:
            since_ms = self._clock.monotonic_ms() - NAMED_MS
            self._fenced_ms = {node_id: at_ms for node_id, at_ms in self._fenced_ms.items() if at_ms > since_ms}
        return tuple(sorted(self._fenced_ms))

    def _on_metadata(self, delta: MetadataDelta, _: MetadataImage) -> None:
        for node_id, (before, after) in delta.changed_brokers.items():
            if after is None or not after.fenced:
                self._fenced_ms.pop(node_id, None)
            elif before is not None and not before.fenced:
                self._fenced_ms[node_id] = self._clock.monotonic_ms()

    def _unfenced(self, image: MetadataImage) -> list[int]:
        lost = self._connections.lost(self._clock.monotonic_ms() - ELECTION_WAIT_MS)
        return [node_id for node_id in lost if node_id in image.brokers and not image.brokers[node_id].fenced]
