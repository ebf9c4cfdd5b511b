"""The clients of a run whom brokers remember, started and ended together, and the last word on them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from metadata.image import TopicIdPartition
from tests.simulation.keyed_producing import KeyedProducer
from tests.simulation.oracle import Oracle
from tests.simulation.producer_oracle import ProducerOracle
from tests.simulation.sequenced_producing import SequencedProducer

if TYPE_CHECKING:
    from tests.simulation.plan import Plan


class RememberedClients:
    """Nothing in a run that draws none."""

    def __init__(self, plan: Plan, oracle: Oracle) -> None:
        self._oracle = oracle
        self._promised = ProducerOracle(oracle)
        drawn, names = plan.remembered, [topic.name for topic in plan.topics]
        self._producers: list[SequencedProducer | KeyedProducer] = []
        if drawn is not None:
            self._producers += [SequencedProducer(each, names[each.topic], self._promised) for each in drawn.sequenced]
            self._producers += [KeyedProducer(each, names[each.topic], self._promised) for each in drawn.keyed]

    def start(self, tasks: asyncio.TaskGroup) -> None:
        for producer in self._producers:
            tasks.create_task(producer.run())

    async def finish(self) -> None:
        """After the last fault: producers end, then members come to rest, read to the end, and leave."""
        for producer in self._producers:
            producer.is_stopping = True

    def judge(self, logs: Mapping[TopicIdPartition, Mapping[int, bytes]]) -> None:
        if self._producers:
            self._promised.judge(logs)
