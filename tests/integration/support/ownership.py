"""The account of a group (`tests.support.ownership`) from the log of one node of a real cluster."""

from __future__ import annotations

from pathlib import Path

from kraft.coordinators.java import abs_hash
from metadata.internal_topics import OFFSETS_TOPIC
from tests.integration.support.cluster import Cluster
from tests.support.ownership import Ownership, batches_of


def ownership(cluster: Cluster, group: str, *, node_id: int) -> Ownership:
    """From one replica's log."""
    folders = list((Path(cluster.node(node_id).data) / "logs").glob(f"{OFFSETS_TOPIC}-*"))
    number = abs_hash(group) % len(folders)
    data = cluster.log_bytes(node_id, OFFSETS_TOPIC, number)
    return Ownership(group).follow(batches_of(data, group))
