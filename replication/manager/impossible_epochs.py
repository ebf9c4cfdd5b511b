"""Removal of impossible leader epochs: no CRC covers the epoch of a batch, so a disk may change it unnoticed."""

from __future__ import annotations

from metadata.events import Events
from metadata.image import PartitionImage
from replication.partition.log import ReplicaLog


def cut_impossible_epochs(log: ReplicaLog, image: PartitionImage, *, topic: str, events: Events) -> None:
    """No record is written in an epoch before the metadata has it: an epoch in a log that the metadata does not know is
    damage. Such a log could neither lead nor follow; its records are fetched again from other replicas."""
    if log.latest_epoch <= image.leader_epoch:
        return
    end = log.end_offset_for_epoch(max(image.leader_epoch, 0))
    start = log.log_start_offset if end is None else max(end.end_offset, log.log_start_offset)
    events.emit(
        "impossible_epoch_cut",
        topic=topic,
        partition=image.partition,
        leader_epoch=image.leader_epoch,
        found_epoch=log.latest_epoch,
        from_offset=start,
        to_offset=log.log_end_offset,
    )
    log.truncate_to(start)
