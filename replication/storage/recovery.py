"""Loading of a partition's folder: its files are trusted after a clean shutdown, and scanned otherwise (S5).

It returns whole and indexed segments, and notes of everything that was repaired. Blocking.
Source: org.apache.kafka.storage.internals.log.LogLoader.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from kraft.protocol.batches.header import BatchHeader
from metadata.environment import Files
from metadata.settings import TopicSettings
from replication.producers.state import ProducerLimits, ProducerStates
from replication.storage.checkpoint_ceiling import CheckpointCeiling
from replication.storage.cleaner_swap import finish_swaps, is_compaction_left
from replication.storage.header_scan import DamagedLog, headers_from
from replication.storage.indexes import CorruptIndex
from replication.storage.leader_epochs import LeaderEpochCache
from replication.storage.names import (
    CHECKPOINT_CEILING_FILE,
    DELETED_SUFFIX,
    EPOCHS_FILE,
    NEEDED_SUFFIXES,
    SEGMENT_SUFFIXES,
    TRANSACTION_INDEX_SUFFIX,
    base_offset_of,
    segment_file,
)
from replication.storage.producer_files import offsets_of_snapshots, rebuild, remove_snapshots, save_snapshot
from replication.storage.segment import Segment
from replication.storage.segment_scan import Problem, scan
from replication.storage.segments import sync_folder
from replication.storage.text_files import MalformedFile

UNREADABLE = (MalformedFile, DamagedLog, CorruptIndex)
"""Errors of a log that cannot be loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """One change by recovery; becomes the event of the same name."""

    event: str
    fields: dict[str, object]


@dataclass(slots=True, kw_only=True)
class LoadedLog:
    segments: list[Segment]
    epochs: LeaderEpochCache
    producers: ProducerStates
    log_start_offset: int
    log_end_offset: int
    ceiling: CheckpointCeiling
    repairs: list[Repair] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    files: Files
    folder: str
    settings: TopicSettings
    recovery_point: int
    """Everything below it was fsynced."""
    log_start_offset: int
    is_clean: bool
    """The last shutdown has left its marker: the files are unchanged since they were closed."""
    now_ms: int
    producer_limits: ProducerLimits
    is_from_checkpoints: bool = True
    """Recovery point and log start are from checkpoints; else this process knows them from the log itself."""


def load_log(plan: LoadPlan) -> LoadedLog:
    """Load a log. Raises OSError, and the errors in `UNREADABLE`."""
    names = _names(plan)
    ceiling = CheckpointCeiling(plan.files, plan.folder, is_there=CHECKPOINT_CEILING_FILE in names)
    if plan.is_from_checkpoints:
        plan = replace(
            plan,
            recovery_point=min(plan.recovery_point, ceiling.offset),
            log_start_offset=min(plan.log_start_offset, ceiling.offset),
        )
    segments: list[Segment] = []
    try:
        return _load(plan, names, ceiling, segments)
    except BaseException:
        for segment in segments:
            segment.close()
        raise


def _names(plan: LoadPlan) -> list[str]:
    """Names in the folder. It is listed once: a check for each possible file took longer than everything else."""
    try:
        return plan.files.list_directory(plan.folder)
    except FileNotFoundError:
        plan.files.make_directories(plan.folder)
        return []


def _load(plan: LoadPlan, names: list[str], ceiling: CheckpointCeiling, segments: list[Segment]) -> LoadedLog:
    """Load into `segments`, which gets each segment as soon as it is open."""
    repairs: list[Repair] = []
    names = _tidy(plan, names, repairs)
    bases = [int(name[:20]) for name in names if name.endswith(".log") and base_offset_of(name) is not None]
    there = set(names)
    epochs = _load_epochs(plan, repairs)
    if not epochs.entries:  # lost, or never written: only the batches have them
        plan = replace(plan, is_clean=False, recovery_point=0)
    unflushed: list[Segment] = []
    end_offset = plan.log_start_offset
    for index, base in enumerate(bases):
        next_base = bases[index + 1] if index + 1 < len(bases) else None
        has_indexes = all(f"{base:020}{suffix}" in there for suffix in NEEDED_SUFFIXES)
        segment = _open(plan, base, has_transactions=f"{base:020}{TRANSACTION_INDEX_SUFFIX}" in there)
        segments.append(segment)
        end_offset, is_cut = _load_segment(plan, segment, next_base, epochs, repairs, has_indexes=has_indexes)
        if segment.size and end_offset > plan.recovery_point:
            unflushed.append(segment)
        if is_cut:
            _drop_later(plan, bases[index + 1 :], end_offset, repairs)
            break
    if segments and end_offset < plan.log_start_offset:
        segments[:] = _start_over(plan, segments, end_offset, repairs)
        end_offset, unflushed = plan.log_start_offset, []
    if not segments:
        segments.append(_open(plan, end_offset, create=True))
    start = max(plan.log_start_offset, segments[0].base_offset)
    _mend_epochs(segments, epochs, range(start, end_offset), repairs)
    epochs.truncate_from_end(end_offset)
    epochs.truncate_from_start(start)
    if end_offset > plan.recovery_point and not plan.is_clean:
        _make_durable(plan, unflushed, epochs)
    return LoadedLog(
        segments=segments,
        epochs=epochs,
        producers=_load_producers(plan, names, segments, end_offset, repairs),
        log_start_offset=start,
        log_end_offset=end_offset,
        ceiling=ceiling,
        repairs=repairs,
    )


