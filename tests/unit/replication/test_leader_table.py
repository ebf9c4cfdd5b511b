"""Stories of one leader's state as text: what happens, and what the state is then."""

from __future__ import annotations

from uuid import UUID

import pytest

from metadata.image import BrokerImage, PartitionImage
from replication.partition.isr import (
    Answered,
    may_join,
    out_of_sync,
    propose_join,
    propose_shrink,
    with_committed,
    with_refusal,
)
from replication.partition.leader import become_leader, with_end_offset, with_fetch, with_high_watermark
from replication.partition.states import LeaderState, PendingIsr

LAG_MS = 100


class Stage:
    """Leader 1 of replicas 1, 2, 3; `at` moves the clock, every line of a story is one event."""

    def __init__(self, *, isr: tuple[int, ...] = (1, 2, 3), min_isr: int = 1, end: int = 0, start: int = 0) -> None:
        self.now_ms = 0
        self.log_end = end
        self.image = PartitionImage(
            topic_id=UUID(int=1), partition=0, replicas=(1, 2, 3), isr=isr, leader=1, leader_epoch=5, partition_epoch=9
        )
        self.brokers = {i: self.broker(i) for i in (1, 2, 3)}
        self.state: LeaderState = become_leader(
            self.image, end_offset=end, epoch_start_offset=end, high_watermark=start, min_isr=min_isr, now_ms=0
        )

    def broker(self, broker_id: int, *, fenced: bool = False, epoch: int = 1) -> BrokerImage:
        return BrokerImage(
            broker_id=broker_id,
            broker_epoch=epoch,
            incarnation_id=UUID(int=broker_id),
            rest="",
            kafka="",
            rack=None,
            fenced=fenced,
            in_controlled_shutdown=False,
        )

    def play(self, line: str) -> None:
        verb, *numbers = line.split()
        values = [int(n) for n in numbers]
        match verb:
            case "at":
                self.now_ms = values[0]
            case "append":
                self.log_end += values[0]
                self.state = with_end_offset(self.state, self.log_end)
            case "fetch":
                self.state = with_fetch(
                    self.state,
                    values[0],
                    fetch_offset=values[1],
                    log_start_offset=0,
                    broker_epoch=1,
                    log_end_offset=self.log_end,
                    now_ms=self.now_ms,
                )
            case "fence":
                self.brokers[values[0]] = self.broker(values[0], fenced=True)
            case "restart":
                self.brokers[values[0]] = self.broker(values[0], epoch=2)
            case "join":
                self.state = propose_join(self.state, values[0])
            case "shrink":
                self.state = propose_shrink(self.state, tuple(values))
            case _:
                raise AssertionError(line)
        self.state = with_high_watermark(self.state, brokers=self.brokers, lag_ms_max=LAG_MS, now_ms=self.now_ms)

    def out_of_sync(self) -> tuple[int, ...]:
        return out_of_sync(self.state, log_end_offset=self.log_end, lag_ms_max=LAG_MS, now_ms=self.now_ms)


def played(stage: Stage, story: str) -> Stage:
    for line in story.split(","):
        stage.play(line.strip())
    return stage


@pytest.mark.parametrize(
    ("isr", "min_isr", "story", "high_watermark"),
    [
        pytest.param((1, 2, 3), 1, "append 3, fetch 2 3", 0, id="P4 the slowest member holds it back"),
        pytest.param((1, 2, 3), 1, "append 3, fetch 2 3, fetch 3 2", 2, id="P4 minimum over the ISR"),
        pytest.param((1, 2), 1, "append 3, at 500, fetch 2 3", 3, id="P4 a laggard outside the ISR does not count"),
        pytest.param((1, 2), 1, "append 3, at 500, fetch 3 0, append 1, fetch 2 4", 4, id="P4 behind and outside"),
        pytest.param(
            (1, 2), 1, "append 3, fetch 3 3, append 2, fetch 2 5", 3, id="P4 a caught-up eligible outsider counts"
        ),
        pytest.param(
            (1, 2), 1, "append 3, fetch 3 3, fence 3, append 2, fetch 2 5", 5, id="P4 a fenced outsider does not"
        ),
        pytest.param(
            (1, 2), 1, "append 3, fetch 3 3, restart 3, append 2, fetch 2 5", 5, id="P4 KIP-903 nor a restarted one"
        ),
        pytest.param((1,), 2, "append 3", 0, id="P3 frozen below min ISR"),
        pytest.param((1, 2), 2, "append 3, fetch 2 3, shrink 2, append 1", 3, id="I7 a leaving member still counts"),
        pytest.param(
            (1, 2), 1, "append 1, fetch 2 1, fetch 3 1, at 500, join 3, append 1, fetch 2 2", 1, id="I7 joins"
        ),
        pytest.param((1, 2, 3), 9, "append 1, fetch 2 1, fetch 3 1", 1, id="P2 min ISR is at most the replicas"),
    ],
)
def test_high_watermark_stories(isr: tuple[int, ...], min_isr: int, story: str, high_watermark: int) -> None:
    assert played(Stage(isr=isr, min_isr=min_isr), story).state.high_watermark == high_watermark


