"""Each cause of a partition's state is the first reason that its facts give."""

from __future__ import annotations

import pytest

from kraft.explain.explanation import Explanation, seconds, spoken
from kraft.explain.facts import FollowerFacts, Found
from kraft.explain.partition import explain_partition
from tests.unit.explain.cluster import FETCHED, NOW_MS, checked, decider, event, found, log, node, partition

FENCED = {1: "active", 2: "active", 3: "fenced"}


def explain(facts: Found) -> Explanation:
    return checked(explain_partition(facts, topic="t", partition=0))


def seen_by_all(brokers: dict, isr: list[int], *, leader: int = 1, events: tuple = (), **changes: object) -> list:
    """The same metadata at nodes 1 and 2; node 3 is left to the test."""
    seen = partition(isr=isr, leader=leader, **changes)
    leading = log(role="leader", isr=isr, maximal_isr=isr) if leader == 1 else log()
    return [
        node(1, brokers=brokers, partition=seen, replica=leading, events=list(events)),
        node(2, brokers=brokers, partition=seen),
    ]


def test_a_healthy_partition_has_no_cause() -> None:
    found_out = explain(found())
    assert (found_out.state, found_out.cause, found_out.fix, found_out.views) == ("healthy", "", [], [])
    assert {each.decision for each in found_out.deciders} == {"yes"}
    assert {each.age_ms for each in found_out.deciders if each.node > 0} == {5}


def test_a_fenced_follower_is_why_a_partition_is_under_replicated() -> None:
    fenced = event("broker_fenced", broker=3, reason="its port refuses connections")
    shrunk = event("isr_changed", isr=[1, 2], old_isr=[1, 2, 3], reason="broker fenced", at_ms=NOW_MS - 30_000)
    found_out = explain(found(*seen_by_all(FENCED, [1, 2], events=(fenced, shrunk)), unreached={3: "refused"}))
    assert (found_out.state, found_out.cause) == ("under-replicated", "broker_fenced")
    assert found_out.since_ms == NOW_MS - 30_000
    assert "its port refuses connections" in found_out.summary
    assert found_out.fix == ["kraft node restart 3"]
    assert decider(found_out, "broker_fenced").rule == "B3"


def test_a_cut_follower_is_said_to_be_out_of_reach_and_not_dead() -> None:
    silent = FollowerFacts(end_offset=40, fetched_ms_ago=45_000, caught_up_ms_ago=45_000)
    leading = log(role="leader", isr=[1, 2], maximal_isr=[1, 2], followers={2: FETCHED, 3: silent})
    seen = partition(isr=[1, 2])
    error = event("leader_unreachable", node_id=3, leader=1, error="connection refused")
    found_out = explain(
        found(
            node(1, partition=seen, replica=leading), node(2, partition=seen), node(3, partition=seen, events=[error])
        )
    )
    assert (found_out.state, found_out.cause) == ("under-replicated", "not_fetching")
    assert "lacks 60 records" in found_out.summary
    assert decider(found_out, "not_fetching").evidence["fetch_error"] == "connection refused"
    assert found_out.fix == ["kraft fault heal"]


@pytest.mark.parametrize(("end", "cause"), [(70, "catching_up"), (100, "joining")])
def test_a_follower_on_its_way_back_reports_how_far_it_is(end: int, cause: str) -> None:
    progress = FollowerFacts(end_offset=end, fetched_ms_ago=20, caught_up_ms_ago=900)
    leading = log(role="leader", isr=[1, 2], maximal_isr=[1, 2], followers={2: FETCHED, 3: progress})
    seen = partition(isr=[1, 2])
    found_out = explain(
        found(node(1, partition=seen, replica=leading), node(2, partition=seen), node(3, partition=seen))
    )
    assert (found_out.state, found_out.cause, found_out.fix) == ("under-replicated", cause, [])


def test_a_failed_disk_is_the_reason_and_not_its_node() -> None:
    seen = partition(isr=[1, 2])
    leading = log(role="leader", isr=[1, 2], maximal_isr=[1, 2])
    broken = node(3, partition=seen, replica=None, failure="[Errno 5] I/O error", failed_directories={"/d": "EIO"})
    found_out = explain(found(node(1, partition=seen, replica=leading), node(2, partition=seen), broken))
    assert (found_out.state, found_out.cause) == ("under-replicated", "log_failed")
    assert "I/O error" in found_out.summary


def test_too_few_replicas_refuse_acks_all() -> None:
    gone = {1: "active", 2: "fenced", 3: "fenced"}
    seen = partition(isr=[1])
    leading = log(role="leader", isr=[1], maximal_isr=[1], log_end_offset=120)
    found_out = explain(
        found(node(1, brokers=gone, partition=seen, replica=leading), unreached={2: "refused", 3: "refused"})
    )
    assert (found_out.state, found_out.cause) == ("not enough replicas", "broker_fenced")
    assert "NOT_ENOUGH_REPLICAS" in found_out.summary
    assert decider(found_out, "under_min_isr").rule == "P1"
    assert [each.rule for each in found_out.deciders if each.cause == "under_min_isr"] == ["P1", "P3"]
    assert found_out.fix[-1] == "kraft topics alter t --config min.insync.replicas=1"


def test_the_silent_member_of_the_isr_holds_the_high_watermark() -> None:
    silent = FollowerFacts(end_offset=90, fetched_ms_ago=7_000, caught_up_ms_ago=7_000)
    leading = log(role="leader", log_end_offset=130, high_watermark=90, followers={2: FETCHED, 3: silent})
    found_out = explain(found(node(1, replica=leading), unreached={3: "timeout"}))
    assert (found_out.state, found_out.cause) == ("high watermark stuck", "follower_silent")
    assert found_out.since_ms == NOW_MS - 7_000
    assert "replica 3" in found_out.summary
    assert "40 records wait" in found_out.summary
    assert "23 s" in found_out.next  # of replica.lag.time.max.ms


