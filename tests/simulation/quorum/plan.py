"""What a simulated story is made of: how often what goes wrong, and which parts of the voter are replaced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from metadata.quorum.filters import MessageFilter, standard_filters
from metadata.quorum.journal import Journal
from metadata.quorum.newcomer import Newcomer
from metadata.quorum.prevote import PreVote

ELECTION_MS = 200


class Violation(AssertionError):
    """An invariant does not hold."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    nodes: int = 3
    faults_ms: int = 10_000
    fault_every_ms: float = 350
    drop: float = 0.25
    crash: float = 0.15
    pause: float = 0.2
    partition: float = 0.25
    power: float = 0.5
    outage: float = 0.05
    orphan: float = 0.1
    """How often a message of a connection that was replaced is delivered all the same."""
    notice_ms: float = 100
    """Until each end of a connection, by itself, sees that it was made or lost."""
    last_outage: bool = False
    """End with a kill of all voters, and ask nothing of them until they agree."""
    latency_ms: tuple[float, float] = (0.5, 20)
    slow_ms: float = 800
    commands_per_s: float = 40
    large_bytes: int = 30_000
    large_share: float = 0.1
    snapshot_bytes: int = 10**9
    batch_bytes: int = 2**16
    filters: Callable[[], list[MessageFilter]] = standard_filters
    journal: type[Journal] = Journal
    pre_vote: type[PreVote] = PreVote
    newcomer: type[Newcomer] = Newcomer
    wipe: float = 0.0
    """How many of the voters that crash come back with an empty disk."""
    strangers: bool = False
    """The voters have never met before."""
