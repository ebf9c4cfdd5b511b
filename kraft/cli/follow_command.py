"""`kraft consume --follow`: one long poll per partition, all at once, into one bounded queue.

Order is kept within each partition. A partition without a reachable leader is tried again, at another node each time,
and ends the command when that lasts too long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from kraft.cli.options import Isolation
from kraft.cli.output import CommandFailed
from kraft.cli.partition_reads import (
    RETRY_LIMIT_MS,
    RETRY_POLICY,
    TRYING_AGAIN,
    Position,
    ReadRecord,
    move,
    not_led,
    read_request,
)
from kraft.cli.rest import Patience, checked
from kraft.client.response import Answer, Request
from kraft.client.transport import Transport

FOLLOW_WAIT_MS: Final = 5_000
"""Longest wait of one long poll; a new record ends it at once."""
QUEUED_READS_MAX: Final = 8
"""Answers read and not yet printed; more long polls wait."""

OnRecords = Callable[[list[ReadRecord]], bool]


def follow(
    urls: Sequence[str], positions: Sequence[Position], *, form: str, isolation: Isolation, on_records: OnRecords
) -> None:
    """Follow until `on_records` returns False. Raises CommandFailed."""
    asyncio.run(_follow(urls, positions, form=form, isolation=isolation, on_records=on_records))


async def _follow(
    urls: Sequence[str], positions: Sequence[Position], *, form: str, isolation: Isolation, on_records: OnRecords
) -> None:
    queue: asyncio.Queue[list[ReadRecord] | CommandFailed] = asyncio.Queue(QUEUED_READS_MAX)
    async with Transport() as transport:
        tasks = [
            asyncio.create_task(_follow_one(transport, urls, position, form=form, isolation=isolation, queue=queue))
            for position in positions
        ]
        try:
            while True:
                read = await queue.get()
                if isinstance(read, CommandFailed):
                    raise read
                if not on_records(read):
                    return
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _follow_one(
    transport: Transport,
    urls: Sequence[str],
    position: Position,
    *,
    form: str,
    isolation: Isolation,
    queue: asyncio.Queue[list[ReadRecord] | CommandFailed],
) -> None:
    try:
        while True:
            request = read_request(position, form=form, isolation=isolation, wait_ms=FOLLOW_WAIT_MS)
            answer = checked(await _patiently(transport, urls, request))
            if records := move(position, answer):
                await queue.put(records)
    except CommandFailed as failure:
        await queue.put(failure)


async def _patiently(transport: Transport, urls: Sequence[str], request: Request) -> Answer:
    """Try each node in turn. Raises CommandFailed when none answers for long."""
    patience = Patience(RETRY_POLICY, limit_ms=RETRY_LIMIT_MS, words=TRYING_AGAIN, reports_at=len(urls) + 1)
    while True:
        outcome = await transport.send(urls[patience.attempts % len(urls)], request)
        wait_ms = patience.wait_ms(not_led(outcome))
        if wait_ms is not None:
            await asyncio.sleep(wait_ms / 1_000)
        elif isinstance(outcome, Answer):
            return outcome
        else:
            raise CommandFailed(f"no node answers: {outcome.reason}")
