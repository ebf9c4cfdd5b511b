"""What a member of the consumer protocol (KIP-848) asks, and what it is answered. Plain frozen data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kraft.coordinators.groups.consumer_records import Partitions


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerHeartbeat:
    """All that a member ever asks: to join (epoch 0), to leave (-1, static: -2), and whether anything is new. What is
    None has not changed since its last heartbeat."""

    ticket: int
    member_id: str
    """Drawn by the member itself; empty from those who join with version 0, see `new_member_id`."""
    member_epoch: int
    client_id: str
    client_host: str
    instance_id: str | None = None
    rack_id: str | None = None
    rebalance_timeout_ms: int = -1
    """-1: not changed."""
    topics: frozenset[str] | None = None
    pattern: str | None = None
    assignor: str | None = None
    owned: Partitions | None = None
    new_member_id: str = ""
    """Drawn by the shell, so that deciding stays pure."""
    may_describe: Callable[[str], bool] = field(default=lambda _: True, compare=False)
    """Whether the client may know of the topic of a name; patterns match no others."""

    @property
    def is_full(self) -> bool:
        """Whether the heartbeat has all fields, as after an error: the answer then has all of them, too."""
        has_subscription = self.topics is not None or self.pattern is not None
        return self.rebalance_timeout_ms != -1 and has_subscription and self.owned is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetsComputed:
    """A part of a target assignment that was computed apart from the group; see `target_assignment`."""

    epoch: int
    """The epoch of the group for which it was computed."""
    changes: Sequence[tuple[str, Partitions]]
    """Member ids, and what each is to have."""
    is_last: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerHeartbeatAnswer:
    member_id: str
    member_epoch: int
    heartbeat_interval_ms: int = 0
    assignment: Partitions | None = None
    """All that the member has now; None when nothing has changed."""
