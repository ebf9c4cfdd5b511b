"""Which interesting states runs have reached: a state that is never reached is a hole in what is tested."""

from __future__ import annotations

from collections import Counter

NIGHTLY = (
    "REST batch read again",
    "REST consumer: 40403",
    "acknowledged record lost, acks=1",
    "alter_partition_failed",
    "batch acknowledged again",
    "broker_fenced",
    "controller_changed",
    "damaged quorum files refused",
    "group excused",
    "follower began anew at its leader's log start",
    "group generation",
    "groups_loaded",
    "isr_change_refused: FENCED_LEADER_EPOCH",
    "isr_change_refused: INELIGIBLE_REPLICA",
    "isr_change_refused: INVALID_UPDATE_VERSION",
    "isr_expanded",
    "isr_shrunk",
    "leader_elected: preferred leader election",
    "leader_elected: unclean leader election",
    "log matched in a new era",
    "main_loop_hangs",
    "main_loop_turns_again",
    "metadata AppendUnknown",
    "metadata command dropped",
    "member mishap: crash",
    "member refused, error 22",
    "member refused, error 25",
    "member refused, error 27",
    "member refused, error 82",
    "metadata snapshot installed",
    "no controllers",
    "node ended itself",
    "node wiped",
    "offsets committed",
    "power lost",
    "producer id given",
    "producer refused, error 45",
    "produce acks=-1 error 0",
    "produce acks=-1 error 19",
    "produce acks=-1 error 20",
    "produce acks=-1 error 6",
    "produce acks=-1 error 7",
    "quorum_newcomer_settled",
    "quorum_suspended",
    "read in a new era",
    "reader out of range",
    "request to a node that died or slept",
    "segment_repaired",
    "static member came back",
    "stray_log_deleted",
    "topic_deleted",
    "truncated",
    "truncated_below_high_watermark",
    "unfinished_log_set_aside",
    "voter wiped that had committed with the leader alone",
    "whole ISR lost unsynced data",
)
"""States that the nightly profile has to reach."""


def never_reached(states: Counter[str]) -> list[str]:
    return [state for state in NIGHTLY if not states[state]]
