"""The proposals that wait for an answer. Each gets exactly one, identified by its token."""

from __future__ import annotations

from collections.abc import Callable

from metadata.image import MetadataImage
from metadata.quorum.library import SUCCESS, SURELY_LOST
from metadata.quorum.log import AppendLost, AppendUnknown
from metadata.quorum.outputs import AppendEnded
from metadata.quorum.raft import Answer
from metadata.quorum.state_machine import Dropped, Result


class Proposals:
    def __init__(self, report: Callable[[AppendEnded], None]) -> None:
        self._report = report
        self._waiting: set[int] = set()

    def begin(self, token: int, *, is_nothing: bool = False) -> Answer:
        """The function that the voter calls with the outcome. `is_nothing`: the entry has no records."""
        self._waiting.add(token)

        def answer(result: Result | None, failure: int) -> None:
            if token in self._waiting:
                self._waiting.discard(token)
                outcome = _outcome(result, failure)
                assert outcome is not None or is_nothing, "a proposal of this voter was answered by an earlier entry"
                self._report(AppendEnded(token=token, outcome=outcome))

        return answer

    def give_up(self) -> None:
        """The voter is gone; its pending proposals may or may not be in the log."""
        for token in sorted(self._waiting):
            self._report(AppendEnded(token=token, outcome=AppendUnknown("this voter stopped")))
        self._waiting.clear()


def _outcome(result: Result | None, failure: int) -> MetadataImage | AppendLost | AppendUnknown | None:
    if failure == SUCCESS:
        if isinstance(result, Dropped):
            return AppendLost(result.reason)
        return result
    if failure in SURELY_LOST:
        return AppendLost("this node lost the leadership of the quorum before the entry was appended")
    return AppendUnknown("this node lost the leadership of the quorum while the entry was being replicated")
