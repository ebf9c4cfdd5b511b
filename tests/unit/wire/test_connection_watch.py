"""Whose connection is closed when clients idle or leave answers unread, in virtual time."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

from kraft.broker.answer_budget import AnswerBudget
from kraft.wire.api_handler import ClientConnection
from kraft.wire.connection_watch import LOOK_MS, STANDSTILL_MS, TAKEN_BYTES_MIN, ClientWatch
from tests.unit.replication.harness.virtual import environment, run

MIB = 1024 * 1024


class Client:
    def __init__(self, name: str = "c") -> None:
        self.peer = name
        self.client = ClientConnection(peer=name, listener="PLAINTEXT")
        self.activity = 0
        self.waits = False
        self.unread_bytes = 0
        self.is_closed = False
        self.ended = ""

    def close(self) -> None:
        self.ended = "closed"

    def abort(self) -> None:
        self.ended = "aborted"

    def give_up(self) -> None:
        self.ended = "given up"


def story(*, idle_ms_max: int = 600_000, unread_bytes_max: int = 100 * MIB):
    clock = environment(1).clock
    return clock, ClientWatch(clock, idle_ms_max=idle_ms_max, answers=AnswerBudget(unread_bytes_max))


def test_who_does_nothing_for_so_long_is_closed():
    async def main() -> None:
        clock, watch = story(idle_ms_max=60 * LOOK_MS)
        idle, busy, waiting, reading = Client(), Client(), Client(), Client()
        waiting.waits = True
        reading.unread_bytes = 10 * MIB
        with ExitStack() as stack:
            for each in (idle, busy, waiting, reading):
                stack.enter_context(watch.watching(each))
            for _ in range(59):
                await clock.sleep(LOOK_MS)
                busy.activity += 1
                reading.unread_bytes -= 1
            assert [each.ended for each in (idle, busy, waiting, reading)] == [""] * 4
            for _ in range(3):
                await clock.sleep(LOOK_MS)
                busy.activity += 1
                reading.unread_bytes -= 1
            assert [each.ended for each in (idle, busy, waiting, reading)] == ["closed", "", "", ""]

    run(main())


def test_who_reads_nothing_for_so_long_is_cut_off_and_not_waited_for():
    async def main() -> None:
        clock, watch = story(idle_ms_max=60 * LOOK_MS)
        silent = Client()
        silent.unread_bytes, silent.waits = 5, True
        with watch.watching(silent):
            await clock.sleep(63_000)
            assert silent.ended == "aborted"

    run(main())


def test_no_idleness_is_too_long_when_the_setting_is_negative():
    async def main() -> None:
        clock, watch = story(idle_ms_max=-1)
        idle = Client()
        with watch.watching(idle):
            await clock.sleep(10_000_000)
            assert idle.ended == ""

    run(main())


def test_a_slow_reader_is_left_alone_while_there_is_room():
    async def main() -> None:
        clock, watch = story()
        slow = Client()
        slow.unread_bytes = 100 * MIB
        with watch.watching(slow):
            await clock.sleep(300_000)
            assert slow.ended == ""

    run(main())


def test_when_too_much_is_unread_the_largest_that_stand_still_go():
    async def main() -> None:
        clock, watch = story()
        small, large, moving, new = Client(), Client(), Client(), Client()
        small.unread_bytes, large.unread_bytes, moving.unread_bytes = 10 * MIB, 80 * MIB, 90 * MIB
        with ExitStack() as stack:
            for each in (small, large, moving):
                stack.enter_context(watch.watching(each))
            for _ in range(STANDSTILL_MS // LOOK_MS - 1):
                await clock.sleep(LOOK_MS)
                moving.unread_bytes -= TAKEN_BYTES_MIN // 8
            assert [each.ended for each in (small, large, moving)] == [""] * 3
            stack.enter_context(watch.watching(new))
            new.unread_bytes = 1
            await clock.sleep(2 * LOOK_MS)
            assert [each.ended for each in (small, large, moving, new)] == ["", "aborted", "", ""]

    run(main())


def test_what_waits_for_a_client_that_has_gone_is_given_up():
    async def main() -> None:
        clock, watch = story()
        gone = Client()
        gone.waits = gone.is_closed = True
        with watch.watching(gone):
            await clock.sleep(2 * LOOK_MS)
            assert gone.ended == "given up"

    run(main())


def test_nothing_is_looked_at_when_nobody_is_there():
    async def main() -> None:
        clock, watch = story()
        first, second = Client(), Client()
        with watch.watching(first), watch.watching(second):
            assert len(watch) == 2
        assert len(watch) == 0
        assert watch._timer is None
        with watch.watching(first):
            await clock.sleep(2 * LOOK_MS)
        await asyncio.sleep(0)
        assert watch._timer is None

    run(main())
