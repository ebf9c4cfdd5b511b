"""The Raft half's reports, kept in order and delivered once per tick.

Applied entries that the main loop has not taken yet are counted: each has an image of its own, and the main loop may
not turn for a long time. While `is_full`, no more is applied.
"""

from __future__ import annotations

from collections.abc import Callable

from metadata.image import MetadataImage
from metadata.quorum.log import Leadership, SnapshotInstalled
from metadata.quorum.outputs import Emitted, Output, SnapshotTaken
from metadata.quorum.state_machine import Applied

NO_LEADER = -1
UNTAKEN_BYTES_MAX = 1 * 1024 * 1024
"""Limit of the commands that are applied and not taken by the main loop, passed by one at most: some 6,000 changes of a
partition."""


class Report:
    def __init__(self, deliver: Callable[[list[Output]], None]) -> None:
        self._deliver = deliver
        self._outputs: list[Output] = []
        self._leadership = Leadership(leader_id=NO_LEADER, term=0, is_self=False)
        self._untaken_bytes = 0

    @property
    def is_full(self) -> bool:
        return self._untaken_bytes >= UNTAKEN_BYTES_MAX

    def applied(self, applied: Applied) -> None:
        self._untaken_bytes += len(applied.command)
        self.add(applied)

    def taken(self, size: int) -> None:
        self._untaken_bytes -= size

    def add(self, output: Output) -> None:
        self._outputs.append(output)

    def emit(self, event: str, /, **fields: object) -> None:
        self.add(Emitted(event=event, fields=fields))

    def installed(self, image: MetadataImage) -> None:
        self.add(SnapshotInstalled(image=image))

    def snapshot_taken(self, end_offset: int, controller_epoch: int, body: bytes) -> None:
        self.add(SnapshotTaken(end_offset=end_offset, controller_epoch=controller_epoch, body=body))

    def leadership(self, *, leader_id: int, term: int, is_self: bool) -> None:
        """Report the leadership when it has changed."""
        last = self._leadership
        if leader_id != last.leader_id or term != last.term or is_self != last.is_self:
            self._leadership = Leadership(leader_id=leader_id, term=term, is_self=is_self)
            self.add(self._leadership)

    def no_voter(self) -> None:
        """This node takes no part; the term stays the last one known."""
        self.leadership(leader_id=NO_LEADER, term=self._leadership.term, is_self=False)

    def flush(self) -> None:
        if self._outputs:
            outputs, self._outputs = self._outputs, []
            self._deliver(outputs)
