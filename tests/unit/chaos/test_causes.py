"""Each record's fate, and for each lost, duplicated or reordered one the sentence that says why."""

from __future__ import annotations

from pathlib import Path

import pytest

from kraft.chaos.checkers.verdict import Counts, Range, Verdict
from kraft.chaos.history import Attempt
from kraft.client.outcome import Outcome
from tests.unit.chaos.recorded_run import SECOND, Run, values


def attempt(node: int, outcome: Outcome, *, at_s: float, until_s: float, kafka_code: int = 0) -> Attempt:
    return Attempt(
        node=node,
        outcome=outcome,
        kafka_code=kafka_code,
        invoke_us=round(at_s * SECOND),
        complete_us=round(until_s * SECOND),
        error=None if kafka_code else "timed out",
    )


def led_by_node_1() -> Run:
    run = Run()
    run.leads(1, 3, at_s=0.1, start=0)
    run.sent(*values(0, 412), at_s=1, offset=0, acks="1")
    return run


def only(ranges: tuple[Range, ...], verdict: Verdict) -> Range:
    assert len(ranges) == 1, verdict.to_json().decode()
    return ranges[0]


def test_fates_are_distinct(tmp_path: Path) -> None:
    run = Run()
    run.sent("p:0", at_s=1, offset=0)
    run.sent("p:1", at_s=2, offset=1)
    run.sent("p:2", at_s=3, outcome="fail", kafka_code=19)
    run.sent("p:3", at_s=4, outcome="fail", kafka_code=19)
    run.sent("p:4", at_s=5, outcome="info", kafka_code=7)
    run.sent("p:5", at_s=6, outcome="info", kafka_code=7)
    run.sent("p:6", at_s=7, acks="0")
    run.ends_with("p:0", "p:2", "p:4", "p:6")
    verdict = run.verdict(tmp_path)
    assert verdict.counts == Counts(kept=2, lost=1, phantom=1, failed=1, unknown_kept=1, unknown_gone=1)
    assert verdict.by_acks["0"] == Counts(kept=1)
    assert verdict.by_topic == {"t": verdict.counts}
    assert verdict.unexplained == 2
    phantom = only(verdict.phantoms, verdict)
    assert (phantom.first_value, phantom.explained) == ("p:2", False)


def test_acks_1_lost_with_its_leader(tmp_path: Path) -> None:
    run = led_by_node_1()
    run.sent(*values(412, 19), at_s=2, offset=412, acks="1", node=1)
    run.fault("kill", 1, at_s=2.5)
    run.leads(2, 4, at_s=3, start=412, old_leader=1)
    run.cut(1, 412, 431, at_s=5, epoch=3, leader_epoch=4)
    run.ends_with(*values(0, 412))
    verdict = run.verdict(tmp_path)
    loss = only(verdict.losses, verdict)
    assert loss.cause == (
        "offset 412-430 (19 records, acks=1): acked by node 1 in epoch 3, node 2 took over in epoch 4 with log end "
        "offset 412, node 1 truncated them when it came back"
    )
    assert (loss.reason, loss.records, verdict.unexplained) == ("not replicated", 19, 0)


def test_acks_all_may_not_be_lost_like_that(tmp_path: Path) -> None:
    run = led_by_node_1()
    run.sent("p:412", at_s=2, offset=412, acks="all")
    run.fault("kill", 1, at_s=2.5)
    run.leads(2, 4, at_s=3, start=412)
    run.ends_with(*values(0, 412))
    verdict = run.verdict(tmp_path)
    loss = only(verdict.losses, verdict)
    assert (loss.explained, verdict.unexplained) == (False, 1)
    assert loss.cause.endswith("a clean election must not lose acks=all")
    assert "node 1 was killed and did not bring them back" in loss.cause


def test_acks_1_below_seen_high_watermark_is_promised(tmp_path: Path) -> None:
    run = led_by_node_1()
    run.sent("p:412", at_s=2, offset=412, acks="1")
    run.sample(1, 3, 413, at_s=2.2)
    run.leads(2, 4, at_s=3, start=412)
    run.ends_with(*values(0, 412))
    verdict = run.verdict(tmp_path)
    loss = only(verdict.losses, verdict)
    assert loss.cause.endswith("a clean election must not lose what was below the high watermark")
    assert not loss.explained


