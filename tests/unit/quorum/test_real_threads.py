"""Three voters over loopback with the real runtime: elections, commits, failover, restarts."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

from metadata.quorum.engine import TICK_LATE_MS
from tests.unit.quorum.cluster import running, setting, until

LONG_MS = 20_000
"""An election timeout: who leads sooner has not waited for it."""
FAILOVERS = 4
"""Tried until one is at once. On a busy machine both may stand in the same moment, and split the votes."""


def test_a_commit_reaches_all_voters_and_survives_a_restart(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as cluster:
            begun = time.monotonic()
            leader, epoch = await cluster.claim()
            print(f"first leader and claim after {1000 * (time.monotonic() - begun):.0f} ms")
            latencies = []
            for number in range(100):
                begun = time.monotonic()
                await leader.append(
                    [setting(f"s{number}")], controller_epoch=epoch, expected_offset=leader.image.offset
                )
                latencies.append(time.monotonic() - begun)
            latencies.sort()
            print(f"append p50 {1000 * latencies[50]:.2f} ms, p99 {1000 * latencies[98]:.2f} ms")
            await until(lambda: all(log.image.next_offset == 101 for log in cluster.logs.values()))
            assert len({str(log.image.config("broker", "")) for log in cluster.logs.values()}) == 1
            await cluster.stop()
            await cluster.start()
            await until(lambda: all(log.image.next_offset == 101 for log in cluster.logs.values()))

    asyncio.run(scenario())


def test_the_next_leader_stands_at_once_when_the_old_one_s_port_refuses(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, election_timeout_ms=LONG_MS) as cluster:
            for _ in range(FAILOVERS):
                leader, _ = await cluster.claim()
                old = leader.leadership.leader_id
                await until(cluster.is_settled)
                await cluster.stop(old)
                begun = time.monotonic()
                await cluster.claim()
                took_ms = 1000 * (time.monotonic() - begun)
                print(f"failover to the next commit: {took_ms:.0f} ms")
                if took_ms < LONG_MS:
                    return
                await cluster.start(old)
            raise AssertionError(f"none of {FAILOVERS} failovers took less than an election timeout")

    asyncio.run(scenario())


def test_a_blocked_loop_is_reported_and_the_voter_goes_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as cluster:
            await cluster.claim()
            blocked = next(node for node, log in cluster.logs.items() if not log.leadership.is_self)
            cluster.logs[blocked]._host.call(threading.Event().wait, 1.2 * TICK_LATE_MS / 1000)
            await until(lambda: bool(cluster.events[blocked].named("quorum_tick_late")))
            leader, epoch = await cluster.claim()
            await leader.append([setting("after")], controller_epoch=epoch, expected_offset=leader.image.offset)
            await until(lambda: "after" in cluster.logs[blocked].image.config("broker", ""))

    asyncio.run(scenario())
