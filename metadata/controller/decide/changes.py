"""One partition's next state as a record: ISR, replicas, leader, epochs. The only place that makes such records.

Invariants (L1, L2, B4): the leader is an active member of the ISR or -1; the ISR is a non-empty subset of the
replicas; the partition epoch rises by one; the leader epoch rises by one if the leader changes or an assigned
replica is removed. An ISR shrink alone does not bump the leader epoch (KAFKA-15021).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from metadata.image import PartitionImage
from metadata.records import NO_LEADER, LeaderRecovery, PartitionChangeRecord, Reason, UncleanElectionReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The state that a partition should reach; the leader follows from it."""

    replicas: tuple[int, ...]
    isr: tuple[int, ...]
    adding: tuple[int, ...]
    removing: tuple[int, ...]


def change_partition(
    old: PartitionImage,
    *,
    active: Collection[int],
    reason: Reason,
    isr: Iterable[int] | None = None,
    replicas: tuple[int, ...] | None = None,
    adding: tuple[int, ...] | None = None,
    removing: tuple[int, ...] | None = None,
    recovery: LeaderRecovery | None = None,
    prefer: int | None = None,
    unclean: UncleanElectionReport | None = None,
) -> PartitionChangeRecord | None:
    """The record that takes the partition to its target, and completes its reassignment if possible; None: no change.

    `prefer` becomes the leader if it is valid. An empty `isr` keeps the last members, without a leader (B4).
    """
    asked = Target(
        replicas=old.replicas if replicas is None else replicas,
        isr=(old.isr if isr is None else tuple(isr)) or old.isr,
        adding=old.adding_replicas if adding is None else adding,
        removing=old.removing_replicas if removing is None else removing,
    )
    target = _completed(asked, active) or asked
    leader = choose_leader(target, current=old.leader, active=active, prefer=prefer)
    record = PartitionChangeRecord(
        topic_id=old.topic_id,
        partition=old.partition,
        reason=reason if target is asked else Reason.REASSIGNMENT_COMPLETED,
        leader_epoch=old.leader_epoch + _bumps_leader_epoch(old, target, leader),
        partition_epoch=old.partition_epoch + 1,
        leader=None if leader == old.leader else leader,
        isr=None if target.isr == old.isr else target.isr,
        replicas=None if target.replicas == old.replicas else target.replicas,
        adding_replicas=None if target.adding == old.adding_replicas else target.adding,
        removing_replicas=None if target.removing == old.removing_replicas else target.removing,
        leader_recovery=None if recovery in (None, old.leader_recovery) else recovery,
        unclean=unclean,
    )
    _check(old, target, leader, active)
    return record if _has_change(record) else None


def choose_leader(target: Target, *, current: int, active: Collection[int], prefer: int | None = None) -> int:
    """L1: the preferred one if requested, else the current one if valid, else the first valid in assignment order."""
    valid = [replica for replica in target.replicas if replica in target.isr and replica in active]
    if prefer in valid:
        return prefer
    if current in valid:
        return current
    return valid[0] if valid else NO_LEADER


def _completed(target: Target, active: Collection[int]) -> Target | None:
    """S8: a reassignment ends when all added replicas are in the ISR and one of the remaining replicas is alive in
    it."""
    if not (target.adding or target.removing):
        return None
    isr = tuple(replica for replica in target.isr if replica not in target.removing)
    if not set(target.adding) <= set(isr) or not any(replica in active for replica in isr):
        return None
    replicas = tuple(replica for replica in target.replicas if replica not in target.removing)
    return Target(replicas=replicas, isr=isr, adding=(), removing=())


def _bumps_leader_epoch(old: PartitionImage, target: Target, leader: int) -> bool:
    return leader != old.leader or not set(old.replicas) <= set(target.replicas)


def _has_change(record: PartitionChangeRecord) -> bool:
    changes = (record.leader, record.isr, record.replicas, record.adding_replicas, record.removing_replicas)
    return any(change is not None for change in (*changes, record.leader_recovery))


def _check(old: PartitionImage, target: Target, leader: int, active: Collection[int]) -> None:
    assert target.isr, (old, target)
    assert set(target.isr) <= set(target.replicas), (old, target)
    assert leader == NO_LEADER or (leader in target.isr and leader in active), (old, target, leader, active)
