"""What measures the attacks does measure: the memory of a node, a stall, an end."""

from __future__ import annotations

import threading

import pytest

from tests.integration.attacks.attack import Attack, Target, connected, withstand
from tests.integration.support.cluster import Cluster


def test_an_attack_that_does_nothing_is_withstood(attacked_cluster: Cluster):
    withstand(attacked_cluster, Attack(sends="", comes_back="", run=lambda _: None), node_id=1)


def test_a_node_that_stalls_is_noticed(attacked_cluster: Cluster):
    """The same clock as in earnest, with a limit that a pause of two seconds is sure to exceed."""

    def pause(target: Target) -> None:
        target.cluster.pause(target.node_id)
        threading.Event().wait(2)
        target.cluster.resume(target.node_id)

    with pytest.raises(AssertionError, match=r"waited|noticed"):
        withstand(attacked_cluster, Attack(sends="", comes_back="", run=pause, stall_s_max=0.5), node_id=2)
    attacked_cluster.heal()


def test_memory_that_a_node_takes_is_noticed(attacked_cluster: Cluster):
    """A body of 48 MiB is held until all of it has come: more than this attack may cost."""

    def post(target: Target) -> None:
        size = 48 * 1024 * 1024
        head = f"POST /topics/attacked HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n"
        with connected(target.rest) as (connection,):
            connection.sendall(head.encode())
            connection.sendall(b" " * size)
            assert connection.recv(1_000).startswith(b"HTTP/1.1 4")

    attack = Attack(sends="", comes_back="", run=post, memory_mib_max=24)
    with pytest.raises(AssertionError, match="MiB of memory"):
        withstand(attacked_cluster, attack, node_id=3)
