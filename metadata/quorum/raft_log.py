"""The metadata log of a voter: `MetadataLog` on the node's main loop, in front of the engine on the Raft loop.

Owns the published image, the appends that wait for an answer, and the part that observers may read. All reports of the
engine arrive in order through `_on_outputs`; an append is answered after its records were published.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from metadata.environment import Environment
from metadata.events import Events
from metadata.image import MetadataImage
from metadata.quorum.command import COMMAND_BYTES_MAX, encode_command
from metadata.quorum.config import QuorumConfig
from metadata.quorum.engine import QuorumEngine
from metadata.quorum.log import (
    AppendLost,
    AppendUnknown,
    Committed,
    Leadership,
    MetadataSlice,
    SnapshotInstalled,
    SnapshotNeeded,
)
from metadata.quorum.outputs import AppendEnded, CaughtUp, Emitted, Failed, Met, Output, SnapshotTaken, Started
from metadata.quorum.raft_host import QuorumHost
from metadata.quorum.raft_reports import UNTAKEN_BYTES_MAX
from metadata.quorum.retained import RetainedRecords
from metadata.quorum.state_machine import Applied
from metadata.records import Record

APPEND_TIMEOUT_MS = 5_000
"""Time after which an append is answered AppendUnknown: the library may never answer it (SO-L9)."""
APPENDS_MAX = 10_000
"""Appends that wait for an answer; one more is answered AppendLost."""
TAKEN_TOLD_BYTES = UNTAKEN_BYTES_MAX // 2
"""Bytes of applied commands after which the Raft half gets a report: less than its limit."""

OnChange = Callable[[Committed | SnapshotInstalled], None]
OnLeadership = Callable[[Leadership], None]
_Answer = MetadataImage | AppendLost | AppendUnknown | None


class RaftMetadataLog:
    def __init__(
        self,
        environment: Environment,
        config: QuorumConfig,
        *,
        raft_environment: Environment,
        host: QuorumHost,
        events: Events,
        on_fatal: Callable[[BaseException], None],
        is_hanging: Callable[[], bool] = lambda: False,
    ) -> None:
        """`environment` belongs to the main loop and `raft_environment` to the Raft loop. `on_fatal` must stop the
        node. `is_hanging` is called on the Raft loop: True if the main loop does not turn."""
        self._clock = environment.clock
        self._host = host
        self._events = events
        self._on_fatal = on_fatal
        self._engine = QuorumEngine(
            raft_environment,
            config,
            deliver=lambda outputs: host.call_main(self._on_outputs, outputs),
            is_hanging=is_hanging,
        )
        self._image = MetadataImage()
        self._leadership = Leadership(leader_id=-1, term=0, is_self=False)
        self._met = frozenset((config.node_id,))
        self._node_id = config.node_id
        self.refused_by: frozenset[int] = frozenset()
        """Voters that are connected with another process of this node's id, and report it."""
        self._has_caught_up = False
        self._retained = RetainedRecords()
        self._subscribers: list[tuple[OnChange, OnLeadership]] = []
        self._appends: dict[int, asyncio.Future[_Answer]] = {}
        self._next_token = 0
        self._started: asyncio.Future[None] | None = None
        self._taken_bytes = 0
        """Bytes of processed commands that the Raft half has no report of yet."""

    # --- MetadataLog --------------------------------------------------------------------------------------------

    @property
    def image(self) -> MetadataImage:
        return self._image

    @property
    def leadership(self) -> Leadership:
        return self._leadership

    @property
    def met(self) -> frozenset[int]:
        return self._met

    @property
    def has_caught_up(self) -> bool:
        """Whether the image holds all that was committed when this process first met a leader; stays so."""
        return self._has_caught_up

    async def start(self) -> None:
        """Start. Raises QuorumStorageError when the files cannot be trusted, OSError when a port or folder is not
        usable."""
        self._started = asyncio.get_running_loop().create_future()
        self._host.start(self._engine.run)
        await self._started

    async def stop(self) -> None:
        self._host.call(self._engine.stop)
        await self._host.stop()
        self._end_appends("this node is stopping")

    def subscribe(self, on_change: OnChange, on_leadership: OnLeadership) -> None:
        self._subscribers.append((on_change, on_leadership))

    async def append(self, records: Sequence[Record], *, controller_epoch: int, expected_offset: int) -> MetadataImage:
        command = encode_command(records, controller_epoch=controller_epoch, expected_offset=expected_offset)
        assert records, "an append without records"
        if len(command) > COMMAND_BYTES_MAX:
            raise AppendLost(f"an append of {len(command)} bytes; the limit is {COMMAND_BYTES_MAX}: split it")
        image = await self._committed(self._engine.propose, command)
        assert image is not None, "an append is answered with the image after it"
        return image

    async def confirm(self) -> None:
        term = self._leadership.term
        await self._committed(self._engine.confirm)
        if not self._leadership.is_self or self._leadership.term != term:
            raise AppendLost(f"this node did not lead the quorum all the time since the call in term {term}")

    async def _committed(self, propose: Callable[..., None], *command: bytes) -> MetadataImage | None:
        self._check_append()
        token = self._next_token
        self._next_token += 1
        answer: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self._appends[token] = answer
        self._host.call(propose, token, *command)
        try:
            async with self._clock.timeout(APPEND_TIMEOUT_MS):
                outcome = await answer
        except TimeoutError:
            if answer.cancelled():
                raise AppendUnknown(f"no answer of the quorum within {APPEND_TIMEOUT_MS} ms") from None
            outcome = answer.result()  # it arrived in time, and this loop was too busy to see it
        finally:
            self._appends.pop(token, None)
        if isinstance(outcome, AppendLost | AppendUnknown):
            raise outcome
        return outcome

    def read(self, from_offset: int, *, bytes_max: int) -> MetadataSlice | SnapshotNeeded:
        return self._retained.read(from_offset, bytes_max=bytes_max)

    def read_snapshot(self, end_offset: int, *, position: int, bytes_max: int) -> tuple[bytes, int]:
        return self._retained.read_snapshot(end_offset, position=position, bytes_max=bytes_max)

    # --- appending ----------------------------------------------------------------------------------------------

    def _check_append(self) -> None:
        if len(self._appends) >= APPENDS_MAX:
            raise AppendLost(f"{APPENDS_MAX} appends wait for an answer already")
        if not self._leadership.is_self:
            raise AppendLost(f"this node does not lead the quorum; node {self._leadership.leader_id} does")

    def _end_appends(self, reason: str) -> None:
        for answer in list(self._appends.values()):
            if not answer.done():
                answer.set_result(AppendUnknown(reason))

    # --- from the engine ----------------------------------------------------------------------------------------

    def _on_outputs(self, outputs: list[Output]) -> None:
        for output in outputs:
            self._on_output(output)
        self._taken_bytes += sum(len(output.command) for output in outputs if isinstance(output, Applied))
        if self._taken_bytes >= TAKEN_TOLD_BYTES:
            self._host.call(self._engine.taken, self._taken_bytes)
            self._taken_bytes = 0

    def _on_output(self, output: Output) -> None:
        match output:
            case Applied():
                self._on_applied(output)
            case SnapshotInstalled():
                self._image = output.image
                self._publish(output)
            case SnapshotTaken():
                self._retained.add_snapshot(
                    end_offset=output.end_offset, controller_epoch=output.controller_epoch, body=output.body
                )
            case Leadership():
                self._on_leadership(output)
            case Met():
                self._met = output.voters | {self._node_id}
                self.refused_by = output.refusing
            case CaughtUp():
                self._has_caught_up = True
            case AppendEnded():
                answer = self._appends.get(output.token)
                if answer is not None and not answer.done():
                    answer.set_result(output.outcome)
            case Emitted():
                self._events.emit(output.event, **output.fields)
            case Started():
                self._on_started(output)
            case Failed():
                self._end_appends("this node is stopping")
                self._on_fatal(output.error)

    def _on_applied(self, applied: Applied) -> None:
        committed = applied.committed
        self._image = committed.image
        self._retained.append(
            committed.base_offset,
            applied.command,
            end_offset=committed.image.next_offset,
            controller_epoch=committed.image.controller_epoch,
        )
        self._publish(committed)

    def _publish(self, change: Committed | SnapshotInstalled) -> None:
        for on_change, _ in self._subscribers:
            on_change(change)

    def _on_leadership(self, leadership: Leadership) -> None:
        self._leadership = leadership
        self._events.emit("quorum_leadership", leader=leadership.leader_id, term=leadership.term)
        for _, on_leadership in self._subscribers:
            on_leadership(leadership)

    def _on_started(self, started: Started) -> None:
        assert self._started is not None
        if self._started.done():
            return
        if started.error is None:
            self._started.set_result(None)
        else:
            self._started.set_exception(started.error)