def test_records_that_wait_for_the_next_fetch_are_no_reason() -> None:
    leading = log(role="leader", log_end_offset=130, high_watermark=90, followers={2: FETCHED, 3: FETCHED})
    assert explain(found(node(1, replica=leading))).state == "healthy"


def offline() -> Found:
    """Node 1 was the last of the ISR and is gone."""
    gone = {1: "fenced", 2: "active", 3: "active"}
    seen = partition(isr=[1], leader=-1)
    return found(
        node(2, brokers=gone, partition=seen, replica=log(log_end_offset=80, high_watermark=75), controller_id=2),
        node(3, brokers=gone, partition=seen, replica=log(log_end_offset=60, high_watermark=60), controller_id=2),
        unreached={1: "refused"},
    )


def test_an_offline_partition_reports_what_an_unclean_election_would_lose() -> None:
    found_out = explain(offline())
    assert (found_out.state, found_out.cause) == ("offline", "no_live_isr_member")
    unclean = decider(found_out, "unclean_election_not_allowed")
    assert "node 2 would lead with a log that ends at 80: 0 records" in unclean.explanation
    assert found_out.fix == ["kraft node restart 1", "kraft elect t 0 --type unclean"]


def test_an_unclean_leader_with_an_older_epoch_loses_what_was_known() -> None:
    facts = offline()
    short = node(3, brokers=facts.nodes[3].brokers, partition=facts.nodes[3].partition, controller_id=2,
                 replica=log(log_end_offset=60, high_watermark=60, latest_epoch=9))  # fmt: skip
    found_out = explain(found(facts.nodes[2], short, unreached={1: "refused"}))
    assert (
        "node 3 would lead with a log that ends at 60: 15 records"
        in decider(found_out, "unclean_election_not_allowed").explanation
    )


def test_a_past_unclean_election_is_named_with_its_loss() -> None:
    past = event("unclean_election", leader=1, leader_epoch=4, given_up=[60, 75])
    found_out = explain(found(node(1, events=[past])))
    assert (found_out.state, found_out.cause) == ("healthy", "unclean_election")
    assert "records from 60 to 74 were lost" in decider(found_out, "unclean_election").explanation


def test_a_quorum_without_a_leader_comes_first() -> None:
    lonely = node(1, controller_id=-1, awaits="the metadata quorum has no leader yet")
    found_out = explain(found(lonely, unreached={2: "refused", 3: "refused"}))
    assert found_out.cause == "quorum_without_leader"
    assert "only 1 answer, 2 are needed" in decider(found_out, "quorum_without_leader").explanation


def test_a_leader_that_does_not_answer_is_still_the_leader() -> None:
    seen = partition(leader=3)
    found_out = explain(found(node(1, partition=seen, replica=log()), node(2, partition=seen), unreached={3: "late"}))
    assert (found_out.state, found_out.cause) == ("leader unreachable", "leader_unreachable")
    assert decider(found_out, "leader_unreachable").evidence["heartbeat_ms_ago"] == 300


def test_nodes_that_disagree_are_both_heard() -> None:
    newer = partition(leader=2, leader_epoch=5, isr=[2, 3])
    leading = log(role="leader", leader_epoch=5, isr=[2, 3], maximal_isr=[2, 3], followers={1: FETCHED, 3: FETCHED})
    found_out = explain(
        found(
            node(2, metadata_offset=60, partition=newer, replica=leading),
            node(3, metadata_offset=60, partition=newer, replica=log(leader_epoch=5)),
        )
    )
    assert [each.nodes for each in found_out.views] == [[2, 3], [1]]
    assert "leader 1 in epoch 4" in found_out.views[1].states
    assert "leads itself" in found_out.views[1].states
    assert decider(found_out, "views_differ").rule == "B8"


def test_a_partition_that_nobody_knows_is_unknown_and_not_missing() -> None:
    blind = node(1, controller_id=-1, awaits="no leader", partition=None, replica=None)
    found_out = explain(found(blind, unreached={2: "refused", 3: "refused"}))
    assert (found_out.state, found_out.cause) == ("unknown", "quorum_without_leader")


def test_words() -> None:
    assert (spoken([]), spoken([1]), spoken([1, 2, 3])) == ("none", "1", "1, 2 and 3")
    assert (seconds(300), seconds(45_000), seconds(600_000)) == ("0.3 s", "45 s", "10 min")


def test_a_partition_is_healthy_since_its_isr_was_mended() -> None:
    led = event("became_leader", at_ms=1_000)
    shrunk = event("isr_changed", isr=[1, 2], old_isr=[1, 2, 3], at_ms=2_000)
    mended = event("isr_changed", isr=[1, 2, 3], old_isr=[1, 2], at_ms=3_000)
    assert explain(found(node(1, events=[led, shrunk, mended]))).since_ms == 3_000
    assert explain(found(node(1, events=[led]))).since_ms == 1_000


def test_a_partition_moves_since_its_replicas_changed() -> None:
    led = event("became_leader", at_ms=1_000)
    changed = event("replicas_changed", adding=[3], at_ms=4_000)
    moving = [node(each, partition=partition(adding=[3])) for each in (2, 3)]
    explained = explain(found(node(1, partition=partition(adding=[3]), events=[led, changed]), *moving))
    assert (explained.state, explained.since_ms) == ("reassigning", 4_000)
