"""A voter that has lost its files: it must not vote, lead or be counted until it can do no harm.

A voter that begins with an empty folder cannot know whether it is new or was wiped. The others still rely on its
earlier promises: its vote may make a leader, its acknowledgements may have committed entries that now one voter less
has. So a newcomer (durably marked, see `votes`) casts no vote, is no candidate, and acknowledges nothing; it follows,
and copies the log. It becomes a voter in one of two cases:

- Every other voter reports that it has never been in any term. Then the newcomer cannot have made a promise: this is a
new cluster, which therefore begins when all its voters have met. - A leader commits, with the others alone, an entry
that it appended after it knew of the newcomer, and the newcomer has that entry on its disk. The winner of a later term
has the entry as well, because a majority without the newcomer has it; so it was a candidate after the end of the
newcomer's first life, whose votes count no more. Everything that was committed with that life's help is before that
entry. In the leader's term its vote is the leader's; in the terms before it never votes.

So one wiped voter costs nothing while a majority of all voters is there without it; until then it waits.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from metadata.environment import Clock
from metadata.quorum.filters import Message, MessageFilter
from metadata.quorum.prevote import NEVER_MS
from metadata.quorum.votes import VoteStore

ASK_MS = 100


class Newcomer(MessageFilter):
    """Both sides of the protocol; a voter that is no newcomer only has the side that answers."""

    kinds = frozenset({"next_node_idx", "request_vote", "pre_vote_request", "newcomer", "no_history", "welcome"})

    def __init__(
        self,
        *,
        clock: Clock,
        rng: random.Random,
        peers: tuple[int, ...],
        votes: VoteStore,
        on_settled: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._peers = peers
        self._votes = votes
        self._on_settled = on_settled
        self._life = rng.getrandbits(63) if votes.is_newcomer else 0
        """Number of this life: an answer to an earlier life does not count."""
        self._asked_at_ms = NEVER_MS
        self._without_history: set[int] = set()
        self._heard_of: dict[int, tuple[int, int, int]] = {}
        """Newcomer -> its life, the term in which we lead, and the last index of our log when we heard of it."""

    @property
    def is_newcomer(self) -> bool:
        return self._votes.is_newcomer

    # --- as a newcomer ------------------------------------------------------------------------------------------

    def tick(self) -> None:
        if not self.is_newcomer:
            return
        if self._without_history.issuperset(self._peers):  # also where there are no others
            self._settle(None)
        elif self._clock.monotonic_ms() - self._asked_at_ms >= ASK_MS:
            self._asked_at_ms = self._clock.monotonic_ms()
            for peer in self._peers:
                self._ask(peer)

    def _ask(self, peer: int) -> None:
        self.raft.send_to(peer, {"type": "newcomer", "life": self._life})

    def outgoing(self, _peer: int, message: Message) -> Message | None:
        if self.is_newcomer and message["type"] == "next_node_idx":
            return {**message, "success": False}  # so the leader continues to send, and does not count this node
        return message

    def _settle(self, candidate: int | None) -> None:
        self.raft.settle(candidate)
        self._on_settled()

    def _answered(self, peer: int, message: Message) -> None:
        if message["type"] == "no_history":
            self._without_history.add(peer)
            if self._without_history.issuperset(self._peers):
                self._settle(None)
            return
        term, index = self.raft.last_entry
        # Entries of its term can only have that leader as their origin: with one of them, this node has all before it.
        if message["term"] == self.raft.term == term and index >= message["index"]:
            self._settle(peer)

    # --- both ---------------------------------------------------------------------------------------------------

    def connected(self, peer: int) -> None:
        if self.is_newcomer:
            self._ask(peer)

    def incoming(self, peer: int, message: Message) -> Message | None:
        match message["type"]:
            case "newcomer":
                self._answer(peer, message["life"])
            case "no_history" | "welcome":
                if self.is_newcomer and message["life"] == self._life:
                    self._answered(peer, message)
            case "request_vote" | "pre_vote_request" if self.is_newcomer:
                pass
            case _:
                return message
        return None

    # --- as a voter that a newcomer asks ------------------------------------------------------------------------

    def _answer(self, peer: int, life: int) -> None:
        term, index = self.raft.term, self.raft.last_entry[1]
        if term == 0:
            self.raft.send_to(peer, {"type": "no_history", "life": life})
        if not self.raft.is_leader:
            return
        *known, known_index = self._heard_of.get(peer, (0, 0, 0))
        if known != [life, term]:
            self._heard_of[peer] = (life, term, index)
            self.raft.propose_nothing()
        elif self.raft.commit_index > known_index:
            self.raft.send_to(peer, {"type": "welcome", "life": life, "term": term, "index": known_index + 1})
