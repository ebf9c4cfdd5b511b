"""Assembly of a voter from its files: at the start, and again after its disk has failed."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from metadata.environment import Clock, Files
from metadata.quorum.command import COMMAND_BYTES_MAX
from metadata.quorum.config import QuorumConfig
from metadata.quorum.filters import MessageFilter
from metadata.quorum.journal import Journal
from metadata.quorum.library import configuration
from metadata.quorum.newcomer import Newcomer
from metadata.quorum.prevote import PreVote
from metadata.quorum.pysyncobj_adapter import RaftParts
from metadata.quorum.snapshots import SnapshotStore
from metadata.quorum.state_machine import MetadataStateMachine
from metadata.quorum.transport import Filters, PeerSender
from metadata.quorum.votes import VoteStore

HEARTBEATS_PER_ELECTION_TIMEOUT = 6
BATCH_BYTES = 2 * COMMAND_BYTES_MAX
PROPOSALS_MAX = 10_000
"""Proposals that wait for a tick; one more is answered AppendLost."""


def open_journal(files: Files, directory: str, snapshots: SnapshotStore) -> Journal:
    """Open the journal and its votes. Raises QuorumStorageError, OSError."""
    header = snapshots.header
    covered = None if header is None else (header.previous, header.last)
    return Journal(files, directory, votes=VoteStore(files, directory), snapshot=covered)


def raft_parts(
    config: QuorumConfig,
    *,
    journal: Journal,
    snapshots: SnapshotStore,
    machine: MetadataStateMachine,
    filters: Sequence[MessageFilter],
    link: PeerSender,
    clock: Clock,
    rng: random.Random,
    on_settled: Callable[[], None],
    may_lead: Callable[[], bool] = lambda: True,
    may_apply: Callable[[], bool] = lambda: True,
) -> RaftParts:
    pre_vote = PreVote(clock=clock, rng=rng, peers=config.peers, election_timeout_ms=config.election_timeout_ms)
    newcomer = Newcomer(clock=clock, rng=rng, peers=config.peers, votes=journal.votes, on_settled=on_settled)
    return RaftParts(
        configuration=configuration(
            election_timeout_ms=config.election_timeout_ms,
            heartbeat_ms=max(1, config.election_timeout_ms // HEARTBEATS_PER_ELECTION_TIMEOUT),
            queue_max=PROPOSALS_MAX,
            batch_bytes=BATCH_BYTES,
        ),
        node_id=config.node_id,
        peers=config.peers,
        journal=journal,
        snapshots=snapshots,
        machine=machine,
        filters=Filters([newcomer, *filters, pre_vote], link=link, journal=journal),
        pre_vote=pre_vote,
        newcomer=newcomer,
        may_lead=may_lead,
        may_apply=may_apply,
    )
