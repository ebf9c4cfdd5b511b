"""A test that fails with something open fails: its loop is closed all the same."""

from __future__ import annotations

import asyncio
import warnings

import uvloop


async def leave_a_port_open() -> None:
    loop = asyncio.get_running_loop()
    await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)


def test_a_loop_is_closed_that_has_a_port_open_and_reports_it() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.warn("unclosed resource <of nobody>", ResourceWarning, stacklevel=1)  # or else it would hang here
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(leave_a_port_open())
    assert [each.category for each in seen] == [ResourceWarning] * len(seen)
    assert any("TCPServer" in str(each.message) for each in seen), [str(each.message) for each in seen]