@pytest.mark.parametrize(
    ("story", "leaving"),
    [
        pytest.param("append 1, at 100", (), id="I1 within the lag"),
        pytest.param("append 1, at 101", (2, 3), id="I1 behind for longer"),
        pytest.param("at 500", (), id="I3 a silent follower with an equal end stays"),
        pytest.param("append 1, at 90, fetch 2 1, append 1, at 180", (3,), id="I2 caught up at its fetch"),
        pytest.param(
            "append 1, at 50, fetch 2 0, append 1, at 90, fetch 2 1, at 150", (3,), id="I2 reached the previous end"
        ),
        pytest.param(
            "append 1, at 50, fetch 2 0, append 1, at 90, fetch 2 1, at 151", (2, 3), id="I2 counts from that fetch"
        ),
    ],
)
def test_lag_stories(story: str, leaving: tuple[int, ...]) -> None:
    stage = played(Stage(), "fetch 2 0, fetch 3 0, " + story)
    assert stage.out_of_sync() == leaving


@pytest.mark.parametrize(
    ("story", "may"),
    [
        pytest.param("fetch 3 5", True, id="I4 at the high watermark and the epoch start"),
        pytest.param("fetch 3 4", False, id="I4 before the epoch start"),
        pytest.param("fetch 3 5, fence 3", False, id="I4 fenced"),
        pytest.param("fetch 3 5, restart 3", False, id="I4 KIP-903 another incarnation"),
        pytest.param("append 2, fetch 2 7, at 500, fetch 3 6", False, id="I4 behind the high watermark"),
        pytest.param("fetch 2 5, fetch 3 5, shrink 2", False, id="I4 a change is in flight"),
    ],
)
def test_i4_who_may_join(story: str, may: bool) -> None:
    stage = Stage(isr=(1, 2), end=5, start=4)
    played(stage, story)
    assert may_join(stage.state, 3, stage.brokers) is may


@pytest.mark.parametrize(
    ("code", "answered", "is_pending"),
    [
        (107, Answered.SETTLED, False),
        (55, Answered.SETTLED, False),
        (74, Answered.WAIT_FOR_METADATA, True),
        (95, Answered.WAIT_FOR_METADATA, True),
        (42, Answered.WAIT_FOR_METADATA, True),
        (100, Answered.WAIT_FOR_METADATA, True),
        (108, Answered.WAIT_FOR_METADATA, True),
        (41, Answered.RETRY, True),
        (-1, Answered.RETRY, True),
    ],
)
def test_i8_what_a_refusal_means(code: int, answered: Answered, is_pending: bool) -> None:
    stage = played(Stage(isr=(1, 2)), "fetch 3 0, join 3")
    state, what = with_refusal(stage.state, code)
    assert what is answered
    assert isinstance(state.isr, PendingIsr) is is_pending
    assert state.isr.members == (1, 2)


def test_i5_an_answer_of_another_leader_epoch_waits_for_metadata() -> None:
    stage = played(Stage(isr=(1, 2)), "fetch 3 0, join 3")
    foreign = PartitionImage(
        topic_id=UUID(int=1), partition=0, replicas=(1, 2, 3), isr=(2,), leader=2, leader_epoch=6, partition_epoch=10
    )
    assert with_committed(stage.state, foreign)[1] is Answered.WAIT_FOR_METADATA
