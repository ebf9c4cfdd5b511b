"""Memory for answers: who gets how much, who waits, and for how long, in virtual time."""

from __future__ import annotations

import asyncio

from kraft.broker.answer_budget import PIECE_BYTES, AnswerBudget
from tests.unit.replication.harness.virtual import environment, run

LIMIT = 64 * PIECE_BYTES


def test_answer_gets_half_of_free_memory():
    answers = AnswerBudget(LIMIT)
    assert answers.room() == LIMIT // 2
    answers.hold(LIMIT // 2)
    assert answers.room() == LIMIT // 4
    answers.hold(LIMIT // 2 - PIECE_BYTES)
    assert answers.room() == PIECE_BYTES
    answers.hold(1)
    assert (answers.room(), answers.has_room()) == (0, False)


def test_who_waits_is_let_in_in_order_one_for_each_piece():
    async def main() -> None:
        clock, answers, came = environment(1).clock, AnswerBudget(LIMIT), list[int]()
        answers.hold(LIMIT)

        async def reader(number: int) -> None:
            await answers.wait(clock, ms_max=60_000)
            assert answers.room() >= PIECE_BYTES
            came.append(number)
            answers.hold(PIECE_BYTES)
            answers.admit()

        readers = [asyncio.create_task(reader(number)) for number in range(4)]
        await clock.sleep(1)
        assert (came, answers.is_waited_for) == ([], True)
        for number in range(4):
            answers.give_back(PIECE_BYTES)
            await clock.sleep(1)
            assert came == list(range(number + 1))
        await asyncio.gather(*readers)
        assert (answers.held, answers.is_waited_for) == (LIMIT, False)

    run(main())


def test_a_wait_ends_with_its_time_or_its_caller_and_keeps_nothing():
    async def main() -> None:
        clock, answers = environment(1).clock, AnswerBudget(LIMIT)
        answers.hold(LIMIT)
        began_ms = clock.monotonic_ms()
        await answers.wait(clock, ms_max=500)
        assert clock.monotonic_ms() - began_ms == 500
        assert (answers.room(), answers.is_waited_for) == (0, False)

        waiting = asyncio.create_task(answers.wait(clock, ms_max=500))
        let_in = asyncio.create_task(answers.wait(clock, ms_max=500))
        await clock.sleep(1)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        answers.give_back(PIECE_BYTES)
        let_in.cancel()
        await asyncio.gather(let_in, return_exceptions=True)
        assert (answers.held, answers.has_room()) == (LIMIT - PIECE_BYTES, True)

    run(main())
