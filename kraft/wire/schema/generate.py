"""Generates `kraft/wire/generated` from the schemas beside it: `python -m kraft.wire.schema.generate [--check]`.

`kafka/` holds Kafka's message schemas as its client library carries them, `kraft/` ours: messages of our
own, and tagged fields that we add to Kafka's (`extends`). A message becomes one module. For each structure it has a
class with the fields of all versions, and for each layout that its versions have, a reader and a writer:

    def _read_FetchTopic_13(frame, offset):
        m = new(FetchTopic)
        raw_topic_id, n = _16sB.unpack_from(frame, offset)
        offset += 17
        m.topic = ""
        m.topic_id = uuid_of(raw_topic_id)
        if n == 1:
            m.partitions = ()
        ...

Numbers that follow each other are one call of `struct`. Such a run takes the first byte of what follows along: the
length of a string or an array, or the number of tagged fields. So a small structure is read by one call, and written
by one.
Source: the format of schemas is described in Kafka's clients/src/main/resources/common/message/README.md.
"""

from __future__ import annotations

import argparse
import json
import re
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from keyword import iskeyword
from pathlib import Path
from typing import Any, Final

from kraft.wire.varints import varint

HERE: Final = Path(__file__).parent
SCHEMAS: Final = (HERE / "kafka", HERE / "kraft")
GENERATED: Final = HERE.parent / "generated"
LINE_MAX: Final = 120

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
PYTHON: Final = {
    "bool": "bool",
    "float64": "float",
    "uuid": "UUID",
    "string": "str",
    "bytes": "Buffer",
    "records": "Buffer",
}
"""Annotations; all other types are `int`."""
NEVER: Final = 1 << 15
"""`flexibleVersions: none`."""


# --- schemas ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    name: str
    """In snake_case."""
    kind: str
    """Kafka's type of the value, or of an array's items; a structure's name is its type."""
    is_array: bool
    versions: range
    nullable: range
    tagged: range
    tag: int
    default: Any
    about: str

    @property
    def is_structure(self) -> bool:
        return self.kind[0].isupper()


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    name: str
    fields: tuple[Field, ...]
    about: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    name: str
    """Of the module and, with `Data` behind it, of the class: Kafka's own name."""
    api_key: int
    versions: range
    flexible_from: int
    structures: Mapping[str, Structure]
    """Inner ones before those that have fields of them."""
    top: Structure


