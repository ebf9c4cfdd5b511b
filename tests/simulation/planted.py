"""Planted bugs, one or two functions each, which the simulation has to find within 500 seeds.

Each names the functions that it replaces (see `planted_bugs`). `python -m tests.simulation faults` looks for all and
prints which seed found which; the table is in docs/notes/simulation.md, and a test replays the seeds noted here. Most
take away one line of defence; where the product has a second one for the same rule, both are taken away.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from kraft.broker.lifecycle import BrokerLifecycle
from kraft.broker.routing import Router
from kraft.broker.transactional_produce import TransactionalProduce
from kraft.coordinators.copies import Copies
from kraft.coordinators.delayed import forwarder
from kraft.coordinators.delayed.index import DueIndex
from kraft.coordinators.groups import classic_rebalance, request_handlers
from kraft.coordinators.groups.group_metadata import GroupMetadata
from kraft.coordinators.groups.shard import GroupShard
from kraft.coordinators.routed import RoutedWrites
from kraft.coordinators.shard import CoordinatorShard
from kraft.coordinators.shares import decide as share_decisions
from kraft.coordinators.shares import leaders
from kraft.coordinators.shares.expiry import Expiry
from kraft.coordinators.shares.leader import ShareLeader
from kraft.coordinators.shares.shard import ShareStateShard
from kraft.coordinators.transactions import decide as transaction_decisions
from kraft.coordinators.transactions.shard import TransactionShard
from kraft.node.startup_state import Awaiting
from kraft.wire.session import Session
from metadata import image
from metadata.controller.controller_term import ControllerTerm
from metadata.controller.decide import brokers, changes, elections, isr
from metadata.quorum import journal_format, state_machine, votes
from metadata.quorum.engine import QuorumEngine
from metadata.quorum.journal import Journal
from metadata.quorum.newcomer import Newcomer
from metadata.quorum.pysyncobj_adapter import HardenedRaft
from metadata.quorum.state_machine import MetadataStateMachine
from metadata.quorum.votes import VoteStore
from replication.fetcher.follower import Follower
from replication.manager import isr_keeper, partition_reader, roles
from replication.manager.delayed_produce import DelayedProduce
from replication.manager.produce import Produce
from replication.manager.roles import Roles
from replication.partition import leader
from replication.producers import state as producers
from replication.shares.partition import SharePartition
from replication.shares.runs import Run
from replication.shares.sessions import ShareSessions
from replication.storage import recovery
from replication.storage.flusher import Flusher
from replication.storage.leader_epochs import LeaderEpochCache
from replication.storage.producer_state_manager import ProducerStateManager
from tests.simulation import planted_bugs as bugs
from tests.simulation import planted_clients as forgetful
from tests.simulation import planted_decay as decayed
from tests.simulation import planted_delayed as waiting
from tests.simulation import planted_queues as queued
from tests.simulation import planted_transactions as transactional
from tests.simulation.plan_generator import draw_plan
from tests.simulation.run import Result, play

_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Patch:
    owner: Any
    attribute: str
    make: Callable[[Any], Any]
    """From the original function to the broken one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    what: str
    patches: tuple[Patch, ...]
    profile: str = "swarm"
    found_by: tuple[int, ...] = ()
    """Seeds of the profile that have found it; they change when the product changes."""
    seen_as: str = "Violation: "
    """In the failure that counts: a patch that only makes the product raise proves nothing."""


@contextlib.contextmanager
def planted(fault: Planted) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for patch in fault.patches:
            original = getattr(patch.owner, patch.attribute, _ABSENT)
            setattr(patch.owner, patch.attribute, patch.make(original))
            if original is _ABSENT:
                stack.callback(delattr, patch.owner, patch.attribute)
            else:
                stack.callback(setattr, patch.owner, patch.attribute, original)
        yield


def play_with(fault: Planted, seed: int) -> Result:
    with planted(fault):
        return play(draw_plan(seed, fault.profile))


BROKEN = ("AttributeError: ", "ImportError: ", "NameError: ", "TypeError: ")
"""Failures of a patch that was not changed with the product: each seed fails with them, and none finds the fault."""


