"""The oracle of a run: it watches every node, and its events and findings are the story of the run.

It has a judge for each subject: the metadata's one history (`metadata_oracle`), logs and high watermarks
(`log_oracle`), the quorum and the controller's appends (`quorum_oracle`), waits of group members (`group_waits`), share
groups (`queue_oracle`); and the `promise`, which knows what may be lost by now. This one has what they share: the
cluster, the newest image, counts, the story and the first violation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from kraft.coordinators.shard import CoordinatorShard
from metadata.image import MetadataImage, TopicIdPartition
from replication.partition.replica import Replica
from tests.simulation.delayed_oracle import DelayedOracle
from tests.simulation.group_waits import GroupWaits
from tests.simulation.late_news import LateNews
from tests.simulation.log_oracle import LogOracle
from tests.simulation.metadata_oracle import MetadataOracle
from tests.simulation.moments import Moments
from tests.simulation.promise import Promise
from tests.simulation.queue_oracle import QueueOracle
from tests.simulation.quorum_oracle import QuorumOracle

if TYPE_CHECKING:
    from kraft.chaos.worlds.simulated.cluster import SimulatedCluster
    from tests.simulation.clients import Attempt

COUNTED_EVENTS_WITH_REASON = ("leader_elected", "isr_changed")
IMPOSSIBLE = "replica_fetch_out_of_range"
"""R6 has a follower that is out of range although it ends within its leader's log: it needs an epoch that is newer than
all epochs of the leader. But a leader begins its own epoch before it leads (L9), and no follower has a newer one: it
fetches in that epoch, and an epoch that a disk has changed is truncated when a log is opened (`impossible_epochs`)."""


class Violation(AssertionError):
    """An invariant does not hold."""


class Oracle:
    def __init__(self, cluster: SimulatedCluster) -> None:
        self.cluster = cluster
        self.image = MetadataImage()
        """The newest committed image that any node has applied."""
        self.out_of_reach: set[int] = set()
        """Nodes that only onlookers reach, because they are isolated from the rest of the cluster."""
        self.at_append: dict[int, Callable[[CoordinatorShard[Any]], None]] = {}
        """Node -> what is called once, in the last step of its coordinators' next append that is replicated."""
        self.attempts: list[Attempt] = []
        self.states: Counter[str] = Counter()
        self.history: list[str] = []
        self.violation: BaseException | None = None
        self.moments = Moments(cluster.world.loop)
        self.late_news = LateNews()
        self.promise = Promise(self)
        self.metadata = MetadataOracle(self)
        self.logs = LogOracle(self)
        self.quorum = QuorumOracle(self)
        self.group_waits = GroupWaits(self)
        self.queues = QueueOracle(self)
        self.delayed = DelayedOracle(self)

    # --- reports ------------------------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        self.history.append(f"{self.cluster.world.loop.now_us / 1000:10.3f} ms  {text}")
        self.cluster.world.trace("note", text)

    def count(self, state: str) -> None:
        self.states[state] += 1

    def check(self, holds: bool, *what: object) -> None:
        """Where it costs too much to put into words what holds nearly always, ask first and then `fail`."""
        if not holds:
            self.fail(*what)

    def fail(self, *what: object) -> NoReturn:
        violation = Violation(" ".join(str(each) for each in what))
        self.note(f"VIOLATION {violation}")
        if self.violation is None:
            self.violation = violation
        raise violation

    def event(self, node_id: int, event: str, fields: Mapping[str, object]) -> None:
        """An event of the node's own event log."""
        self.count(event)
        if event in COUNTED_EVENTS_WITH_REASON:
            self.count(f"{event}: {fields.get('reason')}")
        elif event == "isr_change_refused":
            self.count(f"{event}: {fields.get('error')}")
        self.note(f"node {node_id} {event} " + " ".join(f"{k}={v}" for k, v in fields.items()))
        if event == IMPOSSIBLE:
            self.fail(f"node {node_id} knows an epoch that its leader does not: {fields}")
        other = fields.get("leader", fields.get("broker"))
        self.moments.happened(event, node_id, other if isinstance(other, int) else None)

    # --- what there is ------------------------------------------------------------------------------------------

    def name(self, key: TopicIdPartition) -> str:
        topic = self.image.topics.get(key.topic_id)
        return f"{topic.name if topic else key.topic_id}-{key.partition}"

    def is_compacted(self, key: TopicIdPartition) -> bool:
        """Each replica cleans when it wants: what remains of a batch may differ, its offsets and epoch may not."""
        topic = self.image.topics.get(key.topic_id)
        return topic is not None and "compact" in self.image.config("topic", topic.name).get("cleanup.policy", "")

    def replica(self, node_id: int, key: TopicIdPartition) -> Replica | None:
        node = self.cluster.nodes[node_id].node
        if node is None or node.broker is None:
            return None
        return node.broker.replicas._registry.replicas.get(key)
