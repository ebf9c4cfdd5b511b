"""What a node waits for before it serves, in words, and whether its metadata has caught up with the quorum.

Invariant: a node that has caught up stays so; only `service` reports what it loses later (the quorum, its
registration), and it goes on answering from the metadata that it has, as Kafka's brokers do.

Caught up means, for a broker, that its image holds its own registration of this process: the active controller
committed that after all that was committed before the process asked (KIP-631: STARTING ends when the broker has read
up to its registration). A node that is a controller only does not register: `RaftNode.has_caught_up` decides there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from kraft.broker.lifecycle import BrokerLifecycle
from kraft.broker.metadata_publisher import MetadataPublisher
from metadata.quorum.log import MetadataLog
from metadata.quorum.raft_log import RaftMetadataLog
from replication.storage.log_manager import Loading

LOGGED_FIRST_MS: Final = 2_000
"""A start that takes no longer than this is not logged."""
LOGGED_AGAIN_MS: Final = 10_000
LOGGED_AGAIN_MS_MAX: Final = 300_000
"""What is awaited is said again, each time after twice as long, up to this."""


class Awaiting:
    def __init__(
        self,
        *,
        voters: Sequence[int],
        log: MetadataLog,
        publisher: MetadataPublisher,
        loading: Loading | None,
        lifecycle: BrokerLifecycle | None,
        has_caught_up: Callable[[], bool],
    ) -> None:
        """`loading` and `lifecycle` are None on a node that is no broker. `has_caught_up` never takes it back."""
        self._voters = sorted(voters)
        self._log = log
        self._publisher = publisher
        self._loading = loading
        self._lifecycle = lifecycle
        self._has_caught_up = has_caught_up
        self.has_started = False
        """Set when all parts of the node run."""

    def metadata(self) -> str:
        """Empty once the metadata has caught up; until then nobody is answered from it, and this is why."""
        return "" if self._has_caught_up() else (self.service() or "its metadata has not caught up with the quorum")

    def service(self) -> str:
        """Empty when this node takes part."""
        if not self.has_started and self._loading is not None:
            return f"logs are loaded: {self._loading.done} of {self._loading.found}"
        if self._publisher.leadership.leader_id < 0:
            return self._no_leader()
        image = self._publisher.image
        if self._lifecycle is None:
            return (
                "" if self._has_caught_up() else f"the metadata catches up with the quorum, from offset {image.offset}"
            )
        problem = self._lifecycle.registration_problem
        if self._lifecycle.broker_epoch < 0 or problem:
            return "this broker is not registered yet" + (f": {problem}" if problem else "")
        if not self._lifecycle.is_unfenced:
            partitions = list(image.all_partitions())
            led = sum(partition.has_leader for partition in partitions)
            return (
                f"this broker is fenced, at metadata offset {image.offset}; partitions led: {led} of {len(partitions)}"
            )
        return ""

    def _no_leader(self) -> str:
        if twin := twin_problem(self._log):
            return twin
        met = _named(voter for voter in self._voters if voter in self._log.met)
        is_new = self._publisher.image.offset < 0
        begins = "; a new cluster begins when all of them have met" if is_new else ""
        voters = _named(self._voters)
        return f"the metadata quorum has no leader yet: of its voters {voters} this node has met {met}{begins}"


class Reminder:
    """When to say what is awaited: soon after a wait begins, and then less and less often."""

    def __init__(self) -> None:
        self._since_ms: int | None = None
        self._due_ms = 0
        self._wait_ms = LOGGED_AGAIN_MS
        self.has_said = False

    def is_due(self, awaited: str, now_ms: int) -> bool:
        """Ask about each second. A wait that ends is forgotten."""
        if not awaited:
            self._since_ms, self.has_said = None, False
            return False
        if self._since_ms is None:
            self._since_ms, self._due_ms, self._wait_ms = now_ms, now_ms + LOGGED_FIRST_MS, LOGGED_AGAIN_MS
        if now_ms < self._due_ms:
            return False
        self._due_ms, self._wait_ms = now_ms + self._wait_ms, min(2 * self._wait_ms, LOGGED_AGAIN_MS_MAX)
        self.has_said = True
        return True


def twin_problem(log: MetadataLog) -> str:
    """The reason for which the quorum refuses this node, when another process has its id."""
    refused_by = log.refused_by if isinstance(log, RaftMetadataLog) else frozenset()
    return (
        f"voters {_named(sorted(refused_by))} are connected with another process of this node's id"
        if refused_by
        else ""
    )


def _named(ids: Iterable[int]) -> str:
    return ", ".join(map(str, ids)) or "none"
