"""What became of a record, from logs and events."""

from __future__ import annotations

import pytest

from kraft.explain.facts import Found
from kraft.explain.record import explain_record
from tests.unit.explain.cluster import checked, event, found, log, node

CUT = event("truncated", node_id=3, from_offset=80, to_offset=120, high_watermark=80)
BELOW = event("truncated_below_high_watermark", node_id=3, from_offset=80, to_offset=90, high_watermark=90)
UNCLEAN = event("unclean_election", leader=1, leader_epoch=4, given_up=[60, 75])
CHOSEN_AT_80 = event("unclean_election", leader=1, leader_epoch=4, given_up=None, log_end_offset=80)


@pytest.mark.parametrize(
    ("facts", "offset", "state", "cause"),
    [
        (found(), 99, "committed", ""),
        (found(), 100, "not there", "not_written"),
        (found(node(1, replica=log(role="leader", log_end_offset=130))), 110, "written", "not_committed"),
        (found(*(node(each, replica=log(log_start_offset=50)) for each in (1, 2, 3))), 7, "deleted", "deleted"),
        (found(node(3, events=[CUT])), 110, "lost", "truncated"),
        (found(node(3, forgotten=7)), 110, "unknown", ""),
        (found(node(3, events=[CUT], forgotten=7)), 110, "lost", "truncated"),
        (found(node(3, events=[BELOW])), 85, "lost", "lost_unclean"),
        (found(node(1, events=[CHOSEN_AT_80]), node(3, events=[CUT])), 110, "lost", "lost_unclean"),
        (found(node(1, events=[UNCLEAN])), 60, "lost", "lost_unclean"),
        (found(node(1, events=[UNCLEAN])), 75, "committed", ""),
    ],
)
def test_states(facts: Found, offset: int, state: str, cause: str) -> None:
    explained = checked(explain_record(facts, topic="t", partition=0, offset=offset))
    assert (explained.state, explained.cause) == (state, cause), explained.deciders


def test_events_of_other_partitions_are_no_evidence() -> None:
    other = CUT | {"partition": 1}
    assert explain_record(found(node(3, events=[other])), topic="t", partition=0, offset=110).cause == "not_written"
