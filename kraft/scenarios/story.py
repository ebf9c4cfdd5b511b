"""The steps of one scenario, told on a running cluster: wait for the condition, remember, act.

A wait that takes too long ends the story with a message that says what was still missing.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from kraft.scenarios.conditions import Value, World, describe_answers, parse_expression
from kraft.scenarios.live import Watcher, describe_step
from kraft.scenarios.model import Scenario, Step
from kraft.scenarios.spec import ScenarioError
from kraft.scenarios.timeline import now_us

LOOK_MS: Final = 40
"""Between two looks at the cluster while a step waits."""


class StepFailed(ScenarioError):
    """A step's condition did not come true in time, or its action could not be done."""

    def __init__(self, number: int, step: Step, reason: str) -> None:
        super().__init__(f"step {number} ({describe_step(step)}): {reason}")


class Stage(Protocol):
    """Where the story takes place."""

    async def look(self) -> World:
        """The cluster as it is now."""
        ...

    def acked(self) -> int:
        """Records acknowledged so far, to all producers."""
        ...

    async def act(self, step: Step, names: dict[str, Value]) -> None:
        """Raises ScenarioError when it cannot be done."""
        ...


class Story:
    def __init__(self, scenario: Scenario, stage: Stage, watcher: Watcher) -> None:
        self._scenario = scenario
        self._stage = stage
        self._watcher = watcher
        self.names: dict[str, Value] = {}
        """What steps have remembered."""

    async def tell(self) -> None:
        """Raises StepFailed."""
        for number, step in enumerate(self._scenario.steps, 1):
            self._watcher.step(number, describe_step(step))
            if step.after_ms:
                await asyncio.sleep(step.after_ms / 1000)
            if step.after_acked is not None:
                await self._wait_acked(number, step, step.after_acked)
            if step.when is not None:
                await self._wait(number, step, step.when)
            await self._remember(number, step)
            await self._act(number, step)

    async def _wait_acked(self, number: int, step: Step, more: int) -> None:
        wanted = self._stage.acked() + more
        deadline_us = now_us() + step.deadline_ms * 1000
        while self._stage.acked() < wanted:
            if now_us() > deadline_us:
                missing = wanted - self._stage.acked()
                reason = f"{missing} of {more} records were still not acknowledged after {step.deadline_ms} ms"
                raise StepFailed(number, step, reason)
            await asyncio.sleep(LOOK_MS / 1000)

    async def _wait(self, number: int, step: Step, condition: str) -> None:
        expression = parse_expression(condition)
        deadline_us = now_us() + step.deadline_ms * 1000
        while True:
            asked_us = now_us()
            holds, answers = await expression.look(await self._stage.look(), self.names)
            if holds:
                return
            if asked_us > deadline_us:
                told = describe_answers(answers)
                raise StepFailed(number, step, f"{condition} did not hold within {step.deadline_ms} ms: {told}")
            await asyncio.sleep(LOOK_MS / 1000)

    async def _remember(self, number: int, step: Step) -> None:
        if not step.remember:
            return
        world = await self._stage.look()
        found: dict[str, Value] = {}
        for name, text in step.remember.items():
            value, answers = await parse_expression(text).look(world, self.names)
            if value is None:
                raise StepFailed(number, step, f"{name} = {text} is not known: {describe_answers(answers)}")
            found[name] = value
        self.names |= found

    async def _act(self, number: int, step: Step) -> None:
        try:
            await self._stage.act(step, self.names)
        except StepFailed:
            raise
        except ScenarioError as error:
            raise StepFailed(number, step, str(error)) from error
