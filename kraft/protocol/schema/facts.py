"""The facts of Kafka's messages: what `messages/*.txt` say of them, as values. `docs/wire-schemas.md` has the form."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from keyword import iskeyword
from pathlib import Path
from typing import Any, Final

MESSAGES: Final = Path(__file__).parent / "messages"
NEVER: Final = 1 << 15
"""The end of versions without an end, and `flexible_from` of a message without flexible versions."""
ALL: Final = range(NEVER)
NONE: Final = range(0)
NUMBERS: Final = {
    "bool": "?",
    "int8": "b",
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "float64": "d",
    "uuid": "16s",
}
"""Struct codes of the types whose values have one size."""
TYPES: Final = {*NUMBERS, "string", "bytes", "records"}


class SchemaError(ValueError):
    """A line that holds no fact; the message names its file and its number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of a structure."""

    name: str
    """Kafka's name, in CamelCase."""
    kind: str
    """Kafka's type of the value, or of an array's items; a structure's name is its type."""
    is_array: bool
    versions: range
    nullable: range = NONE
    tagged: range = NONE
    tag: int = -1
    default: Any
    is_key: bool = False
    """Whether Kafka finds the items of the array by this field."""
    entity: str = ""
    """What the value names (`topicName`, `brokerId`)."""
    is_ours: bool = False
    """Whether only our nodes send it."""
    comment: str = ""

    @property
    def slot(self) -> str:
        """The name of the attribute."""
        return snake_case(self.name)

    @property
    def is_structure(self) -> bool:
        return self.kind not in TYPES


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """A message, or a structure inside of one."""

    name: str
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """One message in all its versions."""

    name: str
    """Kafka's name, such as `FetchRequest`."""
    api_key: int
    """The key of a request, a response or a metadata record; -1: none of these."""
    is_ours: bool
    versions: range
    flexible_from: int
    clients: range = NONE
    """The versions of the API that clients are served."""
    nodes: range = NONE
    """The versions of the API that nodes are served; they send the last one to each other."""
    structures: Mapping[str, Structure]
    """Inner ones before those that have fields of them."""
    top: Structure


def read_schemas(folder: Path = MESSAGES) -> Iterator[Schema]:
    """All messages of a folder, in the order of its files. Raises SchemaError."""
    for path in sorted(folder.glob("*.txt")):
        yield from parsed(path.read_text(encoding="utf-8"), path.name)


def parsed(text: str, file: str = "schema") -> list[Schema]:
    """The messages that one text describes: an API's request and response, or messages of a log. A comment belongs to
    the field of its line, or, when it has an indented line of its own, to the field below. Raises SchemaError.
    """
    found: list[_Message] = []
    api: _Api | None = None
    comment = ""
    for number, line in enumerate(text.splitlines(), 1):
        words, _, text = line.partition("#")
        comment = f"{comment} {text.strip()}".strip()
        if not words.strip():
            comment = comment if words else ""
            continue
        try:
            if words[0] == " ":
                if not found:
                    raise ValueError("a field before a message")
                found[-1].add(words, comment)
                comment = ""
                continue
            kind, *rest = words.split()
            comment = ""
            if kind == "api":
                api = _api(rest)
            elif kind in ("request", "response") and api is not None:
                found.append(_Message(f"{api.name}{kind.capitalize()}", api, rest))
            elif kind == "message":
                found.append(_Message(rest[0], _NO_API, rest[1:]))
            else:
                raise ValueError(f"{kind} where an api, its request or response, or a message is expected")
        except (ValueError, IndexError) as error:
            raise SchemaError(
                f"{file}, line {number}: {error if isinstance(error, ValueError) else 'a word is missing'}"
            ) from error
    try:
        return [message.schema() for message in found]
    except ValueError as error:
        raise SchemaError(f"{file}: {error}") from error


@dataclass(slots=True)
class _Owner:
    """A structure while its fields are read."""

    indent: int
    """Number of the line that opens the structure."""
    name: str
    versions: range
    fields: list[Field] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Api:
    name: str
    key: int
    clients: range = NONE
    nodes: range = NONE
    is_ours: bool = False


_NO_API = _Api("", -1)


def _api(words: Sequence[str]) -> _Api:
    """`Name key [clients versions] [nodes versions] [ours]`."""
    name, key, *rest = words
    served = {"clients": NONE, "nodes": NONE}
    while rest and rest[0] in served:
        served[rest[0]] = versions_of(rest[1])
        del rest[:2]
    if rest not in ([], ["ours"]):
        raise ValueError(f"{' '.join(rest)} where clients or nodes with their versions, or ours, is expected")
    return _Api(name, int(key), served["clients"], served["nodes"], is_ours=bool(rest))


