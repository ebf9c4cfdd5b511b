"""Whether this broker still leads a coordinator's partition: taken for granted while the controller hears it.

A deposed coordinator that does not know it has nothing to wait for when it tells an offset or takes a heartbeat, and
would tell what is no longer so. Once the broker's session with the controller may have lapsed, it proves before each
request that it leads: a record that changes nothing is replicated to all that are in sync, who follow nobody in an
epoch that is over. So coordinators go on without a controller, and not at a broker that another has relieved.
"""

from __future__ import annotations

import asyncio

from kraft.coordinators.led_partition import LedPartition
from kraft.protocol.errors import KafkaError, NotCoordinator


class LeadershipCheck:
    """One record is under way at most, for however many requests wait."""

    def __init__(self, led: LedPartition) -> None:
        self._led = led
        self._newest: asyncio.Task[None] | None = None

    @property
    def is_certain(self) -> bool:
        return self._led.around.has_session()

    async def prove(self) -> None:
        """Wait for a proof that began after this call. Raises NotCoordinator 16: nothing of the request was done.

        A proof may be over before its callbacks have run, and awaiting what is over does not suspend: so there is no
        loop here, and no callback that has to come first.
        """
        before = self._newest
        if before is not None and not before.done():
            await self._wait(before)
        if self._newest is before:
            self._newest = self._led.append_nothing()
        assert self._newest is not None
        await self._wait(self._newest)

    async def _wait(self, proof: asyncio.Task[None]) -> None:
        try:
            await asyncio.shield(proof)
        except KafkaError as error:
            raise NotCoordinator(f"another broker may coordinate this by now: {error.message}") from error
        self._led.check()
