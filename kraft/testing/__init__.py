"""Clusters for tests: `with kraft.testing.Cluster(nodes=3) as cluster: ...`.

What is imported here runs in the process of somebody's tests, whose own modules may be called `metadata` or
`replication`: it imports neither of our packages of these names. What needs them runs in a process of its own.
"""

from __future__ import annotations

from kraft.testing.cluster import Cluster, ClusterFailed

__all__ = ["Cluster", "ClusterFailed"]
