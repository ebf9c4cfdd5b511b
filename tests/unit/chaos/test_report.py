"""The page: what it must show, that it is one file, that texts cannot break it, and that big runs stay small."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

from kraft.chaos.checkers.verdict import decode_verdict
from kraft.chaos.evidence import Event, Fault
from kraft.chaos.report.curve import Curve, curve
from kraft.chaos.report.node_timelines import SEGMENTS_MAX, NodeTimeline, State, node_timelines
from kraft.chaos.report.page import Report, write_report
from kraft.chaos.report.tables import EVENTS_MAX
from tests.unit.chaos.recorded_run import SECOND, Run, values

PAGE_BYTES_MAX = 3_000_000
VOID = {"meta", "input"}


class Balanced(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def story() -> Run:
    """Node 1 leads, is killed after writes that nobody fetched, and returns."""
    run = Run(settings={"replica.lag.time.max.ms": 2000, "topics": {"t": {"min.insync.replicas": 1}}})
    run.leads(1, 0, at_s=1, start=0)
    for node in (2, 3):
        run.follows(node, 1, 0, at_s=1)
    run.sent(*values(0, 5), at_s=2, offset=0, acks="1")
    run.sent(*values(5, 5), at_s=3, offset=5, acks="1")
    run.fault("kill", 1, at_s=4, until_s=8, text="killed node 1 (leader of t-0) with -9")
    run.sent("p:10", at_s=5, outcome="fail", kafka_code=5)
    run.leads(2, 1, at_s=6, start=5, isr=[2, 3])
    run.sent(*values(11, 3), at_s=7, offset=5, acks="1", node=2)
    run.events.append(Event(at_us=8 * SECOND, node=1, event="node_starting"))
    run.follows(1, 2, 1, at_s=8.1)
    run.cut(1, 5, 10, at_s=8.2, epoch=0, leader_epoch=1)
    run.event("isr_changed", at_s=9, old_isr=[2, 3], isr=[1, 2, 3], leader=2, leader_epoch=1)
    run.sent(*values(14, 1), at_s=10, offset=8, acks="1", node=2)
    run.ends_with(*values(0, 5), *values(11, 4))
    return run


def page_of(run: Run, folder: Path, *, command: str = "kraft scenario run planted --seed 7") -> str:
    verdict = run.verdict(folder)
    report = Report(
        verdict=verdict,
        history=folder / "history.jsonl",
        evidence=run.evidence(),
        sentence="acks=1, and the leader is killed.",
        question="Is it lost?",
        command=command,
    )
    page = write_report(folder / "report", report)
    assert decode_verdict((folder / "report" / "verdict.json").read_bytes()) == verdict
    return page.read_text("utf-8")


def test_page_has_the_whole_run(tmp_path: Path) -> None:
    page = page_of(story(), tmp_path)
    for reported in (
        "acks=1, and the leader is killed.",
        "Is it lost?",
        "offset 5-9 (5 records, acks=1): acked by node 1 in epoch 0, node 2 took over in epoch 1 with log end "
        "offset 5, node 1 truncated them when it came back",
        "killed node 1 (leader of t-0) with -9",
        "replica.lag.time.max.ms",
        "min.insync.replicas",
        "kraft scenario run planted --seed 7",
        "leader_elected",
        "One gap in availability; the longest took 4.00 s.",
        "node 2, t-0: leader in epoch 1",
    ):
        assert reported in page, reported


def test_the_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    page = page_of(story(), tmp_path)
    assert not re.search(r"""(src|href|@import|url\()\s*=?\s*["']?(https?:)?//""", page)
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert not parser.tags & {"link", "img", "iframe"}
    assert {"svg", "style", "script", "pre", "table"} <= parser.tags


def test_texts_from_outside_stay_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\"'&"
    run = story()
    run.settings = {evil: evil}
    run.fault("kill", 2, at_s=9, text=evil)
    run.event(evil, at_s=9, reason=evil)
    run.sent(evil, at_s=9.5, outcome="ok")
    page = page_of(run, tmp_path, command=evil)
    assert "<script>alert" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 6
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []


def test_a_big_run_gives_a_small_page(tmp_path: Path) -> None:
    run = Run()
    run.leads(1, 0, at_s=0.1, start=0)
    for number in range(25_000):
        run.sent(f"p:{number}", at_s=1 + number / 1_000, offset=number, acks="1")
    for number in range(5_000):
        isr = [1, 2, 3][: 1 + number % 3]
        run.event("isr_changed", at_s=1 + number / 200, old_isr=[1, 2], isr=isr, leader=1, leader_epoch=0)
    for number in range(1_000):
        run.fault("cut", at_s=1 + number / 10, until_s=2 + number / 10)
    run.ends_with(*values(0, 25_000))
    page = page_of(run, tmp_path)
    assert len(page.encode()) < PAGE_BYTES_MAX
    assert page.count("<time>") == EVENTS_MAX
    assert "more are in events.jsonl" in page


def test_a_run_without_anything_has_a_page(tmp_path: Path) -> None:
    page = page_of(Run(), tmp_path)
    assert "Nothing was lost, duplicated or reordered" in page
    assert "NaN" not in page


def test_availability_needs_writes(tmp_path: Path) -> None:
    run = Run()
    run.read(0, [], at_s=1)
    assert "No client wrote, so the availability is unknown." in page_of(run, tmp_path)
    run.sent("p:0", at_s=2, offset=0)
    page = page_of(run, tmp_path)
    assert "No gap in availability." in page
    assert "Nobody wrote" not in page


def test_what_departs_from_the_expected_verdict_is_shown(tmp_path: Path) -> None:
    run = story()
    verdict = run.verdict(tmp_path).judged(expected={"lost": "0"}, as_expected=False, problems=("lost: 5, expected 0",))
    report = Report(verdict=verdict, history=tmp_path / "history.jsonl", evidence=run.evidence())
    page = write_report(tmp_path, report).read_text("utf-8")
    assert "Not as expected" in page
    assert "lost: 5, expected 0" in page


# --- lanes


def timelines_of(run: Run, *, until_s: float = 12) -> dict[int, NodeTimeline]:
    return {
        timeline.node: timeline
        for timeline in node_timelines(run.evidence(), from_us=0, until_us=round(until_s * SECOND))
    }


def states(timeline: NodeTimeline) -> list[tuple[float, float, State]]:
    (row,) = timeline.partitions
    return [(round(s.from_us / SECOND, 1), round(s.until_us / SECOND, 1), s.state) for s in row.segments]


def test_timelines_show_leaders_and_isr() -> None:
    drawn = timelines_of(story())
    assert states(drawn[1]) == [
        (1.0, 4.0, State.LEADER),
        (8.0, 9.0, State.FOLLOWER),
        (9.0, 12.0, State.IN_ISR),
    ]
    assert states(drawn[2]) == [(1.0, 6.0, State.IN_ISR), (6.0, 12.0, State.LEADER)]
    assert [segment.epoch for segment in drawn[2].partitions[0].segments] == [-1, 1]


def test_lanes_tell_whether_a_process_ran() -> None:
    run = story()
    run.fault("pause", 3, at_s=5, until_s=6)
    run.events.append(Event(at_us=7 * SECOND, node=2, event="broker_fenced", fields={"broker": 3}))
    run.events.append(Event(at_us=8 * SECOND, node=2, event="broker_unfenced", fields={"broker": 3}))
    drawn = timelines_of(run)
    assert [(s.from_us // SECOND, s.until_us // SECOND, s.state) for s in drawn[1].process.segments] == [
        (0, 12, State.ALIVE),
        (4, 8, State.DEAD),
    ]
    assert [(s.from_us // SECOND, s.until_us // SECOND, s.state) for s in drawn[3].process.segments] == [
        (0, 12, State.ALIVE),
        (7, 8, State.FENCED),
        (5, 6, State.PAUSED),
    ]


def test_dead_node_without_duration_is_dead_until_start() -> None:
    run = story()
    run.faults = [Fault(at_us=4 * SECOND, fault="kill", nodes=(1,), text="killed")]
    dead = timelines_of(run)[1].process.segments[-1]
    assert (dead.from_us, dead.until_us, dead.state) == (4 * SECOND, 8 * SECOND, State.DEAD)


def test_a_row_that_changes_all_the_time_has_a_limit() -> None:
    run = Run()
    for number in range(3 * SEGMENTS_MAX):
        run.leads(1 + number % 2, number + 1, at_s=1 + number / 1_000, start=0)
    drawn = timelines_of(run)
    assert max(len(row.segments) for timeline in drawn.values() for row in timeline.partitions) <= SEGMENTS_MAX


# --- the curve


def curve_of(run: Run, *, until_s: float) -> Curve:
    return curve(run.operations, from_us=0, until_us=round(until_s * SECOND), writes=len(run.operations))


def test_the_curve_counts_every_record_once() -> None:
    run = story()
    drawn = curve_of(run, until_s=12)
    assert (sum(drawn.ok), sum(drawn.fail), sum(drawn.info)) == (14, 1, 0)


def test_a_pause_of_the_clients_is_no_gap() -> None:
    run = Run()
    for second in (1, 2, 8, 9):
        run.sent(f"p:{second}", at_s=second, took_s=0.01)
    assert curve_of(run, until_s=9.02).gaps == []


def test_writes_that_wait_make_a_gap() -> None:
    run = Run()
    run.sent("p:1", at_s=1, took_s=0.01)
    run.sent("p:2", at_s=1.2, took_s=4)
    (gap,) = curve_of(run, until_s=5.3).gaps
    assert (gap.from_us, gap.until_us, gap.partition) == (1_010_000, 5_200_000, 0)


def test_a_partition_that_never_answers_has_a_gap_to_the_end() -> None:
    run = Run()
    for second in range(1, 9):
        run.sent(f"p:{second}", at_s=second, outcome="fail", kafka_code=5)
    (gap,) = curve_of(run, until_s=10).gaps
    assert (gap.from_us, gap.until_us) == (0, 10 * SECOND)