def _load_producers(
    plan: LoadPlan, names: list[str], segments: list[Segment], end_offset: int, repairs: list[Repair]
) -> ProducerStates:
    """A snapshot above the recovery point may belong to a log that was truncated before the power loss."""
    snapshots = offsets_of_snapshots(names)
    if not plan.is_clean:
        distrusted = [each for each in snapshots if each > plan.recovery_point]
        remove_snapshots(plan.files, plan.folder, distrusted)
        snapshots = [each for each in snapshots if each <= plan.recovery_point]
    states, problems = rebuild(
        plan.files,
        plan.folder,
        segments,
        snapshots=snapshots,
        end_offset=end_offset,
        limits=plan.producer_limits,
        is_known_empty=plan.is_clean,
        is_loading=True,
    )
    states.remove_expired(plan.producer_limits, now_ms=plan.now_ms)
    if end_offset and not plan.is_clean:  # the replay has produced something
        save_snapshot(plan.files, plan.folder, end_offset, states)
    repairs += [Repair(event="producer_snapshot_dropped", fields={"reason": problem}) for problem in problems]
    return states


def _make_durable(plan: LoadPlan, unflushed: list[Segment], epochs: LeaderEpochCache) -> None:
    """All found batches count as flushed from now on: a killed process may have left them in the page cache."""
    for segment in unflushed:
        segment.sync()
    if epochs.entries:
        epochs.sync()
    sync_folder(plan.files, plan.folder)


def _tidy(plan: LoadPlan, names: list[str], repairs: list[Repair]) -> list[str]:
    """Remove the rest of interrupted deletions and half-written files; return the other names."""
    files, folder = plan.files, plan.folder
    if is_compaction_left(names):
        reasons = finish_swaps(files, folder)
        repairs += [Repair(event="compaction_undone", fields={"reason": reason}) for reason in reasons]
        names = files.list_directory(folder)
    left = []
    for name in names:
        is_orphan = base_offset_of(name) is not None and f"{name[:20]}.log" not in names
        if is_orphan or name.endswith((DELETED_SUFFIX, ".tmp")):
            files.remove(f"{folder}/{name}")
        else:
            left.append(name)
    return left


def _load_epochs(plan: LoadPlan, repairs: list[Repair]) -> LeaderEpochCache:
    path = f"{plan.folder}/{EPOCHS_FILE}"
    try:
        return LeaderEpochCache(plan.files, path)
    except MalformedFile as error:
        plan.files.remove(path)
        repairs.append(Repair(event="epoch_checkpoint_dropped", fields={"reason": str(error)}))
        return LeaderEpochCache(plan.files, path)


def _mend_epochs(segments: list[Segment], epochs: LeaderEpochCache, offsets: range, repairs: list[Repair]) -> None:
    """No checksum covers epochs: each is compared with the batch where it begins, else all batches are read."""
    try:
        if all(_begins_there(segments, entry, offsets) for entry in epochs.entries):
            return
        reason = f"{epochs.entries} is not what the batches have"
        epochs.relearn(_epochs_of_batches(segments))
        epochs.sync()
        repairs.append(Repair(event="epoch_checkpoint_rebuilt", fields={"reason": reason}))
    except DamagedLog:
        return  # a read reports it


def _begins_there(segments: list[Segment], entry: tuple[int, int], offsets: range) -> bool:
    """A compaction may have removed the first batches of an epoch, or all."""
    epoch, start = entry
    first = _header_at(segments, start) if start in offsets else None
    before = _header_at(segments, start - 1) if start - 1 in offsets else None
    return (first is None or first.leader_epoch >= epoch) and (
        before is None or before.base_offset >= start or before.leader_epoch < epoch
    )


def _header_at(segments: list[Segment], offset: int) -> BatchHeader | None:
    """Header of the first batch that ends at or after the offset; None when its segment has none. Raises DamagedLog."""
    segment = segments[bisect_right(segments, offset, key=lambda each: each.base_offset) - 1]
    found = segment.find(offset)
    return None if found is None else found.header


