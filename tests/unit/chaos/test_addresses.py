"""Where the nodes and proxies of a run listen, and what a run says whose proxies are gone."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import sys
from pathlib import Path

import pytest

from kraft.chaos.live import NobodyWatches
from kraft.chaos.result import COULD_NOT_RUN
from kraft.chaos.run import Run
from kraft.chaos.worlds.processes.cluster import _configuration, own_host
from kraft.chaos.worlds.processes.proxy.process import ProxyProcess
from kraft.chaos.worlds.spec import ClusterSpec
from kraft.config.models import NodeConfig
from kraft.launcher.ports import with_free_ports
from tests.unit.chaos.test_runner import SMALLEST


def test_a_run_whose_proxies_are_gone_could_not_be_run() -> None:
    run = Run(SMALLEST, seed=1, watcher=NobodyWatches())

    async def story() -> None:
        proxies = ProxyProcess(seed=1)
        try:
            os.kill(proxies.pid, signal.SIGKILL)
            async with asyncio.timeout(30):
                await run._note(proxies.set_rules({}))
        finally:
            proxies.close()

    asyncio.run(story())
    result = run.conclude()
    run.remove_folder()
    assert result.exit_code == COULD_NOT_RUN
    assert result.problems == ("the proxy process has ended",)


def test_a_run_has_a_loopback_address_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    hosts = {own_host(random.Random(seed)) for seed in range(200)}
    assert len(hosts) > 190
    for host in hosts:
        parts = [int(part) for part in host.split(".")]
        assert parts[0] == 127
        assert all(1 <= part <= 254 for part in parts[1:])
    monkeypatch.setattr(sys, "platform", "darwin")
    assert own_host(random.Random(1)) == "127.0.0.1", "the only one that macOS has"


def test_nodes_of_a_run_have_own_ports(tmp_path: Path) -> None:
    host = own_host(random.Random(2))
    config = _configuration(ClusterSpec.of(3, controllers=1), tmp_path, host=host)
    assert {node.host for node in config.nodes} == {host}
    assert {node.bind_host for node in config.nodes} == {host}
    ports = [port for node in config.nodes for port in ports_of(node)]
    assert len(set(ports)) == len(ports)


def test_a_port_that_is_taken_at_the_address_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = own_host(random.Random(3))
    config = _configuration(ClusterSpec.of(1, controllers=0), tmp_path, host=host)
    with socket.create_server((host, 0)) as taken:
        port = taken.getsockname()[1]
        draws = iter([port, port + 1, port + 2, port + 3])
        monkeypatch.setattr(random, "randint", lambda first, last: next(draws))
        (node,) = with_free_ports(config).nodes
    assert set(ports_of(node)) == {port + 1, port + 2, port + 3}


def ports_of(node: NodeConfig) -> tuple[int, ...]:
    return (node.rest_port, node.kafka_port, node.quorum_port) if node.is_voter else (node.rest_port, node.kafka_port)
