"""Why groups, queues and transactions do not go on."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kraft.explain.groups import (
    Coordinated,
    GroupFacts,
    Lag,
    QueueFacts,
    SharePartitionFacts,
    TransactionFacts,
    explain_group,
    explain_queue,
    explain_transaction,
)
from tests.unit.explain.cluster import checked

WHERE = Coordinated(asked=1, at_ms=100_000, topic="__consumer_offsets", partition=7, coordinator=2)
LOST = Coordinated(asked=1, at_ms=100_000, topic="__consumer_offsets", partition=7, error="loading")


def lag(**changes: Any) -> Lag:
    fields: dict[str, Any] = {"topic": "t", "partition": 0, "committed": 10, "end": 50, "member": "c", "leader": 1}
    return Lag(**fields | changes)


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"where": LOST, "state": ""}, "coordinator_unavailable"),
        ({"state": "PreparingRebalance"}, "rebalancing"),
        ({"state": "Empty", "members": [], "lags": [lag(member="")]}, "no_members"),
        ({"lags": [lag(leader=-1)]}, "partition_offline"),
        ({"lags": [lag(member="")]}, "partition_without_member"),
        ({"lags": [lag(committed_later=12, end_later=90)]}, "lag_grows"),
        ({"lags": [lag(committed_later=40, end_later=60)]}, ""),
        ({"lags": [lag(committed_later=10, end_later=50)]}, ""),
        ({"lags": [lag(committed=50)]}, ""),
    ],
)
def test_groups(changes: dict[str, Any], cause: str) -> None:
    fields: dict[str, Any] = {"where": WHERE, "group": "g", "state": "Stable", "members": ["c"]}
    explained = checked(explain_group(GroupFacts(**fields | changes)))
    assert explained.cause == cause, explained.deciders
    assert bool(explained.next) == bool(cause)


def test_the_members_that_a_group_waits_for_are_named() -> None:
    awaited = [("sleeper", "sleeper-1a", "JoinGroup"), ("", "new-2b", "its first JoinGroup")]
    explained = explain_group(
        GroupFacts(where=WHERE, group="g", state="PreparingRebalance", members=["sleeper", "b"], awaited=awaited)
    )
    assert "sleeper (sleeper-1a): JoinGroup; a new client (new-2b): its first JoinGroup" in explained.summary
    assert next(each.evidence["awaited"] for each in explained.deciders if each.cause) == ["sleeper-1a", "new-2b"]


def test_a_lost_coordinator_leads_to_the_partition_of_its_log() -> None:
    explained = checked(explain_group(GroupFacts(where=LOST, group="g")))
    assert (explained.state, explained.fix) == ("unknown", ["kraft explain partition __consumer_offsets 7"])


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"acquired": 5, "lock_ms": 3_000, "lag": 90}, ""),
        ({"acquired": 80, "waiting": 20, "lock_ms": 3_000, "lag": 900}, "locks_exhausted"),
        ({"acquired": 7, "lock_ms": 3_000, "lag": 7}, "all_locked"),
        ({"error": "no leader"}, "leader_unavailable"),
        ({"lag": 0}, ""),
    ],
)
def test_queues(changes: dict[str, Any], cause: str) -> None:
    share = SharePartitionFacts(topic="t", partition=0, **changes)
    explained = checked(
        explain_queue(QueueFacts(where=WHERE, group="q", state="Stable", locks_max=100, partitions=[share]))
    )
    assert explained.cause == cause, explained.deciders


def test_lost_dead_letters_are_named_and_hold_up_nothing() -> None:
    share = SharePartitionFacts(
        topic="t", partition=0, lag=1, dead_letters_lost=2, last_dead_letter_error="no such topic"
    )
    explained = checked(explain_queue(QueueFacts(where=WHERE, group="q", state="Stable", partitions=[share])))
    assert explained.cause == ""
    text = "0 records are in flight, 1 wait; 2 were given up without a dead letter: no such topic"
    assert explained.deciders[1].explanation == text


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"state": "CompleteCommit"}, ""),
        ({"state": "Ongoing", "started_ms": 95_000}, "transaction_open"),
        ({"state": "Ongoing", "started_ms": 5_000}, "transaction_expired"),
        ({"state": "PrepareCommit", "leaderless": [("t", 0)]}, "markers_not_written"),
        ({"where": LOST}, "coordinator_unavailable"),
    ],
)
def test_transactions(changes: dict[str, Any], cause: str) -> None:
    fields: dict[str, Any] = {
        "where": WHERE,
        "transactional_id": "x",
        "timeout_ms": 60_000,
        "partitions": [("t", 0), ("t", 1)],
    }
    explained = checked(explain_transaction(TransactionFacts(**fields | changes)))
    assert explained.cause == cause, explained.deciders
    if cause == "markers_not_written":
        assert explained.fix == ["kraft explain partition t 0"]


def test_an_expired_transaction_has_the_command_that_aborts_it() -> None:
    facts = TransactionFacts(
        where=WHERE,
        transactional_id="x",
        state="Ongoing",
        started_ms=5_000,
        timeout_ms=60_000,
        producer_id=7,
        producer_epoch=3,
        coordinator_epoch=4,
        partitions=[("t", 1)],
    )
    command = "kraft transactions abort t 1 --producer-id 7 --producer-epoch 3 --coordinator-epoch 4"
    assert checked(explain_transaction(facts)).fix == [command]
    is_young = msgspec.structs.replace(facts, started_ms=95_000)  # its producer may commit it
    assert explain_transaction(is_young).fix == []