def test_an_unclean_election_gives_up_a_range(tmp_path: Path) -> None:
    run = led_by_node_1()
    run.sent(*values(412, 3), at_s=2, offset=412)
    run.fault("kill", 1, at_s=2.5)
    run.leads(2, 4, at_s=3, start=412, reason="unclean leader election")
    run.event("unclean_election", at_s=3, leader=2, leader_epoch=4, given_up=[412, 415], answers={})
    run.ends_with(*values(0, 412))
    loss = only(run.verdict(tmp_path).losses, run.verdict(tmp_path))
    assert loss.reason == "unclean election"
    assert loss.cause == (
        "offset 412-414 (3 records, acks=all): acked by node 1 in epoch 3, an unclean election made node 2 leader in "
        "epoch 4 with log end offset 412 and gave up 412-414, node 1 was killed and did not bring them back"
    )


@pytest.mark.parametrize("is_unclean", [True, False])
def test_unclean_leader_that_never_began_explains_loss(tmp_path: Path, is_unclean: bool) -> None:
    """It was fenced before it heard of its election, and the next leader has its log."""
    run = led_by_node_1()
    run.sent(*values(412, 3), at_s=2, offset=412)
    run.fault("kill", 1, at_s=2.5)
    reason = "unclean leader election" if is_unclean else "broker fenced"
    run.event("leader_elected", at_s=3, leader=2, leader_epoch=4, reason=reason, isr=[2])
    run.leads(2, 6, at_s=5, start=412)
    run.ends_with(*values(0, 412))
    loss = only(run.verdict(tmp_path).losses, run.verdict(tmp_path))
    assert loss.explained == is_unclean
    words = "an unclean election made node 2 leader in epoch 4, which never began, and node 2 took over in epoch 6"
    assert (words in loss.cause) == is_unclean


def test_a_leader_that_does_not_know_that_it_was_deposed(tmp_path: Path) -> None:
    run = led_by_node_1()
    run.leads(2, 4, at_s=3, start=412)
    run.sent("p:412", at_s=4, offset=412, acks="1", node=1)
    run.follows(1, 2, 4, at_s=6)
    run.cut(1, 412, 413, at_s=6.1, epoch=3, leader_epoch=4)
    run.sent("p:413", at_s=7, offset=412, acks="all", node=2)
    run.ends_with(*values(0, 412), "p:413")
    verdict = run.verdict(tmp_path)
    loss = only(verdict.losses, verdict)
    assert loss.reason == "not replicated"
    assert loss.cause.endswith(
        "acked by node 1 in epoch 3, node 2 took over in epoch 4 with log end offset 412, node 1 truncated them when "
        "it learned of it; node 1 did not know yet that it was deposed"
    )


def test_forwarded_write_belongs_to_leader(tmp_path: Path) -> None:
    run = led_by_node_1()
    run.sent("p:412", at_s=2, offset=412, acks="1", node=3)
    run.follows(3, 1, 3, at_s=0.2)
    run.leads(2, 4, at_s=3, start=412)
    run.ends_with(*values(0, 412))
    assert "acked by node 1 in epoch 3" in only(run.verdict(tmp_path).losses, run.verdict(tmp_path)).cause


def test_write_forwarded_by_next_leader(tmp_path: Path) -> None:
    run = led_by_node_1()
    run.sent("p:412", at_s=2, offset=412, acks="1", node=2)
    run.fault("kill", 1, at_s=2.05)
    run.leads(2, 4, at_s=2.1, start=412)
    run.ends_with(*values(0, 412))
    assert (
        "acked by node 1 in epoch 3, node 2 took over in epoch 4"
        in only(run.verdict(tmp_path).losses, run.verdict(tmp_path)).cause
    )


def power_lost(settings: dict[str, str]) -> Run:
    """The last member of the ISR loses its power, returns as leader, and makes the others truncate (KIP-966)."""
    run = led_by_node_1()
    run.settings = dict(settings)
    run.sent(*values(412, 5), at_s=2, offset=412)
    run.fault("power_loss", 1, at_s=2.5)
    run.leads(1, 5, at_s=4, start=412, reason="broker unfenced")
    for node in (2, 3):
        run.cut(node, 412, 417, at_s=4.5, epoch=3, leader_epoch=5)
    run.ends_with(*values(0, 412))
    return run


