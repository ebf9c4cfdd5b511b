"""A helper process that is gone is told of as such, and nodes can be forked of one."""

from __future__ import annotations

import asyncio
import os
import signal
from importlib.util import find_spec

import pytest

from kraft.launcher.fork_messages import Command, Reply
from kraft.launcher.fork_start import FORK_SERVER
from kraft.launcher.helper_process import Helper, HelperFailed

SILENT = "json.tool"
"""A module of Python's own that reads its input to the end before it says anything."""


async def lost_while_asked(helper: Helper[Reply]) -> None:
    asked = asyncio.create_task(helper.ask(Command(id=helper.next_id())))
    await asyncio.sleep(0)
    os.kill(helper.pid, signal.SIGKILL)
    async with asyncio.timeout(30):
        await asked


def test_who_waits_for_a_helper_receives_that_it_has_ended() -> None:
    async def story() -> None:
        helper = Helper(SILENT, name="the process that starts nodes", reply=Reply)
        try:
            with pytest.raises(HelperFailed, match="the process that starts nodes has ended"):
                await lost_while_asked(helper)
            with pytest.raises(HelperFailed, match="the process that starts nodes has ended"):
                await helper.ask(Command(id=helper.next_id()))
        finally:
            helper.close()
        with pytest.raises(ProcessLookupError):
            os.kill(helper.pid, 0)

    asyncio.run(story())


def test_the_process_that_forks_nodes_is_named_by_its_module() -> None:
    """By name, as who starts nodes must not load what a node needs."""
    assert find_spec(FORK_SERVER) is not None
