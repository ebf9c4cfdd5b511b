"""A voter that is behind catches up by the heartbeats alone, whatever its files say it knew to be committed."""

from __future__ import annotations

import pytest

from metadata.quorum.pysyncobj_adapter import HardenedRaft
from tests.simulation.quorum.scripting import calm, commit, heal, isolate
from tests.simulation.quorum.world import World


def _restarted_with_a_snapshot_newer_than_its_commit_index() -> World:
    """SO-L13: a follower is killed after a snapshot and before it saves its commit index; then all are restarted."""
    world = calm(3)
    heal(world)
    behind = next(i for i in world.ids if i != world.leader)
    node = world.nodes[behind]
    assert world.run_for(2000, until=lambda: node.journal.is_commit_saved)
    for k in range(10):
        commit(world, b"before%d" % k)
    world.run_for(100)
    node.raft.take_snapshot()
    world.run_for(50)
    assert not node.journal.is_commit_saved
    assert node.raft.first_index > 2, "there is no snapshot"
    world.crash(behind, power=False)
    for k in range(3):
        commit(world, b"after%d" % k)
    for i in world.ids:
        world.crash(i, power=False)
    for i in world.ids:
        world.start(i)
    return world


def test_l13_snapshot_newer_than_saved_commit_index() -> None:
    world = _restarted_with_a_snapshot_newer_than_its_commit_index()
    assert world.run_for(2000, until=lambda: world.is_converged), str(world)
    world.check_acked()


def test_l13_voter_stays_behind_without_override(monkeypatch: pytest.MonkeyPatch) -> None:
    own = HardenedRaft._SyncObj__raftCommitIndex
    as_reported = property(own.fget, lambda raft, index: setattr(raft, "_commit_index", index))
    monkeypatch.setattr(HardenedRaft, "_SyncObj__raftCommitIndex", as_reported)
    monkeypatch.setattr(HardenedRaft, "_set_commit_index", lambda raft, index: setattr(raft, "_commit_index", index))
    world = _restarted_with_a_snapshot_newer_than_its_commit_index()
    assert not world.run_for(30_000, until=lambda: world.is_converged)


def test_voter_has_caught_up_with_earlier_commits() -> None:
    world = calm(3)
    heal(world)
    behind = next(i for i in world.ids if i != world.leader)
    assert world.caught_up == 3
    world.crash(behind, power=False)
    for k in range(50):
        commit(world, b"meanwhile%d" % k)
    isolate(world, behind)
    world.start(behind)
    world.run_for(5_000)
    assert not world.nodes[behind].raft.has_caught_up, "it has heard of nobody"
    heal(world)
    assert world.run_for(5_000, until=lambda: world.nodes[behind].has_caught_up)
    assert len(world.nodes[behind].machine.commands) >= 50


def test_voter_alone_has_not_caught_up() -> None:
    world = calm(3)
    commit(world, b"known")
    for i in world.ids:
        world.crash(i, power=False)
    world.start(1)
    world.run_for(10_000)
    assert not world.nodes[1].raft.has_caught_up
    world.start(2)
    assert world.run_for(5_000, until=lambda: world.nodes[1].has_caught_up and world.nodes[2].has_caught_up)