def test_a_power_loss_takes_the_tail_that_was_not_flushed(tmp_path: Path) -> None:
    verdict = power_lost({}).verdict(tmp_path)
    loss = only(verdict.losses, verdict)
    assert (loss.reason, verdict.unexplained) == ("power loss", 0)
    assert loss.cause == (
        "offset 412-416 (5 records, acks=all): acked by node 1 in epoch 3, node 1 lost the tail that it had not "
        "flushed in a power loss and came back as leader in epoch 5 with log end offset 412, and nodes 2 and 3 "
        "truncated them to follow it"
    )


def handed_over_meanwhile(*, power_loss: bool) -> Run:
    """acks=all is on its way while node 1 hands over to node 2, which then loses its tail or its life."""
    run = led_by_node_1()
    run.follows(1, 2, 4, at_s=2.1)
    run.leads(2, 4, at_s=2.15, start=412, reason="broker in controlled shutdown")
    run.sent("p:412", at_s=2, took_s=0.4, offset=412, node=3)
    if power_loss:
        run.fault("power_loss", 2, at_s=3)
        run.leads(2, 5, at_s=4, start=412, reason="broker unfenced")
    run.ends_with(*values(0, 412))
    return run


def test_write_during_change_lost_by_next_leader(tmp_path: Path) -> None:
    verdict = handed_over_meanwhile(power_loss=True).verdict(tmp_path)
    loss = only(verdict.losses, verdict)
    assert loss.reason == "power loss"
    assert "acked by node 2 in epoch 4, node 2 lost the tail that it had not flushed" in loss.cause


def test_a_write_during_a_change_may_not_be_lost_without_more(tmp_path: Path) -> None:
    verdict = handed_over_meanwhile(power_loss=False).verdict(tmp_path)
    assert not only(verdict.losses, verdict).explained
    assert "a clean election must not lose acks=all" in verdict.losses[0].cause


def test_power_loss_is_no_cause_with_flush(tmp_path: Path) -> None:
    verdict = power_lost({"flush.messages": "1"}).verdict(tmp_path)
    assert only(verdict.losses, verdict).reason == ""
    assert verdict.unexplained == 1


def test_the_setting_of_the_topic_wins(tmp_path: Path) -> None:
    run = power_lost({})
    run.settings = {"flush.messages": "1", "topics": {"t": {"flush.messages": 9223372036854775807}}}
    verdict = run.verdict(tmp_path)
    assert only(verdict.losses, verdict).reason == "power loss"


def test_a_wiped_replica_that_leads(tmp_path: Path) -> None:
    run = led_by_node_1()
    run.fault("wipe", 1, at_s=2)
    run.leads(1, 4, at_s=3, start=0, reason="broker unfenced")
    run.ends_with()
    verdict = run.verdict(tmp_path)
    loss = only(verdict.losses, verdict)
    assert (loss.reason, loss.records) == ("wiped", 412)
    assert "node 1 lost its whole disk and came back as leader in epoch 4 with log end offset 0" in loss.cause


def test_a_damaged_segment_of_the_only_replica(tmp_path: Path) -> None:
    run = led_by_node_1()
    run.fault("flip", 1, at_s=2)
    run.event("segment_repaired", at_s=2.5, segment=0, first_offset_dropped=400, bytes_dropped=99, reason="bad CRC")
    run.leads(1, 4, at_s=3, start=400, reason="broker unfenced")
    run.ends_with(*values(0, 400))
    verdict = run.verdict(tmp_path)
    loss = only(verdict.losses, verdict)
    assert (loss.reason, loss.first_offset, loss.last_offset) == ("damaged segment", 400, 411)
    assert "node 1 truncated its damaged log at 400 (bad CRC)" in loss.cause


def test_deleted_records_and_retention(tmp_path: Path) -> None:
    run = led_by_node_1()
    run.event("records_deleted", at_s=2, log_start_offset=100)
    run.event("segments_deleted", at_s=3, log_start_offset=200, because="retention.bytes", segments=1)
    run.ends_with(*values(200, 212), start=200)
    verdict = run.verdict(tmp_path)
    assert {loss.reason: (loss.first_offset, loss.last_offset) for loss in verdict.losses} == {
        "deleted": (0, 99),
        "retention": (100, 199),
    }
    assert verdict.unexplained == 0


