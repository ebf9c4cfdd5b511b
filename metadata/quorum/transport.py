"""The library's transport: messages pass the filters in both directions, acks wait for the fsync.

Invariant: the content of an ack or a vote is durable before it is sent (SO-S6).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from metadata.quorum.filters import Message, MessageFilter
from metadata.quorum.journal import Journal
from metadata.quorum.library import Voter, voter
from metadata.quorum.messages import KINDS


class PeerSender(Protocol):
    def send(self, peer: int, message: Message) -> bool: ...


class Filters:
    """The library's transport: each message passes the filters, in order, in both directions.

    Acks are kept until the end of the tick, so that one fsync covers all of them (SO-S6, group commit).
    """

    ready = True

    def __init__(self, filters: Sequence[MessageFilter], *, link: PeerSender, journal: Journal) -> None:
        self._filters = filters
        self._outgoing = _shown(filters, "outgoing")
        self._incoming = _shown(filters, "incoming")
        self._handled = _shown(filters, "handled")
        self._link = link
        self._journal = journal
        self._acks: list[tuple[int, Message]] = []
        self._handle: Callable[[Voter, Message], None] = _ignore
        self._connected: Callable[[Voter], None] = _ignore
        self._disconnected: Callable[[Voter], None] = _ignore
        self.refuse_forward: Callable[[Message], None] = _ignore

    # --- from the library ---------------------------------------------------------------------------------------

    def send(self, to: Voter, message: Message) -> bool:
        if message["type"] == "apply_command":
            self.refuse_forward(message)  # SO-S15: a command is proposed to the local leader or not at all
            return False
        outgoing = _passed(self._outgoing[message["type"]], to.id, message)
        if outgoing is None:
            return False
        kind = outgoing["type"]
        if kind == "next_node_idx":
            self._acks.append((to.id, outgoing))
            return True
        if kind in ("request_vote", "response_vote"):
            self.flush_acks(term=outgoing["term"])
        return self._link.send(to.id, outgoing)

    def flush_acks(self, *, term: int) -> None:
        """Make the received entries durable, then acknowledge them. Acks of an older term are dropped (SO-S5)."""
        self._journal.sync()
        if not self._acks:
            return
        acks, self._acks = self._acks, []
        for peer, message in acks:
            if message["term"] == term:
                self._link.send(peer, message)

    def setOnMessageReceivedCallback(self, callback: Callable[[Voter, Message], None]) -> None:  # noqa: N802
        self._handle = callback

    def setOnNodeConnectedCallback(self, callback: Callable[[Voter], None]) -> None:  # noqa: N802
        self._connected = callback

    def setOnNodeDisconnectedCallback(self, callback: Callable[[Voter], None]) -> None:  # noqa: N802
        self._disconnected = callback

    def setOnReadonlyNodeConnectedCallback(self, callback: object) -> None: ...  # noqa: N802
    def setOnReadonlyNodeDisconnectedCallback(self, callback: object) -> None: ...  # noqa: N802
    def setOnUtilityMessageCallback(self, name: str, callback: object) -> None: ...  # noqa: N802
    def destroy(self) -> None: ...

    # --- from the link ------------------------------------------------------------------------------------------

    def connected(self, peer: int) -> None:
        self._acks = [ack for ack in self._acks if ack[0] != peer]
        for each in self._filters:
            each.connected(peer)
        self._connected(voter(peer))

    def disconnected(self, peer: int) -> None:
        self._acks = [ack for ack in self._acks if ack[0] != peer]
        self._disconnected(voter(peer))

    def receive(self, peer: int, message: Message) -> None:
        kind = message["type"]
        incoming = _passed(self._incoming[kind], peer, message)
        if incoming is None:
            return
        try:
            self._handle(voter(peer), incoming)
        finally:
            self._journal.end_of_message()
        for handled in self._handled[kind]:
            handled(peer)


def _shown(filters: Sequence[MessageFilter], method: str) -> Mapping[str, list[Callable[..., Any]]]:
    """The method of each filter that has its own, in order, by the type of the messages that the filter sees."""
    with_own = [each for each in filters if getattr(type(each), method) is not getattr(MessageFilter, method)]
    return {
        kind: [getattr(each, method) for each in with_own if each.kinds is None or kind in each.kinds] for kind in KINDS
    }


def _passed(filters: Sequence[Callable[[int, Message], Message | None]], peer: int, message: Message) -> Message | None:
    for each in filters:
        changed = each(peer, message)
        if changed is None:
            return None
        message = changed
    return message


def _ignore(*_arguments: object) -> None: ...