def read_schemas(folders: Sequence[Path] = SCHEMAS) -> Iterator[Schema]:
    """All messages that have versions, in the order of their names."""
    raw: dict[str, dict[str, Any]] = {}
    for path in sorted(path for folder in folders for path in folder.glob("*.json")):
        content = json.loads(re.sub(r"^\s*//.*$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE))
        if "extends" in content:
            _extend(raw[content["extends"]], content)
        else:
            raw[content["name"]] = content
    for name in sorted(raw):
        if raw[name]["validVersions"] != "none" and raw[name]["type"] != "header":
            yield _schema(raw[name])


def _extend(message: dict[str, Any], extension: Mapping[str, Any]) -> None:
    message["fields"] += extension.get("fields", [])
    for name, fields in extension.get("structures", {}).items():
        (owner,) = (field for field in _all_fields(message) if _item_type(field["type"]) == name and "fields" in field)
        owner["fields"] += fields


def _all_fields(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for field in message.get("fields", []):
        yield field
        yield from _all_fields(field)


def _schema(raw: Mapping[str, Any]) -> Schema:
    versions = _versions(raw["validVersions"])
    structures: dict[str, Structure] = {}
    for common in raw.get("commonStructs", []):
        _add_structures(structures, common, versions)
    _add_structures(structures, raw, versions)
    top = replace(structures.pop(raw["name"]), name=f"{raw['name']}Data")
    flexible = _versions(raw["flexibleVersions"])
    return Schema(
        name=raw["name"],
        api_key=raw.get("apiKey", -1) if raw["type"] in ("request", "response") else -1,
        versions=versions,
        flexible_from=flexible.start if flexible else NEVER,
        structures=structures,
        top=top,
    )


def _add_structures(known: dict[str, Structure], raw: Mapping[str, Any], versions: range) -> None:
    """`raw` is a message, a common structure, or a field that declares one."""
    for field in raw.get("fields", []):
        if field.get("fields"):
            _add_structures(known, field, versions)
    name = _item_type(raw["type"]) if "versions" in raw and "type" in raw else raw["name"]
    fields = tuple(_field(field) for field in raw["fields"])
    present = tuple(field for field in fields if any(version in field.versions for version in versions))
    known[name] = Structure(name=name, fields=present, about=raw.get("about", ""))


def _field(raw: Mapping[str, Any]) -> Field:
    kind = _item_type(raw["type"])
    return Field(
        name=snake_case(raw["name"]),
        kind=kind,
        is_array=raw["type"].startswith("[]"),
        versions=_versions(raw.get("versions") or raw["taggedVersions"]),
        nullable=_versions(raw.get("nullableVersions", "none")),
        tagged=_versions(raw.get("taggedVersions", "none")),
        tag=raw.get("tag", -1),
        default=_default(kind, raw["type"].startswith("[]"), raw.get("default", "")),
        about=" ".join(raw.get("about", "").split()),
    )


def _versions(text: str) -> range:
    """`3+`, `0-4`, `2`, `none`."""
    if text == "none":
        return range(0)
    first, dash, last = text.partition("-")
    if first.endswith("+"):
        return range(int(first[:-1]), NEVER)
    return range(int(first), int(last if dash else first) + 1)


def _item_type(text: str) -> str:
    return text.removeprefix("[]")


def _default(kind: str, is_array: bool, text: object) -> Any:
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
    """As Kafka's own generator writes fields in its records: MaxWaitMs -> max_wait_ms."""
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
    return f"{name}_" if iskeyword(name) else name


# --- modules --------------------------------------------------------------------------------------------------------


def module_of(schema: Schema) -> str:
    """The source of the module of one message."""
    return _Module(schema).source()


def file_name(schema: Schema) -> str:
    return f"{snake_case(schema.name)}.py"


class _Module:
    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.structs: dict[str, str] = {}
        """Layouts of numbers and the names of their `struct.Struct`."""
        self.body: list[str] = []
        self._written: dict[tuple[str, str, int], str] = {}
        self._layouts: dict[tuple[str, int], object] = {}

    def source(self) -> str:
        for structure in self.schema.structures.values():
            self._class(structure)
        self._class(self.schema.top)
        tables = [self._table(self.schema.top, action) for action in ("read", "write")]
        lines = [
            f'"""{self.schema.name}: versions {self.schema.versions[0]} to {self.schema.versions[-1]}. Generated by '
            'kraft.wire.schema.generate: change the schema, not this."""',
            "",
            "from __future__ import annotations",
            "",
            *self._imports(),
            "",
            *(f'{name} = struct.Struct(">{layout}")' for layout, name in sorted(self.structs.items())),
            *self.body,
            "",
            "",
            *tables,
            "",
        ]
        return "\n".join(lines)

    def _imports(self) -> Iterator[str]:
        if self.structs:
            yield "import struct"
        text = "\n".join(line for line in self.body if not line.lstrip().startswith('"""'))
        if "Sequence[" in text:
            yield "from collections.abc import Sequence"
        if "ClassVar" in text:
            yield "from typing import ClassVar"
        if re.search(r"\bUUID\b", text):
            yield "from uuid import UUID"
        yield ""
        names = sorted(name for name in _PRIMITIVES if re.search(rf"\b{name}\b", text))
        yield "from kraft.protocol.primitives import Buffer"
        if len(names) > 4:
            yield "from kraft.wire.primitives import ("
            yield from (f"    {name}," for name in names)
            yield ")"
        elif names:
            yield f"from kraft.wire.primitives import {', '.join(names)}"
        if "long_varint" in text:
            yield "from kraft.wire.varints import long_varint"

    def struct(self, layout: str) -> str:
        return self.structs.setdefault(layout, f"_{layout.replace('?', 't')}")

    # --- classes ------------------------------------------------------------------------------------------------

    def _class(self, structure: Structure) -> None:
        is_top = structure is self.schema.top
        out = self.body
        out += ["", "", f"class {structure.name}({'TopLevel' if is_top else 'Message'}):"]
        if structure.about:
            out += [f'    """{_escaped(structure.about)}"""', ""]
        names = ", ".join(f'"{field.name}"' for field in structure.fields)
        out.append(f"    __slots__ = ({names}{',' if len(structure.fields) == 1 else ''})")
        if is_top:
            versions = self.schema.versions
            out += [f"    API_KEY: ClassVar[int] = {self.schema.api_key}"]
            out += [f"    VERSIONS: ClassVar[range] = range({versions.start}, {versions.stop})"]
            out += [f"    FLEXIBLE_FROM: ClassVar[int] = {self.schema.flexible_from}"]
        for field in structure.fields:
            out.append(f"    {field.name}: {_annotation(field)}")
            out.append(f'    """{_escaped(_documented(field, self.schema.versions))}"""')
        self._maker(structure)

    def _maker(self, structure: Structure) -> None:
        parameters = [f"{field.name}: {_annotation(field)} = {_literal(field)}" for field in structure.fields]
        out = self.body
        out += ["", "    @staticmethod"]
        if parameters:
            out += ["    def make(", "        *,", *(f"        {parameter}," for parameter in parameters)]
            out += [f"    ) -> {structure.name}:"]
        else:
            out += [f"    def make() -> {structure.name}:"]
        out.append(f"        m = new({structure.name})")
        out += [f"        m.{field.name} = {field.name}" for field in structure.fields]
        out.append("        return m")
        if any(
            field.kind == structure.name and not field.is_array and field.default is not None
            for each in (*self.schema.structures.values(), self.schema.top)
            for field in each.fields
        ):
            out += ["", "", f"{_default_name(structure.name)} = {structure.name}.make()"]

    # --- layouts ------------------------------------------------------------------------------------------------

    def layout(self, structure: Structure, version: int) -> object:
        """Equal for versions that are read and written alike."""
        key = structure.name, version
        if key not in self._layouts:
            self._layouts[key] = (
                self.is_flexible(version),
                tuple(
                    (
                        field.name,
                        version in field.nullable,
                        version in field.tagged,
                        self.layout(self.structure_of(field), version) if field.is_structure else None,
                    )
                    for field in structure.fields
                    if version in field.versions
                ),
            )
        return self._layouts[key]

    def is_flexible(self, version: int) -> bool:
        return version >= self.schema.flexible_from

    def structure_of(self, field: Field) -> Structure:
        return self.schema.structures[field.kind]

    def function(self, structure: Structure, version: int, action: str) -> str:
        """The name of the reader or writer of a structure in a version; written out when first asked for."""
        layout = self.layout(structure, version)
        first = next(v for v in self.schema.versions if self.layout(structure, v) == layout)
        key = structure.name, action, first
        if key not in self._written:
            self._written[key] = f"_{action}_{structure.name}_{first}"
            lines = (_reader if action == "read" else _writer)(self, structure, first, self._written[key])
            self.body += ["", "", *lines]
        return self._written[key]

    def _table(self, structure: Structure, action: str) -> str:
        entries = ", ".join(
            f"{version}: {self.function(structure, version, action)}" for version in self.schema.versions
        )
        one_line = f"{structure.name}.{action.upper()}ERS = {{{entries}}}".replace("WRITEERS", "WRITERS")
        if len(one_line) <= LINE_MAX:
            return one_line
        return one_line.replace("{", "{\n    ").replace(", ", ",\n    ").replace("}", ",\n}")


# --- readers --------------------------------------------------------------------------------------------------------


def _reader(module: _Module, structure: Structure, version: int, name: str) -> list[str]:
    lines = _ReaderLines(module, version)
    lines.out.append(f"    m = new({structure.name})")
    present = [field for field in structure.fields if version in field.versions]
    for field in structure.fields:
        if field not in present or version in field.tagged:
            lines.out.append(f"    m.{field.name} = {_literal(field)}")
    for field in present:
        if version not in field.tagged:
            lines.field(field)
    lines.end([field for field in present if version in field.tagged], structure)
    head = [f"def {name}(frame: memoryview, offset: int) -> tuple[{structure.name}, int]:"]
    return [*lines.before, *head, *lines.out, "    return m, offset"]


class _ReaderLines:
    """What has a fixed size is held back until something follows that has not."""

    def __init__(self, module: _Module, version: int) -> None:
        self._module = module
        self._version = version
        self._is_flexible = module.is_flexible(version)
        self.before: list[str] = []
        """What stands before the function."""
        self.out: list[str] = []
        self._run: list[tuple[str, str]] = []
        """Target and struct code."""
        self._conversions: list[str] = []

    def field(self, field: Field) -> None:
        if field.is_array or field.kind in ("string", "bytes", "records"):
            self._variable(field)
        elif field.is_structure:
            self._structure(field)
        elif field.kind == "uuid":
            self._run.append((f"raw_{field.name}", "16s"))
            self._conversions.append(f"m.{field.name} = uuid_of(raw_{field.name})")
        else:
            self._run.append((f"m.{field.name}", NUMBERS[field.kind]))

    def _structure(self, field: Field) -> None:
        read = self._module.function(self._module.structure_of(field), self._version, "read")
        if self._version not in field.nullable:
            self.flush()
            self.out.append(f"    m.{field.name}, offset = {read}(frame, offset)")
            return
        self._run.append(("n", "b"))
        self.flush()
        self.out += ["    if n < 0:", f"        m.{field.name} = None", "    else:"]
        self.out.append(f"        m.{field.name}, offset = {read}(frame, offset)")

    def _variable(self, field: Field) -> None:
        """`n` is the length and 1, as the flexible versions write it: 0 is null. Empty is what comes most often."""
        self._run.append(("n", "B" if self._is_flexible else "h" if self._has_short_length(field) else "i"))
        self.flush()
        if not self._is_flexible:
            self.out.append("    n += 1")
        empty = "()" if field.is_array else '""' if field.kind == "string" else 'b""'
        self.out += ["    if n == 1:", f"        m.{field.name} = {empty}", "    elif not n:"]
        is_nullable = self._version in field.nullable
        self.out.append(f"        m.{field.name} = None" if is_nullable else f'        raise is_null("{field.name}")')
        self.out.append("    else:")
        if self._is_flexible:
            self.out += ["        if n > 127:", "            n, offset = long_varint(frame, offset, n)"]
        self.out.append(f"        m.{field.name}, offset = {self._rest(field)}")

    def _has_short_length(self, field: Field) -> bool:
        return field.kind == "string" and not field.is_array

    def _rest(self, field: Field) -> str:
        """The call that reads `n - 1` items or bytes."""
        if not field.is_array:
            return f"read_{field.kind}(frame, offset, n)"
        if field.kind in NUMBERS and field.kind != "uuid":
            return f'read_numbers(frame, offset, n, "{NUMBERS[field.kind]}")'
        return f"read_array(frame, offset, n, {self._item(field)})"

    def _item(self, field: Field) -> str:
        if field.is_structure:
            return self._module.function(self._module.structure_of(field), self._version, "read")
        if field.kind == "uuid":
            return "read_uuid"
        old = "" if self._is_flexible else "old_"
        return f"{old}{'string' if field.kind == 'string' else 'bytes'}_item"

    def end(self, tagged: Sequence[Field], structure: Structure) -> None:
        if not self._is_flexible:
            self.flush()
            return
        self._run.append(("t", "B"))
        self.flush()
        known = "{}"
        if tagged:
            known = f"_TAGS_{structure.name}_{self._version}"
            entries = [f'    {field.tag}: ("{field.name}", {self._tag_reader(structure, field)}),' for field in tagged]
            self.before += [f"{known}: TagReaders = {{", *entries, "}", "", ""]
        self.out += ["    if t:", f"        offset = read_tags(m, frame, offset, t, {known})"]

    def _tag_reader(self, structure: Structure, field: Field) -> str:
        """A function of its own, unless the value is a structure."""
        assert not (field.is_structure and self._version in field.nullable and not field.is_array), field
        if field.is_structure and not field.is_array:
            return self._module.function(self._module.structure_of(field), self._version, "read")
        name = f"_read_{structure.name}_{field.name}_{self._version}"
        lines = _ReaderLines(self._module, self._version)
        lines.field(field)
        lines.flush()
        body = [line.replace(f"m.{field.name}", "value") for line in lines.out]
        item = _annotation(field)
        declared = [f"    value: {item}"] if "value = None" in "\n".join(body) or field.is_array else []
        self.before += [f"def {name}(frame: memoryview, offset: int) -> tuple[{item}, int]:", *declared, *body]
        self.before += ["    return value, offset", "", ""]
        return name

    def flush(self) -> None:
        if len(self._run) == 1 and self._run[0][1] == "B":
            self.out += [f"    {self._run[0][0]} = frame[offset]", "    offset += 1"]
        elif self._run:
            layout = "".join(code for _, code in self._run)
            targets = ", ".join(target for target, _ in self._run)
            targets = targets if len(self._run) > 1 else f"({targets},)"
            self.out += wrapped(f"    {targets} = {self._module.struct(layout)}.unpack_from(frame, offset)")
            self.out.append(f"    offset += {struct.calcsize('>' + layout)}")
        self.out += [f"    {conversion}" for conversion in self._conversions]
        self._run, self._conversions = [], []


# --- writers --------------------------------------------------------------------------------------------------------


def _writer(module: _Module, structure: Structure, version: int, name: str) -> list[str]:
    lines = _WriterLines(module, version)
    present = [field for field in structure.fields if version in field.versions]
    for field in present:
        if version not in field.tagged:
            lines.field(field, f"m.{field.name}")
    if module.is_flexible(version):
        lines.tags(sorted((field for field in present if version in field.tagged), key=lambda field: field.tag))
    lines.flush()
    head = f"def {name}(out: list[Buffer], m: {structure.name}) -> None:"
    return [head, *(lines.out or ["    pass"])]


class _WriterLines:
    """Numbers are held back to be packed together, parts to be added at once."""

    def __init__(self, module: _Module, version: int, *, target: str = "out", indent: str = "    ") -> None:
        self._module = module
        self._version = version
        self._is_flexible = module.is_flexible(version)
        self._old = "" if self._is_flexible else "old_"
        self._target = target
        self._indent = indent
        self.out: list[str] = []
        self._run: list[tuple[str, str]] = []
        """Expression and struct code."""
        self._parts: list[str] = []
        """Expressions of bytes."""

    def _line(self, text: str) -> None:
        self.out += wrapped(f"{self._indent}{text}")

    def field(self, field: Field, value: str) -> None:
        is_nullable = self._version in field.nullable
        if field.is_array and field.is_structure:
            self._structures(field, value, is_nullable=is_nullable)
        elif field.is_array:
            self._array(field, value, is_nullable=is_nullable)
        elif field.is_structure:
            self._structure(field, value, is_nullable=is_nullable)
        elif field.kind == "string":
            self._part(f"{self._old}string({self._checked(field, value)})")
        elif field.kind in ("bytes", "records"):
            self._line(f"{field.name} = {self._checked(field, value)}")
            self._part(f"{self._old}length({field.name})")
            self._part(f'{field.name} or b""' if is_nullable or field.default is None else field.name)
        else:
            self._run.append(self._packed(field, value))

    def _checked(self, field: Field, value: str) -> str:
        """A null that this version cannot express is the type's empty value, as an absent field is its default."""
        if self._version in field.nullable or not _is_optional(field):
            return value
        return f"{value} or {_empty(field)}"

    def _structures(self, field: Field, value: str, *, is_nullable: bool) -> None:
        self._line(f"{field.name} = {self._checked(field, value)}")
        self._part(f"{self._old}length({field.name})")
        self.flush()
        write = self._module.function(self._module.structure_of(field), self._version, "write")
        item = f"{_short(field.kind)}_item"
        self._line(f"for {item} in {field.name}{' or ()' if is_nullable else ''}:")
        self._line(f"    {write}({self._target}, {item})")

    def _array(self, field: Field, value: str, *, is_nullable: bool) -> None:
        value = self._checked(field, value)
        match field.kind:
            case "string":
                self._part(f"{self._old}strings({value})")
            case "bytes":
                self._part(f"{self._old}payloads({value})")
            case "uuid":
                assert self._is_flexible, field
                self._part(f"uuids({value})")
            case _:
                self._part(f'{self._old}numbers({value}, "{NUMBERS[field.kind]}")')

    def _structure(self, field: Field, value: str, *, is_nullable: bool) -> None:
        self.flush()
        write = self._module.function(self._module.structure_of(field), self._version, "write")
        if not is_nullable:
            value = f"({value} or {_default_name(field.kind)})" if field.default is None else value
            self._line(f"{write}({self._target}, {value})")
            return
        self._line(f"if {value} is None:")
        self._line(f'    {self._target}.append(b"\\xff")')
        self._line("else:")
        self._line(f'    {self._target}.append(b"\\1")')
        self._line(f"    {write}({self._target}, {value})")

    def tags(self, tagged: Sequence[Field]) -> None:
        """Their number, and those that differ from their default."""
        if not tagged:
            if self._run:
                self._run.append(("", "x"))
            else:
                self._part('b"\\0"')
            return
        self._line("tags: list[bytes] = []")
        for field in tagged:
            self._line(f"if {self._differs(field, f'm.{field.name}')}:")
            self._tag(field)
        self._part("tag_count(tags)")
        self._part("*tags")

    def _differs(self, field: Field, value: str) -> str:
        if field.is_array:
            return f"{value} is not None" if field.default is None else f"{value}"
        if not field.is_structure:
            if field.default is None:
                return f"{value} is not None"
            return f"{value} != {_literal(field)}" if field.kind in NUMBERS else f"{value}"
        none = _default_name(field.kind)
        inner = [each for each in self._module.structure_of(field).fields if self._version in each.versions]
        if all(each.kind in NUMBERS and not each.is_array for each in inner):
            differences = " or ".join(f"{value}.{each.name} != {_literal(each)}" for each in inner)
            return f"{value} is not {none} and ({differences})"
        return f"{value} is not {none} and {value} != {none}"

    def _tag(self, field: Field) -> None:
        fixed = self._fixed(field)
        if fixed:
            layout = "".join(code for _, code in fixed)
            head = varint(field.tag) + varint(struct.calcsize(f">{layout}"))
            pack = self._module.struct(f"{len(head)}s{layout}")
            values = ", ".join(expression for expression, _ in fixed if expression)
            self._line(f"    tags.append({pack}.pack({head!r}, {values}))")
            return
        inner = _WriterLines(self._module, self._version, target=f"of_{field.name}", indent=self._indent + "    ")
        self._line(f"    of_{field.name}: list[Buffer] = []")
        inner.field(field, f"m.{field.name}")
        inner.flush()
        self.out += inner.out
        self._line(f"    tags.append(tagged({field.tag}, of_{field.name}))")

    def _fixed(self, field: Field) -> list[tuple[str, str]]:
        """Expressions and struct codes of a value of fixed size; none for others."""
        if field.is_array or field.kind in ("string", "bytes", "records"):
            return []
        if not field.is_structure:
            return [self._packed(field, f"m.{field.name}")]
        inner = [each for each in self._module.structure_of(field).fields if self._version in each.versions]
        if any(each.is_array or self._version in each.tagged or each.kind not in NUMBERS for each in inner):
            return []
        return [*(self._packed(each, f"m.{field.name}.{each.name}") for each in inner), ("", "x")]

    def _packed(self, field: Field, value: str) -> tuple[str, str]:
        if field.kind == "uuid":
            return f'{value}.int.to_bytes(16, "big")', "16s"
        return value, NUMBERS[field.kind]

    def _part(self, expression: str) -> None:
        self._pack()
        self._parts.append(expression)

    def _pack(self) -> None:
        if self._run:
            layout = "".join(code for _, code in self._run)
            values = ", ".join(expression for expression, _ in self._run if expression)
            self._parts.append(f"{self._module.struct(layout)}.pack({values})")
        self._run = []

    def flush(self) -> None:
        self._pack()
        if len(self._parts) == 1:
            self._line(f"{self._target}.append({self._parts[0]})")
        elif self._parts:
            self._line(f"{self._target} += ({', '.join(self._parts)})")
        self._parts = []


# --- text -----------------------------------------------------------------------------------------------------------

_PRIMITIVES: Final = (
    "Message",
    "TagReaders",
    "TopLevel",
    "ZERO_UUID",
    "bytes_item",
    "is_null",
    "length",
    "new",
    "numbers",
    "old_bytes_item",
    "old_length",
    "old_numbers",
    "old_payloads",
    "old_string",
    "old_string_item",
    "old_strings",
    "payloads",
    "read_array",
    "read_bytes",
    "read_records",
    "read_numbers",
    "read_string",
    "read_tags",
    "read_uuid",
    "string",
    "string_item",
    "strings",
    "tag_count",
    "tagged",
    "uuid_of",
    "uuids",
)


def _is_optional(field: Field) -> bool:
    return bool(field.nullable) or field.default is None


def _annotation(field: Field) -> str:
    item = field.kind if field.is_structure else PYTHON.get(field.kind, "int")
    kind = f"Sequence[{item}]" if field.is_array else item
    return f"{kind} | None" if _is_optional(field) else kind


def _empty(field: Field) -> str:
    return "()" if field.is_array else '""' if field.kind == "string" else 'b""'


def _literal(field: Field) -> str:
    if field.default is None:
        return "None"
    if field.is_array:
        return "()"
    if field.is_structure:
        return _default_name(field.kind)
    if field.kind == "uuid":
        return "ZERO_UUID"
    return '""' if field.default == "" else repr(field.default)


def _default_name(structure: str) -> str:
    return f"NO_{snake_case(structure).upper()}"


def _short(kind: str) -> str:
    return snake_case(kind)


def _documented(field: Field, versions: range) -> str:
    present = [version for version in versions if version in field.versions]
    about = field.about if field.about.endswith(".") or not field.about else f"{field.about}."
    if len(present) == len(versions):
        return about or "In all versions."
    last = "on" if present[-1] == versions[-1] else f"to {present[-1]}"
    return f"{about} From version {present[0]} {last}.".strip()


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', "'")


def wrapped(line: str) -> list[str]:
    """Break a line that is too long at the commas of its outermost brackets, but not a condition, which has none."""
    if len(line) <= LINE_MAX or line.lstrip().startswith("if "):
        return [line]
    indent = line[: len(line) - len(line.lstrip())]
    opening = line.index("(")
    head, inner, tail = line[: opening + 1], line[opening + 1 : line.rindex(")")], line[line.rindex(")") :]
    if " = " in line and ", " in line[: line.index(" = ")] and line.index(" = ") < opening:
        targets, _, value = line.strip().partition(" = ")
        return [f"{indent}(", *(f"{indent}    {target}," for target in targets.split(", ")), f"{indent}) = {value}"]
    items, depth, item = [], 0, ""
    for character in inner:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            items.append(item.strip())
            item = ""
        else:
            item += character
    items += [item.strip()] if item.strip() else []
    return [head, *(f"{indent}    {each}," for each in items), f"{indent}{tail}"]


# --- files ----------------------------------------------------------------------------------------------------------


def generate() -> dict[str, str]:
    """The name and the text of every file of `kraft/wire/generated`."""
    files = {file_name(schema): module_of(schema) for schema in read_schemas()}
    return {"__init__.py": "", **files}


def main() -> None:
    parser = argparse.ArgumentParser(description="Generate the classes of Kafka's messages from their schemas.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file would change")
    check = parser.parse_args().check
    files = generate()
    present = {path.name: path.read_text(encoding="utf-8") for path in GENERATED.glob("*.py")}
    changed = sorted(name for name in {*files, *present} if files.get(name) != present.get(name))
    if check:
        sys.exit(f"not as generated: {', '.join(changed)}; run python -m kraft.wire.schema.generate" if changed else 0)
    GENERATED.mkdir(exist_ok=True)
    for name in changed:
        if name in files:
            (GENERATED / name).write_text(files[name], encoding="utf-8")
        else:
            (GENERATED / name).unlink()


if __name__ == "__main__":
    main()