def test_log_start_without_event(tmp_path: Path) -> None:
    run = led_by_node_1()
    run.ends_with(*values(200, 212), start=200)
    verdict = run.verdict(tmp_path)
    assert not only(verdict.losses, verdict).explained
    assert "no event explains the removal" in only(verdict.losses, verdict).cause


def test_without_events_a_loss_has_no_cause(tmp_path: Path) -> None:
    run = Run()
    run.sent(*values(0, 3), at_s=1, offset=0)
    run.ends_with("p:0")
    verdict = run.verdict(tmp_path)
    loss = only(verdict.losses, verdict)
    assert loss.cause == "offset 1-2 (2 records, acks=all): no cause found in the events"
    assert verdict.unexplained == 1


def test_epoch_checkpoints_stand_for_lost_events(tmp_path: Path) -> None:
    run = led_by_node_1()
    run.sent("p:412", at_s=2, offset=412, acks="1")
    run.event("leader_elected", at_s=3, leader=2, leader_epoch=4, isr=[2], reason="broker fenced")
    run.copy(2, *values(0, 412), epochs=((3, 0), (4, 412)))
    run.ends_with(*values(0, 412))
    verdict = run.verdict(tmp_path)
    assert only(verdict.losses, verdict).reason == "not replicated"


def test_acks_0_lost_with_its_leader(tmp_path: Path) -> None:
    run = led_by_node_1()
    run.sent("p:412", at_s=2, acks="0")
    run.sent("p:413", at_s=2.1, acks="0")
    run.fault("kill", 1, at_s=2.5)
    run.leads(2, 4, at_s=3, start=413)
    run.ends_with(*values(0, 413))
    verdict = run.verdict(tmp_path)
    loss = only(verdict.losses, verdict)
    assert (loss.reason, loss.first_offset, loss.first_value) == ("not replicated", None, "p:413")
    assert loss.cause.startswith(
        "unknown offset (1 record, acks=0): sent to node 1 in epoch 3 without waiting for an answer, node 2 took over"
    )


def test_acks_0_lost_on_the_way_to_next_leader(tmp_path: Path) -> None:
    """By the clocks of nodes, which differ, the old leader may have taken it too; but it has no offset to prove it."""
    run = led_by_node_1()
    run.fault("kill", 1, at_s=2.95)
    run.leads(2, 4, at_s=3, start=412)
    run.sent("p:412", at_s=3.1, acks="0", node=2)
    run.sent("p:413", at_s=3.2, acks="0", node=2)
    run.ends_with(*values(0, 412), "p:413")
    verdict = run.verdict(tmp_path)
    loss = only(verdict.losses, verdict)
    assert (loss.reason, loss.first_value) == ("unconfirmed", "p:412")
    assert "sent around the change to epoch 4, and a write with acks=0 has no answer" in loss.cause


def test_acks_0_that_vanished_on_a_quiet_day_has_no_cause(tmp_path: Path) -> None:
    run = led_by_node_1()
    run.sent("p:412", at_s=2, acks="0")
    run.sent("p:413", at_s=3, acks="0")
    run.leads(2, 4, at_s=60, start=413)
    run.ends_with(*values(0, 412), "p:413")
    verdict = run.verdict(tmp_path)
    assert not only(verdict.losses, verdict).explained


def test_a_retry_after_a_lost_answer_is_a_duplicate(tmp_path: Path) -> None:
    run = Run()
    run.fault("drop_answer", at_s=0.9, until_s=1.5, text="answers of node 1 are dropped")
    attempts = [
        attempt(1, "info", at_s=1, until_s=1.4),
        attempt(2, "ok", at_s=1.4, until_s=1.5),
    ]
    run.sent(*values(0, 2), at_s=1, took_s=0.5, offset=2, attempts=attempts, node=2)
    run.ends_with("p:0", "p:1", "p:0", "p:1")
    verdict = run.verdict(tmp_path)
    duplicate = only(verdict.duplicates, verdict)
    assert duplicate.cause == (
        "offset 2-3 (2 records, acks=all): the first attempt, to node 1, got no answer (timed out) while this "
        "lasted: answers of node 1 are dropped, though it was carried out; the retry, to node 2, appended them again"
    )
    assert (verdict.counts.kept, verdict.counts.duplicated, verdict.unexplained) == (2, 2, 0)
    assert not verdict.anomalies


