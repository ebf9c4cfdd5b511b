"""What a node says that it waits for, and how often it says so."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from kraft.node.startup_state import LOGGED_AGAIN_MS_MAX, Awaiting, Reminder
from metadata.image import MetadataImage
from replication.storage.log_manager import Loading

LOOK_MS = 1_000


def node(**changes: Any) -> tuple[Awaiting, SimpleNamespace]:
    """A broker and voter that takes part, and what it is made of, to be changed."""
    parts = SimpleNamespace(
        met=frozenset({1, 3}),
        image=MetadataImage(),
        leadership=SimpleNamespace(leader_id=1),
        broker_epoch=4,
        is_unfenced=True,
        registration_problem="",
        has_caught_up=True,
        loading=Loading(found=5, done=5),
    )
    awaiting = Awaiting(
        voters=[3, 1, 2], log=parts, publisher=parts, loading=parts.loading, lifecycle=parts,
        has_caught_up=lambda: parts.has_caught_up,
    )  # fmt: skip
    awaiting.has_started = True
    vars(parts).update(changes)
    return awaiting, parts


def test_each_step_of_a_start_is_named() -> None:
    awaiting, parts = node(
        has_caught_up=False, broker_epoch=-1, is_unfenced=False, leadership=SimpleNamespace(leader_id=-1)
    )
    awaiting.has_started = False
    parts.loading.done = 2
    assert awaiting.service() == awaiting.metadata() == "logs are loaded: 2 of 5"
    awaiting.has_started = True
    assert awaiting.metadata() == (
        "the metadata quorum has no leader yet: of its voters 1, 2, 3 this node has met 1, 3; "
        "a new cluster begins when all of them have met"
    )
    parts.leadership.leader_id = 2
    parts.registration_problem = "broker 1 is alive elsewhere"
    assert awaiting.metadata() == "this broker is not registered yet: broker 1 is alive elsewhere"
    parts.broker_epoch, parts.registration_problem = 7, ""
    assert awaiting.metadata() == "this broker is fenced, at metadata offset -1; partitions led: 0 of 0"
    parts.has_caught_up = True
    assert awaiting.metadata() == ""
    assert awaiting.service().startswith("this broker is fenced")
    parts.is_unfenced = True
    assert awaiting.service() == ""


def test_who_has_caught_up_stays_open_without_a_quorum() -> None:
    awaiting, _ = node(leadership=SimpleNamespace(leader_id=-1), is_unfenced=False)
    assert awaiting.metadata() == ""
    assert awaiting.service().startswith("the metadata quorum has no leader")


def test_who_has_not_caught_up_is_closed_though_nothing_else_is_missing() -> None:
    awaiting, _ = node(has_caught_up=False)
    assert awaiting.service() == ""
    assert awaiting.metadata() == "its metadata has not caught up with the quorum"


def said_at(reminder: Reminder, awaited: list[str]) -> list[int]:
    return [at for at, text in enumerate(awaited) if reminder.is_due(text, at * LOOK_MS)]


def test_a_wait_is_said_soon_and_then_less_and_less_often_for_ever() -> None:
    assert said_at(Reminder(), ["a leader"] * 200) == [2, 12, 32, 72, 152]
    hours = said_at(Reminder(), ["a leader"] * 4 * 3_600)
    assert hours[-1] - hours[-2] == LOGGED_AGAIN_MS_MAX // LOOK_MS


def test_a_short_wait_is_not_said_and_a_later_one_begins_again() -> None:
    reminder = Reminder()
    assert said_at(reminder, ["x", "x", "", "", "x", "x", "x", "x"]) == [6]
    assert reminder.has_said
    assert not reminder.is_due("", 9 * LOOK_MS)
    assert not reminder.has_said
