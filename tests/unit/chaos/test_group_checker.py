"""What a group was given and has committed: each planted fault is found, and what is allowed has its cause."""

from __future__ import annotations

from pathlib import Path

from kraft.chaos.checkers.expectation import judge
from kraft.chaos.checkers.verdict import Kind
from kraft.chaos.evidence import GroupOffset
from kraft.chaos.model import ANY, Expect
from kraft.chaos.questions import Now
from tests.unit.chaos.recorded_run import TOPIC, Run, clean_run, values

COMMITTED_10 = [GroupOffset("g", TOPIC, 0, 10)]


def grouped() -> Run:
    """m1 reads and commits six records, m2 the rest."""
    run = clean_run()
    run.read(0, values(0, 6), at_s=4, process="m1", group="g", generation=1, since_s=3.9)
    run.commits(6, at_s=4.1, process="m1", generation=1)
    run.read(6, values(6, 4), at_s=4.3, process="m2", group="g", generation=2, since_s=4.2)
    run.commits(10, at_s=4.4, process="m2", generation=2)
    run.committed = list(COMMITTED_10)
    return run


def test_a_group_that_reads_all_and_commits_it_shows_nothing(tmp_path: Path) -> None:
    verdict = grouped().verdict(tmp_path)
    assert verdict.is_clean
    assert (verdict.counts.redelivered, verdict.counts.skipped, verdict.operations.commits) == (0, 0, 2)


def test_uncommitted_records_are_redelivered_with_cause(tmp_path: Path) -> None:
    run = grouped()
    run.sent(*values(10, 4), at_s=5, offset=10, node=2)
    run.read(10, values(10, 4), at_s=5.1, process="m2", group="g", generation=2, since_s=4.2)
    run.read(10, values(10, 4), at_s=6, process="m3", group="g", generation=3, since_s=5.9)
    run.commits(14, at_s=6.1, process="m3", generation=3)
    run.readback.clear()
    run.replicas.clear()
    run.ends_with(*values(0, 14))
    run.committed = [GroupOffset("g", TOPIC, 0, 14)]
    verdict = run.verdict(tmp_path)
    assert verdict.is_clean
    assert (verdict.counts.redelivered, verdict.counts.skipped) == (4, 0)
    (again,) = verdict.redeliveries
    assert (again.first_offset, again.last_offset, again.reason) == (10, 13, "not committed")
    assert "received by m3 after m2, which had not committed them" in again.cause


def test_redelivery_cause_has_fate_of_commit(tmp_path: Path) -> None:
    for outcome, code, words in (
        ("fail", 27, "whose commit was refused with REBALANCE_IN_PROGRESS"),
        ("info", None, "whose commit got no answer"),
        ("ok", None, "whose commit was acknowledged only after m2 had fetched the committed offset"),
    ):
        run = clean_run()
        run.read(0, values(0, 6), at_s=4, process="m1", group="g", since_s=3.9)
        run.commits(6, at_s=4.1, process="m1", outcome=outcome, kafka_code=code)  # type: ignore[arg-type]
        run.read(0, values(0, 10), at_s=4.3, process="m2", group="g", since_s=4.05)
        verdict = run.verdict(tmp_path)
        (again,) = verdict.redeliveries
        assert (again.records, again.reason) == (6, "not committed"), outcome
        assert words in again.cause, again.cause


def test_what_was_committed_and_is_given_again_has_no_cause(tmp_path: Path) -> None:
    run = grouped()
    run.read(4, values(4, 6), at_s=5, process="m3", group="g", generation=3, since_s=4.9)
    verdict = run.verdict(tmp_path)
    assert verdict.kinds() == {Kind.COMMIT_LOST}
    assert "had committed 10 of t-0, acknowledged to m2, and then m3 received offset 4" in verdict.anomalies[0].text
    assert verdict.counts.redelivered == 6
    assert not any(each.explained for each in verdict.redeliveries)


def test_offset_fetched_before_commit_is_no_loss(tmp_path: Path) -> None:
    run = grouped()
    run.read(6, values(6, 4), at_s=5, process="m3", group="g", since_s=4.35)
    verdict = run.verdict(tmp_path)
    assert verdict.is_clean
    assert verdict.counts.redelivered == 4


def test_member_gets_record_twice_only_after_offset_fetch(tmp_path: Path) -> None:
    run = grouped()
    run.sent(*values(10, 2), at_s=5, offset=10, node=2)
    for at_s in (5.1, 5.2):
        run.read(10, values(10, 2), at_s=at_s, process="m2", group="g", since_s=4.2)
    run.readback.clear()
    run.replicas.clear()
    run.ends_with(*values(0, 12))
    verdict = run.verdict(tmp_path)
    assert verdict.unexplained == 1
    assert "received twice by m2, which fetched the committed offset once" in verdict.redeliveries[0].cause


def test_committed_and_unread_records_are_skipped(tmp_path: Path) -> None:
    run = clean_run()
    run.read(0, values(0, 6), at_s=4, process="m1", group="g")
    run.commits(10, at_s=4.1, process="m1")
    run.committed = list(COMMITTED_10)
    verdict = run.verdict(tmp_path)
    assert verdict.counts.skipped == 4
    (skip,) = verdict.skips
    assert (skip.first_offset, skip.last_offset, skip.explained) == (6, 9, False)
    judged = judge(verdict, Expect(reordered=ANY), now=Now(lambda question, arguments: 0))
    assert "skipped: 4 records, expected 0" in judged.problems


def test_another_group_and_readers_without_one_do_not_count(tmp_path: Path) -> None:
    run = grouped()
    run.read(0, values(0, 10), at_s=5, process="m9", group="other")
    run.read(0, values(0, 10), at_s=5.1, process="r9")
    verdict = run.verdict(tmp_path)
    assert verdict.is_clean
    assert verdict.counts.redelivered == 0


def test_late_commit_of_newest_generation(tmp_path: Path) -> None:
    run = grouped()
    run.commits(10, at_s=5, process="m2", generation=2)
    run.commits(6, at_s=5.1, process="m1", generation=1, outcome="fail", kafka_code=22)
    assert run.verdict(tmp_path).is_clean
