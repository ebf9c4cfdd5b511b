"""The watchdog of one node: its pulse on the main loop, and who looks at it from beside."""

from __future__ import annotations

from collections.abc import Callable

from kraft.events import EventLog
from kraft.node.quorum import HostedQuorum
from metadata.environment import Environment
from metadata.watchdog import Pulse, Watchdog


class MainLoopWatch:
    """It looks from the quorum's loop; at a node that has no quorum, that loop has nothing else to run."""

    def __init__(
        self,
        environment: Environment,
        *,
        host: HostedQuorum,
        is_voter: bool,
        events: EventLog,
        end_ms: Callable[[], int],
    ) -> None:
        self._host = host
        self._is_voter = is_voter
        self._pulse = Pulse(environment.clock)
        self._dog = Watchdog(
            host.environment.clock, pulse=self._pulse, process=host.process, end_ms=end_ms, emit=events.emit_beside
        )

    def is_hanging(self) -> bool:
        return self._dog.is_hanging

    def start(self) -> None:
        """A voter's quorum runs by now."""
        self._pulse.start()
        if self._is_voter:
            self._host.call(self._dog.start)
        else:
            self._host.start(self._dog.run)

    async def stop(self) -> None:
        """A voter's quorum stops afterwards."""
        self._host.call(self._dog.stop)
        if not self._is_voter:
            await self._host.stop()
        self._pulse.stop()

    def gauges(self) -> dict[str, float]:
        return {"main_loop_hangs": self._dog.hangs, "main_loop_silent_ms_max": self._dog.silent_ms_max}
