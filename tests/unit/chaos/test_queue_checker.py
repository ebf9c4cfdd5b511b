"""The fate of each record of a queue: each planted fault is found, and what is allowed has its cause."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from kraft.chaos.checkers.expectation import judge
from kraft.chaos.checkers.verdict import Kind, Verdict
from kraft.chaos.history import Produce
from kraft.chaos.live import count_rows, verdict_lines, verdict_rows
from kraft.chaos.model import ANY, Expect
from kraft.chaos.questions import Now
from metadata.internal_topics import SHARE_STATE_TOPIC
from tests.unit.chaos.recorded_run import TOPIC, Run, clean_run, dead_letters, poison, take_and_accept, values

STATE = {"topic": SHARE_STATE_TOPIC, "partition": 0}


def queued(count: int = 9) -> Run:
    """w1 receives and accepts so many of ten records."""
    run = clean_run()
    take_and_accept(run, count)
    return run


def poisoned() -> Run:
    run = queued()
    poison(run)
    return run


def fates(verdict: Verdict) -> dict[str, int]:
    counts = verdict.counts
    names = (
        "handed_out",
        "redelivered",
        "accepted",
        "archived",
        "dead_lettered",
        "expired",
        "too_old",
        "perhaps_accepted",
    )
    return {name: getattr(counts, name) for name in (*names, "perhaps_accepted") if getattr(counts, name)}


def cause(verdict: Verdict) -> tuple[str, str]:
    (again,) = verdict.redeliveries
    return again.reason, again.cause


# --- as it should be ------------------------------------------------------------------------------------------------


def test_all_accepted_once_is_clean(tmp_path: Path) -> None:
    verdict = queued(10).verdict(tmp_path)
    assert verdict.is_clean
    assert fates(verdict) == {"handed_out": 10, "accepted": 10}
    assert verdict.operations.receives == 2


def test_history_without_logs_shows_what_workers_got_answers_for(tmp_path: Path) -> None:
    run = Run()
    run.sent(*values(0, 10), at_s=1, offset=0)
    take_and_accept(run, 8)
    taken = run.receives(8, values(8, 1), at_s=5, process="w1")
    run.acknowledges(taken, 8, at_s=5.1, process="w1", word="reject")
    run.receives(9, values(9, 1), at_s=5.2, process="w1")
    assert fates(run.verdict(tmp_path)) == {"handed_out": 10, "accepted": 8, "archived": 1}


def test_history_without_workers_shows_no_queue(tmp_path: Path) -> None:
    verdict = clean_run().verdict(tmp_path)
    judged = judge(verdict, Expect(), now=Now(lambda question, arguments: 0))
    assert fates(verdict) == {}
    assert not [
        row for row in (*verdict_rows(judged), *count_rows(verdict)) if row["records"] in ("accepted", "expired")
    ]


def test_released_record_is_handed_out_again(tmp_path: Path) -> None:
    run = queued()
    taken = run.receives(9, values(9, 1), at_s=5, process="w1")
    run.acknowledges(taken, 9, at_s=5.1, process="w1", word="release")
    taken = run.receives(9, values(9, 1), at_s=5.2, process="w2", delivery=2)
    run.acknowledges(taken, 9, at_s=5.3, process="w2")
    verdict = run.verdict(tmp_path)
    assert verdict.is_clean
    assert fates(verdict) == {"handed_out": 10, "redelivered": 1, "accepted": 10}
    assert cause(verdict)[0] == "released"
    assert "handed out to w2 after w1, which had released it" in cause(verdict)[1]


@pytest.mark.parametrize(
    ("ack", "words"),
    [
        (None, "which had acknowledged nothing"),
        (("fail", 121), "whose acceptance was refused with INVALID_RECORD_STATE"),
        (("info", None), "whose acceptance got no answer"),
    ],
)
def test_record_comes_again_when_its_lock_has_ended(tmp_path: Path, ack: Any, words: str) -> None:
    run = queued()
    taken = run.receives(9, values(9, 1), at_s=5, process="w1", lock_ms=1_500)
    later = run.receives(9, values(9, 1), at_s=6.5, process="w2", delivery=2)
    if ack is not None:
        run.acknowledges(taken, 9, at_s=6.6, process="w1", outcome=ack[0], kafka_code=ack[1])
    run.acknowledges(later, 9, at_s=6.7, process="w2")
    verdict = run.verdict(tmp_path)
    assert verdict.is_clean
    assert cause(verdict)[0] == "lock ended"
    assert f"handed out to w2 after w1, whose lock of 1500 ms had ended, and {words}" in cause(verdict)[1]


def test_renewed_lock_lasts_longer(tmp_path: Path) -> None:
    for again_s, reason in ((7, ""), (8.5, "lock ended")):
        run = queued()
        taken = run.receives(9, values(9, 1), at_s=5, process="w1", lock_ms=2_000)
        run.acknowledges(taken, 9, at_s=6, process="w1", word="renew")
        run.acknowledges(taken, 9, at_s=6.4, process="w1", word="renew")
        run.acknowledges(taken, 9, at_s=6.8, process="w1", word="renew", outcome="info")
        later = run.receives(9, values(9, 1), at_s=again_s, process="w2", delivery=2)
        run.acknowledges(later, 9, at_s=9, process="w2")
        verdict = run.verdict(tmp_path)
        assert cause(verdict)[0] == reason
        assert verdict.unexplained == (not reason)
    assert "whose lock of 2000 ms had ended, and which had acknowledged nothing" in cause(verdict)[1]


def test_acceptance_after_a_renewal_is_one(tmp_path: Path) -> None:
    run = queued()
    taken = run.receives(9, values(9, 1), at_s=5, process="w1", lock_ms=2_000)
    run.acknowledges(taken, 9, at_s=6, process="w1", word="renew")
    run.acknowledges(taken, 9, at_s=7.9, process="w1")
    verdict = run.verdict(tmp_path)
    assert verdict.is_clean
    assert fates(verdict) == {"handed_out": 10, "accepted": 10}


def test_new_leader_does_not_know_locks(tmp_path: Path) -> None:
    run = queued()
    run.receives(9, values(9, 1), at_s=5, process="w1")
    run.leads(3, 2, at_s=5.5, start=10, old_leader=2, isr=[3])
    taken = run.receives(9, values(9, 1), at_s=6, process="w2")
    run.acknowledges(taken, 9, at_s=6.1, process="w2")
    verdict = run.verdict(tmp_path)
    assert verdict.is_clean
    assert cause(verdict)[0] == "leader changed"
    assert "node 3 became leader of t-0 in epoch 2" in cause(verdict)[1]


def test_rejected_record_is_archived(tmp_path: Path) -> None:
    run = queued()
    taken = run.receives(9, values(9, 1), at_s=5, process="w1")
    run.acknowledges(taken, 9, at_s=5.1, process="w1", word="reject")
    verdict = run.verdict(tmp_path)
    assert verdict.is_clean
    assert fates(verdict) == {"handed_out": 10, "accepted": 9, "archived": 1}
    assert (verdict.archives[0].reason, verdict.archives[0].first_offset) == ("rejected", 9)
    judged = judge(verdict, Expect(reordered=ANY), now=Now(lambda question, arguments: 0))
    assert judged.problems == ("archived: 1 records, expected 0",)


def test_record_is_archived_at_the_limit(tmp_path: Path) -> None:
    verdict = poisoned().verdict(tmp_path)
    assert verdict.is_clean
    assert fates(verdict) == {"handed_out": 10, "redelivered": 4, "accepted": 9, "archived": 1}
    words = "handed out 5 times, as often as the limit allows, the last time to w2, which released it"
    assert words in verdict.archives[0].cause


def test_dead_letter_is_found_and_no_foreign_record(tmp_path: Path) -> None:
    run = poisoned()
    dead_letters(run, *values(9, 1))
    verdict = run.verdict(tmp_path)
    assert verdict.is_clean, verdict.anomalies
    assert fates(verdict)["dead_lettered"] == 1
    assert verdict.archives[0].cause.endswith("it is in the topic of dead letters")


def test_record_removed_by_retention_is_expired(tmp_path: Path) -> None:
    run = clean_run()
    taken = run.receives(2, values(2, 8), at_s=4, process="w1")
    run.acknowledges(taken, *range(2, 10), at_s=4.1, process="w1")
    run.event("segments_deleted", at_s=5, log_start_offset=2, because="retention.ms")
    run.readback.clear()
    run.replicas.clear()
    run.ends_with(*values(2, 8), start=2)
    verdict = run.verdict(tmp_path)
    assert fates(verdict) == {"handed_out": 8, "accepted": 8, "expired": 2}
    (expiry,) = verdict.expiries
    assert (expiry.reason, expiry.first_offset, expiry.last_offset) == ("retention", 0, 1)
    assert "before a worker of group q accepted it" in expiry.cause


def test_acceptance_without_answer_may_have_happened(tmp_path: Path) -> None:
    run = queued()
    taken = run.receives(9, values(9, 1), at_s=5, process="w1")
    run.acknowledges(taken, 9, at_s=5.1, process="w1", outcome="info")
    verdict = run.verdict(tmp_path)
    assert verdict.is_clean
    assert fates(verdict) == {"handed_out": 10, "accepted": 9, "perhaps_accepted": 1}


def test_refused_acceptance_may_have_happened_only_if_a_leader_changed(tmp_path: Path) -> None:
    def run_with(*, changed: bool) -> Verdict:
        run = queued()
        taken = run.receives(9, values(9, 1), at_s=5, process="w1")
        if changed:
            run.event("leader_elected", at_s=6, leader=3, leader_epoch=1, reason="broker fenced", isr=[3], **STATE)
        run.acknowledges(taken, 9, at_s=5.1, took_s=3, process="w1", outcome="fail", kafka_code=121)
        return run.verdict(tmp_path)

    assert fates(run_with(changed=True))["perhaps_accepted"] == 1
    assert run_with(changed=False).kinds() == {Kind.LOST_BY_QUEUE}


# --- what must never happen -----------------------------------------------------------------------------------------


def test_two_acceptances_with_success_are_found(tmp_path: Path) -> None:
    run = queued()
    taken = run.receives(9, values(9, 1), at_s=5, process="w1", lock_ms=1_500)
    again = run.receives(9, values(9, 1), at_s=6.5, process="w2", delivery=2)
    run.acknowledges(taken, 9, at_s=6.505, process="w1")
    run.acknowledges(again, 9, at_s=6.6, process="w2")
    verdict = run.verdict(tmp_path)
    assert verdict.kinds() == {Kind.ACCEPTED_TWICE}
    assert verdict.unexplained == 1
    words = (
        "group q: 'p:9' (offset 9 of t-0) was accepted by w1 (delivery 1) and by w2 (delivery 2), and both got success"
    )
    assert words in verdict.anomalies[0].text
    judged = judge(verdict, Expect(redelivered=1, reordered=ANY), now=Now(lambda question, arguments: 0))
    assert any("anomaly accepted_twice" in line for line in verdict_lines(judged))


def test_repeated_acceptance_of_one_delivery_is_none(tmp_path: Path) -> None:
    run = queued()
    taken = run.receives(9, values(9, 1), at_s=5, process="w1")
    for at_s in (5.1, 5.2):
        run.acknowledges(taken, 9, at_s=at_s, process="w1")
    assert run.verdict(tmp_path).is_clean


def test_delivery_after_answered_acceptance_is_found(tmp_path: Path) -> None:
    run = queued(10)
    run.receives(9, values(9, 1), at_s=5, process="w2", delivery=2)
    verdict = run.verdict(tmp_path)
    assert verdict.kinds() == {Kind.HANDED_OUT_AFTER_ACCEPTANCE}
    assert "accepted by w1, which got the answer, and then handed out to w2 (delivery 2)" in verdict.anomalies[0].text
    assert not verdict.redeliveries[0].explained


def test_receive_that_began_before_the_answer_is_no_anomaly(tmp_path: Path) -> None:
    run = queued()
    taken = run.receives(9, values(9, 1), at_s=5, process="w1", lock_ms=1_000)
    again = run.receives(9, values(9, 1), at_s=6.001, took_s=0.1, process="w2", delivery=2)
    run.acknowledges(taken, 9, at_s=6, process="w1")
    run.acknowledges(again, 9, at_s=6.2, process="w2", outcome="fail", kafka_code=121)
    assert run.verdict(tmp_path).is_clean


@pytest.mark.parametrize("topic", [TOPIC, SHARE_STATE_TOPIC])
def test_unclean_election_explains_forgotten_acceptance(tmp_path: Path, topic: str) -> None:
    run = queued(10)
    where = {"topic": topic, "partition": 0}
    run.event("unclean_election", at_s=4.5, leader=3, leader_epoch=2, **where)
    run.event("leader_elected", at_s=4.5, leader=3, leader_epoch=2, reason="unclean leader election", isr=[3], **where)
    run.receives(9, values(9, 1), at_s=5, process="w2")
    verdict = run.verdict(tmp_path)
    (found,) = [each for each in verdict.anomalies if each.kind == Kind.HANDED_OUT_AFTER_ACCEPTANCE]
    assert found.explained
    assert f"an unclean election made node 3 leader of {topic}-0 in epoch 2" in found.cause


def test_unclean_election_before_the_acceptance_explains_nothing(tmp_path: Path) -> None:
    run = queued(10)
    run.event("leader_elected", at_s=1, leader=3, leader_epoch=2, reason="unclean leader election", isr=[3], **STATE)
    run.receives(9, values(9, 1), at_s=5, process="w2")
    assert run.verdict(tmp_path).unexplained == 2


def test_record_that_is_never_handed_out_is_lost(tmp_path: Path) -> None:
    verdict = queued(9).verdict(tmp_path)
    assert verdict.kinds() == {Kind.LOST_BY_QUEUE}
    assert "group q: 'p:9' (offset 9 of t-0) was never handed out" in verdict.anomalies[0].text
    assert verdict.unexplained == 1


def test_record_that_does_not_come_again_is_lost(tmp_path: Path) -> None:
    run = queued()
    run.receives(9, values(9, 1), at_s=5, process="w1")
    verdict = run.verdict(tmp_path)
    assert verdict.kinds() == {Kind.LOST_BY_QUEUE}
    words = "was handed out once, the last time to w1, which had acknowledged nothing, and never again"
    assert words in verdict.anomalies[0].text


def test_lost_answers_count_as_deliveries(tmp_path: Path) -> None:
    """The record may have been handed out so often that nobody knows of it."""

    def lost_answers(count: int) -> Verdict:
        run = queued()
        run.receives(9, values(9, 1), at_s=5, process="w1")
        for number in range(count):
            run.receives(0, (), at_s=9 + number, process="w2", outcome="info")
        return run.verdict(tmp_path)

    assert lost_answers(3).kinds() == {Kind.LOST_BY_QUEUE}
    assert fates(lost_answers(4))["archived"] == 1


def test_second_worker_under_a_lock_has_no_cause(tmp_path: Path) -> None:
    run = queued()
    run.receives(9, values(9, 1), at_s=5, process="w1")
    taken = run.receives(9, values(9, 1), at_s=6, process="w2", delivery=2)
    run.acknowledges(taken, 9, at_s=6.1, process="w2")
    verdict = run.verdict(tmp_path)
    assert (verdict.unexplained, cause(verdict)[0]) == (1, "")
    assert "handed out to w2 after w1, whose lock had not ended" in cause(verdict)[1]


def test_record_twice_in_one_answer_has_no_cause(tmp_path: Path) -> None:
    run = clean_run()
    taken = run.receives(0, values(0, 10), at_s=4, process="w1")
    operation = run.operations[-1]
    run.operations[-1] = type(operation)(
        **{name: getattr(operation, name) for name in operation.__struct_fields__}
        | {"records": (*operation.records, operation.records[-1])}
    )
    run.acknowledges(taken, *range(10), at_s=4.1, process="w1")
    assert "received twice by w1 in one answer" in cause(run.verdict(tmp_path))[1]


def test_value_that_nobody_sent_is_found(tmp_path: Path) -> None:
    run = queued(10)
    run.receives(10, ["x:1"], at_s=5, process="w1")
    verdict = run.verdict(tmp_path)
    assert verdict.kinds() == {Kind.NEVER_SENT}
    assert "w1 received 'x:1' (offset 10 of t-0), which no client sent" in verdict.anomalies[0].text


def test_archived_record_without_dead_letter_is_found(tmp_path: Path) -> None:
    run = poisoned()
    dead_letters(run)
    verdict = run.verdict(tmp_path)
    assert verdict.kinds() == {Kind.NOT_DEAD_LETTERED}
    assert (verdict.unexplained, fates(verdict).get("dead_lettered", 0)) == (1, 0)


def test_dead_letter_that_was_given_up_has_its_cause(tmp_path: Path) -> None:
    run = poisoned()
    dead_letters(run)
    run.event("dead_letters_not_written", at_s=9.5)
    verdict = run.verdict(tmp_path)
    assert verdict.kinds() == {Kind.NOT_DEAD_LETTERED}
    assert verdict.unexplained == 0


# --- records that expire --------------------------------------------------------------------------------------------


def aged(accepted: int = 8, *, age_ms: int = 1_500, last_receive_s: float = 6) -> Run:
    """Record 9, sent at 3 s, expires at 4.5 s; w1 asks for records again later, and gets none."""
    run = queued(accepted)
    changed = {"resource_type": "group", "resource": "q", "name": "share.record.expiry.ms", "value": str(age_ms)}
    run.event("config_changed", at_s=4.05, **changed)
    run.receives(0, (), at_s=last_receive_s, process="w1")
    return run


def test_record_that_expired_is_too_old_and_not_lost(tmp_path: Path) -> None:
    verdict = aged().verdict(tmp_path)
    assert verdict.is_clean, verdict.anomalies
    assert fates(verdict) == {"handed_out": 8, "accepted": 8, "too_old": 2}
    (old,) = verdict.too_old
    assert (old.reason, old.first_offset, old.last_offset) == ("too old", 8, 9)
    assert "it was older than 1500 ms, share.record.expiry.ms of group q, before a worker of group q" in old.cause
    judged = judge(verdict, Expect(reordered=ANY), now=Now(lambda question, arguments: 0))
    assert judged.problems == ("too_old: 2 records, expected 0".replace("_", " "),)
    assert any(line.startswith("too old for a queue: offset 8-9") for line in verdict_lines(judged))


def test_expired_record_is_a_dead_letter(tmp_path: Path) -> None:
    run = aged(9)
    dead_letters(run, *values(9, 1))
    verdict = run.verdict(tmp_path)
    assert verdict.is_clean, verdict.anomalies
    assert fates(verdict) == {"handed_out": 9, "accepted": 9, "too_old": 1, "dead_lettered": 1}
    assert verdict.too_old[0].cause.endswith("it is in the topic of dead letters")


def test_expired_record_that_the_queue_has_passed_must_be_a_dead_letter(tmp_path: Path) -> None:
    def run_with(*letters: str) -> Verdict:
        run = aged(8)
        taken = run.receives(9, values(9, 1), at_s=4.4, process="w2")
        run.acknowledges(taken, 9, at_s=4.5, process="w2")
        dead_letters(run, *letters)
        return run.verdict(tmp_path)

    assert run_with(*values(8, 1)).is_clean
    verdict = run_with()
    assert verdict.kinds() == {Kind.NOT_DEAD_LETTERED}
    assert "was not handed out (it was older than 1500 ms" in verdict.anomalies[0].text


def test_record_that_the_queue_passed_while_it_was_young_is_lost(tmp_path: Path) -> None:
    run = aged(8)
    taken = run.receives(9, values(9, 1), at_s=4.12, process="w2")
    run.acknowledges(taken, 9, at_s=4.2, process="w2")
    assert run.verdict(tmp_path).kinds() == {Kind.LOST_BY_QUEUE}


def test_record_that_was_young_until_the_last_receive_is_lost(tmp_path: Path) -> None:
    assert aged(9, last_receive_s=4.2).verdict(tmp_path).kinds() == {Kind.LOST_BY_QUEUE}


def test_record_that_expired_and_is_handed_out_is_found(tmp_path: Path) -> None:
    def run_with(at_s: float) -> Verdict:
        run = aged(9)
        taken = run.receives(9, values(9, 1), at_s=at_s, process="w2")
        run.acknowledges(taken, 9, at_s=at_s + 0.1, process="w2")
        return run.verdict(tmp_path)

    assert run_with(4.6).is_clean  # clocks differ
    verdict = run_with(5)
    assert verdict.kinds() == {Kind.HANDED_OUT_TOO_OLD}
    assert "was handed out to w2 when it was older than 1500 ms" in verdict.anomalies[0].text
    assert verdict.unexplained == 1


def test_age_that_was_taken_back_proves_nothing(tmp_path: Path) -> None:
    run = aged(9)
    run.event(
        "config_changed", at_s=4.8, resource_type="group", resource="q", name="share.record.expiry.ms", value=None
    )
    taken = run.receives(9, values(9, 1), at_s=5, process="w2")
    run.acknowledges(taken, 9, at_s=5.1, process="w2")
    assert run.verdict(tmp_path).is_clean


@pytest.mark.parametrize("is_enabled", [True, False])
def test_record_names_its_end_in_a_header(tmp_path: Path, is_enabled: bool) -> None:
    run = queued(6)
    run.operations = [
        msgspec.structs.replace(each, expires_at_ms=4_000) if isinstance(each, Produce) and each.index == 1 else each
        for each in run.operations
    ]
    run.settings["topics"] = {TOPIC: {"record.expiry.enable": is_enabled}}
    run.receives(0, (), at_s=6, process="w1")
    verdict = run.verdict(tmp_path)
    if is_enabled:
        assert verdict.is_clean, verdict.anomalies
        assert fates(verdict)["too_old"] == 4
        assert "the time of its header kraft.expires.at was over" in verdict.too_old[0].cause
    else:
        assert verdict.kinds() == {Kind.LOST_BY_QUEUE}
