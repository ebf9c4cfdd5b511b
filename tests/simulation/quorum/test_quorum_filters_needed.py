"""Each filter's own story: what goes wrong when it is taken out, and does not when it is there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.simulation.quorum.plan import Plan, Violation
from tests.simulation.quorum.scripting import CALM, calm, commit, heal, isolate, without
from tests.simulation.quorum.test_quorum_scripts import NoPreVote
from tests.simulation.quorum.world import World

LATE_MS = 6_000


def _part(world: World, ones: list[int], others: list[int]) -> None:
    for one in ones:
        for other in others:
            world.network.denied.add((min(one, other), max(one, other)))
            world.network.disconnect(one, other)


def _join(world: World, ones: list[int], others: list[int]) -> None:
    for one in ones:
        for other in others:
            world.network.denied.discard((min(one, other), max(one, other)))


def _elect(world: World, i: int, others: list[int]) -> None:
    """Let `i` win, by keeping the rest from standing."""
    for other in others:
        world.nodes[other].raft.stand_soon(after_ms=3_000)
    world.nodes[i].raft.stand_soon(after_ms=0)
    assert world.run_for(2_500, until=lambda: world.nodes[i].raft.is_leader)


def _ack_that_is_late_by_two_terms(plan: Plan) -> bool:
    """SO-S5: was an append acknowledged that only two of five voters have? Raises Violation when it is lost then."""
    world = calm(21, replace(plan, nodes=5))
    world.healed = True
    old = world.leader
    assert old is not None
    slow, new, *rest = (i for i in world.ids if i != old)
    world.network.slow_ms[slow, old] = LATE_MS
    _part(world, [old, slow], [new, *rest])
    sent_us = world.time.us
    for k in range(8):
        world.submit(old, b"phantom%d" % k)
    assert world.run_for(3_000, until=lambda: world.leader == new or world.leader in rest)
    new = world.leader or new
    rest = [i for i in world.ids if i not in (old, slow, new)]
    _join(world, [old, slow], [new, *rest])
    end = world.nodes[new].raft.last_entry
    caught_up = world.run_for(2_000, until=lambda: all(node.raft.last_entry == end for node in world.nodes.values()))
    assert caught_up, str(world)
    world.crash(new, power=False)
    world.network.blocked.add((old, slow))
    _part(world, [slow], rest)
    _elect(world, old, rest)
    commit(world, b"known to three")
    world.run_for(LATE_MS - 100 - (world.time.us - sent_us) / 1000)
    _part(world, [rest[1]], world.ids)
    world.submit(old, b"known to two")
    world.run_for(300, until=lambda: b"known to two" in world.acked)
    is_acked = b"known to two" in world.acked
    world.crash(old, power=False)
    world.crash(rest[0], power=False)
    world.start(new)
    heal(world)
    world.network.blocked.clear()
    world.run_for(3_000)
    world.check_acked()
    return is_acked


def test_s5_ack_of_two_terms_ago_commits_nothing() -> None:
    assert not _ack_that_is_late_by_two_terms(CALM)


def test_s5_acknowledged_append_is_lost_without_filter() -> None:
    with pytest.raises(Violation, match="lacks committed entry"):
        _ack_that_is_late_by_two_terms(replace(CALM, filters=lambda: without("AckTerms")))


def _leader_by_votes_that_come_twice(plan: Plan) -> bool:
    """SO-S14: two of five voters, and each message between them comes twice. Does one of them come to lead?"""
    world = calm(22, replace(plan, nodes=5, pre_vote=NoPreVote))
    world.healed = True
    few = [i for i in world.ids if i != world.leader][:2]
    _part(world, few, [i for i in world.ids if i not in few])
    world.network.is_doubling = True
    return world.run_for(5_000, until=lambda: any(world.nodes[i].raft.is_leader for i in few))


def test_s14_duplicate_vote_counts_once() -> None:
    assert not _leader_by_votes_that_come_twice(CALM)
    assert _leader_by_votes_that_come_twice(replace(CALM, filters=lambda: without("VotesOnce")))


def _voter_with_a_higher_term_comes_back(plan: Plan) -> bool:
    """SO-L6: a voter raised its term, and was isolated before another voter knew it. Does it get later entries?"""
    world = calm(23, plan)
    leader = world.leader
    world.healed = True
    lost = next(i for i in world.ids if i != leader)
    node = world.nodes[lost]
    isolate(world, lost)
    world.run_for(50)
    for voter in world.ids:
        world.to(lost, lambda voter=voter: node.raft.receive(voter, _higher_term(node.raft.term + 3)))
        break
    heal(world)
    world.run_for(3_000)
    commit(world, b"later")
    return world.run_for(3_000, until=lambda: world.is_converged)


def _higher_term(term: int) -> dict[str, object]:
    return {"type": "request_vote", "term": term, "last_log_index": 0, "last_log_term": -1}


def test_l6_voter_with_higher_term_rejoins() -> None:
    assert _voter_with_a_higher_term_comes_back(CALM)
    assert not _voter_with_a_higher_term_comes_back(replace(CALM, filters=lambda: without("HigherTerm")))


def _entries_sent_in_a_pipeline(plan: Plan) -> float:
    """SO-S4: how often is each entry sent to each follower, when a hundred are under way and nothing fails?"""
    world = calm(24, plan)
    heal(world)
    leader = world.leader
    assert leader is not None
    before = world.network.entries_sent
    for k in range(100):
        world.submit(leader, b"c%d" % k)
        world.run_for(0.5)
    assert world.run_for(2_000, until=lambda: world.is_converged)
    return (world.network.entries_sent - before) / 200


def test_s4_entry_is_sent_once_without_faults() -> None:
    slow = replace(CALM, latency_ms=(5, 10))
    assert _entries_sent_in_a_pipeline(slow) == 1
    assert _entries_sent_in_a_pipeline(replace(slow, filters=lambda: without("NextIndexKept"))) > 1.3


def _rejoins(plan: Plan, *, count: int, size: int, is_busy: bool = False) -> tuple[float, float]:
    """SO-L1: a former leader with `count` entries of its own lacks as many, and the leader has forgotten from where on.

    Returns (ms until it agrees, entries sent meanwhile for each that it lacked).
    """
    world = calm(25, plan)
    old = world.leader
    assert old is not None
    isolate(world, old)
    for k in range(count):
        world.submit(old, b"divergent%d" % k)
    world.run_for(1_500)
    for k in range(count):
        commit(world, b"real%d." % k + bytes(size))
    assert world.leader is not None
    new = world.leader
    world.crash(new, power=False)
    world.start(new)
    commit(world, b"in another term")
    world.run_for(500)
    before, begun = world.network.entries_sent, world.time.us
    heal(world)
    if is_busy:
        for k in range(count):
            world.submit(world.leader, b"busy%d" % k)
            world.run_for(3)
    assert world.run_for(20_000, until=lambda: world.is_converged), str(world)
    return (world.time.us - begun) / 1000, (world.network.entries_sent - before) / count


def test_l1_former_leader_gets_each_entry_once() -> None:
    plan = replace(CALM, latency_ms=(20, 30))
    with_it = _rejoins(plan, count=40, size=30_000, is_busy=True)
    without_it = _rejoins(replace(plan, filters=lambda: without("ResetSequence")), count=40, size=30_000, is_busy=True)
    assert without_it[1] > 4 * with_it[1], (with_it, without_it)


def test_l1_former_leader_with_many_own_entries() -> None:
    with_it = _rejoins(CALM, count=60, size=0)
    without_it = _rejoins(replace(CALM, filters=lambda: without("ResetToCommit")), count=60, size=0)
    assert with_it[0] < 300, with_it
    assert without_it[0] > 5 * with_it[0], (with_it, without_it)
