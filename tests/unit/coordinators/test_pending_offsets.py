"""Offsets that are committed in transactions: what a group has is a function of its log, however the log came about.

The model reads the log from its start and says what counts by one sentence: of the commits of a partition that stand
behind its last tombstone, the last one that was made outside of a transaction or in one that has been committed since.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from kraft.coordinators.groups.classic_group import ClassicGroup
from kraft.coordinators.groups.group_metadata import GroupMetadata
from kraft.coordinators.groups.pending_offsets import PendingOffsets
from kraft.coordinators.groups.records import (
    CommittedOffset,
    Entry,
    GroupRecord,
    OffsetKey,
    TransactionalRecord,
    TransactionEnded,
)
from kraft.protocol.primitives import TopicPartition

KEYS = [("t", 0), ("t", 1), ("u", 0)]
PRODUCERS = [1, 2, 3, 4]
SEEDS = range(60)


def record(key: TopicPartition, offset: int | None) -> GroupRecord:
    return GroupRecord(OffsetKey("g", *key), None if offset is None else CommittedOffset(offset=offset))


@dataclass
class Known:
    """What a reader is told."""

    committed: dict[TopicPartition, int] = field(default_factory=dict)
    unstable: set[TopicPartition] = field(default_factory=set)


# --- the model ------------------------------------------------------------------------------------------------------


def modelled(log: Sequence[Entry]) -> Known:
    known = Known()
    for key in KEYS:
        deleted = max((at for at, each in enumerate(log) if each == record(key, None)), default=-1)
        for at in range(deleted + 1, len(log)):
            each = log[at]
            if isinstance(each, GroupRecord) and _key(each) == key:
                assert isinstance(each.value, CommittedOffset)
                known.committed[key] = each.value.offset
            elif isinstance(each, TransactionalRecord) and _key(each.record) == key:
                outcome = _outcome(log, at, each.producer_id)
                if outcome is None:
                    known.unstable.add(key)
                elif outcome:
                    assert isinstance(each.record.value, CommittedOffset)
                    known.committed[key] = each.record.value.offset
    return known


def _key(each: GroupRecord) -> TopicPartition:
    assert isinstance(each.key, OffsetKey)
    return each.key.topic, each.key.partition


def _outcome(log: Sequence[Entry], at: int, producer_id: int) -> bool | None:
    ends = (each for each in log[at:] if isinstance(each, TransactionEnded) and each.producer_id == producer_id)
    return next((each.is_commit for each in ends), None)


# --- what the coordinator does --------------------------------------------------------------------------------------


def replayed(log: Sequence[Entry], *, is_replay: bool = True) -> GroupMetadata:
    group = GroupMetadata(group=ClassicGroup(group_id="g"))
    for each in log:
        apply(group, each, is_replay=is_replay)
    return group


def apply(group: GroupMetadata, each: Entry, *, is_replay: bool) -> None:
    match each:
        case GroupRecord():
            group.apply(each, now_ms=0, is_replay=is_replay)
        case TransactionalRecord(producer_id, written):
            group.apply_in_transaction(producer_id, written, now_ms=0, is_replay=is_replay)
        case TransactionEnded(producer_id, is_commit):
            group.end_transaction(producer_id, is_commit=is_commit)


def reported(group: GroupMetadata) -> Known:
    rows = group.offset_rows(tuple(KEYS), requires_stable=True)
    assert all(row.offset == -1 for row in rows if row.is_unstable)
    unstable = {(row.topic, row.partition) for row in rows if row.is_unstable}
    return Known({key: each.offset for key, each in group.offsets.items()}, unstable)


# --- random histories -----------------------------------------------------------------------------------------------


def history(rng: random.Random, length: int = 60) -> list[Entry]:
    log: list[Entry] = []
    for number in range(length):
        key, producer_id = rng.choice(KEYS), rng.choice(PRODUCERS)
        choice = rng.random()
        if choice < 0.45:
            log.append(TransactionalRecord(producer_id, record(key, number)))
        elif choice < 0.65:
            log.append(record(key, number))
        elif choice < 0.72:
            log.append(record(key, None))
        else:
            log.append(TransactionEnded(producer_id, rng.random() < 0.6))
    return log


def compacted(log: Sequence[Entry], rng: random.Random) -> list[Entry]:
    """As the cleaner leaves it: below the first open transaction, of each key the last record that counts, nothing of
    aborted transactions, and a marker as long as it likes once its records are gone."""
    open_since = [
        at
        for at, each in enumerate(log)
        if isinstance(each, TransactionalRecord) and _outcome(log, at, each.producer_id) is None
    ]
    bound = min(open_since, default=len(log))
    last: dict[TopicPartition, int] = {}
    for at, each in enumerate(log[:bound]):
        if isinstance(each, GroupRecord):
            last[_key(each)] = at
        elif isinstance(each, TransactionalRecord) and _outcome(log, at, each.producer_id):
            last[_key(each.record)] = at
    kept = set(last.values())
    left: list[Entry] = []
    for at, each in enumerate(log):
        if at < bound and isinstance(each, TransactionEnded):
            begun = [
                before
                for before in range(at)
                if isinstance(one := log[before], TransactionalRecord)
                and one.producer_id == each.producer_id
                and not any(
                    isinstance(between, TransactionEnded) and between.producer_id == each.producer_id
                    for between in log[before:at]
                )
            ]
            if not kept & set(begun) and rng.random() < 0.5:
                continue
        elif at < bound and at not in kept:
            continue
        left.append(each)
    return left


def mismatch(run: Callable[[Sequence[Entry]], Known], seed: int) -> str | None:
    log = history(random.Random(seed))
    for length in range(len(log) + 1):
        expected, found = modelled(log[:length]), run(log[:length])
        if expected != found:
            return f"seed {seed}, after {log[length - 1]}: {found} instead of {expected}"
    return None


@pytest.mark.parametrize("seed", SEEDS)
def test_what_a_group_has_is_what_the_log_holds_after_each_of_its_entries(seed: int) -> None:
    assert mismatch(lambda log: reported(replayed(log)), seed) is None
    live = GroupMetadata(group=ClassicGroup(group_id="g"))
    log = history(random.Random(seed))
    for at, each in enumerate(log):
        apply(live, each, is_replay=False)
        assert reported(live) == reported(replayed(log[: at + 1])), (seed, at)
    for producer_id in PRODUCERS:
        live.end_transaction(producer_id, is_commit=False)
    assert not live.pending
    assert not live.pending._by_producer, "nothing is left behind"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_compaction_changes_nothing(seed: int) -> None:
    """Only because commits are ordered by their own records: a marker that comes late would bring back what the
    compaction has taken away."""
    rng = random.Random(seed)
    log = history(rng)
    once = compacted(log, rng)
    assert reported(replayed(once)) == reported(replayed(log)), seed
    more = [*once, *history(rng, 20)]
    assert reported(replayed(more)) == modelled([*log, *more[len(once) :]]), seed


# --- faults that these tests find -----------------------------------------------------------------------------------


class AbortCommits(PendingOffsets):
    """Offsets committed by an aborted transaction."""

    def end(self, producer_id: int, *, is_commit: bool) -> dict[TopicPartition, CommittedOffset]:
        return super().end(producer_id, is_commit=True)


class MarkerOrders(PendingOffsets):
    """The last marker wins, whatever was committed meanwhile."""

    def overtake(self, partition: TopicPartition) -> None:
        pass


class TombstoneSpares(PendingOffsets):
    """What was deleted comes back with the marker."""

    def remove(self, partition: TopicPartition) -> None:
        pass


class OldestWins(PendingOffsets):
    """A producer that commits again is placed where it was before."""

    def put(self, producer_id: int, partition: TopicPartition, offset: CommittedOffset) -> None:
        rows = self._of.setdefault(partition, {})
        rows[producer_id] = offset
        self._by_producer.setdefault(producer_id, {})[partition] = None


class OvertakenIsStable(PendingOffsets):
    """A plain commit settles what a transaction has pending."""

    def overtake(self, partition: TopicPartition) -> None:
        self.remove(partition)


@pytest.mark.parametrize("fault", [AbortCommits, MarkerOrders, TombstoneSpares, OldestWins, OvertakenIsStable])
def test_a_planted_fault_is_found(fault: type[PendingOffsets]) -> None:
    def run(log: Sequence[Entry]) -> Known:
        group = GroupMetadata(group=ClassicGroup(group_id="g"), pending=fault())
        for each in log:
            apply(group, each, is_replay=True)
        return reported(group)

    assert any(mismatch(run, seed) is not None for seed in SEEDS), fault.__doc__


def test_pending_offsets_do_not_expire() -> None:
    group = replayed([record(("t", 0), 5), record(("t", 1), 6), TransactionalRecord(1, record(("t", 0), 7))])
    stable: Mapping[TopicPartition, CommittedOffset] = group.stable_offsets
    assert set(stable) == {("t", 1)}
    only_pending = replayed([TransactionalRecord(1, record(("t", 0), 7))])
    assert only_pending.exists
    assert only_pending.partitions_with_offsets == [("t", 0)]
    apply(only_pending, record(("t", 0), None), is_replay=False)
    assert not only_pending.exists
    apply(only_pending, TransactionEnded(1, is_commit=True), is_replay=False)
    assert only_pending.offsets == {}
