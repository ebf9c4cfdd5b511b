"""Clusters for tests: `with kraft.testing.Cluster(nodes=3) as cluster: ...`.

The modules imported here run in the process of other people's tests, whose own modules may be called `metadata` or
`replication`: they import neither of our packages of these names. Code that needs them runs in a process of its own.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kraft.testing.assertions import Record as Record
    from kraft.testing.assertions import Sent as Sent
    from kraft.testing.assertions import Verdict as Verdict
    from kraft.testing.cluster import ClientSecurity as ClientSecurity
    from kraft.testing.cluster import Cluster as Cluster
    from kraft.testing.cluster import ClusterFailed as ClusterFailed
    from kraft.testing.faults import FaultCluster as FaultCluster
    from kraft.testing.queues import DeadLetter as DeadLetter
    from kraft.testing.queues import Queue as Queue
    from kraft.testing.queues import QueuedRecord as QueuedRecord

_HOME_OF: Final = {
    "ClientSecurity": "cluster",
    "Cluster": "cluster",
    "ClusterFailed": "cluster",
    "DeadLetter": "queues",
    "FaultCluster": "faults",
    "Queue": "queues",
    "QueuedRecord": "queues",
    "Record": "assertions",
    "Sent": "assertions",
    "Verdict": "assertions",
}
"""Imported at their first use: every pytest run loads the plugin, and most runs do not use it."""
__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"kraft.testing.{_HOME_OF[name]}"), name)
