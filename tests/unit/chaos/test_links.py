"""Which links there are, and which of them a fault means."""

from __future__ import annotations

import pytest

from kraft.chaos.nemesis.links import LinkId, links_between_nodes, parse_groups, select, split
from kraft.chaos.worlds.spec import ClusterSpec, ScenarioError

THREE = list(links_between_nodes(ClusterSpec.of(3)))
DEDICATED = list(links_between_nodes(ClusterSpec.of(2, controllers=1)))


def names(links: list[LinkId]) -> set[str]:
    return {str(link) for link in links}


def test_combined_nodes_reach_each_other_for_everything() -> None:
    assert len(THREE) == 6 * 4
    assert "3->1 quorum" in names(THREE)


def test_dedicated_controllers_hold_no_partitions() -> None:
    assert names(DEDICATED) == {
        "1->2 fetch",
        "2->1 fetch",
        "1->2 forward",
        "2->1 forward",
        "1->3 fetch",
        "2->3 fetch",
        "1->3 controller",
        "2->3 controller",
        "3->1 controller",
        "3->2 controller",
        "3->1 forward",
        "3->2 forward",
    }


def test_selection_by_ends_and_purpose() -> None:
    assert names(select(THREE, dials=1, answers=[2, 3], purpose="fetch")) == {"1->2 fetch", "1->3 fetch"}
    assert len(select(THREE, answers=1)) == 8
    assert len(select(THREE, purpose=("quorum", "fetch"))) == 12


def test_clients_are_ends_too_and_all_means_between_nodes() -> None:
    links = [*THREE, LinkId("load", 1, "rest")]
    assert names(select(links, dials="load", purpose="rest")) == {"load->1 rest"}
    links.append(LinkId("other", 1, "kafka"))
    assert names(select(links, dials="other", purpose="rest")) == {"other->1 kafka"}, "whatever a client speaks"
    assert names(select(links, purpose="kafka")) == {"other->1 kafka"}
    assert len(select(links)) == 24


def test_a_fault_that_would_hit_nothing_is_refused() -> None:
    with pytest.raises(ScenarioError, match="no link goes from 7"):
        select(THREE, dials=7)
    with pytest.raises(ScenarioError, match="there are quorum, controller, fetch, forward, rest"):
        select(THREE, purpose="replication")  # type: ignore[arg-type]


def test_groups_are_parsed() -> None:
    assert parse_groups("[1] | [2, 3]") == [[1], [2, 3]]
    assert parse_groups("[1,load]|[ 2 ]") == [[1, "load"], [2]]
    with pytest.raises(ScenarioError, match="write groups of nodes"):
        parse_groups("1 | 2")


def test_a_partition_cuts_what_crosses_it() -> None:
    cut = split(THREE, [[1], [2, 3]], nodes=[1, 2, 3])
    assert len(cut) == 16
    assert not any(link.dials != 1 and link.answers != 1 for link in cut)


def test_a_bridge_sees_both_sides() -> None:
    cut = split(THREE, [[1, 2], [2, 3]], nodes=[1, 2, 3])
    assert {(link.dials, link.answers) for link in cut} == {(1, 3), (3, 1)}


def test_clients_that_are_not_named_reach_all_nodes() -> None:
    links = [*THREE, LinkId("a", 1, "rest"), LinkId("a", 2, "rest"), LinkId("b", 1, "rest"), LinkId("b", 2, "rest")]
    cut = split(links, [[1, "a"], [2, 3]], nodes=[1, 2, 3])
    assert {str(link) for link in cut if link.purpose == "rest"} == {"a->2 rest"}


def test_every_node_must_be_on_some_side() -> None:
    with pytest.raises(ScenarioError, match=r"nodes \[3\] are in no group"):
        split(THREE, [[1], [2]], nodes=[1, 2, 3])
    with pytest.raises(ScenarioError, match=r"no nodes \[9\]"):
        split(THREE, [[1, 9], [2, 3]], nodes=[1, 2, 3])
