"""The checker can fail: each anomaly planted in a run is found, and it alone; a clean run shows none."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import msgspec
import pytest

from kraft.chaos.checkers.verdict import Kind, Verdict
from kraft.chaos.evidence import GroupOffset, VoterMetadata
from kraft.chaos.history import Produce
from metadata.image import MetadataImage
from metadata.records import PartitionRecord, Record, TopicRecord
from tests.unit.chaos.recorded_run import (
    TOPIC,
    Run,
    clean_run,
    dead_letters,
    delayed,
    poison,
    take_and_accept,
    values,
)

TOPIC_ID = UUID(int=1, version=4)
OTHER_ID = UUID(int=2, version=4)


def voter(node: int, *facts: Record, first_offset: int = 0) -> VoterMetadata:
    image = MetadataImage().apply(facts)
    return VoterMetadata(node=node, image=image, records=tuple(enumerate(facts, first_offset)))


def topic_facts(*, leader: int = 1, epoch: int = 0, topic_id: UUID = TOPIC_ID) -> tuple[Record, Record]:
    partition = PartitionRecord(
        topic_id=topic_id, partition=0, replicas=(1, 2, 3), isr=(1, 2, 3), leader=leader, leader_epoch=epoch
    )
    return TopicRecord(name=TOPIC, topic_id=topic_id), partition


def offset_two_values(run: Run) -> None:
    run.read(4, ["p:4", "p:3"], at_s=4, process="r2")


def read_back_has_another_value(run: Run) -> None:
    run.sent("p:10", at_s=4, outcome="info")
    run.read(10, ["p:10"], at_s=4.1)
    run.sent("p:11", at_s=4.2, outcome="info")
    run.readback.clear()
    run.ends_with(*values(0, 10), "p:11")
    run.replicas.clear()


def read_vanished(run: Run) -> None:
    run.sent("p:10", at_s=4, outcome="info", kafka_code=7)
    run.read(10, ["p:10"], at_s=4.1, high_watermark=10)


def high_watermark_back(run: Run) -> None:
    run.sample(2, 1, 9, at_s=3.9)


def two_leaders_by_their_own_word(run: Run) -> None:
    run.event("became_leader", at_s=2.5, node=3, leader_epoch=1, epoch_start_offset=6)


def two_leaders_by_samples(run: Run) -> None:
    run.sample(3, 1, 10, at_s=3.7)


def two_leaders_elected(run: Run) -> None:
    run.event("leader_elected", at_s=2.5, node=3, leader=3, leader_epoch=1, isr=[3], reason="broker fenced")


def two_controllers(run: Run) -> None:
    for node in (1, 2):
        run.event("controller_changed", at_s=1, node=node, controller=node, epoch=4, term=4)


def two_leaders_of_the_quorum(run: Run) -> None:
    for node in (1, 2):
        run.event("quorum_leadership", at_s=1, node=node, leader=node, term=4)


def vote_is_not_on_the_disk(run: Run) -> None:
    run.voters = [dataclasses.replace(voter(node, *topic_facts()), term=3 if node == 2 else 4) for node in (1, 2, 3)]
    for node in (1, 2, 3):
        run.event("quorum_leadership", at_s=1, node=node, leader=1, term=4)
        run.event("quorum_leadership", at_s=1.1, node=node, leader=-1, term=4)


def replica_has_another_value(run: Run) -> None:
    run.replicas.pop()
    run.copy(3, *values(0, 4), "p:5", *values(5, 5))


def replica_has_a_hole(run: Run) -> None:
    run.replicas.pop()
    run.copy(3, *values(0, 4), None, *values(5, 5))


def replica_in_the_isr_is_behind(run: Run) -> None:
    run.replicas.pop()
    run.copy(3, *values(0, 8))


def replica_has_another_epoch(run: Run) -> None:
    run.replicas.pop()
    run.copy(3, *values(0, 10), epoch=1)


def isr_without_its_leader(run: Run) -> None:
    run.event("isr_changed", at_s=3, old_isr=[2, 3], isr=[1, 3], leader=2, leader_epoch=1)


def isr_without_its_leader_by_samples(run: Run) -> None:
    run.sample(2, 1, 10, at_s=3.9, isr=(1, 3))


def elected_outside_of_the_isr(run: Run) -> None:
    run.event("leader_elected", at_s=3, leader=3, leader_epoch=2, isr=[1, 2], reason="preferred leader election")


def metadata_differs_at_an_offset(run: Run) -> None:
    run.voters = [voter(1, *topic_facts()), voter(2, *topic_facts(leader=2))]


def metadata_images_differ(run: Run) -> None:
    run.voters = [voter(1, *topic_facts())]
    run.voters.append(VoterMetadata(node=2, image=MetadataImage().apply(topic_facts(leader=3))))


def created_topic_is_gone(run: Run) -> None:
    run.voters = [voter(1, *topic_facts())]
    run.event("topic_created", at_s=0.1, topic="u", topic_id=str(OTHER_ID))


def committed_election_is_gone(run: Run) -> None:
    run.voters = [voter(1, *topic_facts(epoch=1, leader=2))]
    run.event(
        "leader_elected", at_s=4, topic_id=str(TOPIC_ID), leader=3, leader_epoch=2, isr=[3], reason="broker fenced"
    )


def process_rereads_and_misses(run: Run) -> None:
    run.read(4, ["p:4", None, "p:6"], at_s=4)


def process_reads_backwards(run: Run) -> None:
    run.read(9, ["p:9"], at_s=4)
    last = run.operations[-1]
    run.operations[-1] = type(last)(
        **{name: getattr(last, name) for name in last.__struct_fields__}
        | {"offset": 8, "records": ((9, "p:9"), (8, "p:8")), "next_offset": 10}
    )


def process_receives_that_its_place_is_gone(run: Run) -> None:
    run.read(10, [], at_s=4, outcome="fail", kafka_code=1)


def value_that_nobody_sent(run: Run) -> None:
    run.readback.clear()
    run.ends_with(*values(0, 10), "x:77")
    run.replicas.clear()


def acknowledged_at_another_offset(run: Run) -> None:
    run.sent("p:10", at_s=4, offset=11)
    run.readback.clear()
    run.replicas.clear()
    run.ends_with(*values(0, 10), "p:10")


def in_another_partition(run: Run) -> None:
    run.sent("q:0", at_s=4, process="q", partition=1, outcome="info")
    run.readback.clear()
    run.replicas.clear()
    run.ends_with(*values(0, 10), "q:0")


def could_not_be_read_back(run: Run) -> None:
    run.readback.clear()
    run.ends_with(*values(0, 9), error="connection refused")
    run.replicas.clear()


def commit_is_gone_at_the_end(run: Run) -> None:
    run.read(0, values(0, 10), at_s=4, process="m1", group="g")
    run.commits(10, at_s=4.1, process="m1")
    run.committed = [GroupOffset("g", TOPIC, 0, 6)]


def commit_of_an_old_generation(run: Run) -> None:
    run.read(0, values(0, 6), at_s=4, process="m1", group="g", generation=4)
    run.read(6, values(6, 4), at_s=4.2, process="m2", group="g", generation=5)
    run.commits(6, at_s=4.3, process="m1", generation=4)


def transactional(run: Run) -> None:
    """Two transactions behind the ten records: one is committed, the other aborted."""
    run.sent(*values(10, 2), at_s=4, offset=10, node=2, transaction=0)
    run.ends_transaction(0, "commit", at_s=4.1, offset=12)
    run.sent(*values(12, 2), at_s=4.2, offset=13, node=2, transaction=1)
    run.ends_transaction(1, "abort", at_s=4.3, offset=14)
    run.readback.clear()
    run.replicas.clear()
    run.committed = [GroupOffset("g", TOPIC, 0, 12)]


LOG: tuple[str | None, ...] = (*values(0, 12), None, *values(12, 2), None)
SHOWN: tuple[str | None, ...] = (*values(0, 12), None, None, None, None)


def transactions_as_they_should_be(run: Run) -> None:
    transactional(run)
    run.read(8, [*values(8, 4), None, None, None, None], at_s=5, is_read_committed=True)
    run.ends_with(*LOG, committed=SHOWN)


def aborted_record_in_the_end(run: Run) -> None:
    transactional(run)
    run.ends_with(*LOG, committed=LOG)


def aborted_record_for_a_reader(run: Run) -> None:
    transactional(run)
    run.read(13, values(12, 1), at_s=4.25, is_read_committed=True)
    run.ends_with(*LOG, committed=SHOWN)


def record_of_a_fenced_commit(run: Run) -> None:
    transactional(run)
    run.operations[-1] = msgspec.structs.replace(
        run.operations[-1], asked="commit", outcome="fail", kafka_code=90, offsets=()
    )
    run.ends_with(*LOG, committed=LOG)


def record_of_a_client_that_was_killed(run: Run) -> None:
    transactional(run)
    run.operations.pop()
    run.ends_with(*LOG, committed=LOG)


def committed_record_is_hidden(run: Run) -> None:
    transactional(run)
    run.ends_with(*LOG, committed=(*values(0, 11), None, None, None, None, None))


def half_of_a_transaction(run: Run) -> None:
    transactional(run)
    run.operations[-1] = msgspec.structs.replace(run.operations[-1], asked="commit", outcome="info", offsets=())
    run.ends_with(*LOG, committed=(*values(0, 12), None, "p:12", None, None))


def offsets_without_the_records(run: Run) -> None:
    transactional(run)
    run.operations[-1] = msgspec.structs.replace(run.operations[-1], asked="commit", outcome="info")
    run.committed = [GroupOffset("g", TOPIC, 0, 14)]
    run.ends_with(*LOG, committed=SHOWN)


def offsets_of_an_aborted_transaction(run: Run) -> None:
    transactional(run)
    run.committed = [GroupOffset("g", TOPIC, 0, 14)]
    run.ends_with(*LOG, committed=SHOWN)


def offsets_of_a_committed_transaction_are_gone(run: Run) -> None:
    transactional(run)
    run.committed = []
    run.ends_with(*LOG, committed=SHOWN)


def transaction_is_open_for_ever(run: Run) -> None:
    transactional(run)
    run.ends_with(*LOG, committed=SHOWN, last_stable_offset=13)


def queue_takes_two_acceptances(run: Run) -> None:
    take_and_accept(run, 10)
    # on its way while the first acceptance is answered
    again = run.receives(9, values(9, 1), at_s=4.05, took_s=0.2, process="w2")
    run.acknowledges(again, 9, at_s=4.3, process="w2")


def queue_hands_out_an_accepted_record(run: Run) -> None:
    take_and_accept(run, 10)
    run.receives(9, values(9, 1), at_s=5, process="w2")


def queue_forgets_a_record(run: Run) -> None:
    take_and_accept(run, 9)


def queue_hands_out_what_expired(run: Run) -> None:
    take_and_accept(run, 9)
    age = {"resource_type": "group", "resource": "q", "name": "share.record.expiry.ms", "value": "1000"}
    run.event("config_changed", at_s=4.05, **age)
    taken = run.receives(9, values(9, 1), at_s=6, process="w2")
    run.acknowledges(taken, 9, at_s=6.1, process="w2")


def queue_writes_no_dead_letter(run: Run) -> None:
    take_and_accept(run, 9)
    poison(run)
    dead_letters(run)


def delayed_record_comes_twice(run: Run) -> None:
    delayed(run, *values(0, 10), *values(3, 1))


def delayed_record_does_not_come(run: Run) -> None:
    delayed(run, *values(0, 9))


PLANTED: tuple[tuple[Callable[[Run], None], Kind], ...] = (
    (offset_two_values, Kind.OFFSET_TWO_VALUES),
    (read_back_has_another_value, Kind.OFFSET_TWO_VALUES),
    (read_vanished, Kind.READ_VANISHED),
    (high_watermark_back, Kind.HIGH_WATERMARK_BACK),
    (two_leaders_by_their_own_word, Kind.TWO_LEADERS),
    (two_leaders_by_samples, Kind.TWO_LEADERS),
    (two_leaders_elected, Kind.TWO_LEADERS),
    (two_controllers, Kind.TWO_CONTROLLERS),
    (two_leaders_of_the_quorum, Kind.TWO_CONTROLLERS),
    (vote_is_not_on_the_disk, Kind.VOTE_FORGOTTEN),
    (replica_has_another_value, Kind.REPLICAS_DIFFER),
    (replica_has_a_hole, Kind.REPLICAS_DIFFER),
    (replica_in_the_isr_is_behind, Kind.REPLICAS_DIFFER),
    (replica_has_another_epoch, Kind.REPLICAS_DIFFER),
    (isr_without_its_leader, Kind.ISR_WITHOUT_LEADER),
    (isr_without_its_leader_by_samples, Kind.ISR_WITHOUT_LEADER),
    (elected_outside_of_the_isr, Kind.ISR_WITHOUT_LEADER),
    (metadata_differs_at_an_offset, Kind.METADATA_DIFFERS),
    (metadata_images_differ, Kind.METADATA_DIFFERS),
    (created_topic_is_gone, Kind.METADATA_GONE),
    (committed_election_is_gone, Kind.METADATA_GONE),
    (process_rereads_and_misses, Kind.NON_MONOTONIC_READ),
    (process_reads_backwards, Kind.NON_MONOTONIC_READ),
    (process_receives_that_its_place_is_gone, Kind.NON_MONOTONIC_READ),
    (value_that_nobody_sent, Kind.NEVER_SENT),
    (acknowledged_at_another_offset, Kind.WRONG_OFFSET),
    (in_another_partition, Kind.WRONG_OFFSET),
    (could_not_be_read_back, Kind.NOT_READ_BACK),
    (commit_is_gone_at_the_end, Kind.COMMIT_LOST),
    (commit_of_an_old_generation, Kind.COMMIT_OF_OLD_GENERATION),
    (aborted_record_in_the_end, Kind.ABORTED_VISIBLE),
    (aborted_record_for_a_reader, Kind.ABORTED_VISIBLE),
    (record_of_a_fenced_commit, Kind.ABORTED_VISIBLE),
    (record_of_a_client_that_was_killed, Kind.ABORTED_VISIBLE),
    (committed_record_is_hidden, Kind.COMMITTED_MISSING),
    (half_of_a_transaction, Kind.PARTLY_VISIBLE),
    (offsets_without_the_records, Kind.PARTLY_VISIBLE),
    (offsets_of_an_aborted_transaction, Kind.ABORTED_OFFSETS),
    (offsets_of_a_committed_transaction_are_gone, Kind.COMMIT_LOST),
    (transaction_is_open_for_ever, Kind.TRANSACTION_HANGS),
    (queue_takes_two_acceptances, Kind.ACCEPTED_TWICE),
    (queue_hands_out_an_accepted_record, Kind.HANDED_OUT_AFTER_ACCEPTANCE),
    (queue_forgets_a_record, Kind.LOST_BY_QUEUE),
    (queue_hands_out_what_expired, Kind.HANDED_OUT_TOO_OLD),
    (queue_writes_no_dead_letter, Kind.NOT_DEAD_LETTERED),
    (delayed_record_comes_twice, Kind.DELIVERED_TWICE),
    (delayed_record_does_not_come, Kind.NOT_DELIVERED),
)


def shown(verdict: Verdict) -> str:
    return verdict.to_json().decode()


def test_a_clean_run_shows_nothing(tmp_path: Path) -> None:
    run = clean_run()
    run.voters = [voter(node, *topic_facts()) for node in (1, 2, 3)]
    verdict = run.verdict(tmp_path)
    assert verdict.is_clean, shown(verdict)
    assert verdict.counts.kept == 10
    assert (verdict.losses, verdict.duplicates, verdict.reorders, verdict.phantoms) == ((), (), (), ())


def test_what_a_voter_has_not_saved_as_committed_is_in_its_log(tmp_path: Path) -> None:
    """It saves about once a second, and an election may be the last thing of a run."""
    run = clean_run()
    committed_election_is_gone(run)
    (saved,) = run.voters
    run.voters = [dataclasses.replace(saved, log_image=MetadataImage().apply(topic_facts(epoch=2, leader=3)))]
    verdict = run.verdict(tmp_path)
    assert Kind.METADATA_GONE not in {each.kind for each in verdict.anomalies}, shown(verdict)


def test_delayed_records_are_kept_where_they_were_forwarded_to(tmp_path: Path) -> None:
    """Their delay topic has deleted what was forwarded."""
    run = clean_run()
    run.operations = [each for each in run.operations if isinstance(each, Produce)]
    run.readback, run.replicas = [], []
    run.ends_with(*values(8, 2), start=8)
    delayed(run, *values(0, 10))
    verdict = run.verdict(tmp_path)
    assert verdict.is_clean, shown(verdict)
    assert (verdict.counts.kept, verdict.counts.lost) == (10, 0)


def test_transactions_as_they_should_be_show_nothing(tmp_path: Path) -> None:
    run = clean_run()
    transactions_as_they_should_be(run)
    verdict = run.verdict(tmp_path)
    assert verdict.is_clean, shown(verdict)
    counted = verdict.transactions
    assert (counted.committed, counted.aborted, counted.unknown) == (1, 1, 0)


@pytest.mark.parametrize("is_visible", [True, False])
def test_unknown_commit_is_all_or_nothing(tmp_path: Path, is_visible: bool) -> None:
    run = clean_run()
    transactional(run)
    run.operations[-1] = msgspec.structs.replace(run.operations[-1], asked="commit", outcome="fail", attempts=2)
    if is_visible:
        run.committed = [GroupOffset("g", TOPIC, 0, 14)]
    run.ends_with(*LOG, committed=LOG if is_visible else SHOWN)
    verdict = run.verdict(tmp_path)
    assert verdict.is_clean, shown(verdict)
    assert verdict.transactions.unknown == 1


@pytest.mark.parametrize(("plant", "kind"), PLANTED, ids=lambda each: getattr(each, "__name__", None))
def test_a_planted_anomaly_is_found_and_it_alone(tmp_path: Path, plant: Callable[[Run], None], kind: Kind) -> None:
    run = clean_run()
    plant(run)
    verdict = run.verdict(tmp_path)
    assert [anomaly.kind for anomaly in verdict.anomalies] == [kind], shown(verdict)
    (anomaly,) = verdict.anomalies
    assert not anomaly.explained, shown(verdict)
    assert anomaly.text
    assert verdict.unexplained >= 1
    ranges = (*verdict.losses, *verdict.duplicates, *verdict.reorders, *verdict.phantoms)
    assert not ranges, shown(verdict)


def test_every_kind_of_anomaly_has_a_planted_run() -> None:
    assert {kind for _, kind in PLANTED} == set(Kind)


def test_same_anomalies_are_counted(tmp_path: Path) -> None:
    run = clean_run()
    run.replicas.pop()
    run.copy(3, *values(5, 5), *values(0, 5))
    (anomaly,) = run.verdict(tmp_path).anomalies
    assert (anomaly.kind, anomaly.occurrences, anomaly.offset) == (Kind.REPLICAS_DIFFER, 10, 0)


def test_replica_outside_isr_may_differ_above_high_watermark(tmp_path: Path) -> None:
    run = clean_run()
    run.copy(4, *values(0, 6), "p:9", high_watermark=6)
    assert run.verdict(tmp_path).is_clean
    run.copy(5, *values(0, 6), "p:9", high_watermark=7)
    assert run.verdict(tmp_path).kinds() == {Kind.REPLICAS_DIFFER}


def test_an_unclean_election_explains_what_readers_saw(tmp_path: Path) -> None:
    run = Run()
    run.leads(1, 0, at_s=0, start=0)
    run.sent(*values(0, 3), at_s=1, acks="1", offset=0)
    run.read(0, values(0, 3), at_s=1.5)
    run.leads(2, 1, at_s=2, start=1, reason="unclean leader election")
    run.sent("p:3", at_s=3, offset=1, node=2)
    run.ends_with("p:0", "p:3")
    verdict = run.verdict(tmp_path)
    assert verdict.kinds() == {Kind.OFFSET_TWO_VALUES, Kind.READ_VANISHED}
    assert all(anomaly.explained for anomaly in verdict.anomalies)
    assert not verdict.unexplained
    assert [loss.reason for loss in verdict.losses] == ["unclean election"]


def test_recreated_topic_may_have_other_values(tmp_path: Path) -> None:
    run = Run()
    run.event("topic_created", at_s=0, topic_id=str(TOPIC_ID))
    run.event("became_leader", at_s=0.1, topic_id=str(TOPIC_ID), leader_epoch=0, epoch_start_offset=0)
    run.sent(*values(0, 3), at_s=1, offset=0)
    run.read(0, values(0, 3), at_s=1.5)
    run.event("topic_deleted", at_s=2, topic_id=str(TOPIC_ID))
    run.event("topic_created", at_s=3, topic_id=str(OTHER_ID))
    run.event("became_leader", at_s=3.1, node=2, topic_id=str(OTHER_ID), leader_epoch=0, epoch_start_offset=0)
    run.sent(*values(3, 2), at_s=4, offset=0, node=2)
    run.read(0, values(3, 2), at_s=4.5, process="r2")
    run.ends_with(*values(3, 2))
    verdict = run.verdict(tmp_path)
    assert not verdict.anomalies, shown(verdict)
    assert (verdict.counts.kept, verdict.counts.lost, verdict.unexplained) == (2, 3, 0)
    assert verdict.losses[0].reason == "topic deleted"


def test_deposed_leader_returns_no_out_of_range(tmp_path: Path) -> None:
    """It has to ask the quorum before it says so (KIP-320 is for readers that send a leader epoch)."""
    run = clean_run()
    run.events = [event for event in run.events if event.event != "became_follower"]
    run.follows(1, 2, 1, at_s=4.5)
    run.read(10, [], at_s=4, outcome="info", kafka_code=1, node=1)
    assert run.verdict(tmp_path).kinds() == {Kind.NON_MONOTONIC_READ}


def test_election_without_event_has_isr(tmp_path: Path) -> None:
    """Its controller had a full disk and wrote no events, or resigned before the election was committed."""
    run = clean_run()
    run.event("isr_changed", at_s=3.9, old_isr=[3], isr=[1, 3], leader=3, leader_epoch=2, node=3)
    assert run.verdict(tmp_path).is_clean
    run.event("isr_changed", at_s=3.9, old_isr=[1, 3], isr=[1], leader=3, leader_epoch=2, node=3)
    assert run.verdict(tmp_path).kinds() == {Kind.ISR_WITHOUT_LEADER}


def test_isr_change_reveals_second_leader(tmp_path: Path) -> None:
    run = clean_run()
    run.event("isr_changed", at_s=3.9, old_isr=[2, 3], isr=[1, 2, 3], leader=3, leader_epoch=1, node=3)
    assert run.verdict(tmp_path).kinds() == {Kind.TWO_LEADERS}


def test_out_of_range_after_retention_is_allowed(tmp_path: Path) -> None:
    run = clean_run()
    run.event("segments_deleted", at_s=3.9, because="retention.bytes", log_start_offset=12, segments=1)
    process_receives_that_its_place_is_gone(run)
    assert run.verdict(tmp_path).is_clean
