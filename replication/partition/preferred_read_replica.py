"""Choice of the replica that a consumer should read from, by its rack (KIP-392). Pure.

Source: ReplicaManager.findPreferredReadReplica and org.apache.kafka.common.replica.RackAwareReplicaSelector.
"""

from __future__ import annotations

from collections.abc import Mapping

from metadata.image import BrokerImage
from replication.partition.states import FollowerProgress, LeaderState


def preferred_read_replica(
    state: LeaderState, *, rack: str, offset: int, brokers: Mapping[int, BrokerImage]
) -> int | None:
    """The follower in the consumer's rack with the highest log end, then the latest caught-up time; None when the
    leader is in that rack, or no follower there can serve the offset. It has to be in sync: a consumer of a lagging
    replica would fall behind with it."""
    leader = brokers.get(state.image.leader)
    if leader is not None and leader.rack == rack:
        return None

    def is_fit(replica: int, progress: FollowerProgress) -> bool:
        broker = brokers.get(replica)
        return (
            broker is not None
            and not broker.fenced
            and broker.rack == rack
            and replica in state.isr.members
            and progress.log_start_offset <= offset <= progress.end_offset
        )

    fit = [(replica, progress) for replica, progress in state.followers.items() if is_fit(replica, progress)]
    if not fit:
        return None
    return max(fit, key=lambda item: (item[1].end_offset, item[1].last_caught_up_ms, item[0]))[0]
