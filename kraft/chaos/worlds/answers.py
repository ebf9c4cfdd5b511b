"""The answers to questions of a story: from snapshots of the cluster, counts of clients, events of nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kraft.chaos.questions import Value
from kraft.chaos.workload.counts import Counts
from kraft.chaos.worlds.snapshot import UNKNOWN, NodeView, Snapshot
from kraft.coordinators.java import abs_hash
from metadata.internal_topics import OFFSETS_TOPIC, TRANSACTIONS_TOPIC


class SnapshotAnswers:
    """All questions of one `Now` are answered from one snapshot."""

    def __init__(
        self, snapshot: Snapshot, clients: Mapping[str, Counts], count_events: Callable[[str, int | None], int]
    ) -> None:
        self._snapshot = snapshot
        self._clients = clients
        self._count_events = count_events

    def ask(self, function: str, arguments: tuple[Value, ...]) -> Value:
        match function:
            case "leader" | "epoch" | "isr" | "replicas" | "followers" | "offline" | "hw":
                return self._of_partition(function, *arguments)
            case "log_end" | "node_hw":
                return self._of_replica(function, *arguments)
            case "controller" | "controller_epoch" | "partitions" | "nodes":
                return self._of_cluster(function, *arguments)
            case "alive" | "state" | "metadata_offset":
                return self._of_node(function, *arguments)
            case "coordinator":
                return self._coordinator(OFFSETS_TOPIC, *arguments)
            case "transaction_coordinator":
                return self._coordinator(TRANSACTIONS_TOPIC, *arguments)
            case "events":
                return self._count_events(*arguments, *([None] if len(arguments) == 1 else []))
            case "refused":
                name, code = arguments
                return self._clients[name].with_code(code)
        return self._of_clients(function, *arguments)

    def _of_partition(self, function: str, topic: str, partition: int) -> Value:
        found = self._snapshot.partition(topic, partition)
        if found is None:
            return None
        match function:
            case "leader":
                return found.leader
            case "epoch":
                return found.leader_epoch
            case "isr":
                return sorted(found.isr)
            case "replicas":
                return list(found.replicas)
            case "followers":
                return [replica for replica in found.replicas if replica != found.leader]
            case "offline":
                return found.leader < 0
        return _known(self._snapshot.hw(topic, partition))

    def _coordinator(self, topic: str, name: str) -> Value:
        """The leader of the partition that has the state of this group or transactional id."""
        newest = self._snapshot.newest
        count = 0 if newest is None else sum(each == topic for each, _ in newest.partitions)
        return self._snapshot.leader(topic, abs_hash(name) % count) if count else None

    def _of_replica(self, function: str, node: int, topic: str, partition: int) -> Value:
        if function == "log_end":
            return _known(self._snapshot.log_end(topic, partition, node=node))
        return _known(self._snapshot.hw(topic, partition, node=node))

    def _of_cluster(self, function: str, topic: str = "") -> Value:
        snapshot = self._snapshot
        match function:
            case "controller":
                return snapshot.controller
            case "controller_epoch":
                return _known(snapshot.controller_epoch)
            case "nodes":
                return sorted(snapshot.states)
        newest = snapshot.newest
        return None if newest is None else sum(name == topic for name, _ in newest.partitions)

    def _of_node(self, function: str, node: int) -> Value:
        view: NodeView | None = self._snapshot.view(node)
        match function:
            case "alive":
                return self._snapshot.states.get(node, "down") != "down"
            case "metadata_offset":
                return None if view is None else view.metadata_offset
        newest = self._snapshot.newest
        return None if newest is None else newest.brokers.get(node, "down")

    def _of_clients(self, function: str, name: str = "") -> Value:
        chosen = [self._clients[name]] if name else list(self._clients.values())
        if function == "done":
            return all(client.is_done for client in chosen)
        return sum(int(getattr(client, function)) for client in chosen)


def _known(value: int) -> int | None:
    return None if value == UNKNOWN else value
