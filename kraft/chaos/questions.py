"""The questions that a story can ask about the cluster, its clients and its events at one moment.

await run.until(lambda now: now.isr("t", 0) == [1] and now.acked("load") >= 500)

All questions of one `Now` are answered from one snapshot, and each answer is kept: the message of a wait that takes too
long contains them. A question without an answer at this moment (the leader of a partition while no node answers) raises
`NotKnown`, and a condition that asks it does not hold.
"""

from __future__ import annotations

import ast
import inspect
import linecache
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

Value: TypeAlias = Any
"""None, bool, int, str, or a list of them."""
Ask: TypeAlias = Callable[[str, tuple[Value, ...]], Value]
"""(question, arguments) -> answer; None if there is no answer at this moment."""


class NotKnown(Exception):
    """The question has no answer at this moment."""


class Now:
    """The cluster at one moment. Partitions are counted from 0, offsets are Kafka's, nodes are ids."""

    is_rehearsal = False
    """True in a rehearsal: every condition holds after all its questions were asked."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self.answers: dict[str, Value] = {}
        """The questions that were asked, as they are written in the story, with their answers."""

    # --- of partitions ------------------------------------------------------------------------------------------

    def leader(self, topic: str, partition: int) -> int:
        """Id of the leader, -1 when there is none."""
        return int(self._answer("leader", topic, partition))

    def epoch(self, topic: str, partition: int) -> int:
        """Leader epoch."""
        return int(self._answer("epoch", topic, partition))

    def isr(self, topic: str, partition: int) -> list[int]:
        """Ids of the ISR, sorted."""
        return list(self._answer("isr", topic, partition))

    def replicas(self, topic: str, partition: int) -> list[int]:
        """Ids of the replicas, in order of assignment."""
        return list(self._answer("replicas", topic, partition))

    def followers(self, topic: str, partition: int) -> list[int]:
        """Ids of the replicas that do not lead, in order of assignment."""
        return list(self._answer("followers", topic, partition))

    def offline(self, topic: str, partition: int) -> bool:
        """Has the partition no leader?"""
        return bool(self._answer("offline", topic, partition))

    def hw(self, topic: str, partition: int) -> int:
        """High watermark of the leader."""
        return int(self._answer("hw", topic, partition))

    def log_end(self, node: int, topic: str, partition: int) -> int:
        """Log end offset on one node."""
        return int(self._answer("log_end", node, topic, partition))

    def node_hw(self, node: int, topic: str, partition: int) -> int:
        """High watermark that one node knows."""
        return int(self._answer("node_hw", node, topic, partition))

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has; 0 when it does not exist."""
        return int(self._answer("partitions", topic))

    # --- of the cluster and its nodes ---------------------------------------------------------------------------

    def controller(self) -> int:
        """Id of the active controller, -1 when there is none."""
        return int(self._answer("controller"))

    def controller_epoch(self) -> int:
        """Epoch of the active controller."""
        return int(self._answer("controller_epoch"))

    def nodes(self) -> list[int]:
        """Ids of all nodes."""
        return list(self._answer("nodes"))

    def alive(self, node: int) -> bool:
        """Does the process run?"""
        return bool(self._answer("alive", node))

    def state(self, node: int) -> str:
        """'active', 'fenced', 'shutting down' or 'down', as the cluster sees it."""
        return str(self._answer("state", node))

    def metadata_offset(self, node: int) -> int:
        """Offset of the metadata that one node has replayed."""
        return int(self._answer("metadata_offset", node))

    def events(self, event: str, node: int | None = None) -> int:
        """The number of events of this name, from all nodes or from one."""
        return int(self._answer("events", event) if node is None else self._answer("events", event, node))

    # --- of clients ---------------------------------------------------------------------------------------------

    def sent(self, client: str = "") -> int:
        """Records sent by one producer, or by all."""
        return int(self._of_clients("sent", client))

    def acked(self, client: str = "") -> int:
        """Records acknowledged to one producer, or to all."""
        return int(self._of_clients("acked", client))

    def failed(self, client: str = "") -> int:
        """Records that were certainly not written, of one producer or of all."""
        return int(self._of_clients("failed", client))

    def unknown(self, client: str = "") -> int:
        """Records with an unknown outcome, of one producer or of all."""
        return int(self._of_clients("unknown", client))

    def read(self, client: str = "") -> int:
        """Records read by one reader, member or worker, or by all."""
        return int(self._of_clients("read", client))

    def uncommitted(self, client: str = "") -> int:
        """Records that one member of a group (or all) has read and not committed, or that a worker of a queue holds; or
        records in the open transaction of a producer."""
        return int(self._of_clients("uncommitted", client))

    def accepted(self, client: str = "") -> int:
        """Records whose acceptance was answered with success to one worker of a queue, or to all."""
        return int(self._of_clients("accepted", client))

    def committed(self, client: str = "") -> int:
        """Transactions whose commit was acknowledged to one producer, or to all."""
        return int(self._of_clients("committed", client))

    def aborted(self, client: str = "") -> int:
        """Transactions whose abort was acknowledged to one producer, or to all."""
        return int(self._of_clients("aborted", client))

    def transaction_coordinator(self, transactional_id: str) -> int:
        """Id of the coordinator of a transactional id, -1 when there is none."""
        return int(self._answer("transaction_coordinator", transactional_id))

    def coordinator(self, group: str) -> int:
        """Id of the group's coordinator, -1 when there is none."""
        return int(self._answer("coordinator", group))

    def refused(self, client: str, code: int) -> int:
        """Records of one client that the cluster refused with this Kafka code."""
        return int(self._answer("refused", client, code))

    def done(self, client: str = "") -> bool:
        """Has the producer (or have all) sent everything and received all answers?"""
        return bool(self._of_clients("done", client))

    def _of_clients(self, question: str, client: str) -> Value:
        return self._answer(question, client) if client else self._answer(question)

    def _answer(self, question: str, *arguments: Value) -> Value:
        answer = self._ask(question, arguments)
        self.answers[f"{question}({', '.join(map(str, arguments))})"] = answer
        if answer is None:
            raise NotKnown(f"{question}({', '.join(map(str, arguments))})")
        return answer


QUESTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    name: tuple(inspect.signature(method).parameters)[1:]
    for name, method in vars(Now).items()
    if not name.startswith("_") and inspect.isfunction(method)
}
"""All questions, with the names of their arguments."""


def holds(condition: Callable[[Now], object], now: Now) -> bool:
    try:
        return bool(condition(now)) or now.is_rehearsal
    except NotKnown:
        return False


def described(condition: Callable[[Now], object], answers: Mapping[str, Value]) -> str:
    """The values that the condition used: variables of the story, and the answer to each question."""
    code, cells = condition.__code__, condition.__closure__ or ()
    known = {name: cell.cell_contents for name, cell in zip(code.co_freevars, cells, strict=True)}
    plain = {name: value for name, value in known.items() if isinstance(value, int | str | list | tuple)}
    found: dict[str, Value] = {**plain, **answers}
    return ", ".join(f"{what} is {'not known' if value is None else value}" for what, value in found.items())


def written(condition: Callable[[Now], object]) -> str:
    """A condition as it is written in the file: the text after `lambda now:`, or the name of the function."""
    code = condition.__code__
    if code.co_name != "<lambda>":
        return condition.__name__
    tree = ast.parse("".join(linecache.getlines(code.co_filename)) or "None")
    starts = {(line, column) for line, _, column, _ in code.co_positions() if line and column is not None}
    for node in ast.walk(tree):
        if isinstance(node, ast.Lambda) and (node.body.lineno, node.body.col_offset) in starts:
            return ast.unparse(node.body)
    for node in ast.walk(tree):
        if isinstance(node, ast.Lambda) and node.lineno == code.co_firstlineno:
            return ast.unparse(node.body)
    return "the condition"
