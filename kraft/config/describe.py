"""Every key of cluster.toml with type, default, range and a sentence, as rows for `kraft config`. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import NoneType
from typing import Any, Final, Literal, Union, get_args, get_origin

from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from kraft.config.models import ClusterFile, ListenerConfig, NodeConfig, PeerAddresses, UserConfig
from kraft.protocol.primitives import INT32_MAX, INT64_MAX
from metadata.settings import BrokerSettings

_SECTIONS: Final[tuple[tuple[str, str, type[BaseModel]], ...]] = (
    ("top level", "", ClusterFile),
    ("[[nodes]]", "", NodeConfig),
    ("[[nodes]]", "peers.ID.", PeerAddresses),
    ("[[nodes.listeners]]", "", ListenerConfig),
    ("[[users]]", "", UserConfig),
    ("[settings]", "", BrokerSettings),
)
_TABLES: Final = frozenset({"nodes", "users", "peers", "listeners", "settings"})
_NAMED_LIMITS: Final = {INT32_MAX: "2^31-1", INT64_MAX: "2^63-1"}
_TYPE_NAMES: Final = {str: "text", int: "integer", float: "number", bool: "true/false", SecretStr: "text"}


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRow:
    section: str
    key: str
    type: str
    default: str
    range: str
    text: str


def key_rows() -> Iterator[KeyRow]:
    for section, prefix, model in _SECTIONS:
        for name, field in model.model_fields.items():
            if name not in _TABLES:
                yield _row(section, prefix + (field.alias or name), field)


def _row(section: str, key: str, field: FieldInfo) -> KeyRow:
    text = field.description or ""
    return KeyRow(
        section=section, key=key, type=_type(field.annotation), default=_default(field), range=_range(field), text=text
    )


def _type(annotation: Any) -> str:
    if annotation in _TYPE_NAMES:
        return _TYPE_NAMES[annotation]
    if get_origin(annotation) is Literal:
        return "text"
    if get_origin(annotation) is tuple:
        return "list of text"
    return next((name for part in get_args(annotation) if part is not NoneType and (name := _type(part))), "text")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        described = re.search(
            r"default: (.*?)(?: and so on by place)?\.?$", field.description or "", flags=re.IGNORECASE
        )
        return described[1].rstrip(".") if described else "(required)"
    value = field.default
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(value) or "-"
    return _number(value) if isinstance(value, int) else str(value) or '""'


def _range(field: FieldInfo) -> str:
    choices = _choices(field.annotation)
    if choices:
        return " | ".join(choices)
    low = high = ""
    for limit in field.metadata:
        match limit:
            case Ge(ge=value):
                low = _number(value)
            case Le(le=value):
                high = _number(value)
            case MinLen(min_length=value):
                low = f"{value}"
            case MaxLen(max_length=value):
                high = f"{value} long"
    return f"{low}..{high}" if high else (f"at least {low}" if low else "")


def _choices(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    if get_origin(annotation) in (tuple, Union):
        return [choice for part in get_args(annotation) for choice in _choices(part)]
    return []


def _number(value: object) -> str:
    return _NAMED_LIMITS.get(value, str(value)) if isinstance(value, int) else str(value)
