"""Members for which the others of a group wait while it rebalances, and what each of them has to do. Pure."""

from __future__ import annotations

from kraft.coordinators.groups.answers import AwaitedMember
from kraft.coordinators.groups.classic_group import ClassicGroup, Phase
from kraft.coordinators.groups.classic_members import names_of
from kraft.coordinators.groups.consumer_group import ConsumerGroup, MemberState
from metadata.image import MetadataImage


def awaited_of_classic(group: ClassicGroup) -> tuple[AwaitedMember, ...]:
    """Members that have not sent the request that this phase of the rebalance waits for (G2)."""
    members = group.members.values()
    if group.phase is Phase.PREPARING:
        missing = [AwaitedMember(member_id=each.member_id, client_id=each.client_id, awaited="JoinGroup")
                   for each in members if each.joining is None]  # fmt: skip
        new = [AwaitedMember(member_id=each, client_id="", awaited="its first JoinGroup") for each in group.pending]
        return (*missing, *new)
    if group.phase is Phase.COMPLETING:
        return tuple(
            AwaitedMember(member_id=each.member_id, client_id=each.client_id, awaited="SyncGroup")
            for each in members
            if each.is_sync_due
        )
    return ()


def awaited_of_consumer(group: ConsumerGroup, image: MetadataImage) -> tuple[AwaitedMember, ...]:
    """Members that have not given up what they lose, or have not sent a heartbeat since the epoch rose (G9)."""
    found = []
    for each in group.members.values():
        if each.state is MemberState.UNREVOKED_PARTITIONS:
            lost = ", ".join(f"{topic}-{number}" for topic, number in names_of(each.revoking, image))
            awaited = f"to give up {lost or 'partitions'}"
        elif each.member_epoch < group.epoch and not group.waits_for_others(each):
            awaited = f"a heartbeat: it is in epoch {each.member_epoch} of {group.epoch}"
        else:
            continue
        found.append(AwaitedMember(member_id=each.member_id, client_id=each.client_id, awaited=awaited))
    return tuple(found)
