"""A `Scenario` -> the TOML text that parses to it: what fuzz writes down for people to read and repeat. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from kraft.scenarios.actions import Model
from kraft.scenarios.model import Scenario


def render_scenario(scenario: Scenario, *, comment: str = "") -> str:
    lines = [f"# {line}".rstrip() for line in comment.splitlines()]
    lines += _table("[scenario]", _written(scenario.scenario))
    lines += _table("[cluster]", _written(scenario.cluster))
    for topic in scenario.topics:
        lines += _table("[[topics]]", _written(topic))
    for client in scenario.clients:
        lines += _table("[[clients]]", _written(client))
    for step in scenario.steps:
        keys = _written(step)
        keys.pop("action", None)
        lines += _table("[[steps]]", keys | _written(step.action))
    lines += _table("[expect]", _written(scenario.expect))
    return "\n".join(lines).lstrip() + "\n"


def _written(model: Model) -> dict[str, Any]:
    """What differs from the defaults, and what has none."""
    document = model.model_dump(mode="json", exclude_defaults=True)
    for key in ("do", "kind"):
        if key in type(model).model_fields and getattr(model, key) != "wait":
            document = {key: getattr(model, key)} | document
    return document


def _table(header: str, keys: Mapping[str, Any]) -> list[str]:
    return ["", header, *_assignments(keys)] if keys or header.startswith("[[") else []


def _assignments(keys: Mapping[str, Any]) -> Iterator[str]:
    for key, value in keys.items():
        if key in ("settings", "configs"):
            for name, setting in value.items():
                yield f"{key}.{json.dumps(name)} = {_value(setting)}"
        else:
            yield f"{key} = {_value(value)}"


def _value(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return json.dumps(value, ensure_ascii=False)
        case list() | tuple():
            return f"[{', '.join(map(_value, value))}]"
        case dict():
            inside = ", ".join(f"{key} = {_value(item)}" for key, item in value.items())
            return f"{{ {inside} }}"
    return str(value)
