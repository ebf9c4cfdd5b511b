"""The program that runs a cluster with links for a test, `python -P -m kraft.testing.fault_server`.

Its commands are in `kraft.testing.fault_commands`.

The fork server is started before any other module is loaded here: it loads meanwhile, on another processor.
"""

from __future__ import annotations

import asyncio
import signal

import uvloop

from kraft.launcher.node_starter import node_starter
from kraft.runtime.umask import write_for_owner_alone


async def main() -> None:
    starter = node_starter()
    try:
        from kraft.testing.fault_commands import serve

        await serve(starter)
    finally:
        starter.close()


if __name__ == "__main__":
    write_for_owner_alone()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for our owner, and we end with it
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
