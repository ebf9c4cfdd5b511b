"""Each planted fault is found: by one of the seeds noted with it, or by one of the first few of its profile.

Which seed finds what moves with every change of the product, so a few more are tried before this fails;
`python -m tests.simulation faults` then prints the seeds that find it now. Those that cost more than half a second of
processor time are left to the run of long tests, which CI has for each change, or to the slow run.
"""

from __future__ import annotations

import pytest

from replication.manager.produce import Produce
from tests.simulation.planted import PLANTED, Patch, Planted, look_for

TRIED_MAX = 12

SLOW = frozenset(
    {
        "acks_one_not_appended",
        "anybody_commits",
        "proof_spins",
        "damaged_frame_taken_for_a_torn_one",
        "divergence_ignored",
        "flush_does_nothing",
        "given_up_records_stay",
        "high_watermark_from_shrunk_isr",
        "epochs_not_cut_with_log",
        "nobody_joins_the_isr",
        "open_after_truncation",
        "producers_not_known_after_failover",
        "sequence_not_checked",
        "wiped_voter_votes_at_once",
        "produce_waits_for_ever",
        "syncs_wait_for_ever",
    }
)
LONG = frozenset(
    {
        "aborted_offsets_count",
        "commit_answered_too_early",
        "delayed_deleted_while_waiting",
        "delayed_early",
        "delayed_forgotten_on_failover",
        "delayed_twice",
        "end_overtakes_addition",
        "expired_handed_out",
        "fenced_by_no_epoch",
        "fenced_while_preparing",
        "guard_not_checked_again",
        "half_a_route",
        "half_a_transaction_shown",
        "hung_node_leads",
        "in_office_by_its_own_word",
        "last_stable_offset_not_restored",
        "leader_exposes_its_whole_log",
        "leader_high_watermark_falls",
        "markers_lost_on_failover",
        "nothing_is_proven",
        "old_epoch_written",
        "produce_retried_by_server",
        "produces_overtake",
        "queue_accepts_from_anybody",
        "queue_answered_before_written",
        "queue_counts_begin_again",
        "queue_dead_letters_never",
        "queue_dead_letters_twice",
        "queue_locks_end_early",
        "queue_locks_never_end",
        "queue_old_connections_end_sessions",
        "queue_prunes_what_is_needed",
        "queue_skips_released_records",
        "queue_state_read_before_fencing",
        "recovery_trusts_every_segment",
        "refused_route_committed",
        "snapshot_of_wrong_index",
        "stale_broker_epoch_joins",
        "stale_controller_accepted",
        "unclean_leader_cuts_its_log",
        "unknown_while_rotating",
        "waiters_append_later",
    }
)


def _marked_if_dear(name: str) -> object:
    mark = pytest.mark.slow if name in SLOW else pytest.mark.long if name in LONG else None
    return name if mark is None else pytest.param(name, marks=mark)


@pytest.mark.parametrize("name", [_marked_if_dear(name) for name in PLANTED])
def test_a_planted_fault_is_found(name: str) -> None:
    found = look_for(PLANTED[name], seeds_max=TRIED_MAX)
    assert found is not None, f"{PLANTED[name].what}: not found; see `python -m tests.simulation faults --only {name}`"


def test_a_patch_that_does_not_fit_the_product_is_named() -> None:
    def misfit(_original: object) -> object:
        return lambda produce, *args: produce.renamed_meanwhile

    with pytest.raises(AssertionError, match="the patch itself may raise this: AttributeError"):
        look_for(Planted(what="nothing", patches=(Patch(Produce, "_append", misfit),)), seeds_max=1)
