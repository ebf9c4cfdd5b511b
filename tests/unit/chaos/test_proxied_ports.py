"""The ports of links: never one of a node's, which listens later and would find it taken."""

from __future__ import annotations

import asyncio
import random

import pytest

from kraft.chaos.worlds.processes.proxy import helper
from kraft.chaos.worlds.processes.proxy.rules import Command, OpenLink

HOST = "127.0.0.1"


def test_a_link_takes_no_port_of_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    first = helper.PORT_FIRST
    monkeypatch.setattr(helper, "PORT_LAST", first + 19)
    reserved = tuple(range(first, first + 10))
    links = tuple(
        OpenLink(name=f"link {number}", kind="kafka", host=HOST, target_host=HOST, target_port=first)
        for number in range(5)
    )

    async def opened() -> set[int]:
        proxies = helper.Proxies(asyncio.get_running_loop(), random.Random(1))
        reply = await proxies.obey(Command(id=1, open=links, reserved=reserved))
        return set(reply.ports.values())

    ports = asyncio.run(opened())
    assert len(ports) == len(links)
    assert not ports & set(reserved)
