"""What the Raft half has to tell, kept in order and delivered once per tick."""

from __future__ import annotations

from collections.abc import Callable

from metadata.image import MetadataImage
from metadata.quorum.log import Leadership, SnapshotInstalled
from metadata.quorum.outputs import Emitted, Output, SnapshotTaken

NO_LEADER = -1


class Report:
    def __init__(self, deliver: Callable[[list[Output]], None]) -> None:
        self._deliver = deliver
        self._outputs: list[Output] = []
        self._leadership = Leadership(leader_id=NO_LEADER, term=0, is_self=False)

    def add(self, output: Output) -> None:
        self._outputs.append(output)

    def emit(self, event: str, /, **fields: object) -> None:
        self.add(Emitted(event=event, fields=fields))

    def installed(self, image: MetadataImage) -> None:
        self.add(SnapshotInstalled(image=image))

    def snapshot_taken(self, end_offset: int, controller_epoch: int, body: bytes) -> None:
        self.add(SnapshotTaken(end_offset=end_offset, controller_epoch=controller_epoch, body=body))

    def leadership(self, *, leader_id: int, term: int, is_self: bool) -> None:
        """Told when it changed."""
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
