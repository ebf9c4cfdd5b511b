"""A client that is throttled or refused, from the events of all nodes."""

from __future__ import annotations

from typing import Any

import pytest

from kraft.explain.clients import RECENT_MS, explain_client
from kraft.explain.nodes import explain_node
from tests.unit.explain.cluster import NOW_MS, checked, event, found, node

FAILED = event(
    "login_failed", host="10.0.0.9", mechanism="PLAIN", user="alice", reason="unknown user", at_ms=NOW_MS - 5
)
CLOSED = event("client_refused", host="10.0.0.9", reason="4 clients are connected (max.connections)", at_ms=NOW_MS - 5)
THROTTLED = event("client_throttled", user="ANONYMOUS", client_id="app", quota="producer_byte_rate", bound=1000.0,
                  wait_ms=300, at_ms=NOW_MS - 5)  # fmt: skip
FORBIDDEN = event("refused", principal="User:alice", host="10.0.0.9", request="Fetch", operation="READ",
                  resource_type="TOPIC", resource="orders", at_ms=NOW_MS - 5)  # fmt: skip


@pytest.mark.parametrize(
    ("what", "name", "state", "cause", "fix"),
    [
        (FAILED, "alice", "refused", "login_failed", "kraft users add alice"),
        (FAILED, "10.0.0.9", "refused", "login_failed", "kraft users add alice"),
        (CLOSED, "10.0.0.9", "refused", "client_refused", ""),
        (THROTTLED, "app", "throttled", "client_throttled", "kraft quotas set --client-id app producer_byte_rate=2000"),
        (FORBIDDEN, "alice", "refused", "not_authorized",
         "kraft acls create --principal User:alice --operation Read --topic orders"),
        (FORBIDDEN, "bob", "served", "", ""),
    ],
)  # fmt: skip
def test_causes(what: dict[str, Any], name: str, state: str, cause: str, fix: str) -> None:
    explained = checked(explain_client(found(node(2, clients=[what])), name))
    assert (explained.state, explained.cause) == (state, cause), explained.deciders
    assert explained.fix == ([fix] if fix else [])
    assert bool(explained.next) == bool(cause)
    assert explained.since_ms == (what["at_ms"] if cause else None)


def test_what_is_long_past_is_listed_and_is_no_reason() -> None:
    old = THROTTLED | {"at_ms": NOW_MS - RECENT_MS - 301}
    explained = checked(explain_client(found(node(2, clients=[old])), "app"))
    assert (explained.state, explained.cause) == ("served", "")
    assert any("60 s ago" in each.explanation for each in explained.deciders)


def test_nodes_that_do_not_answer_may_know_more() -> None:
    explained = checked(explain_client(found(unreached={3: "refused"}), "app"))
    assert {each.decision for each in explained.deciders} == {"unknown"}


def test_a_node_that_throttles_is_ready_and_names_the_client() -> None:
    explained = checked(explain_node(found(node(2, clients=[FAILED, THROTTLED])), 2))
    assert (explained.state, explained.cause) == ("ready", "client_throttled")
    assert "app" in explained.summary
    assert explained.fix == ["kraft explain client app"]
