"""Why a node is not ready."""

from __future__ import annotations

import pytest

from kraft.explain.facts import Found
from kraft.explain.nodes import explain_node
from tests.unit.explain.cluster import checked, event, found, node

FENCED = {1: "active", 2: "fenced", 3: "active"}


@pytest.mark.parametrize(
    ("facts", "state", "cause"),
    [
        (found(), "ready", ""),
        (found(unreached={2: "refused"}), "down", "not_answering"),
        (found(node(1, brokers=FENCED), node(2, brokers=FENCED), node(3, brokers=FENCED)), "fenced", "broker_fenced"),
        (found(node(2, awaits="logs are loaded: 3 of 9")), "not ready", "node_waits"),
        (found(node(2, failed_directories={"/disk": "EIO"})), "disk failed", "disk_failed"),
        (
            found(node(2, brokers=FENCED, events=[event("quorum_suspended", node_id=2, error="ENOSPC")])),
            "disk failed",
            "disk_failed",
        ),
        (found(*(node(each, controller_id=-1) for each in (1, 2, 3))), "not ready", "quorum_without_leader"),
    ],
)
def test_the_first_reason_is_the_cause(facts: Found, state: str, cause: str) -> None:
    explained = checked(explain_node(facts, 2))
    assert (explained.state, explained.cause) == (state, cause), explained.deciders
    assert bool(explained.next) == bool(cause)


def test_voters_that_answer_and_have_no_leader_cannot_reach_each_other() -> None:
    explained = checked(explain_node(found(*(node(each, controller_id=-1) for each in (1, 2, 3))), 1))
    assert "cannot reach each other" in explained.summary
    assert explained.fix == ["kraft fault heal"]


def test_a_fenced_node_reports_since_when_and_why() -> None:
    fenced = event("broker_fenced", broker=2, reason="no heartbeat for 9000 ms")
    explained = checked(explain_node(found(node(1, brokers=FENCED, events=[fenced], metadata_offset=99)), 2))
    assert explained.since_ms == fenced["at_ms"]
    assert "no heartbeat for 9000 ms" in explained.summary
    assert len(explained.views) == 2  # node 1 has newer metadata than the others


AT_MS = 5_000


@pytest.mark.parametrize(
    ("facts", "state", "since_ms"),
    [
        (
            found(
                node(1, brokers=FENCED, metadata_offset=99, events=[event("broker_fenced", broker=2, at_ms=AT_MS)]),
                unreached={2: "refused"},
            ),
            "down",
            AT_MS,
        ),
        (  # its session goes on: what happened to it before is not the beginning of this
            found(node(1, events=[event("broker_fenced", broker=2, at_ms=AT_MS)]), unreached={2: "refused"}),
            "down",
            None,
        ),
        (
            found(
                node(
                    2,
                    failed_directories={"/disk": "EIO"},
                    events=[
                        event("node_serves", node_id=2, at_ms=1),
                        event("log_directory_offline", node_id=2, path="/disk", at_ms=AT_MS),
                    ],
                )
            ),
            "disk failed",
            AT_MS,
        ),
        (
            found(node(2, failed_directories={"/disk": "EIO"}, events=[event("node_serves", node_id=2, at_ms=1)])),
            "disk failed",
            None,
        ),
        (
            found(
                node(
                    2,
                    awaits="a quorum",
                    events=[
                        event("node_serves", node_id=2, at_ms=1),
                        event("node_awaits", node_id=2, at_ms=AT_MS),
                        event("node_awaits", node_id=2, at_ms=AT_MS + 9_000),
                    ],
                )
            ),
            "not ready",
            AT_MS,
        ),
        (
            found(*(node(each, controller_id=-1, events=[event("node_serves", node_id=each)]) for each in (1, 2, 3))),
            "not ready",
            None,
        ),
        (
            found(
                node(1, events=[event("broker_unfenced", broker=2, at_ms=AT_MS)]),
                node(2, events=[event("node_serves", node_id=2, at_ms=1)]),
            ),
            "ready",
            AT_MS,
        ),
    ],
)
def test_since_when_is_the_event_that_began_the_state(facts: Found, state: str, since_ms: int | None) -> None:
    explained = checked(explain_node(facts, 2))
    assert (explained.state, explained.since_ms) == (state, since_ms)
