"""Strangers who wait until a node loses its patience: at every port at the same time, so that the test waits once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.integration.attacks import http_connections, test_kafka_port, test_quorum_port
from tests.integration.attacks.attack import MEMORY_MIB_MAX, Attack, Target, patient, withstand
from tests.integration.support.cluster import Cluster

AT_NODE = {1: (test_kafka_port.ATTACKS, test_quorum_port.ATTACKS), 2: (http_connections.ATTACKS,)}


@pytest.mark.long
def test_who_only_waits_is_shown_the_door(attacked_cluster: Cluster) -> None:
    attacks = [
        (attack, node_id) for node_id, tables in AT_NODE.items() for table in tables for attack in patient(table)
    ]
    assert len(attacks) >= 5

    def all_of_them(target: Target) -> None:
        with ThreadPoolExecutor(len(attacks)) as threads:
            running = [threads.submit(attack.run, Target(target.cluster, node_id)) for attack, node_id in attacks]
        for each in running:
            each.result()

    leader = attacked_cluster.status()["controller_id"]
    everything = Attack(
        sends="; ".join(attack.sends for attack, _ in attacks),
        comes_back="the end of each connection",
        run=all_of_them,
        memory_mib_max=2 * MEMORY_MIB_MAX,
    )
    withstand(attacked_cluster, everything, node_id=1)
    assert attacked_cluster.status()["controller_id"] == leader, "the quorum has elected another leader"
