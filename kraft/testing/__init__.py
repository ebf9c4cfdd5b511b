"""Clusters for tests: `with kraft.testing.Cluster(nodes=3) as cluster: ...`.

What is imported here runs in the process of somebody's tests, whose own modules may be called `metadata` or
`replication`: it imports neither of our packages of these names. What needs them runs in a process of its own.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kraft.testing.assertions import Record as Record
    from kraft.testing.assertions import Sent as Sent
    from kraft.testing.assertions import Verdict as Verdict
    from kraft.testing.cluster import Cluster as Cluster
    from kraft.testing.cluster import ClusterFailed as ClusterFailed
    from kraft.testing.faults import FaultCluster as FaultCluster

_HOME_OF: Final = {
    "Cluster": "cluster",
    "ClusterFailed": "cluster",
    "FaultCluster": "faults",
    "Record": "assertions",
    "Sent": "assertions",
    "Verdict": "assertions",
}
"""Imported when they are first used: the plugin of pytest is loaded by every run, and most use none of it."""
__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"kraft.testing.{_HOME_OF[name]}"), name)
