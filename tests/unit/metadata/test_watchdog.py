"""Which silence of a main loop is its own doing: the watchdog's arithmetic, look by look."""

from __future__ import annotations

import pytest

from metadata.watchdog import (
    COUNTED_MS_MAX,
    HANGING_MS,
    LOOK_MS,
    WAITING_FACTOR,
    Look,
    Verdict,
    Watch,
    look_again,
    verdict,
)

END_MS = 60_000


class Story:
    """Looks at a main loop that does what each call says, and says what the watchdog thinks of it."""

    def __init__(self) -> None:
        self.now_ms = self.busy_ms = 0
        self.turns = 1
        self.watch = Watch(last=self._look())
        self.worst = Verdict.TURNS

    def _look(self) -> Look:
        return Look(at_ms=self.now_ms, turns=self.turns, busy_ms=self.busy_ms)

    def look(self, *, after_ms: int, turns: bool = False, computes_ms: int = 0) -> Verdict:
        self.now_ms += after_ms
        self.turns += turns
        self.busy_ms += computes_ms
        self.watch = look_again(self.watch, self._look())
        found = verdict(self.watch, end_ms=END_MS)
        self.worst = max(self.worst, found, key=list(Verdict).index)
        return found

    def hang(self, ms: int, *, computes: bool) -> Verdict:
        found = Verdict.TURNS
        for _ in range(ms // LOOK_MS):
            found = self.look(after_ms=LOOK_MS, computes_ms=LOOK_MS if computes else 0)
        return found


def test_a_loop_that_turns_is_well_however_much_it_computes() -> None:
    story = Story()
    for _ in range(10_000):
        assert story.look(after_ms=LOOK_MS, turns=True, computes_ms=LOOK_MS) is Verdict.TURNS


def test_a_step_that_computes_on_and_on_hangs_then_is_past_help() -> None:
    story = Story()
    assert story.hang(HANGING_MS - LOOK_MS, computes=True) is Verdict.TURNS
    assert story.hang(LOOK_MS, computes=True) is Verdict.HANGS
    assert story.hang(END_MS - HANGING_MS - LOOK_MS, computes=True) is Verdict.HANGS
    assert story.hang(LOOK_MS, computes=True) is Verdict.PAST_HELP


def test_one_large_request_ends_nothing_and_is_forgotten_at_the_next_turn() -> None:
    story = Story()
    for _ in range(5):
        assert story.hang(END_MS - 1_000, computes=True) is Verdict.HANGS
        assert story.look(after_ms=LOOK_MS, turns=True) is Verdict.TURNS
        assert story.watch.silent_ms == story.watch.busy_ms == 0


def test_a_slow_disk_takes_no_processor_time_and_gets_longer() -> None:
    story = Story()
    assert story.hang(WAITING_FACTOR * END_MS - LOOK_MS, computes=False) is Verdict.HANGS
    assert story.hang(LOOK_MS, computes=False) is Verdict.PAST_HELP


@pytest.mark.parametrize("pause_ms", [1_000, 60_000, 3_600_000])
def test_a_pause_of_the_process_is_not_counted(pause_ms: int) -> None:
    """SIGSTOP, a suspended machine: the watchdog looks once, late, before the main loop has had its first turn."""
    story = Story()
    story.hang(1_000, computes=False)
    assert story.look(after_ms=pause_ms) is Verdict.TURNS
    assert story.watch.silent_ms == 1_000 + COUNTED_MS_MAX
    assert story.look(after_ms=LOOK_MS, turns=True) is Verdict.TURNS


def test_pauses_do_not_add_up() -> None:
    story = Story()
    for _ in range(100):
        story.look(after_ms=60_000)
        story.look(after_ms=LOOK_MS, turns=True)
    assert story.worst is Verdict.TURNS


def test_stolen_time_does_not_lengthen_a_step() -> None:
    """The watchdog gets its turns as late as the main loop: what it counts is a tenth of what passes."""
    story = Story()
    for _ in range(HANGING_MS // COUNTED_MS_MAX - 1):
        assert story.look(after_ms=10 * COUNTED_MS_MAX, computes_ms=COUNTED_MS_MAX) is Verdict.TURNS


def test_a_clock_that_goes_back_counts_nothing() -> None:
    story = Story()
    story.look(after_ms=1_000)
    before = story.watch.silent_ms
    story.look(after_ms=-500, computes_ms=-100)
    assert (story.watch.silent_ms, story.watch.busy_ms) == (before, 0)
