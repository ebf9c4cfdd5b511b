"""TOML text -> `Scenario`, or one `ConfigError` with every problem: line, key, what is wrong, what would be right.

Pure. In the file a step is one flat table; here the keys of its action are gathered under `action`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from kraft.config.positions import key_lines, line_of
from kraft.config.problems import ConfigError, Problem, nearest
from kraft.config.toml import parse_toml
from kraft.scenarios import actions, model
from kraft.scenarios.references import check_references

_STEP_KEYS: Final = frozenset(model.Step.model_fields) - {"action"}
_ACTIONS: Final[Mapping[str, type[BaseModel]]] = {
    kind: action
    for action in get_args(get_args(actions.Action)[0])
    for kind in get_args(action.model_fields["do"].annotation)
}
_CLIENTS: Final[Mapping[str, type[BaseModel]]] = {"producer": model.Producer, "reader": model.Reader}
_TABLES: Final[Mapping[str, type[BaseModel]]] = {
    "scenario": model.About,
    "cluster": model.ClusterPlan,
    "expect": model.Expect,
    "topics": model.TopicPlan,
}


def parse_scenario(text: str, *, file: str) -> model.Scenario:
    """Raises ConfigError."""
    lines = key_lines(text)
    document = parse_toml(text, file=file)
    try:
        parsed = model.Scenario.model_validate(_complete(document))
    except ValidationError as error:
        raise ConfigError(file, [_problem(details, lines) for details in _causes(error.errors())]) from error
    if problems := check_references(parsed, lines):
        raise ConfigError(file, problems)
    return parsed


def _complete(document: Mapping[str, Any]) -> dict[str, Any]:
    """Steps with their action gathered, settings under Kafka's dotted names."""
    completed = dict(document)
    completed["cluster"] = _flat(completed.get("cluster", {}), "settings")
    if isinstance(completed.get("topics"), list):
        completed["topics"] = [_flat(topic, "configs") for topic in completed["topics"]]
    if isinstance(completed.get("steps"), list):
        completed["steps"] = [_complete_step(step) for step in completed["steps"]]
    if _has_several_in_flight(completed.get("clients")):
        expect = completed.get("expect", {})
        completed["expect"] = {"reordered": model.ANY} | expect if isinstance(expect, dict) else expect
    return completed


def _has_several_in_flight(clients: Any) -> bool:
    """Nothing orders requests that are in flight together."""
    found = [client.get("in_flight", 1) for client in clients if isinstance(client, dict)] if clients else []
    return any(isinstance(number, int) and number > 1 for number in found)


def _complete_step(step: Any) -> Any:
    if not isinstance(step, dict):
        return step
    waits = {key: value for key, value in step.items() if key in _STEP_KEYS}
    action = {key: value for key, value in step.items() if key not in _STEP_KEYS}
    return waits | {"action": {"do": "wait"} | _flat(action, "configs")}


def _flat(table: Any, key: str) -> Any:
    """TOML nests bare dotted keys; Kafka's names are flat."""
    if not isinstance(table, dict) or not isinstance(table.get(key), dict):
        return table
    return table | {key: dict(_leaves(table[key], ""))}


def _leaves(table: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in table.items():
        name = f"{prefix}{key}"
        found += _leaves(value, f"{name}.") if isinstance(value, dict) else [(name, value)]
    return found


def _causes(errors: list[ErrorDetails]) -> Iterator[ErrorDetails]:
    """Without those that only follow from another: a tuple is also too short when its elements are bad."""
    for details in errors:
        depth = len(details["loc"])
        below = any(len(other["loc"]) > depth and other["loc"][:depth] == details["loc"] for other in errors)
        if details["type"] != "too_short" or not below:
            yield details


def _problem(details: ErrorDetails, lines: Mapping[str, int]) -> Problem:
    owner, path = _place(details["loc"])
    name = str(path[-1]) if path else ""
    line = line_of(".".join(map(str, path)), lines)
    right = _sentence(owner, name)
    match details["type"]:
        case "extra_forbidden":
            return Problem(key=name, wrong="unknown key", right=nearest(name, _keys(owner)), line=line)
        case "missing":
            return Problem(key=name, wrong="missing", right=f"it must be there{right}", line=line)
        case "union_tag_invalid" | "union_tag_not_found":
            return _unknown_kind(details, path, lines)
    message = details["msg"].removeprefix("Value error, ").removeprefix("Input ")
    expected = message if message.startswith("should") else f"should satisfy: {message}"
    return Problem(key=name, wrong=f"{details['input']!r} is not possible", right=f"it {expected}{right}", line=line)


def _unknown_kind(details: ErrorDetails, path: tuple[int | str, ...], lines: Mapping[str, int]) -> Problem:
    key, known = ("do", _ACTIONS) if path[0] == "steps" else ("kind", _CLIENTS)
    line = line_of(".".join(map(str, (*path, key))), lines)
    given = details["input"].get(key) if isinstance(details["input"], Mapping) else None
    if given is None:
        return Problem(key=key, wrong="missing", right=f"it must be one of {', '.join(known)}", line=line)
    return Problem(key=key, wrong=f"there is no {key} = {given!r}", right=nearest(str(given), known), line=line)


def _place(location: tuple[int | str, ...]) -> tuple[type[BaseModel] | None, tuple[int | str, ...]]:
    """The model that a pydantic location lies in, and the path of the key as it stands in the file."""
    match location:
        case ("steps", int(), "action", str(kind), str(key), *_):
            return _ACTIONS.get(kind), (*location[:2], key)
        case ("steps", int(), "action", *_):
            return None, location[:2]
        case ("steps", int(), str(), *_):
            return model.Step, location[:3]
        case ("clients", int(), str(kind), str(key), *_):
            return _CLIENTS.get(kind), (*location[:2], key)
        case ("topics", int(), str(), *_):
            return model.TopicPlan, location[:3]
        case (str(table), str(), *_) if table in _TABLES:
            return _TABLES[table], location[:2]
    return model.Scenario, location


def _keys(owner: type[BaseModel] | None) -> list[str]:
    if owner is None:
        return []
    step_keys = _STEP_KEYS if owner in _ACTIONS.values() else frozenset()
    return sorted({*owner.model_fields, *step_keys} - {"action"})


def _sentence(owner: type[BaseModel] | None, name: str) -> str:
    field = owner.model_fields.get(name) if owner else None
    return f" ({field.description.rstrip('.')})" if field and field.description else ""