def test_a_duplicate_without_a_retry_has_no_cause(tmp_path: Path) -> None:
    run = Run()
    run.sent("p:0", at_s=1, offset=0)
    run.ends_with("p:0", "p:0")
    verdict = run.verdict(tmp_path)
    assert not only(verdict.duplicates, verdict).explained
    assert verdict.unexplained == 1


def test_a_duplicate_after_a_sure_refusal_has_no_cause(tmp_path: Path) -> None:
    run = Run()
    attempts = [
        attempt(1, "fail", at_s=1, until_s=1.4, kafka_code=19),
        attempt(2, "ok", at_s=1.4, until_s=1.5),
    ]
    run.sent("p:0", at_s=1, took_s=0.5, offset=1, attempts=attempts)
    run.ends_with("p:0", "p:0")
    assert run.verdict(tmp_path).unexplained == 1


def test_two_in_flight_and_a_retry_are_reordered(tmp_path: Path) -> None:
    run = Run()
    attempts = [
        attempt(1, "fail", at_s=1, until_s=1.2, kafka_code=5),
        attempt(1, "ok", at_s=1.3, until_s=1.4),
    ]
    run.sent("p:1", at_s=1.1, offset=0, index=1)
    run.sent("p:0", at_s=1, took_s=0.4, offset=1, index=0, attempts=attempts)
    run.ends_with("p:1", "p:0")
    verdict = run.verdict(tmp_path)
    reorder = only(verdict.reorders, verdict)
    assert (reorder.reason, reorder.first_value, verdict.counts.reordered) == ("retry", "p:0", 1)
    assert "the retry came after later records that were in flight at the same time" in reorder.cause
    assert verdict.unexplained == 0


def test_in_flight_without_a_retry(tmp_path: Path) -> None:
    run = Run()
    run.sent("p:0", at_s=1, took_s=0.4, offset=1)
    run.sent("p:1", at_s=1.1, offset=0)
    run.ends_with("p:1", "p:0")
    assert only(run.verdict(tmp_path).reorders, run.verdict(tmp_path)).reason == "in flight"


def test_one_after_the_other_may_not_be_reordered(tmp_path: Path) -> None:
    run = Run()
    run.sent("p:0", at_s=1, offset=1)
    run.sent("p:1", at_s=2, offset=0)
    run.ends_with("p:1", "p:0")
    verdict = run.verdict(tmp_path)
    assert not only(verdict.reorders, verdict).explained
    assert verdict.unexplained == 1


def test_acks_0_is_not_waited_for_and_may_be_overtaken(tmp_path: Path) -> None:
    """Two nodes pass two records on to the leader; the answers came before either had arrived there."""
    run = Run()
    run.sent("p:0", at_s=1, acks="0", node=1)
    run.sent("p:1", at_s=1.02, acks="0", node=2)
    run.ends_with("p:1", "p:0")
    verdict = run.verdict(tmp_path)
    assert only(verdict.reorders, verdict).reason == "not waited for"
    assert verdict.unexplained == 0


def test_two_processes_have_no_order_between_them(tmp_path: Path) -> None:
    run = Run()
    run.sent("p:0", at_s=1, offset=1)
    run.sent("q:0", at_s=2, offset=0, process="q")
    run.ends_with("q:0", "p:0")
    assert run.verdict(tmp_path).is_clean


def test_same_reason_at_many_addresses_is_one(tmp_path: Path) -> None:
    run = Run()
    for number in range(3):
        begun = 1 + number
        lost = attempt(1, "info", at_s=begun, until_s=begun + 0.1)
        error = f"http://127.0.0.1:{9_000 + number}: Server disconnected"
        first = Attempt(node=1, outcome="info", invoke_us=lost.invoke_us, complete_us=lost.complete_us, error=error)
        again = attempt(1, "ok", at_s=begun + 0.1, until_s=begun + 0.2)
        run.sent(f"p:{number}", at_s=begun, took_s=0.2, offset=2 * number + 1, attempts=[first, again])
    run.ends_with("p:0", "p:0", "p:1", "p:1", "p:2", "p:2")
    verdict = run.verdict(tmp_path)
    duplicate = only(verdict.duplicates, verdict)
    assert duplicate.records == 3
    assert "got no answer (Server disconnected), though" in duplicate.cause
