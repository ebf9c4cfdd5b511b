"""What a transaction coordinator decides: which transaction comes after which event, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kraft.coordinators.transactions.decide import (
    AddPartitions,
    Decision,
    EndTransaction,
    Event,
    InitProducer,
    MarkersWritten,
    TimeIsOver,
    VerifyPartitions,
    decide,
)
from kraft.coordinators.transactions.state import LAST_CLIENT_EPOCH, Phase, Transaction
from kraft.protocol.errors import KafkaError
from kraft.protocol.transactions import Producer

NOW_MS = 1_700_000_000_000
ID = "transfers"
P = frozenset({("t", 0), ("t", 1)})
ANY = Transaction(
    transactional_id=ID, producer_id=7, previous_producer_id=7, epoch=5, timeout_ms=60_000, updated_ms=NOW_MS - 10
)
EXHAUSTED = LAST_CLIENT_EPOCH


def at(phase: Phase, **changes: object) -> Transaction:
    is_open = phase is Phase.ONGOING or phase.is_preparing
    found = replace(
        ANY, phase=phase, partitions=P if is_open else frozenset(), started_ms=NOW_MS - 5 if is_open else -1
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def play(known: Transaction | None, event: Event) -> Decision:
    return decide(ID, known, event, now_ms=NOW_MS)


def refused(known: Transaction | None, event: Event) -> int:
    with pytest.raises(KafkaError) as raised:
        play(known, event)
    return raised.value.code


def init(
    expected: tuple[int, int] | None = None, *, timeout_ms: int = 30_000, new: int | None = None, key: bytes = b""
) -> InitProducer:
    return InitProducer(
        timeout_ms=timeout_ms,
        timeout_ms_max=900_000,
        expected=None if expected is None else Producer(*expected),
        key=key,
        new_producer_id=new,
    )


def end(epoch: int, *, commits: bool, producer_id: int = 7, version: int = 2, new: int | None = None) -> EndTransaction:
    producer = Producer(producer_id, epoch)
    return EndTransaction(producer=producer, is_commit=commits, client_version=version, new_producer_id=new)


# --- InitProducerId -------------------------------------------------------------------------------------------


def test_a_new_id_is_given_a_producer_at_epoch_0() -> None:
    assert play(None, init()).needs_producer_id
    decision = play(None, init(new=9))
    assert decision.reply == Producer(9, 0)
    assert decision.transaction is not None
    assert (decision.transaction.phase, decision.transaction.timeout_ms) == (Phase.EMPTY, 30_000)
    assert play(None, init((3, 4), new=9)).reply == Producer(9, 0), "who was forgotten begins anew"


@pytest.mark.parametrize("timeout_ms", [0, -1, 900_001])
def test_a_timeout_that_is_none_or_too_long_is_refused(timeout_ms: int) -> None:
    assert refused(None, init(timeout_ms=timeout_ms)) == 50


@pytest.mark.parametrize("phase", [Phase.EMPTY, Phase.COMPLETE_COMMIT, Phase.COMPLETE_ABORT])
def test_each_new_instance_raises_the_epoch(phase: Phase) -> None:
    decision = play(at(phase), init())
    assert decision.reply == Producer(7, 6)
    assert decision.transaction == replace(
        at(phase), epoch=6, last_epoch=-1, timeout_ms=30_000, phase=Phase.EMPTY, updated_ms=NOW_MS
    )


def test_who_names_its_epoch_is_raised_once_however_often_it_asks() -> None:
    first = play(at(Phase.EMPTY), init((7, 5)))
    assert first.reply == Producer(7, 6)
    assert first.transaction is not None
    assert play(first.transaction, init((7, 5))).reply == Producer(7, 6), "the answer was lost"
    assert refused(first.transaction, init((7, 4))) == 90
    assert refused(first.transaction, init((8, 5))) == 90
    another = play(first.transaction, init()).transaction
    assert another is not None
    assert refused(another, init((7, 5))) == 90, "another instance has come since"


@pytest.mark.parametrize("phase", [Phase.PREPARE_COMMIT, Phase.PREPARE_ABORT])
def test_who_comes_while_markers_are_written_tries_again(phase: Phase) -> None:
    assert refused(at(phase), init()) == 51


def test_next_instance_aborts_open_transaction() -> None:
    decision = play(at(Phase.ONGOING), init())
    assert isinstance(decision.reply, KafkaError)
    assert decision.reply.code == 51
    fenced = decision.transaction
    assert fenced is not None
    assert (fenced.phase, fenced.epoch, fenced.partitions) == (Phase.PREPARE_ABORT, 6, P)
    complete = play(fenced, MarkersWritten()).transaction
    assert complete is not None
    assert (complete.phase, complete.epoch) == (Phase.COMPLETE_ABORT, 6)
    assert play(complete, init()).reply == Producer(7, 7)


@pytest.mark.parametrize("event", [init(), TimeIsOver()])
def test_timeout_abort_at_last_epoch_rotates_producer_id(
    event: InitProducer | TimeIsOver,
) -> None:
    known = at(Phase.ONGOING, epoch=EXHAUSTED, started_ms=NOW_MS - 60_000)
    assert play(known, event).needs_producer_id
    fenced = play(known, event.with_producer_id(9)).transaction
    assert fenced is not None
    assert (fenced.phase, fenced.producer_id, fenced.epoch) == (Phase.PREPARE_ABORT, 7, EXHAUSTED + 1)
    complete = play(fenced, MarkersWritten()).transaction
    assert complete is not None
    assert (complete.phase, complete.producer_id, complete.epoch) == (Phase.COMPLETE_ABORT, 9, 0)
    assert play(complete, init()).reply == Producer(9, 1)
    assert refused(complete, add(EXHAUSTED)) == 49


def test_exhausted_epochs_rotate_producer_id() -> None:
    known = at(Phase.COMPLETE_COMMIT, epoch=EXHAUSTED)
    assert play(known, init((7, EXHAUSTED))).needs_producer_id
    rotated = play(known, init((7, EXHAUSTED), new=9)).transaction
    assert rotated is not None
    assert (rotated.producer_id, rotated.previous_producer_id, rotated.epoch) == (9, 7, 0)
    assert play(rotated, init((7, EXHAUSTED), new=10)).reply == Producer(9, 0)
    assert refused(rotated, init((7, EXHAUSTED - 1), new=10)) == 90


def after(known: Transaction | None, event: Event) -> Transaction:
    changed = play(known, event).transaction
    assert changed is not None
    return changed


@pytest.mark.parametrize("before", [None, at(Phase.EMPTY), at(Phase.COMPLETE_ABORT, epoch=EXHAUSTED)])
def test_repeated_begin_has_first_answer(before: Transaction | None) -> None:
    first = play(before, init(key=b"one", new=9))
    begun = first.transaction
    assert isinstance(first.reply, Producer)
    assert begun is not None
    opened = after(begun, add(first.reply.epoch, first.reply.producer_id))
    ended = after(opened, end(first.reply.epoch, producer_id=first.reply.producer_id, commits=True))
    complete = after(ended, MarkersWritten())
    next_one = after(complete, add(complete.epoch, complete.producer_id))
    timed_out = after(replace(next_one, started_ms=0), TimeIsOver())
    for known in (begun, opened, ended, complete, next_one, timed_out):
        again = play(known, init(key=b"one"))
        assert again.reply == first.reply, known.phase
        assert again.transaction is known, known.phase
        assert refused(known, init(key=b"one", timeout_ms=30_001)) == 42, "another request has another key"


def test_another_key_or_none_takes_the_id_over() -> None:
    begun = after(at(Phase.EMPTY), init(key=b"one"))
    another = play(begun, init(key=b"two"))
    assert another.reply == Producer(7, 7)
    assert another.transaction is not None
    assert play(another.transaction, init(key=b"two")).reply == Producer(7, 7)
    assert play(another.transaction, init(key=b"one")).reply == Producer(7, 8), "the last one is known, no more"
    without = after(begun, init())
    assert without.epoch == 7
    assert play(without, init()).reply == Producer(7, 8)
    assert play(without, init(key=b"one")).reply == Producer(7, 8)
    opened = after(begun, add(begun.epoch))
    fenced = play(opened, init(key=b"two"))
    assert isinstance(fenced.reply, KafkaError)
    assert fenced.transaction is not None
    assert play(fenced.transaction, init(key=b"one")).reply == Producer(7, 6), "and learns by its next request of it"


# --- partitions -----------------------------------------------------------------------------------------------


def add(epoch: int = 5, producer_id: int = 7, *, partitions: frozenset[tuple[str, int]] = P) -> AddPartitions:
    return AddPartitions(producer=Producer(producer_id, epoch), partitions=partitions, client_version=2)


@pytest.mark.parametrize("phase", [Phase.EMPTY, Phase.COMPLETE_COMMIT, Phase.COMPLETE_ABORT])
def test_the_first_partition_begins_a_transaction(phase: Phase) -> None:
    decision = play(at(phase), add())
    assert decision.reply == dict.fromkeys(P)
    begun = decision.transaction
    assert begun is not None
    assert (begun.phase, begun.partitions, begun.started_ms) == (Phase.ONGOING, P, NOW_MS)


def test_more_partitions_come_to_it_and_known_ones_change_nothing() -> None:
    known = at(Phase.ONGOING)
    assert play(known, add()).transaction is known
    more = play(known, add(partitions=frozenset({("u", 0)}))).transaction
    assert more is not None
    assert (more.partitions, more.started_ms) == (P | {("u", 0)}, known.started_ms)


@pytest.mark.parametrize("is_verifying", [False, True])
def test_whose_partitions_are_refused(is_verifying: bool) -> None:
    def event(epoch: int = 5, producer_id: int = 7) -> Event:
        if is_verifying:
            return VerifyPartitions(producer=Producer(producer_id, epoch), partitions=P)
        return add(epoch, producer_id)

    assert refused(None, event()) == 49
    assert refused(at(Phase.ONGOING), event(producer_id=8)) == 49
    assert refused(at(Phase.ONGOING), event(4)) == 90
    assert refused(at(Phase.ONGOING), event(6)) == 90
    assert refused(at(Phase.PREPARE_COMMIT), event()) == 51
    assert refused(at(Phase.PREPARE_ABORT), event(4)) == (90 if is_verifying else 51)


def test_a_partition_is_verified_only_inside_of_a_transaction() -> None:
    asked = P | {("u", 0)}
    event = VerifyPartitions(producer=Producer(7, 5), partitions=asked)
    reply = play(at(Phase.ONGOING), event).reply
    assert isinstance(reply, dict)
    assert {each: error and error.code for each, error in reply.items()} == {**dict.fromkeys(P), ("u", 0): 120}
    reply = play(at(Phase.EMPTY), event).reply
    assert isinstance(reply, dict)
    assert {error.code for error in reply.values() if error} == {120}


# --- EndTxn ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "epoch"), [(2, 4), (1, 5)])
@pytest.mark.parametrize("commits", [False, True])
def test_an_end_that_is_repeated_has_the_same_answer_and_changes_nothing(
    version: int, epoch: int, commits: bool
) -> None:
    """What else an end is answered stands in test_transaction_table."""
    known = at(Phase.COMPLETE_COMMIT if commits else Phase.COMPLETE_ABORT)
    decision = play(known, end(epoch, commits=commits, version=version))
    assert decision == Decision(known, Producer(7, 5))
    assert decision.transaction is known


def test_an_end_of_another_producer_or_of_nothing_is_refused() -> None:
    for version in (1, 2):
        assert refused(None, end(5, commits=True, version=version)) == 49
        assert refused(at(Phase.ONGOING), end(5, commits=True, producer_id=8, version=version)) == 49


def test_end_at_last_epoch_rotates_producer_id() -> None:
    known = at(Phase.ONGOING, epoch=EXHAUSTED)
    assert play(known, end(EXHAUSTED, commits=True)).needs_producer_id
    decision = play(known, end(EXHAUSTED, commits=True, new=9))
    assert decision.reply == Producer(9, 0)
    prepared = decision.transaction
    assert prepared is not None
    assert (prepared.producer_id, prepared.epoch, prepared.next_producer_id) == (7, EXHAUSTED + 1, 9)
    complete = play(prepared, MarkersWritten()).transaction
    assert complete is not None
    assert (complete.producer_id, complete.epoch, complete.previous_producer_id) == (9, 0, 7)
    assert play(complete, end(EXHAUSTED, commits=True)).reply == Producer(9, 0)


# --- time -----------------------------------------------------------------------------------------------------


def test_transaction_timeout_aborts() -> None:
    known = at(Phase.ONGOING, started_ms=NOW_MS - 60_000)
    assert play(replace(known, started_ms=NOW_MS - 59_999), TimeIsOver()).transaction.phase is Phase.ONGOING  # type: ignore[union-attr]
    over = play(known, TimeIsOver()).transaction
    assert over is not None
    assert (over.phase, over.epoch) == (Phase.PREPARE_ABORT, 6)
    complete = play(over, MarkersWritten()).transaction
    assert complete is not None
    assert refused(complete, add(5)) == 90, "a zombie adds nothing"
    assert refused(complete, end(5, commits=True)) == 48, "and commits nothing"
    assert play(complete, init((7, 5))).reply == Producer(7, 6)


@pytest.mark.parametrize("phase", [each for each in Phase if each not in (Phase.ONGOING, Phase.DEAD)])
def test_time_changes_nothing_without_an_open_transaction(phase: Phase) -> None:
    known = at(phase, started_ms=0)
    assert play(known, TimeIsOver()).transaction is known