def look_for(fault: Planted, *, seeds_max: int, on_seed: Callable[[int], None] = lambda number: None) -> Result | None:
    """The first run that finds it. `on_seed` is called before each with its number: a search of 500 takes minutes.
    Raises AssertionError for a patch that does not fit the product."""
    for number, seed in enumerate((*fault.found_by, *range(1, seeds_max + 1)), start=1):
        on_seed(number)
        result = play_with(fault, seed)
        if result.failure is not None and fault.seen_as in result.failure:
            return result
        assert not (result.failure or "").startswith(BROKEN), f"the patch itself may raise this: {result.failure}"
    return None


PLANTED: dict[str, Planted] = {
    "acks_all_too_early": Planted(
        what="acks=all is answered as soon as the leader has appended",
        patches=(Patch(DelayedProduce, "_try", bugs.ack_at_once),),
        found_by=(1,),
    ),
    "high_watermark_from_shrunk_isr": Planted(
        what="who is to leave the ISR does not count any more before that is committed (I7)",
        patches=(Patch(isr_keeper, "propose_shrink", bugs.shrunk_counts_at_once),),
        found_by=(5,),
    ),
    "truncates_to_high_watermark": Planted(
        what="a new follower cuts its log to its high watermark, as Kafka did before KIP-101 (R4)",
        patches=(Patch(Roles, "_follow", bugs.truncate_to_high_watermark),),
        found_by=(6,),
    ),
    "epochs_not_cut_with_log": Planted(
        what="the epoch cache keeps epochs that were truncated from the log (R8)",
        patches=(Patch(LeaderEpochCache, "truncate_from_end", bugs.nothing),),
        found_by=(2,),
    ),
    "leader_epoch_not_bumped": Planted(
        what="a new leader leads in the old epoch (L2)",
        patches=(Patch(changes, "_bumps_leader_epoch", bugs.false),),
        found_by=(2,),
    ),
    "partition_epoch_ignored": Planted(
        what="AlterPartition is not compared with the partition epoch (I5)",
        patches=(Patch(isr, "_epoch_refusal", bugs.any_partition_epoch),),
        found_by=(9,),
    ),
    "restarted_broker_stays_in_isr": Planted(
        what="a new incarnation stays in the ISRs of the old one (B7)",
        patches=(Patch(brokers, "leave_isrs", bugs.restarted_stay),),
        found_by=(2,),
    ),
    "stale_broker_epoch_joins": Planted(
        what="AlterPartition lets members join under the epoch of an earlier life (KIP-903)",
        patches=(Patch(isr, "_member_refusal", bugs.any_broker_epoch),),
        profile="members",
        found_by=(2,),
    ),
    "vote_not_synced": Planted(
        what="the vote is sent before it is durable (Raft 5.2)",
        patches=(Patch(votes, "replace_file", bugs.unsynced_file),),
        found_by=(1,),
    ),
    "journal_acknowledged_before_fsync": Planted(
        what="metadata entries are acknowledged from the page cache (SO-S6)",
        patches=(Patch(Journal, "sync", bugs.journal_not_synced),),
        found_by=(1,),
    ),
    "snapshot_of_wrong_index": Planted(
        what="a metadata snapshot lacks the last command that it should cover",
        patches=(Patch(MetadataStateMachine, "snapshot", bugs.snapshot_of_before),),
        found_by=(2,),
    ),
    "stale_controller_accepted": Planted(
        what="a controller that has lost the quorum goes on when it leads again, and its appends are not compared (Q5)",
        patches=(
            Patch(state_machine, "refusal", bugs.nothing),
            Patch(ControllerTerm, "_resign_unless_leader", bugs.nothing),
        ),
        profile="controllers",
        found_by=(12,),
    ),
    "unclean_election_of_shorter_log": Planted(
        what="an unclean election takes the shortest log of the oldest epoch (L8)",
        patches=(Patch(elections, "choose_longest", bugs.shortest),),
        profile="stranded",
        found_by=(14,),
    ),
    "high_watermark_kept_over_truncation": Planted(
        what="a follower's high watermark stays above the end of its truncated log (R5)",
        patches=(Patch(Follower, "_truncate", bugs.high_watermark_stays),),
        profile="stranded",
        found_by=(5,),
    ),
    "produce_retried_by_server": Planted(
        what="a produce of unknown outcome is routed again",
        patches=(Patch(Router, "_is_worth_routing_again", bugs.worth_again),),
        found_by=(9,),
    ),
    "recreated_topic_adopts_old_log": Planted(
        what="a topic made again under its old name finds the records of the one that was deleted (KIP-516)",
        patches=(Patch(Roles, "_free_folder", bugs.adopts_by_name),),
        profile="topics",
        found_by=(6,),
    ),
    "joins_isr_too_early": Planted(
        what="a follower joins the ISR before it has reached the high watermark (I4)",
        patches=(Patch(partition_reader, "may_join", bugs.joins_early),),
        found_by=(3,),
    ),
    "divergence_ignored": Planted(
        what="a leader does not compare the follower's last epoch with its own (R2)",
        patches=(Patch(partition_reader, "_divergence", bugs.nothing),),
        found_by=(9,),
    ),
    "leader_exposes_its_whole_log": Planted(
        what="a new leader takes its log end for the high watermark",
        patches=(Patch(roles, "become_leader", bugs.high_watermark_at_the_end),),
        found_by=(60,),
    ),
    "flush_does_nothing": Planted(
        what="flush.messages=1 answers without an fsync (P11)",
        patches=(Patch(Flusher, "_flush_once", bugs.flush_lies),),
        profile="power",
        found_by=(1,),
    ),
    "recovery_trusts_every_segment": Planted(
        what="after a power loss segments are not scanned (S5)",
        patches=(Patch(recovery, "_load_segment", bugs.everything_is_clean),),
        profile="power",
        seen_as="is damaged: ",  # in no disk did a bit flip
        found_by=(6,),
    ),
    "leader_outside_the_isr": Planted(
        what="any live replica may be elected, and the product does not look",
        patches=(
            Patch(changes, "choose_leader", bugs.leader_outside_isr),
            Patch(changes, "_check", bugs.nothing),
        ),
        found_by=(2,),
    ),
    "votes_twice_in_a_term": Planted(
        what="a voter forgets whom it has voted for, and the product does not look (Raft 5.2)",
        patches=(
            Patch(HardenedRaft, "_SyncObj__votedForNodeId", bugs.votes_for_anybody),
            Patch(VoteStore, "save", bugs.saves_any_vote),
        ),
        profile="controllers",
        found_by=(6,),
    ),
    "vote_folder_not_synced": Planted(
        what="the vote's bytes are synced, its name is not: a loss of power undoes the rename (SO-S6)",
        patches=(Patch(votes, "replace_file", bugs.folder_not_synced),),
        found_by=(1,),
    ),
    "journal_loses_its_last_entry": Planted(
        what="a voter that starts again lacks the last entry that it has acknowledged",
        patches=(Patch(Journal, "_join", bugs.loses_the_last_entry),),
        profile="quorum",
        found_by=(2,),
    ),
    "leader_high_watermark_falls": Planted(
        what="a leader's high watermark falls to the end of its slowest follower (R5)",
        patches=(
            Patch(leader, "advance_high_watermark", bugs.falls_with_the_isr),
            Patch(leader, "_is_held_back", bugs.false),
        ),
        profile="members",
        seen_as="the high watermark of leader",
        found_by=(6,),
    ),
    "produce_waits_for_ever": Planted(
        what="a produce that is not replicated in time is not answered (P6)",
        patches=(Patch(DelayedProduce, "expire", bugs.nothing),),
        seen_as="has not ended",
        found_by=(21,),
    ),
    "nobody_joins_the_isr": Planted(
        what="a follower that has caught up is not taken back into the ISR (I4)",
        patches=(Patch(partition_reader, "may_join", bugs.false),),
        seen_as="the cluster is not whole",
        found_by=(2,),
    ),
    "acks_one_not_appended": Planted(
        what="some of what acks=1 acknowledges is never appended",
        patches=(Patch(Produce, "_append", bugs.acks_one_from_memory),),
        seen_as="was acknowledged (acks=1)",
        found_by=(5,),
    ),
    "unclean_leader_cuts_its_log": Planted(
        what="a leader of an unclean election gives up what is above its high watermark (L8)",
        patches=(Patch(Roles, "_lead", bugs.unclean_leader_cuts),),
        seen_as="was chosen in an unclean election",
        profile="stranded",
        found_by=(2,),
    ),
    "commit_answered_too_early": Planted(
        what="a coordinator answers a commit before it is replicated (G5)",
        patches=(Patch(GroupShard, "write", forgetful.writes_without_waiting),),
        profile="groups",
        found_by=(384,),
    ),
    "producers_not_known_after_failover": Planted(
        what="a new leader knows nothing of the producers whose batches it has (D6)",
        patches=(Patch(Roles, "_lead", forgetful.forgets_producers),),
        profile="groups",
        found_by=(7,),
    ),
    "sequence_not_checked": Planted(
        what="a leader takes any sequence of a producer that it knows (D1)",
        patches=(Patch(producers, "_check_sequence", bugs.nothing),),
        profile="groups",
        found_by=(1,),
    ),
    "given_up_records_stay": Planted(
        what="replicas of an unclean election's partition keep what the chosen log does not have (R2)",
        patches=(Patch(partition_reader, "_divergence", bugs.nothing),),
        profile="stranded",
        seen_as="in the era that began with epoch",
        found_by=(14,),
    ),
    "syncs_wait_for_ever": Planted(
        what="a coordinator answers the sync of the group's leader only (G1)",
        patches=(Patch(classic_rebalance, "_assign", forgetful.followers_syncs_unanswered),),
        profile="groups",
        seen_as="a join or sync of group",
        found_by=(3,),
    ),
    "anybody_commits": Planted(
        what="the coordinator takes commits of members of old generations and of those it has evicted (G4)",
        patches=(Patch(request_handlers, "check_commit", bugs.nothing),),
        profile="groups",
        found_by=(14,),
    ),
    "hung_node_leads": Planted(
        what="a node whose main loop does not turn stands for election and leads on (Q9)",
        patches=(Patch(QuorumEngine, "_may_lead", bugs.true),),
        profile="headless",
        seen_as="leads the quorum while its main loop hangs",
        found_by=(1, 4),
    ),
    "wiped_voter_votes_at_once": Planted(
        what="a voter that has lost its files votes, stands and is counted at once (Raft 5.2, 5.4)",
        patches=(Patch(Newcomer, "tick", decayed.votes_at_once),),
        profile="decay",
        found_by=(12,),
    ),
    "answers_from_its_files": Planted(
        what="a node answers from the metadata that its files hold, before it has caught up with the quorum (KIP-631)",
        patches=(Patch(Awaiting, "metadata", bugs.caught_up_by_its_files),),
        seen_as="answers too early",
        found_by=(2,),
    ),
    "damaged_frame_taken_for_a_torn_one": Planted(
        what="a bit that flips in the newest frame of the journal makes a voter forget what it acknowledged (SO-S7)",
        patches=(Patch(journal_format, "_is_torn", decayed.always_torn),),
        profile="decay",
        found_by=(102,),
    ),
    "open_transaction_left": Planted(
        what="a new controller does not abort the transaction that it finds open (KIP-868)",
        patches=(Patch(ControllerTerm, "_abort_what_is_open", bugs.leaves_open),),
        profile="pieces",
        found_by=(4,),
    ),
    "half_a_transaction_shown": Planted(
        what="an image shows topics and partitions of a transaction before its End (KIP-868)",
        patches=(Patch(image._Draft, "apply", bugs.shows_open_transactions),),
        profile="pieces",
        found_by=(1,),
    ),
    "markers_lost_on_failover": Planted(
        what="a coordinator that takes over writes no markers for what was decided before (T4)",
        patches=(Patch(TransactionShard, "after_load", transactional.forgets_what_was_decided),),
        profile="transactions",
        found_by=(4,),
    ),
    "last_stable_offset_not_restored": Planted(
        what="a new leader does not know of the transactions that are open in its log (T8)",
        patches=(Patch(Roles, "_lead", transactional.forgets_open_transactions),),
        profile="transactions",
        found_by=(1,),
    ),
    "open_after_truncation": Planted(
        what="a replica that cuts its log through a transaction takes it for open as before (T7)",
        patches=(Patch(ProducerStateManager, "truncated", transactional.keeps_what_was_open),),
        profile="transactions",
        seen_as="transaction_hangs",
        found_by=(19,),
    ),
    "fenced_by_no_epoch": Planted(
        what="the coordinator takes requests of any epoch of a producer id (T2)",
        patches=(
            Patch(transaction_decisions, "_mapped", transactional.any_epoch_is_mapped),
            Patch(transaction_decisions, "_check_epoch", bugs.nothing),
        ),
        profile="transactions",
        found_by=(3,),
    ),
    "aborted_offsets_count": Planted(
        what="a group has the offsets of transactions that were aborted (KIP-98)",
        patches=(Patch(GroupMetadata, "end_transaction", transactional.offsets_always_count),),
        profile="transactions",
        found_by=(2,),
    ),
    "old_epoch_written": Planted(
        what="a partition takes batches of an older epoch, and nobody asks the coordinator about them (T9)",
        patches=(
            Patch(producers, "_check_epoch", bugs.nothing),
            Patch(producers, "_check_new_epoch", bugs.nothing),
            Patch(producers.ProducerStates, "begin_verification", transactional.nobody_is_verified),
            Patch(producers.ProducerStates, "_check_verified", bugs.nothing),
        ),
        profile="transactions",
        found_by=(2,),
    ),
    "produces_overtake": Planted(
        what="a produce is appended while one before it waits for its verification",
        patches=(Patch(TransactionalProduce, "begin", transactional.produces_overtake),),
        profile="pipelined",
        seen_as="client_ended",
        found_by=(2,),
    ),
    "guard_not_checked_again": Planted(
        what="a verified produce is appended with a guard that a marker has ended meanwhile (T9)",
        patches=(Patch(TransactionalProduce, "_guarded_anew", transactional.guards_hold_for_ever),),
        profile="pipelined",
        seen_as="client_ended",
        found_by=(1,),
    ),
    "waiters_append_later": Planted(
        what="the answer to a produce leaves before those that waited for the same are appended",
        patches=(Patch(TransactionalProduce, "_places_reached", transactional.waiters_append_later),),
        profile="pipelined",
        seen_as="client_ended",
        found_by=(2,),
    ),
    "end_overtakes_addition": Planted(
        what="EndTxn passes an AddPartitionsToTxn of its connection that waits for the markers of before",
        patches=(
            Patch(Session, "_has_to_wait", transactional.requests_do_not_wait),
            Patch(Session, "_handle", transactional.additions_begin_late),
        ),
        profile="pipelined",
        seen_as="client_ended",
        found_by=(1,),
    ),
    "fenced_while_preparing": Planted(
        what="90 for the epoch that EndTxn has just given, until all markers are written (KIP-890)",
        patches=(
            Patch(transaction_decisions, "_add", transactional.epoch_checked_first),
            Patch(transaction_decisions, "_end", transactional.epoch_checked_first),
        ),
        profile="pipelined",
        seen_as="client_ended",
        found_by=(1,),
    ),
    "unknown_while_rotating": Planted(
        what="49 for the producer id that EndTxn has just given, until all markers are written (KIP-890)",
        patches=(
            Patch(transaction_decisions, "_add", transactional.producer_id_checked_first),
            Patch(transaction_decisions, "_end", transactional.producer_id_checked_first),
        ),
        profile="pipelined",
        seen_as="client_ended",
        found_by=(1,),
    ),
    "proof_spins": Planted(
        what="a coordinator waits for its proof in a loop around a task that may be done already",
        patches=(Patch(CoordinatorShard, "prove_leadership", forgetful.spins_on_a_proof),),
        profile="headless",
        found_by=(1,),
        seen_as="Livelock: ",
    ),
    "nothing_is_proven": Planted(
        what="a coordinator that may have lost its session answers without a proof that it leads",
        patches=(Patch(CoordinatorShard, "prove_leadership", forgetful.proves_nothing),),
        profile="headless",
        found_by=(1, 5),
        seen_as="was committed or read before",
    ),
    "in_office_by_its_own_word": Planted(
        what="a leader calls offsets out of range without a word of the controller (KIP-320)",
        patches=(Patch(BrokerLifecycle, "is_in_office", forgetful.always_in_office),),
        profile="headless",
        found_by=(5,),
        seen_as="out of range; node",
    ),
    "queue_counts_begin_again": Planted(
        what="a new leader of a share partition forgets how often records were delivered",
        patches=(Patch(leaders, "loaded", queued.counts_begin_again),),
        profile="queues",
        found_by=(1,),
    ),
    "queue_skips_released_records": Planted(
        what="the start offset of a share partition moves past records that were released",
        patches=(Patch(SharePartition, "_advance_start", queued.start_passes_released),),
        profile="queues",
        found_by=(1,),
    ),
    "queue_accepts_from_anybody": Planted(
        what="a member acknowledges records that another member holds",
        patches=(Patch(Run, "is_locked_by", queued.anybody_holds_it),),
        profile="queues",
        found_by=(2,),
    ),
    "queue_locks_end_early": Planted(
        what="a lock ends after half of its time",
        patches=(Patch(SharePartition, "_lock", queued.locks_end_early),),
        profile="queues",
        seen_as="holds it",
        found_by=(1,),
    ),
    "queue_locks_never_end": Planted(
        what="a lock has no end",
        patches=(Patch(SharePartition, "deadline_ms", queued.locks_never_end),),
        profile="queues",
        found_by=(1,),
    ),
    "queue_answered_before_written": Planted(
        what="an acknowledgement is answered before it is written",
        patches=(Patch(ShareLeader, "acknowledge", queued.answered_before_written),),
        profile="queues",
        found_by=(2,),
    ),
    "queue_old_connections_end_sessions": Planted(
        what="an old connection's end takes the new share session along (KAFKA-19950)",
        patches=(
            Patch(ShareSessions, "begin", queued.remembers_connections),
            Patch(ShareSessions, "disconnected", queued.old_connections_end_sessions),
        ),
        profile="queues",
        found_by=(1,),
    ),
    "queue_dead_letters_twice": Planted(
        what="a leader writes dead letters again that it has written",
        patches=(Patch(ShareLeader, "_send", queued.letters_sent_again),),
        profile="queues",
        seen_as="twice",
        found_by=(2,),
    ),
    "queue_dead_letters_never": Planted(
        what="what is given up is archived without a dead letter",
        patches=(Patch(SharePartition, "_archived", queued.archived_at_once),),
        profile="queues",
        seen_as="without a dead letter",
        found_by=(2,),
    ),
    "queue_state_read_before_fencing": Planted(
        what="a new leader reads its state before earlier leaders are fenced",
        patches=(Patch(share_decisions, "read", queued.reads_fence_nobody),),
        profile="queues",
        found_by=(2,),
    ),
    "queue_prunes_what_is_needed": Planted(
        what="the share coordinator deletes records up to the end of its log (KAFKA-19695)",
        patches=(Patch(ShareStateShard, "prune", queued.prunes_up_to_the_end),),
        profile="queues",
        found_by=(1,),
    ),
    "delayed_early": Planted(
        what="delayed records are forwarded before their time",
        patches=(Patch(DueIndex, "take", waiting.due_early),),
        profile="delayed",
        found_by=(2,),
    ),
    "delayed_twice": Planted(
        what="a new leader of a delay partition does not look which copies have arrived",
        patches=(Patch(Copies, "_scan", waiting.takes_over_blindly),),
        profile="delayed",
        found_by=(1,),
    ),
    "delayed_forgotten_on_failover": Planted(
        what="a new leader of a delay partition does not read what was waiting",
        patches=(Patch(forwarder._Forwarder, "_read_again", waiting.begins_behind_what_waits),),
        profile="delayed",
        found_by=(1,),
    ),
    "delayed_deleted_while_waiting": Planted(
        what="a delay partition is deleted up to what was looked at, and not to what waits",
        patches=(Patch(DueIndex, "lowest_waiting", waiting.deletes_what_waits),),
        profile="delayed",
        found_by=(1,),
    ),
    "half_a_route": Planted(
        what="a record of a route is appended to its topics one after the other, without a transaction",
        patches=(Patch(RoutedWrites, "write", transactional.routes_in_halves),),
        profile="routed",
        seen_as="half a route",
        found_by=(2,),
    ),
    "refused_route_committed": Planted(
        what="what one topic of a route refuses is committed in the others",
        patches=(Patch(RoutedWrites, "_append", transactional.commits_what_was_taken),),
        profile="routed",
        seen_as="half a route",
        found_by=(8,),
    ),
    "expired_handed_out": Planted(
        what="a record that has expired is handed out",
        patches=(Patch(Expiry, "is_over", waiting.nothing_is_over),),
        profile="delayed",
        found_by=(2,),
    ),
}
