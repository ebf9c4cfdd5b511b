"""The failures that were found in the library, each as a script, with and without what prevents it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from metadata.quorum.durable import DamagedFile
from metadata.quorum.journal import Journal
from metadata.quorum.journal_format import encode_frame
from metadata.quorum.prevote import PreVote
from tests.simulation.quorum.plan import Plan, Violation
from tests.simulation.quorum.scripting import CALM, calm, commit, heal, isolate, without
from tests.simulation.quorum.story import Story
from tests.simulation.quorum.test_quorum_seeds import PLANS
from tests.simulation.quorum.world import World


class NeverSynced(Journal):
    def sync(self) -> None:
        self._finish_clear()
        if self._unsynced:
            self._file.append([encode_frame(self._unsynced)])
            self._unsynced = []


class NoPreVote(PreVote):
    def may_stand(self) -> bool:
        return True


def _ex_leader_meets_a_snapshot(plan: Plan) -> World:
    """SO-S1: an isolated leader appends, the others go on and snapshot past it, then it comes back."""
    world = calm(3, plan)
    old = world.leader
    assert old is not None
    isolate(world, old)
    for k in range(30):
        world.submit(old, b"phantom%d" % k)
    world.run_for(1500)
    for k in range(80):
        commit(world, b"real%d." % k + bytes(40_000))
    heal(world)
    world.run_for(3000)
    world.check_acked()
    return world


def test_s1_snapshot_does_not_commit_divergent_tail() -> None:
    plan = replace(CALM, snapshot_bytes=400_000)
    world = _ex_leader_meets_a_snapshot(plan)
    assert not [command for command in world.acked if command.startswith(b"phantom")]
    assert world.snapshots_loaded > 0


def _run_seeds(plan: Plan) -> None:
    for seed in range(40):
        Story(seed, plan).play()


def test_s1_uncommitted_entry_is_applied_without_filter() -> None:
    plan = replace(PLANS["snapshots"], filters=lambda: without("SnapshotKeepsCommit"))
    with pytest.raises(Violation, match="applies"):
        _run_seeds(plan)


def test_s6_acknowledged_entry_is_lost_without_fsync() -> None:
    plan = replace(PLANS["power"], journal=NeverSynced)
    with pytest.raises((Violation, DamagedFile)):
        _run_seeds(plan)


def _divergent_node_rejoins(plan: Plan) -> float:
    """SO-L1: one divergent entry, and more than one batch to send. Returns ms until it has caught up."""
    world = calm(5, plan)
    old = world.leader
    assert old is not None
    isolate(world, old)
    world.submit(old, b"divergent")
    world.run_for(1500)
    for k in range(12):
        commit(world, b"big%d." % k + bytes(30_000))
    heal(world)
    begun = world.time.us
    target = max(world.checks.applied)
    caught_up = world.run_for(8000, until=lambda: world.nodes[old].raft.applied_index >= target)
    assert caught_up, "the divergent node never caught up"
    return (world.time.us - begun) / 1000


def test_l1_divergent_node_catches_up_in_batches() -> None:
    assert _divergent_node_rejoins(CALM) < 1500


def _blackholed_follower(plan: Plan) -> tuple[int, int]:
    """SO-L6: a follower hears nothing for a while. Returns how often the term and the leader changed."""
    world = calm(7, plan)
    leader = world.leader
    assert leader is not None
    follower = next(i for i in world.ids if i != leader)
    term = world.nodes[leader].raft.term
    isolate(world, follower)
    elections = world.elections
    world.run_for(3400)
    heal(world)
    world.run_for(2000)
    assert world.leader is not None
    return world.nodes[world.leader].raft.term - term, world.elections - elections


def test_l6_isolated_follower_causes_no_election() -> None:
    assert _blackholed_follower(CALM) == (0, 0)
    assert _blackholed_follower(replace(CALM, pre_vote=NoPreVote))[0] > 0


def test_l6_old_leader_learns_the_term() -> None:
    """It was paused while another was elected; its next message must be answered."""
    world = calm(9, CALM)
    old = world.leader
    assert old is not None
    world.pause(old, 2000)
    world.run_for(1900)
    newer = world.leader
    world.run_for(400)
    assert not world.nodes[old].raft.is_leader or world.leader == old
    assert len([i for i, node in world.nodes.items() if node.raft.is_leader]) == 1
    assert newer is not None


def test_l1_resets_are_obeyed_once_even_alone() -> None:
    """Either half of the cure is enough to catch up; both together are what keeps it short."""
    assert _divergent_node_rejoins(replace(CALM, filters=lambda: without("ResetToCommit"))) < 8000
    assert _divergent_node_rejoins(replace(CALM, filters=lambda: without("ResetSequence"))) < 8000


def test_s9_a_repeated_entry_is_applied_once() -> None:
    from metadata.quorum.command import encode_command
    from metadata.quorum.state_machine import MetadataStateMachine
    from metadata.records import ControllerEpochRecord

    applied = []
    machine = MetadataStateMachine(on_applied=applied.append, on_installed=applied.append)
    records = [ControllerEpochRecord(epoch=1, node_id=1)]
    command = memoryview(encode_command(records, controller_epoch=1, expected_offset=-1))
    assert machine.apply(command, index=2) is machine.image
    assert machine.apply(command, index=2) is None
    assert (len(applied), machine.image.offset) == (1, 0)


def _late_ack(plan: Plan) -> int:
    """SO-S5: an ack of an older term arrives at a leader that was elected again. Returns the match index it made."""
    world = calm(11, plan)
    leader = world.leader
    assert leader is not None
    node = world.nodes[leader]
    peer = next(i for i in world.ids if i != leader)
    late = {"type": "next_node_idx", "next_node_idx": 1000, "reset": False, "success": True, "sequence": 1}
    node.raft.receive(peer, {**late, "term": node.raft.term - 1})
    return node.raft.match_index(peer)


def test_s5_an_ack_of_an_older_term_counts_for_nothing() -> None:
    assert _late_ack(CALM) < 100
    assert _late_ack(replace(CALM, filters=lambda: without("AckTerms"))) == 999


@pytest.mark.parametrize("nodes", [1, 3, 5])
def test_acknowledged_commands_survive_power_loss_of_all(nodes: int) -> None:
    for seed in range(5):
        world = calm(seed, replace(CALM, nodes=nodes))
        for k in range(20):
            commit(world, b"c%d" % k)
            for i in world.ids:
                world.crash(i, power=True)
            for i in world.ids:
                world.start(i)
            world.run_for(50)
        world.healed = True
        commit(world, b"last")
        world.run_for(1000)
        world.check_acked()
