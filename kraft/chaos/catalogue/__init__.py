"""The built-in scenarios, in the order of `kraft scenario list`."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Final

from kraft.chaos.catalogue import (
    acks,
    all_down,
    controllers,
    cut_off,
    disks,
    groups,
    last_isr_member,
    min_isr,
    networks,
    power,
    queues,
    restarts,
    retries,
    slow_followers,
    topics,
    transactions,
    unclean_election,
)
from kraft.chaos.model import Scenario

MODULES: Final = (
    acks,
    last_isr_member,
    all_down,
    unclean_election,
    min_isr,
    slow_followers,
    cut_off,
    controllers,
    networks,
    restarts,
    power,
    disks,
    retries,
    topics,
    groups,
    queues,
    transactions,
)


def scenarios_of(module: ModuleType) -> Iterator[Scenario]:
    """The scenarios of a module, in the order of the file."""
    return (value for value in vars(module).values() if isinstance(value, Scenario))


SCENARIOS: Final = {scenario.name: scenario for module in MODULES for scenario in scenarios_of(module)}
NAMES: Final = tuple(SCENARIOS)
