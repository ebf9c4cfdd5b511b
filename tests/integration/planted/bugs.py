"""Which bugs are planted into real nodes, and which scenario has to find each.

Most are those that the simulator looks for as well. `plant` changes the process that calls it, for good.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from kraft.chaos.workload.client import ClientProtocol
from kraft.coordinators.groups import consumers, request_handlers
from kraft.coordinators.groups.group_metadata import GroupMetadata
from kraft.coordinators.groups.records import GroupRecord, OffsetKey
from kraft.coordinators.shares import leaders
from kraft.coordinators.shares.dead_letters import DeadLetterWriter
from kraft.coordinators.shares.leader import ShareLeader
from kraft.protocol.errors import InvalidRecordState
from metadata.controller.decide import isr
from metadata.quorum.votes import VoteStore
from replication.shares.states import AcknowledgeType
from tests.simulation.planted import PLANTED, Patch

VARIABLE: Final = "KRAFT_TEST_PLANTED"
FOLDER: Final = Path(__file__).parent
ROOT: Final = FOLDER.parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bug:
    what: str
    found_by: str
    """A scenario of the catalogue."""
    within_s: int
    """From the start of the scenario to its verdict."""
    verdict: tuple[str, ...]
    """Parts of what the verdict says: one of them, as the load of the machine has it."""
    patches: tuple[Patch, ...]
    clients: ClientProtocol = "rest"
    """What the clients speak in real nodes."""
    breaks_off: bool = False
    """Its clients cannot go on, so the story does not come to its end; there is a verdict all the same."""


def plant(name: str) -> None:
    for each in BUGS[name].patches:
        setattr(each.owner, each.attribute, each.make(getattr(each.owner, each.attribute, None)))


@contextmanager
def planted_in_nodes(name: str) -> Iterator[None]:
    """Every node that starts meanwhile has the bug."""
    assert name in BUGS, name
    path = os.pathsep.join(filter(None, (str(FOLDER), str(ROOT), os.environ.get("PYTHONPATH"))))
    with patch.dict(os.environ, {VARIABLE: name, "PYTHONPATH": path}):
        yield


def _of_the_simulator(
    name: str,
    *,
    found_by: str,
    verdict: tuple[str, ...],
    within_s: int = 30,
    clients: ClientProtocol = "rest",
    breaks_off: bool = False,
) -> Bug:
    known = PLANTED[name]
    return Bug(
        what=known.what,
        found_by=found_by,
        within_s=within_s,
        verdict=verdict,
        patches=known.patches,
        clients=clients,
        breaks_off=breaks_off,
    )


def _yes_to_the_deposed(original: Any) -> Any:
    """Who does not lead any more is told that its ISR is what it asked for."""

    def _refusal(controller: Any, sender: int, alteration: Any, old: Any) -> Any:
        if sender == old.leader:
            return original(controller, sender, alteration, old)
        return replace(
            old,
            leader=sender,
            leader_epoch=alteration.leader_epoch,
            partition_epoch=alteration.partition_epoch + 1,
            isr=tuple(member.broker_id for member in alteration.new_isr),
        )

    return _refusal


def _late_ones_too(original: Any) -> Any:
    """The worker gets success, whoever has the record."""

    def settle(self: ShareLeader, lease: Any) -> Any:
        try:
            return original(self, lease)
        except InvalidRecordState:
            return None

    return settle


def _renewals_do_nothing(original: Any) -> Any:
    """The worker gets success, and its lock ends as before."""

    def settle(self: ShareLeader, lease: Any) -> Any:
        return None if lease.part.type is AcknowledgeType.RENEW else original(self, lease)

    return settle


def _from_the_beginning(original: Any) -> Any:
    """As if nobody had acknowledged a record."""

    def loaded(_start_offset: int, _batches: Any, **options: Any) -> Any:
        return original(0, (), **options)

    return loaded


def _all_of_it(_original: Any) -> Any:
    """New records with these offsets count as accepted."""

    def within_log(state: Any, _end_offset: int) -> Any:
        return state

    return within_log


def _no_letters(_original: Any) -> Any:
    """Each of them counts as written."""

    async def write(_self: DeadLetterWriter, _key: Any, _letters: Any) -> frozenset[int]:
        return frozenset()

    return write


def _in_memory(original: Any) -> Any:
    """The file is there, for a voter does not start without it, and knows nothing."""

    def save(self: VoteStore, *, term: int, voted_for: int | None) -> None:
        self.term, self.voted_for = 0, None
        original(self, term=0, voted_for=None)
        self.term, self.voted_for = term, voted_for

    return save


def _without_offsets(original: Any) -> Any:
    def apply(self: GroupMetadata, record: GroupRecord, *, now_ms: int, is_replay: bool) -> None:
        if not (is_replay and isinstance(record.key, OffsetKey)):
            original(self, record, now_ms=now_ms, is_replay=is_replay)

    return apply


def _further(original: Any) -> Any:
    """By more than a member of the story has in work."""

    def commit_records(group: str, offsets: Any, **options: Any) -> Any:
        ahead = {key: (offset + 30, epoch, metadata) for key, (offset, epoch, metadata) in offsets.items()}
        return original(group, ahead, **options)

    return commit_records


LOST: Final = "a clean election must not lose acks=all"
BUGS: Final[dict[str, Bug]] = {
    "acks_all_too_early": _of_the_simulator(
        "acks_all_too_early",
        found_by="acks-all-leader-kill",
        verdict=(LOST,),
    ),
    "high_watermark_from_shrunk_isr": _of_the_simulator(
        "high_watermark_from_shrunk_isr",
        found_by="shrink-not-committed",
        verdict=(LOST,),
    ),
    "truncates_to_high_watermark": _of_the_simulator(
        "truncates_to_high_watermark",
        found_by="high-watermark-behind",
        verdict=(LOST,),
    ),
    "stale_leader_not_fenced": Bug(
        what="the controller agrees to the ISR that a deposed leader asks for (I5)",
        found_by="deposed-leader",
        within_s=30,
        verdict=(LOST,),
        patches=(Patch(isr, "_refusal", _yes_to_the_deposed),),
    ),
    "joins_isr_too_early": _of_the_simulator(
        "joins_isr_too_early",
        found_by="returning-follower",
        verdict=(LOST, "members is [1, 2]"),
    ),
    "vote_not_persisted": Bug(
        what="a voter keeps its term and vote in memory (Raft 5.2)",
        found_by="controller-killed",
        within_s=30,
        verdict=("may vote a second time",),
        patches=(Patch(VoteStore, "save", _in_memory),),
    ),
    "committed_offsets_not_replayed": Bug(
        what="a new coordinator does not replay committed offsets (G5)",
        found_by="coordinator-killed-in-rebalance",
        within_s=60,
        verdict=("anomaly commit_lost: group gone had committed",),
        patches=(Patch(GroupMetadata, "apply", _without_offsets),),
    ),
    "commits_more_than_was_read": Bug(
        what="the coordinator keeps a larger offset than the one that was committed",
        found_by="member-killed",
        within_s=60,
        verdict=("skipped by a group",),
        patches=(Patch(request_handlers, "commit_records", _further), Patch(consumers, "commit_records", _further)),
    ),
    "anybody_commits": _of_the_simulator(
        "anybody_commits",
        found_by="zombie-member",
        within_s=60,
        verdict=("anomaly commit_of_old_generation", "anomaly commit_lost"),
        clients="kafka",
    ),
    "markers_lost_on_failover": _of_the_simulator(
        "markers_lost_on_failover",
        found_by="transaction-coordinator-killed",
        within_s=150,
        verdict=("anomaly transaction_hangs",),
        breaks_off=True,
    ),
    "last_stable_offset_not_restored": _of_the_simulator(
        "last_stable_offset_not_restored",
        found_by="transaction-leader-killed",
        within_s=60,
        verdict=("anomaly aborted_visible",),
    ),
    "fenced_by_no_epoch": _of_the_simulator(
        "fenced_by_no_epoch",
        found_by="transaction-zombie",
        within_s=60,
        verdict=("anomaly committed_missing", "now.refused('zombie', 47)"),
    ),
    "aborted_offsets_count": _of_the_simulator(
        "aborted_offsets_count",
        found_by="transaction-client-killed",
        within_s=60,
        verdict=("anomaly aborted_offsets",),
    ),
    "delayed_twice": _of_the_simulator(
        "delayed_twice",
        found_by="delayed-forwarder-killed",
        within_s=90,
        verdict=("anomaly delivered_twice",),
    ),
    "queue_takes_late_acceptances": Bug(
        what="an acceptance is answered with success after its lock has ended (U2)",
        found_by="queue-lock-ends",
        within_s=60,
        verdict=("anomaly accepted_twice: group q",),
        patches=(Patch(ShareLeader, "settle", _late_ones_too),),
    ),
    "queue_forgets_renewals": Bug(
        what="a renewal is answered with success, and the lock ends as before (U2)",
        found_by="queue-lock-renewed",
        within_s=60,
        verdict=("whose lock had not ended",),
        patches=(Patch(ShareLeader, "settle", _renewals_do_nothing),),
        breaks_off=True,
    ),
    "queue_begins_again": Bug(
        what="a new leader of a share partition does not load what was acknowledged (U6)",
        found_by="queue-leader-killed",
        within_s=60,
        verdict=("anomaly handed_out_after_acceptance: group q",),
        patches=(Patch(leaders, "loaded", _from_the_beginning),),
    ),
    "queue_state_beyond_log": Bug(
        what="a new leader of a share partition keeps the state of records that the log has lost (U11)",
        found_by="queue-unclean-election",
        within_s=90,
        verdict=("anomaly lost_by_queue: group q",),
        patches=(Patch(leaders, "within_log", _all_of_it),),
    ),
    "queue_writes_no_dead_letters": Bug(
        what="the leader of a share partition archives a record and writes no dead letter (U14)",
        found_by="queue-poison",
        within_s=90,
        verdict=("anomaly not_dead_lettered: group q",),
        patches=(Patch(DeadLetterWriter, "write", _no_letters),),
        breaks_off=True,
    ),
    "queue_skips_released_records": _of_the_simulator(
        "queue_skips_released_records",
        found_by="queue-poison",
        within_s=90,
        verdict=("anomaly lost_by_queue: group q",),
        breaks_off=True,
    ),
}
