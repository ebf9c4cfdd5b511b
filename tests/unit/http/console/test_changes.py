"""The state of the cluster as a map, from what nodes say, and what changes from one state to the next."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from kraft.broker.gateway import NodeInfo
from kraft.broker.node_facts import (
    OFFLINE,
    UNDER_MIN_ISR,
    UNDER_REPLICATED,
    WELL,
    NodeFacts,
    Scope,
    Totals,
    asker_of,
    decode_facts,
    decode_scope,
    encode_facts,
    encode_scope,
    pick,
)
from kraft.broker.principal import UserPrincipal
from kraft.http.console.changes import cluster_state, difference, visible_facts, without_topics
from replication.manager.status import FollowerMarks, ReplicaMarks
from tests.support.fake_gateway import FakeGateway

NODES = {
    number: NodeInfo(
        node_id=number, roles=("broker",), rest=f"n{number}:1", kafka=f"n{number}:2", quorum=None, rack=None
    )
    for number in (1, 2, 3)
}
TOTALS = Totals(
    topics=1, partitions=1, leaders={1: 1}, offline=0, under_min_isr=0, under_replicated=0, matched=1, shown=1
)


def facts(node: int, **changes: Any) -> NodeFacts:
    known = NodeFacts(
        node_id=node,
        at_ms=1,
        metadata_offset=10,
        controller_id=1,
        controller_epoch=2,
        awaits="",
        brokers={1: "active", 2: "active", 3: "fenced"},
        links={},
        totals=TOTALS,
        partitions={"t-0": (1, 5, (1, 2, 3), (1, 2), UNDER_REPLICATED, 2)},
        replicas={"t-0": ReplicaMarks("leader" if node == 1 else "follower", 5, 0, 7, 7, 8, 100)},
        followers={"t-0": {2: FollowerMarks(8, 3, 3)}} if node == 1 else {},
        epochs={"t-0": ((0, 0), (5, 6))},
    )
    return structs.replace(known, **changes)


def state(heard: dict[int, NodeFacts | str]) -> dict[str, Any]:
    return cluster_state(heard, NODES, cluster_id="c", node_id=1)


def test_each_replica_is_described_by_its_own_node_and_followers_by_the_leader() -> None:
    found = state({1: facts(1), 2: facts(2), 3: "no answer in time"})
    assert found["r/t-0/1"][0] == "leader"
    assert found["r/t-0/2"][0] == "follower"
    assert "r/t-0/3" not in found
    assert found["f/t-0"] == {2: (8, 3, 3)}
    assert found["e/t-0/2"] == ((0, 0), (5, 6))
    assert found["node/3"]["answers"] is False
    assert found["node/3"]["why"] == "no answer in time"
    assert found["node/3"]["state"] == "fenced"
    assert found["cluster"] == {"id": "c", "node": 1, "controller": 1, "epoch": 2, "offset": 10}


def test_the_newest_metadata_counts_and_other_views_are_shown() -> None:
    old = (3, 4, (1, 2, 3), (1, 2, 3), WELL, 2)
    cut_off = facts(3, metadata_offset=4, controller_id=3, controller_epoch=1, partitions={"t-0": old})
    found = state({1: facts(1), 2: facts(2), 3: cut_off})
    assert found["p/t-0"][0] == 1
    assert found["v/t-0"] == {3: old}
    assert found["cluster"]["controller"] == 1
    assert found["node/3"]["controller"] == 3


def test_nodes_are_shown_when_nobody_answers() -> None:
    found = state({1: "no", 2: "no", 3: "no"})
    assert "totals" not in found
    assert [key for key in found if key.startswith("node/")] == ["node/1", "node/2", "node/3"]


def test_topics_that_a_principal_may_not_see_are_left_out() -> None:
    found = without_topics(state({1: facts(1), 2: facts(2), 3: "no"}), {"other": 1})
    assert not [key for key in found if "t-0" in key]
    assert "hidden" not in found
    assert "totals" in found
    assert "node/1" in found


rows = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 3))


@given(rows, rows)
def test_a_difference_leads_from_one_state_to_the_other(old: dict[str, int], new: dict[str, int]) -> None:
    frame = difference(old, new, at_ms=1)
    assert {key: row for key, row in old.items() if key not in frame.gone} | frame.set == new
    assert all(old.get(key) != row for key, row in frame.set.items())


def test_facts_and_scopes_survive_the_way_between_nodes() -> None:
    assert decode_facts(encode_facts(facts(1))) == facts(1)
    assert decode_scope(encode_scope(Scope(filter="x", limit=10**9))) == Scope(filter="x", limit=500)
    asked = Scope(asker=asker_of(UserPrincipal("bob", "10.0.0.7", client_id="laptop")))
    assert decode_scope(encode_scope(asked)) == asked
    with pytest.raises(msgspec.ValidationError):
        decode_scope(encode_scope(Scope(asker="nobody")))


def test_the_worst_partitions_come_first_and_a_scope_limits_them() -> None:
    gateway = FakeGateway()
    gateway.add_topic("b", partitions=3)
    gateway.add_topic("a", partitions=2)
    topic = gateway.image.topic("b")
    assert topic is not None
    gateway.change("b", 1, leader=-1)
    gateway.change("b", 2, isr=(1,))
    picked = pick(gateway.image, Scope(limit=3), lambda topic: 2, at_ms=0)
    assert [*picked.rows] == ["b-1", "b-2", "a-0"]
    assert [row[4] for row in picked.rows.values()] == [OFFLINE, UNDER_MIN_ISR, WELL]
    assert (picked.totals.partitions, picked.totals.offline, picked.totals.under_min_isr) == (5, 1, 1)
    assert (picked.totals.matched, picked.totals.shown) == (5, 3)
    assert [*pick(gateway.image, Scope(only_bad=True), lambda topic: 1, at_ms=0).rows] == ["b-1", "b-2"]
    assert [*pick(gateway.image, Scope(filter="a-"), lambda topic: 1, at_ms=0).rows] == ["a-0", "a-1"]
    assert [*pick(gateway.image, Scope(filter="-1", exact=True), lambda topic: 1, at_ms=0).rows] == []


def test_the_facts_of_a_node_are_those_of_visible_topics() -> None:
    all_of_it = facts(1)
    assert visible_facts(all_of_it, {"t": 1}) == all_of_it
    found = visible_facts(all_of_it, {"other": 1})
    assert (found.partitions, found.replicas, found.followers, found.epochs) == ({}, {}, {}, {})
    assert found.totals == all_of_it.totals
