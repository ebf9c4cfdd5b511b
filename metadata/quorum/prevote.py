"""PreVote (Raft thesis 9.6, SO-L6): ask whether an election could be won before raising the term.

A voter agrees when it has lost the leader too, and the candidate's log is at least as long as its own. So a voter that
was cut off returns without disturbing the others, and a majority that sees the leader's port refuse connections may
elect at once instead of waiting for the timeout.
"""

from __future__ import annotations

import random

from metadata.environment import Clock
from metadata.quorum.filters import Message, MessageFilter

NEVER_MS = -(10**15)


class PreVote(MessageFilter):
    kinds = frozenset({"append_entries", "pre_vote_request", "pre_vote_granted"})

    def __init__(self, *, clock: Clock, rng: random.Random, peers: tuple[int, ...], election_timeout_ms: int) -> None:
        self._clock = clock
        self._rng = rng
        self._peers = peers
        self._election_timeout_ms = election_timeout_ms
        self._round = 0
        self._granted: set[int] | None = None
        self._retry_at_ms = NEVER_MS
        self._leader_heard_at_ms = NEVER_MS

    # --- asking -------------------------------------------------------------------------------------------------

    def may_stand(self) -> bool:
        """The election timeout is over: whether a majority agrees to an election. Asks the others, if not asked
        lately."""
        if not self._peers:
            return True
        if self._granted is not None and len(self._granted) + 1 > (len(self._peers) + 1) / 2:
            self._granted = None
            return True
        if self._clock.monotonic_ms() >= self._retry_at_ms:
            self._ask()
        return False

    def ask_again_soon(self) -> None:
        """Something changed (a voter appeared, the leader is gone): do not wait for the next round."""
        self._retry_at_ms = NEVER_MS

    def _ask(self) -> None:
        self._round += 1
        self._granted = set()
        # Equal waits would let two voters collide again and again.
        wait_ms = int(self._election_timeout_ms * (0.2 + 0.6 * self._rng.random()))
        self._retry_at_ms = self._clock.monotonic_ms() + wait_ms
        last_term, last_index = self.raft.last_entry
        request = {
            "type": "pre_vote_request",
            "round": self._round,
            "term": self.raft.term + 1,
            "last_log_index": last_index,
            "last_log_term": last_term,
        }
        for peer in self._peers:
            self.raft.send_to(peer, dict(request))

    # --- answering ----------------------------------------------------------------------------------------------

    def leader_is_gone(self) -> None:
        """The leader's port refuses connections: its recent messages do not count any more."""
        self._leader_heard_at_ms = NEVER_MS

    @property
    def is_leader_silent(self) -> bool:
        """No message of a leader arrived for longer than any election timeout."""
        return self._clock.monotonic_ms() - self._leader_heard_at_ms > 2 * self._election_timeout_ms

    def incoming(self, peer: int, message: Message) -> Message | None:
        match message["type"]:
            case "append_entries":
                self._leader_heard_at_ms = self._clock.monotonic_ms()
            case "pre_vote_request":
                self._answer(peer, message)
                return None
            case "pre_vote_granted":
                if self._granted is not None and message["round"] == self._round:
                    self._granted.add(peer)
                return None
        return message

    def _answer(self, peer: int, message: Message) -> None:
        if message["term"] <= self.raft.term:
            self.raft.send_to(peer, {"type": "higher_term", "term": self.raft.term})
        elif self._would_vote(message):
            self.raft.send_to(peer, {"type": "pre_vote_granted", "round": message["round"]})

    def _would_vote(self, message: Message) -> bool:
        silence_ms = self._clock.monotonic_ms() - self._leader_heard_at_ms
        theirs = (message["last_log_term"], message["last_log_index"])
        return not self.raft.is_leader and silence_ms >= self._election_timeout_ms and theirs >= self.raft.last_entry
