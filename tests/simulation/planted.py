"""Bugs put into the product on purpose, one function each: what the simulation has to find within a few hundred seeds.

Each names the function that it replaces. `python -m tests.simulation faults` looks for all and prints which seed
found which; the table stands in docs/simulation.md, and a test replays the seeds noted here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from kraft.broker.produce_routing import ProduceRouter
from metadata.controller.decide import brokers, changes, elections, isr
from metadata.quorum import state_machine, votes
from metadata.quorum.journal import Journal
from metadata.quorum.journal_format import encode_frame
from metadata.quorum.state_machine import MetadataStateMachine
from metadata.records import Reason
from metadata.snapshot import decode_image, encode_image
from replication.fetcher.follower import Follower
from replication.manager import isr_keeper, reader, roles
from replication.manager.produce import DelayedProduce
from replication.manager.roles import Roles
from replication.partition.states import LeaderState, PendingIsr
from replication.storage import recovery
from replication.storage.epochs import LeaderEpochCache
from replication.storage.flushing import Flusher
from tests.simulation.plan import draw_plan
from tests.simulation.run import Result, play

Make = Callable[[Any], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    what: str
    owner: Any
    attribute: str
    make: Make
    """From the original function to the broken one."""
    profile: str = "swarm"
    found_by: tuple[int, ...] = ()
    """Seeds of the profile that have found it; which do changes whenever the product does. None: not found yet."""


@contextlib.contextmanager
def planted(fault: Planted) -> Iterator[None]:
    original = getattr(fault.owner, fault.attribute)
    setattr(fault.owner, fault.attribute, fault.make(original))
    try:
        yield
    finally:
        setattr(fault.owner, fault.attribute, original)


def play_with(fault: Planted, seed: int) -> Result:
    with planted(fault):
        return play(draw_plan(seed, fault.profile))


def look_for(fault: Planted, *, seeds_max: int) -> Result | None:
    for seed in (*fault.found_by, *range(1, seeds_max + 1)):
        result = play_with(fault, seed)
        if result.failure is not None:
            return result
    return None


# --- replication ------------------------------------------------------------------------------------------------


def _ack_at_once(_original: Any) -> Any:
    def _try(self: DelayedProduce, replica: Any) -> None:
        del self._waiting[replica]

    return _try


def _shrunk_counts_at_once(original: Any) -> Any:
    def propose_shrink(state: LeaderState, leaving: tuple[int, ...]) -> LeaderState:
        proposed = original(state, leaving)
        assert isinstance(proposed.isr, PendingIsr)
        return replace(proposed, isr=replace(proposed.isr, maximal=proposed.isr.proposed))

    return propose_shrink


def _truncate_to_high_watermark(original: Any) -> Any:
    def _follow(self: Roles, replica: Any, image: Any) -> None:
        is_new = replica.state.leader_epoch != image.leader_epoch
        original(self, replica, image)
        if is_new:
            replica.log.truncate_to(replica.state.high_watermark)

    return _follow


def _nothing(_original: Any) -> Any:
    def nothing(*_arguments: Any, **_options: Any) -> None:
        return None

    return nothing


def _false(_original: Any) -> Any:
    def false(*_arguments: Any, **_options: Any) -> bool:
        return False

    return false


def _high_watermark_stays(_original: Any) -> Any:
    def _truncate(self: Follower, replica: Any, state: Any, target: int) -> None:
        replica.log.truncate_to(target)

    return _truncate


def _joins_early(_original: Any) -> Any:
    def may_join(state: LeaderState, follower: int, brokers_: Any) -> bool:
        return follower not in state.isr.maximal and not isinstance(state.isr, PendingIsr) and not state.is_recovering

    return may_join


def _high_watermark_at_the_end(original: Any) -> Any:
    def become_leader(image: Any, *, end_offset: int, high_watermark: int, **options: Any) -> LeaderState:
        state: LeaderState = original(image, end_offset=end_offset, high_watermark=end_offset, **options)
        return state

    return become_leader


def _adopts_by_name(_original: Any) -> Any:
    def _free_folder(self: Roles, topic: str, key: Any) -> None:
        other = self._folders().get((topic, key.partition), key)
        if other != key:
            logs: Any = self._logs
            for table in (logs._logs, logs._directory_of, logs._high_watermarks):
                table[key] = table.pop(other)

    return _free_folder


# --- storage ----------------------------------------------------------------------------------------------------


def _flush_lies(_original: Any) -> Any:
    async def _flush_once(self: Flusher, end_offset: int, segments: Any, epochs: Any) -> None:
        self._flushed_offset = end_offset

    return _flush_once


def _everything_is_clean(original: Any) -> Any:
    def _load_segment(plan: Any, *arguments: Any) -> Any:
        return original(replace(plan, is_clean=True), *arguments)

    return _load_segment


# --- controller and quorum --------------------------------------------------------------------------------------


def _any_partition_epoch(original: Any) -> Any:
    def _epoch_refusal(sender: int, alteration: Any, old: Any) -> Any:
        return original(sender, replace(alteration, partition_epoch=old.partition_epoch), old)

    return _epoch_refusal


def _restarted_stay(original: Any) -> Any:
    def leave_isrs(situation: Any, broker_id: int, reason: Reason) -> Any:
        return [] if reason is Reason.BROKER_RESTARTED else original(situation, broker_id, reason)

    return leave_isrs


def _any_broker_epoch(original: Any) -> Any:
    def _member_refusal(situation: Any, members: Any) -> Any:
        return original(situation, tuple(replace(member, broker_epoch=-1) for member in members))

    return _member_refusal


def _shortest(_original: Any) -> Any:
    def choose_longest(answers: Any, live: list[int]) -> int:
        known = [replica for replica in live if replica in answers]
        return min(known or live, key=lambda r: (answers[r].last_epoch, answers[r].log_end_offset) if known else (0, 0))

    return choose_longest


def _unsynced_file(original: Any) -> Any:
    def replace_file(files: Any, path: str, parts: Any) -> None:
        original(files, path, parts, sync=False)

    return replace_file


def _journal_not_synced(_original: Any) -> Any:
    def sync(self: Journal) -> None:
        self._finish_clear()
        if self._unsynced:
            self._file.append([encode_frame(self._unsynced)])
            self._unsynced = []

    return sync


def _snapshot_of_before(original: Any) -> Any:
    """The header says that one more record is covered than the image has counted."""

    def snapshot(self: MetadataStateMachine) -> Any:
        end_offset, controller_epoch, body = original(self)
        without = decode_image(body)
        return end_offset, controller_epoch, encode_image(replace(without, offset=without.offset - 1))

    return snapshot


def _worth_again(_original: Any) -> Any:
    def _is_worth_routing_again(_router: Any, _partition: Any, outcome: Any, _data: Any) -> bool:
        return outcome.error_code in (3, 5, 6, 7, 100)

    return _is_worth_routing_again


PLANTED: dict[str, Planted] = {
    "acks_all_too_early": Planted(
        what="acks=all is answered as soon as the leader has appended",
        owner=DelayedProduce,
        attribute="_try",
        make=_ack_at_once,
        found_by=(1,),
    ),
    "high_watermark_from_shrunk_isr": Planted(
        what="who is to leave the ISR does not count any more before that is committed (I7)",
        owner=isr_keeper,
        attribute="propose_shrink",
        make=_shrunk_counts_at_once,
        found_by=(3,),
    ),
    "truncates_to_high_watermark": Planted(
        what="a new follower cuts its log to its high watermark, as Kafka did before KIP-101 (R4)",
        owner=Roles,
        attribute="_follow",
        make=_truncate_to_high_watermark,
        found_by=(6,),
    ),
    "epochs_not_cut_with_log": Planted(
        what="the epoch cache keeps epochs that were truncated from the log (R8)",
        owner=LeaderEpochCache,
        attribute="truncate_from_end",
        make=_nothing,
        found_by=(2,),
    ),
    "leader_epoch_not_bumped": Planted(
        what="a new leader leads in the old epoch (L2)",
        owner=changes,
        attribute="_bumps_leader_epoch",
        make=_false,
        found_by=(2,),
    ),
    "partition_epoch_ignored": Planted(
        what="AlterPartition is not compared with the partition epoch (I5)",
        owner=isr,
        attribute="_epoch_refusal",
        make=_any_partition_epoch,
        found_by=(9,),
    ),
    "restarted_broker_stays_in_isr": Planted(
        what="a new incarnation stays in the ISRs of the old one (B7)",
        owner=brokers,
        attribute="leave_isrs",
        make=_restarted_stay,
        found_by=(2,),
    ),
    "stale_broker_epoch_joins": Planted(
        what="AlterPartition lets members join under the epoch of an earlier life (KIP-903)",
        owner=isr,
        attribute="_member_refusal",
        make=_any_broker_epoch,
    ),
    "vote_not_synced": Planted(
        what="the vote is told before it is durable (Raft 5.2)",
        owner=votes,
        attribute="replace_file",
        make=_unsynced_file,
        found_by=(1,),
    ),
    "journal_acknowledged_before_fsync": Planted(
        what="metadata entries are acknowledged from the page cache (S6)",
        owner=Journal,
        attribute="sync",
        make=_journal_not_synced,
        found_by=(1,),
    ),
    "snapshot_of_wrong_index": Planted(
        what="a metadata snapshot lacks the last command that it says it covers",
        owner=MetadataStateMachine,
        attribute="snapshot",
        make=_snapshot_of_before,
        found_by=(2,),
    ),
    "stale_controller_accepted": Planted(
        what="the compare-and-set of metadata appends always succeeds (Q5)",
        owner=state_machine,
        attribute="refusal",
        make=_nothing,
    ),
    "unclean_election_of_shorter_log": Planted(
        what="an unclean election takes the shortest log of the oldest epoch (L8)",
        owner=elections,
        attribute="choose_longest",
        make=_shortest,
        profile="unclean",
    ),
    "high_watermark_kept_over_truncation": Planted(
        what="a follower's high watermark stays above the end of its truncated log (R5)",
        owner=Follower,
        attribute="_truncate",
        make=_high_watermark_stays,
    ),
    "produce_retried_by_server": Planted(
        what="a produce of unknown outcome is routed again",
        owner=ProduceRouter,
        attribute="_is_worth_routing_again",
        make=_worth_again,
        found_by=(3,),
    ),
    "recreated_topic_adopts_old_log": Planted(
        what="a topic made again under its old name finds the records of the one that was deleted (KIP-516)",
        owner=Roles,
        attribute="_free_folder",
        make=_adopts_by_name,
        profile="reconfigure",
    ),
    "joins_isr_too_early": Planted(
        what="a follower joins the ISR before it has reached the high watermark (I4)",
        owner=reader,
        attribute="may_join",
        make=_joins_early,
        found_by=(3,),
    ),
    "divergence_ignored": Planted(
        what="a leader does not compare the follower's last epoch with its own (R2)",
        owner=reader,
        attribute="_divergence",
        make=_nothing,
        found_by=(6,),
    ),
    "leader_exposes_its_whole_log": Planted(
        what="a new leader takes its log end for the high watermark",
        owner=roles,
        attribute="become_leader",
        make=_high_watermark_at_the_end,
        found_by=(6,),
    ),
    "flush_does_nothing": Planted(
        what="flush.messages=1 answers without an fsync (P11)",
        owner=Flusher,
        attribute="_flush_once",
        make=_flush_lies,
        profile="power",
    ),
    "recovery_trusts_every_segment": Planted(
        what="after a power loss segments are not scanned (S5)",
        owner=recovery,
        attribute="_load_segment",
        make=_everything_is_clean,
        profile="power",
    ),
}