class _Message:
    """One message while its lines are read."""

    def __init__(self, name: str, api: _Api, words: Sequence[str]) -> None:
        self._name, self._api = name, api
        self._versions = versions_of(words[0])
        facts = dict(zip(words[1::2], words[2::2], strict=False))
        if len(words) % 2 == 0 or not facts.keys() <= ({"flexible"} if api.name else {"flexible", "key"}):
            raise ValueError(f"{' '.join(words[1:])} where flexible and its first version is expected")
        self._flexible_from = versions_of(facts["flexible"]).start if "flexible" in facts else NEVER
        self._key = int(facts.get("key", api.key))
        self._owners = [_Owner(0, name, self._versions)]
        self._structures: dict[str, Structure] = {}

    def add(self, line: str, comment: str) -> None:
        """One line of a field or, with `struct`, of a structure that several fields have."""
        indent = len(line) - len(line.lstrip())
        self._close(indent)
        owner = self._owners[-1]
        if line.split()[0] == "struct":
            self._owners.append(_Owner(indent, line.split()[1], self._versions))
            return
        found = _field(line.split(), comment, owner.versions)
        owner.fields.append(found)
        if found.is_structure and found.kind not in self._structures:
            self._owners.append(_Owner(indent, found.kind, found.versions))

    def _close(self, indent: int) -> None:
        """Ends the structures whose lines are not above one of this indentation."""
        while len(self._owners) > 1 and self._owners[-1].indent >= indent:
            ended = self._owners.pop()
            if ended.fields:
                self._structures[ended.name] = Structure(name=ended.name, fields=tuple(ended.fields))

    def schema(self) -> Schema:
        """The message; no line follows. Raises ValueError for a structure without fields."""
        self._close(0)
        top = Structure(name=self._name, fields=tuple(self._owners[0].fields))
        ordered: dict[str, Structure] = {}
        self._order(top, ordered)
        return Schema(
            name=self._name,
            api_key=self._key,
            is_ours=self._api.is_ours,
            clients=self._api.clients,
            nodes=self._api.nodes,
            versions=self._versions,
            flexible_from=self._flexible_from,
            structures=ordered,
            top=top,
        )

    def _order(self, structure: Structure, ordered: dict[str, Structure]) -> None:
        for each in structure.fields:
            if each.is_structure and each.kind not in ordered:
                if each.kind not in self._structures:
                    raise ValueError(f"{self._name}: {each.kind}, the type of {each.name}, has no fields")
                self._order(self._structures[each.kind], ordered)
                ordered[each.kind] = self._structures[each.kind]


def _field(words: list[str], comment: str, around: range) -> Field:
    """`Name type [versions] [null versions] [tag number [versions]] [= default] [key] [entity name] [ours]`; what is
    left out of versions are those of the structure around.
    """
    if len(words) < 2:
        raise ValueError(f"{words[0]} has no type")
    name, kind, *rest = words
    versions = versions_of(rest.pop(0)) if rest and rest[0][0].isdigit() else around
    facts: dict[str, Any] = {"nullable": versions if kind.endswith("?") else NONE}
    default = ""
    while rest:
        word = rest.pop(0)
        match word:
            case "null":
                facts["nullable"] = versions_of(rest.pop(0))
            case "tag":
                facts["tag"] = _tag(rest.pop(0))
                facts["tagged"] = versions_of(rest.pop(0)) if rest and rest[0][0].isdigit() else versions
            case "=":
                default = rest.pop(0)
            case "key" | "ours":
                facts[f"is_{word}"] = True
            case "entity":
                facts["entity"] = rest.pop(0)
            case _:
                raise ValueError(f"{word} is no fact of a field")
    kind = kind.removesuffix("?")
    is_array, item = kind.startswith("[]"), kind.removeprefix("[]")
    if item not in TYPES and not item[0].isupper():
        raise ValueError(f"{item} is no type; there are {', '.join(sorted(TYPES))} and structures")
    value = default_of(item, default, is_array=is_array)
    return Field(name=name, kind=item, is_array=is_array, versions=versions, default=value, comment=comment, **facts)


def _tag(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"{text} is no tag: a number is")
    return int(text)


def versions_of(text: str) -> range:
    """`3+`, `0-4`, `2` or `none`."""
    if text == "none":
        return NONE
    found = re.fullmatch(r"(\d+)(?:(\+)|-(\d+))?", text)
    if found is None:
        raise ValueError(f"{text} are no versions: 3+, 0-4 and 2 are")
    first, is_open, last = found.groups()
    return range(int(first), NEVER if is_open else int(last or first) + 1)


def default_of(kind: str, text: object, *, is_array: bool) -> Any:
    """The value that an absent field of this type has: the value in `text`, else the empty value of the type."""
    if text == "null":
        return None
    if is_array:
        return ()
    match kind:
        case "string":
            return str(text)
        case "bytes" | "records":
            return b""
        case "uuid":
            return 0
        case "bool":
            return text in ("true", True)
        case "float64":
            return float(str(text or 0))
    return int(str(text or 0), 0) if kind in NUMBERS else {}


def snake_case(name: str) -> str:
    """The name of an attribute or a module: MaxWaitMs -> max_wait_ms."""
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
    return f"{name}_" if iskeyword(name) else name
