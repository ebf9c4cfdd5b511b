"""HTTP requests with as many values as fit: none of them holds the event loop or takes memory that its length does not
pay for, whichever operation it is and whatever stands in its body."""

from __future__ import annotations

import json
import logging
import tracemalloc
from collections.abc import Iterator
from typing import Any
from urllib.request import urlopen

import pytest

from tests.integration.attacks.test_dense_frames import KIB, MEMORY_BYTES, MEMORY_FACTOR, SLOW_S, TRIES, TURN_MS_MAX
from tests.support.dense_bodies import DenseBody, bodies, operations
from tests.support.measured_node import HOST, MeasuredNode


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeasuredNode]:
    logging.disable(logging.CRITICAL)
    try:
        with MeasuredNode(tmp_path_factory.mktemp("measured")) as node:
            yield node
    finally:
        logging.disable(logging.NOTSET)


@pytest.mark.long
def test_a_dense_body_of_each_operation_costs_little(node: MeasuredNode) -> None:
    hold(node, size=64 * KIB)


@pytest.mark.slow
@pytest.mark.timeout(SLOW_S)
@pytest.mark.parametrize("size", [8 * KIB, 1024 * KIB])
def test_dense_bodies_of_other_sizes_cost_little(node: MeasuredNode, size: int) -> None:
    hold(node, size=size)


def hold(node: MeasuredNode, *, size: int) -> None:
    """Each body of each operation to the limits."""
    document = _document(node)
    names, problems = operations(document), list[str]()
    assert len(names) > 20
    for name in names:
        for body in bodies(document, name, size=size):
            turn_ms = _turn_ms(node, body)
            if turn_ms > TURN_MS_MAX:
                problems.append(f"{body}: {turn_ms:.0f} ms between two turns of the loop")
            held = _memory_bytes(node, body)
            allowed = MEMORY_FACTOR * len(body.data) + MEMORY_BYTES
            if held > allowed:
                problems.append(f"{body}: {held} bytes of memory, {allowed:.0f} may be")
    assert not problems, "\n".join(problems)


def _document(node: MeasuredNode) -> Any:
    with urlopen(f"http://{HOST}:{node.rest_port}/openapi.json") as answer:
        return json.loads(answer.read())


def _turn_ms(node: MeasuredNode, body: DenseBody) -> float:
    shortest = float("inf")
    for _ in range(TRIES):
        shortest = min(shortest, node.http_turn_ms(body.request)[0])
        if shortest <= TURN_MS_MAX:
            break
    return shortest


def _memory_bytes(node: MeasuredNode, body: DenseBody) -> int:
    tracemalloc.start()
    try:
        return node.http_memory_bytes(body.request)
    finally:
        tracemalloc.stop()
