"""Write a random story as a Python file that a user can read and run again. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, Final

from kraft.chaos.model import ANY, SOME, Between, Expect, Model, Scenario
from kraft.chaos.nemesis.actions import (
    Action,
    FinishClients,
    Heal,
    LinkFault,
    NodeFault,
    Partition,
    RequestFault,
    StartClients,
)
from kraft.chaos.nemesis.fuzz.story import Step, steps_of

_METHODS: Final[Mapping[str, str]] = {"disk_full": "fill_disk", "disk_free": "free_disk"}
"""Action -> method of `ScenarioRun`, where the names differ."""
_POSITIONAL: Final = ("node", "topic", "partition")


def render_scenario(scenario: Scenario, *, comment: str = "") -> str:
    lines = [f"# {line}".rstrip() for line in comment.splitlines()]
    lines += [
        f'"""{scenario.sentence}."""',
        "",
        "from kraft.chaos.checkers.verdict import Kind",
        "from kraft.chaos.model import ANY, SOME, Between, Expect, Producer, Reader, Topic, Transactor",
        "from kraft.chaos.story import ScenarioRun, scenario",
        "",
        "",
        "@scenario(",
        f"    {scenario.name!r},",
        f"    question={scenario.question!r},",
    ]
    if scenario.cluster.brokers != (1, 2, 3) or scenario.cluster.controllers != (1, 2, 3):
        lines.append(f"    brokers={scenario.cluster.brokers}, controllers={scenario.cluster.controllers},")
    if scenario.cluster.settings:
        lines.append(f"    settings={dict(scenario.cluster.settings)!r},")
    lines += ["    topics=[", *(f"        {_call(topic)}," for topic in scenario.topics), "    ],"]
    lines += ["    clients=[", *(f"        {_call(client)}," for client in scenario.clients), "    ],"]
    lines += [f"    expect={_expect(scenario.expect)},", ")"]
    lines += [f"async def {scenario.name.replace('-', '_')}(run: ScenarioRun) -> None:"]
    lines += [f'    """{scenario.sentence}."""']
    lines += [f"    {line}" for step in steps_of(scenario) for line in _step(step)]
    return "\n".join(lines) + "\n"


def _call(plan: Model) -> str:
    """`Topic(name='t')`, without default values."""
    given = plan.model_dump(exclude_defaults=True)
    return f"{type(plan).__name__}({', '.join(f'{name}={value!r}' for name, value in given.items())})"


def _expect(expect: Expect) -> str:
    plain = Expect()
    changed = {each.name: getattr(expect, each.name) for each in fields(expect)}
    arguments = [f"{name}={_value(value)}" for name, value in changed.items() if value != getattr(plain, name)]
    return f"Expect({', '.join(arguments)})"


def _value(value: Any) -> str:
    if isinstance(value, Between):
        return {ANY: "ANY", SOME: "SOME"}.get(value, repr(value))
    if isinstance(value, tuple):
        return f"({', '.join(f'Kind.{kind.name}' for kind in value)},)" if value else "()"
    return repr(value)


def _step(step: Step) -> Iterator[str]:
    if step.after_ms:
        yield f"await run.sleep({step.after_ms})"
    action = step.action
    yield f"await run.{_METHODS.get(action.do, action.do)}({', '.join(_arguments(action))})"


def _arguments(action: Action) -> Iterator[str]:
    given = action.model_dump(exclude_defaults=True, exclude={"do"})
    match action:
        case NodeFault(nodes=names) | StartClients(clients=names) | FinishClients(clients=names):
            yield from map(repr, names)
            return
        case Partition(groups=groups):
            yield from (repr(list(group)) for group in given.pop("groups", groups))
        case RequestFault():
            yield repr(given.pop("api"))
            yield from (f"{name}={value!r}" for name, value in given.items())
            return
        case LinkFault() | Heal():
            for end in ("dials", "answers"):
                if end in given and len(given[end]) == 1:
                    (given[end],) = given[end]
    if "partition" in given and "topic" not in given:
        raise AssertionError(given)
    for name in _POSITIONAL:
        if name in given:
            yield repr(given.pop(name))
    yield from (f"{name}={list(value) if isinstance(value, tuple) else value!r}" for name, value in given.items())