def _epochs_of_batches(segments: list[Segment]) -> Iterator[tuple[int, int]]:
    """Leader epoch and base offset of every batch. Raises DamagedLog when epochs do not ascend: no CRC covers them."""
    latest = 0
    for segment in segments:
        for position, header in headers_from(segment.log, 0):
            if header.leader_epoch < latest:
                raise DamagedLog(
                    f"{segment.log.path}: the leader epoch of the batch at position {position} is too small"
                )
            latest = header.leader_epoch
            yield latest, header.base_offset


def _load_segment(
    plan: LoadPlan,
    segment: Segment,
    next_base: int | None,
    epochs: LeaderEpochCache,
    repairs: list[Repair],
    *,
    has_indexes: bool,
) -> tuple[int, bool]:
    """The offset after the segment, and whether it had to be cut."""
    if segment.is_empty and next_base is None:
        return segment.base_offset, False
    is_flushed = next_base is not None and next_base <= plan.recovery_point
    segment.on_index_rebuilt = lambda segment, reason: repairs.append(_index_note(segment, reason))
    if plan.is_clean or is_flushed:
        trusted_end = _trusted_end(plan, segment, next_base, has_indexes=has_indexes, repairs=repairs)
        if trusted_end is not None:
            return trusted_end, False
    end_offset, problem = scan(plan.files, segment, epochs, next_base)
    if problem is not None:
        repairs.append(_cut_note(segment, end_offset, problem))
        segment.cut_at(problem.position)
        segment.truncate_indexes(end_offset)
        segment.reload()
        segment.sync()  # before anything is written in place of the removed batches
    return end_offset, problem is not None


def _open(plan: LoadPlan, base: int, *, create: bool = False, has_transactions: bool = False) -> Segment:
    return Segment.open(
        plan.files,
        plan.folder,
        base,
        index_bytes_max=plan.settings.segment_index_bytes,
        index_interval_bytes=plan.settings.index_interval_bytes,
        created_ms=plan.now_ms,
        create=create,
        has_transactions=has_transactions,
    )


def _trusted_end(
    plan: LoadPlan, segment: Segment, next_base: int | None, *, has_indexes: bool, repairs: list[Repair]
) -> int | None:
    """The offset after a segment that needs no scan; None when its files do not fit each other after all."""
    is_closed = next_base is not None
    try:
        _mend_indexes(segment, has_indexes=has_indexes)
        segment.reset_marks()
        if is_closed and plan.is_clean:
            return next_base
        end_offset = segment.reload()
        if next_base not in (None, end_offset):
            raise DamagedLog(f"{segment.log.path}: it ends at {end_offset}, the next begins at {next_base}")
        return end_offset
    except DamagedLog as error:
        if is_closed and plan.is_clean:
            return next_base  # nothing was lost, something has changed: a read reports it, and cuts nothing
        repairs.append(_index_note(segment, str(error)))
        return None


def _mend_indexes(segment: Segment, *, has_indexes: bool) -> None:
    """Repair the indexes. Raises DamagedLog when the log is not readable."""
    try:
        if not has_indexes and segment.size:
            raise CorruptIndex(f"{segment.log.path}: an index file is missing")
        segment.check_indexes()
    except CorruptIndex as error:
        segment.rebuild_indexes(str(error))


def _index_note(segment: Segment, reason: str) -> Repair:
    return Repair(event="index_rebuilt", fields={"base_offset": segment.base_offset, "reason": reason})


def _cut_note(segment: Segment, end_offset: int, problem: Problem) -> Repair:
    fields: dict[str, object] = {
        "segment": segment.base_offset,
        "first_offset_dropped": end_offset,
        "bytes_dropped": problem.bytes_dropped,
        "reason": problem.reason,
    }
    return Repair(event="segment_repaired", fields=fields)


def _drop_later(plan: LoadPlan, bases: list[int], end_offset: int, repairs: list[Repair]) -> None:
    """Remove everything after a cut, because a hole lies before it, as in Kafka."""
    for base in bases:
        size = plan.files.size(segment_file(plan.folder, base, ".log"))
        for suffix in SEGMENT_SUFFIXES:
            if plan.files.exists(segment_file(plan.folder, base, suffix)):
                plan.files.remove(segment_file(plan.folder, base, suffix))
        fields: dict[str, object] = {"segment": base, "bytes_dropped": size, "log_end_offset": end_offset}
        repairs.append(Repair(event="segment_dropped", fields=fields))


def _start_over(plan: LoadPlan, segments: list[Segment], end_offset: int, repairs: list[Repair]) -> list[Segment]:
    """The checkpointed log start lies behind the log's end: no remaining record may be shown."""
    for segment in segments:
        segment.close()
        for path in segment.paths():
            plan.files.remove(path)
    fields: dict[str, object] = {"log_start_offset": plan.log_start_offset, "log_end_offset": end_offset}
    repairs.append(Repair(event="log_restarted_at_start_offset", fields=fields))
    return [_open(plan, plan.log_start_offset, create=True)]
