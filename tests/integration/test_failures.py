"""Nodes die, stop and return while clients write with acks=all: every acknowledged record is there, once, in order."""

from __future__ import annotations

import pytest

from tests.integration.support.cluster import Cluster
from tests.integration.support.load import Load
from tests.integration.support.waiting import wait_until

ACKNOWLEDGEMENTS = 300
"""More of them must follow each fault."""
GAP_S_MAX = 20
"""Without an acknowledgement, on a machine that is busy with much else; 2 s are usual."""


@pytest.fixture
def nodes(fragile_cluster: Cluster) -> Cluster:
    fragile_cluster.heal()
    return fragile_cluster


def others(cluster: Cluster, *ids: int) -> list[int]:
    return [node_id for node_id in cluster.ids if node_id not in ids]


def verify_from_every_node(cluster: Cluster, load: Load, *, topic: str) -> None:
    """All are back and in sync, and each serves the same."""
    cluster.heal()
    for client in load.clients:
        cluster.wait_for_isr(topic, client.partition, cluster.ids)
    for node_id in cluster.ids:
        load.verify(node_id=node_id)


def test_kill_the_leader(nodes: Cluster):
    leader = others(nodes, nodes.controller())[0]
    nodes.create_assigned("leader", [leader, *others(nodes, leader)])
    with Load(nodes, "leader") as load:
        nodes.kill(leader)
        load.wait_for_acknowledgements(ACKNOWLEDGEMENTS)
    load.verify(node_id=nodes.serving[0])
    fenced = [event for event in nodes.events("broker_fenced", node_id=nodes.controller()) if event["broker"] == leader]
    assert "its port refuses" in fenced[-1]["reason"], "a death is noticed at once, not when the session has run out"
    verify_from_every_node(nodes, load, topic="leader")


@pytest.mark.slow
def test_kill_the_active_controller_that_leads_nothing(nodes: Cluster):
    controller = nodes.controller()
    nodes.create_assigned("quorum", [*others(nodes, controller), controller])
    with Load(nodes, "quorum") as load:
        nodes.kill(controller)
        load.wait_for_acknowledgements(ACKNOWLEDGEMENTS)
        wait_until(lambda: nodes.controller() in others(nodes, controller), what="another controller")
    verify_from_every_node(nodes, load, topic="quorum")


def test_kill_a_leader_that_is_the_active_controller_too(nodes: Cluster):
    controller = nodes.controller()
    nodes.create_assigned("both", [controller, *others(nodes, controller)], nodes.ids)
    with Load(nodes, "both", partitions=2) as load:
        nodes.kill(controller)
        load.wait_for_acknowledgements(ACKNOWLEDGEMENTS)
    nodes.heal()
    load.verify(node_id=controller)
    assert load.longest_gap_s < GAP_S_MAX


def test_pause_a_follower_past_the_lag_limit_and_past_its_session(nodes: Cluster):
    leader = nodes.controller()
    follower = others(nodes, leader)[0]
    nodes.create_assigned("follower", [leader, *others(nodes, leader)])
    with Load(nodes, "follower", through=others(nodes, follower)) as load:
        nodes.pause(follower)
        nodes.wait_for_isr("follower", 0, others(nodes, follower))
        load.wait_for_acknowledgements(ACKNOWLEDGEMENTS)
        nodes.wait_for_state(follower, "fenced")
        assert left_isr_before_it_was_fenced(nodes, "follower", follower), "the lag comes before the session"
        nodes.resume(follower)
        nodes.wait_for_isr("follower", 0, nodes.ids)
        load.wait_for_acknowledgements(ACKNOWLEDGEMENTS)
    verify_from_every_node(nodes, load, topic="follower")


def left_isr_before_it_was_fenced(nodes: Cluster, topic: str, node_id: int) -> bool:
    """By the account of the active controller, however late a test hears of it."""
    reported = nodes.events("isr_changed", "broker_fenced", node_id=nodes.controller())
    left = [n for n, event in enumerate(reported) if event.get("topic") == topic and node_id not in event["isr"]]
    fenced = [n for n, event in enumerate(reported) if event["event"] == "broker_fenced" and event["broker"] == node_id]
    return left[0] < fenced[-1]


def test_pause_the_leader_past_its_session(nodes: Cluster):
    """It comes back in the belief that it still leads: it may not acknowledge anything, and cuts what nobody has."""
    leader = others(nodes, nodes.controller())[0]
    nodes.create_assigned("paused", [leader, *others(nodes, leader)])
    with Load(nodes, "paused", through=others(nodes, leader)) as load:
        nodes.pause(leader)
        nodes.wait_for_leader("paused", other_than=leader)
        load.wait_for_acknowledgements(ACKNOWLEDGEMENTS)
        nodes.resume(leader)
        nodes.wait_for_isr("paused", 0, nodes.ids)
    verify_from_every_node(nodes, load, topic="paused")


@pytest.mark.slow
def test_pause_the_active_controller_past_its_session(nodes: Cluster):
    controller = nodes.controller()
    nodes.create_assigned("asleep", [*others(nodes, controller), controller])
    with Load(nodes, "asleep", through=others(nodes, controller)) as load:
        nodes.pause(controller)
        wait_until(lambda: nodes.controller() in others(nodes, controller), what="another controller")
        load.wait_for_acknowledgements(ACKNOWLEDGEMENTS)
        nodes.resume(controller)
    verify_from_every_node(nodes, load, topic="asleep")


def test_kill_all_nodes_at_once(nodes: Cluster):
    nodes.create_topic("all", partitions=3)
    with Load(nodes, "all", partitions=3) as load:
        nodes.kill_all()
        nodes.start_again()
        load.wait_for_acknowledgements(ACKNOWLEDGEMENTS)
    verify_from_every_node(nodes, load, topic="all")


@pytest.mark.slow
def test_roll_a_restart_through_all_nodes_without_an_error(nodes: Cluster):
    nodes.create_topic("rolled", partitions=3)
    with Load(nodes, "rolled", partitions=3) as load:
        for node_id in nodes.ids:
            nodes.restart(node_id)
            for partition in range(3):
                nodes.wait_for_isr("rolled", partition, nodes.ids)
            load.wait_for_acknowledgements(20)
    assert load.errors == []
    verify_from_every_node(nodes, load, topic="rolled")


@pytest.mark.slow
def test_stop_and_start_everything_in_order(nodes: Cluster):
    nodes.create_topic("stopped", partitions=3)
    with Load(nodes, "stopped", partitions=3) as load:
        load.wait_for_acknowledgements(ACKNOWLEDGEMENTS)
    nodes.stop_all()
    nodes.start_again()
    verify_from_every_node(nodes, load, topic="stopped")
    for node in nodes.nodes:
        opened = nodes.events("log_directory_opened", node_id=node.id)[-1]
        assert opened["was_clean"], opened
