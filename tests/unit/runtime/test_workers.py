"""Worker threads: their number follows background.threads while calls go on."""

from __future__ import annotations

import asyncio
import threading

from kraft.runtime.workers import ThreadWorkers


def test_resize_of_worker_threads() -> None:
    async def main() -> None:
        workers = ThreadWorkers(asyncio.get_running_loop(), threads=1)
        release = threading.Event()
        together = threading.Barrier(3)
        try:
            first = [asyncio.ensure_future(workers.run(release.wait, 10)) for _ in range(2)]
            await asyncio.sleep(0)
            workers.resize(3)
            await asyncio.wait_for(asyncio.gather(*(workers.run(together.wait, 10) for _ in range(3))), 10)
            assert not any(each.done() for each in first)
            release.set()
            assert await asyncio.wait_for(asyncio.gather(*first), 10) == [True, True]
        finally:
            release.set()
            workers.close()

    asyncio.run(main())
