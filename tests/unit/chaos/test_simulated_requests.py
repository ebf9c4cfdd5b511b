"""A request of a simulated client whose time is over before its turn comes: it leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import warnings

import pytest

from kraft.chaos.worlds.simulated.client import NOTICE_S, ClientLink, SimulatedClient, Unanswered
from kraft.chaos.worlds.simulated.cluster import SimulatedCluster, SimulatedNode
from tests.unit.coordinators.test_transaction_cluster import play

WITHIN_MS = 500


def test_late_request_is_not_carried_out() -> None:
    link = ClientLink(holds_requests=True)
    arrived: list[int] = []

    async def work(node: SimulatedNode) -> None:
        arrived.append(node.node_id)

    async def release() -> None:
        """Between the last look of the client at its link and the end of its time."""
        await asyncio.sleep(WITHIN_MS / 1000 - NOTICE_S / 4)
        link.holds_requests = False

    async def story(cluster: SimulatedCluster) -> None:
        client = SimulatedClient(cluster, lambda _: link)
        releasing = asyncio.get_running_loop().create_task(release())
        with pytest.raises(Unanswered):
            await client.asked(1, work, within_ms=WITHIN_MS)
        await releasing
        await client.asked(1, work, within_ms=WITHIN_MS)

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        play(story)
        gc.collect()
    assert arrived == [1], "the second one alone"
    assert [str(each.message) for each in seen] == []
