"""What must hold between the parts of a scenario: topics, clients, nodes and names that are spoken of exist. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from kraft.config.positions import line_of
from kraft.config.problems import Problem, nearest
from kraft.scenarios import actions
from kraft.scenarios.conditions import FUNCTIONS, Expression, parse_expression
from kraft.scenarios.expectation import parse_range
from kraft.scenarios.links import Purpose
from kraft.scenarios.model import Scenario, Step
from metadata.settings import BrokerSettings, TopicSettings

_NODE_KEYS: Final = ("node", "dials", "answers", "groups", "replicas")


def check_references(scenario: Scenario, lines: Mapping[str, int]) -> list[Problem]:
    """Every problem, each with the line of its key."""
    return [
        Problem(key=_key(path), wrong=wrong, right=right, line=line_of(path, lines))
        for path, wrong, right in _complaints(scenario)
    ]


def _key(path: str) -> str:
    """As the reader wrote it: a setting keeps its dots."""
    for table in (".settings.", ".configs."):
        if table in path:
            return path.partition(table)[2]
    return path.rpartition(".")[2]


_Complaints = Iterator[tuple[str, str, str]]
"""Path of the key, what is wrong, what is right."""


def _complaints(scenario: Scenario) -> _Complaints:
    yield from _settings("cluster.settings", BrokerSettings, scenario.cluster.settings)
    yield from _topics(scenario)
    yield from _clients(scenario)
    known = {client.name for client in scenario.clients} | {"clients"}
    bound: set[str] = set()
    for index, step in enumerate(scenario.steps):
        yield from _step(f"steps.{index}", scenario, step, bound, known)
        bound |= set(step.remember)
    for name, text in scenario.expect.ranges().items():
        yield from _unbound(f"expect.{name}", parse_range(text).names, bound)
    for text in scenario.expect.holds:
        yield from _expression("expect.holds", scenario, parse_expression(text), bound)


def _topics(scenario: Scenario) -> _Complaints:
    seen: set[str] = set()
    for index, topic in enumerate(scenario.topics):
        path = f"topics.{index}"
        if topic.name in seen:
            yield f"{path}.name", f"there are two topics {topic.name}", "each topic needs its own name"
        seen.add(topic.name)
        for replicas in topic.assignment:
            for broker in replicas:
                if broker not in scenario.cluster.brokers:
                    yield f"{path}.assignment", f"there is no broker {broker}", _are(scenario.cluster.brokers)
        yield from _settings(f"{path}.configs", TopicSettings, topic.configs)


def _clients(scenario: Scenario) -> _Complaints:
    seen: set[str] = set()
    topics = _all_topics(scenario)
    for index, client in enumerate(scenario.clients):
        path = f"clients.{index}"
        if client.name in seen:
            yield f"{path}.name", f"there are two clients {client.name}", "each client needs its own name"
        seen.add(client.name)
        if client.topic not in topics:
            yield f"{path}.topic", f"there is no topic {client.topic}", nearest(client.topic, topics)
        if isinstance(client.target, int) and client.target not in scenario.cluster.node_ids:
            yield f"{path}.target", f"there is no node {client.target}", _are(scenario.cluster.node_ids)


def _step(path: str, scenario: Scenario, step: Step, bound: set[str], clients: set[str]) -> _Complaints:
    for key, text in {"when": step.when, **{f"remember.{k}": v for k, v in step.remember.items()}}.items():
        if text is not None:
            yield from _expression(f"{path}.{key}", scenario, parse_expression(text), bound)
    action = step.action
    for client in action.clients if isinstance(action, actions.StartClients | actions.FinishClients) else ():
        if client not in clients:
            yield f"{path}.clients", f"there is no client {client}", nearest(client, clients)
    topic = getattr(action, "topic", None)
    if topic is not None and topic not in _all_topics(scenario):
        yield f"{path}.topic", f"there is no topic {topic}", nearest(topic, _all_topics(scenario))
    if isinstance(action, actions.SetTopic | actions.CreateTopic):
        yield from _settings(f"{path}.configs", TopicSettings, action.configs)
    if isinstance(action, actions.SetCluster):
        yield from _settings(f"{path}.configs", BrokerSettings, action.configs)
    yield from _links(path, action)
    available = bound | set(step.remember)
    is_rest = isinstance(action, actions.LinkFault | actions.Heal) and "rest" in purposes_of(action)
    for key in _NODE_KEYS:
        for node in _flattened(getattr(action, key, None)):
            yield from _node(f"{path}.{key}", scenario, node, available | (clients if is_rest else set()))


def purposes_of(action: actions.LinkFault | actions.Heal | actions.Partition | actions.Isolate) -> tuple[Purpose, ...]:
    return (action.purpose,) if isinstance(action.purpose, str) else action.purpose


def _links(path: str, action: BaseModel) -> _Complaints:
    if not isinstance(action, actions.LinkFault):
        return
    needed = {"delay": ("delay_ms", "jitter_ms"), "bandwidth": ("bytes_per_second",)}.get(action.do, ())
    if needed and not any(getattr(action, key) for key in needed):
        yield f"{path}.do", f"{action.do} of nothing", f"give {' or '.join(needed)}"


def _node(path: str, scenario: Scenario, node: int | str, bound: set[str]) -> _Complaints:
    if isinstance(node, int):
        if node not in scenario.cluster.node_ids:
            yield path, f"there is no node {node}", _are(scenario.cluster.node_ids)
        return
    yield from _expression(path, scenario, parse_expression(node), bound)


def _expression(path: str, scenario: Scenario, expression: Expression, bound: set[str]) -> _Complaints:
    yield from _unbound(path, expression.free, bound)
    topics, clients = _all_topics(scenario), {client.name for client in scenario.clients}
    for call in expression.calls:
        for kind, argument in zip(FUNCTIONS[call.function].kinds, call.arguments, strict=False):
            known = {"topic": topics, "client": clients}.get(kind)
            if known is not None and isinstance(argument, str) and argument not in known | bound:
                yield path, f"there is no {kind} {argument}", nearest(argument, known)


def _unbound(path: str, names: frozenset[str], bound: set[str]) -> _Complaints:
    for name in sorted(names - bound):
        hint = nearest(name, bound) if bound else 'remember it in an earlier step: remember = { old = "leader of t-0" }'
        yield path, f"nothing remembered {name} before", hint


def _settings(path: str, model: type[BaseModel], settings: Mapping[str, Any]) -> _Complaints:
    try:
        model.model_validate(dict(settings))
    except ValidationError as error:
        names = [str(field.alias) for field in model.model_fields.values()]
        for details in error.errors():
            name = str(details["loc"][0])
            if details["type"] == "extra_forbidden":
                yield f"{path}.{name}", "unknown setting", nearest(name, names)
            else:
                message = details["msg"].removeprefix("Input ")
                yield f"{path}.{name}", f"{details['input']!r} is not possible", f"{name} {message}"


def _all_topics(scenario: Scenario) -> set[str]:
    created = {step.action.topic for step in scenario.steps if isinstance(step.action, actions.CreateTopic)}
    return {topic.name for topic in scenario.topics} | created


def _flattened(value: Any) -> Iterator[int | str]:
    if isinstance(value, tuple):
        for item in value:
            yield from _flattened(item)
    elif value is not None:
        yield value


def _are(ids: tuple[int, ...]) -> str:
    return f"the ids are {', '.join(map(str, ids))}"
