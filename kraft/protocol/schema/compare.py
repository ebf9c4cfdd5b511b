"""Compares our facts of messages with those in Kafka's jars: `python -m kraft.protocol.schema.compare [--json] JAR...`.

A new version of Kafka is followed with it: it prints every difference of facts and ends with 1 when there is one.
Messages and versions that `left-out.txt` names are no differences. Facts are names, keys, types, versions, null, tags,
defaults, map keys and what a value names; sentences for readers, and flags for Kafka's own code, are none.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import textwrap
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from kraft.protocol.schema.facts import (
    Field,
    Schema,
    Structure,
    default_of,
    read_schemas,
    versions_of,
)

LEFT_OUT: Final = Path(__file__).parent / "left-out.txt"
FOLDERS: Final = ("common/message/", "common/metadata/")
"""Where the jars have their schemas."""
LINE_MAX: Final = 120
SCHEMA_BYTES_MAX: Final = 1 << 20

Facts = Mapping[str, Any]
"""Facts of one field, by their names in a difference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One fact that is not the same here and in Kafka."""

    message: str
    field: str
    """The names on the way to the field, with dots between; empty for the message itself."""
    fact: str
    ours: Any
    theirs: Any

    def __str__(self) -> str:
        where = f"{self.message} {self.field}".rstrip()
        return f"{where}: {self.fact}: {_text(self.ours)} here, {_text(self.theirs)} in Kafka"


# --- jars -----------------------------------------------------------------------------------------------------------


def schemas_in(jars: Iterable[Path]) -> Iterator[Schema]:
    """The messages of these jars that have versions. Raises OSError or BadZipFile for a jar that cannot be read, and
    ValueError for a schema that cannot.
    """
    for jar in jars:
        with zipfile.ZipFile(jar) as archive:
            for entry in archive.infolist():
                if not entry.filename.startswith(FOLDERS) or not entry.filename.endswith(".json"):
                    continue
                if entry.file_size > SCHEMA_BYTES_MAX:
                    raise ValueError(f"{jar}: {entry.filename} has {entry.file_size} bytes, too many for a schema")
                try:
                    raw = _without_comments(archive.read(entry).decode())
                    if raw["type"] != "header" and versions_of(raw["validVersions"]):
                        yield schema_of(raw)
                except (KeyError, ValueError) as error:
                    raise ValueError(f"{jar}: {entry.filename}: {error}") from error


def _without_comments(text: str) -> dict[str, Any]:
    raw: dict[str, Any] = json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))
    return raw


def schema_of(raw: Mapping[str, Any]) -> Schema:
    """The facts of one schema as Kafka writes it. Raises KeyError or ValueError where it has none."""
    structures: dict[str, Structure] = {}
    for each in (*raw.get("commonStructs", ()), raw):
        _add(structures, each["name"], each["fields"])
    flexible = versions_of(raw["flexibleVersions"])
    versions = versions_of(raw["validVersions"])
    return Schema(
        name=raw["name"],
        api_key=raw.get("apiKey", -1) if raw["type"] in ("request", "response", "metadata") else -1,
        is_ours=False,
        versions=versions,
        flexible_from=flexible.start if flexible else versions.stop,
        structures=structures,
        top=structures.pop(raw["name"]),
    )


def _add(structures: dict[str, Structure], name: str, fields: Sequence[Mapping[str, Any]]) -> None:
    for raw in fields:
        if raw.get("fields"):
            _add(structures, raw["type"].removeprefix("[]"), raw["fields"])
    structures[name] = Structure(name=name, fields=tuple(map(_field, fields)))


def _field(raw: Mapping[str, Any]) -> Field:
    is_array, kind = raw["type"].startswith("[]"), raw["type"].removeprefix("[]")
    return Field(
        name=raw["name"],
        kind=kind,
        is_array=is_array,
        versions=versions_of(raw.get("versions") or raw["taggedVersions"]),
        nullable=versions_of(raw.get("nullableVersions", "none")),
        tagged=versions_of(raw.get("taggedVersions", "none")),
        tag=raw.get("tag", -1),
        default=default_of(kind, raw.get("default", ""), is_array=is_array),
        is_key=raw.get("mapKey", False),
        entity=raw.get("entityType", ""),
    )


# --- differences ----------------------------------------------------------------------------------------------------


def left_out(text: str) -> dict[str, frozenset[int]]:
    """The contents of `left-out.txt`: each message -> its versions that are left out."""
    lines = (line.partition("#")[0].split() for line in text.splitlines())
    return {
        words[0]: frozenset(version for each in (words[1:] or ["0+"])[0].split(",") for version in versions_of(each))
        for words in lines
        if words
    }


def differences(
    ours: Iterable[Schema], theirs: Iterable[Schema], without: Mapping[str, frozenset[int]]
) -> list[Difference]:
    """All of them, in the order of the messages' names."""
    here = {schema.name: schema for schema in ours if not schema.is_ours}
    there = {schema.name: schema for schema in theirs}
    found: list[Difference] = []
    for name in sorted({*here, *there}):
        if name not in there:
            found.append(Difference(message=name, field="", fact="message", ours="present", theirs=None))
        elif name in here:
            found += _of_message(here[name], there[name], without.get(name, frozenset()))
        elif set(there[name].versions) - without.get(name, frozenset()):
            found.append(Difference(message=name, field="", fact="message", ours=None, theirs="present"))
    return found


def _of_message(here: Schema, there: Schema, without: frozenset[int]) -> Iterator[Difference]:
    def differ(fact: str, ours: Any, theirs: Any, field: str = "") -> Iterator[Difference]:
        if ours != theirs:
            yield Difference(message=here.name, field=field, fact=fact, ours=ours, theirs=theirs)

    wanted = [version for version in there.versions if version not in without]
    yield from differ("api key", here.api_key, there.api_key)
    yield from differ("versions", _versions(here.versions), _versions(wanted))
    common = [version for version in here.versions if version in there.versions]
    ours_from, theirs_from = here.flexible_from, there.flexible_from
    flexible = [_versions([v for v in common if v >= first]) for first in (ours_from, theirs_from)]
    yield from differ("flexible versions", flexible[0], flexible[1])
    ours, theirs = dict(_fields(here, here.top, common)), dict(_fields(there, there.top, wanted))
    for name in [*theirs, *(name for name in ours if name not in theirs)]:
        if name not in ours:
            yield from differ("field", None, "present", name)
        elif name not in theirs:
            yield from differ("field", "present", None, name)
        else:
            expected = dict(_fields(there, there.top, common)).get(name, {})
            for fact, value in ours[name].items():
                yield from differ(fact, value, expected.get(fact), name)
    yield from _taken_tags(here, there, common)


def _fields(schema: Schema, structure: Structure, around: Sequence[int], path: str = "") -> Iterator[tuple[str, Facts]]:
    """All fields of Kafka that exist in one of the versions `around`, with those of the structures inside."""
    for field in structure.fields:
        versions = [version for version in around if version in field.versions]
        if not versions or field.is_ours:
            continue
        name = f"{path}{field.name}"
        tagged = [version for version in versions if version in field.tagged]
        yield (
            name,
            {
                "type": f"{'[]' if field.is_array else ''}{field.kind}",
                "versions": _versions(versions),
                "null": _versions([version for version in versions if version in field.nullable]),
                "tag": field.tag if tagged else None,
                "tagged versions": _versions(tagged),
                "default": field.default,
                "map key": field.is_key,
                "entity": field.entity or None,
            },
        )
        if field.is_structure:
            yield from _fields(schema, schema.structures[field.kind], versions, f"{name}.")


def _taken_tags(here: Schema, there: Schema, versions: Sequence[int]) -> Iterator[Difference]:
    """Tags of ours that Kafka now gives to fields of its own."""
    for name, structure in {**here.structures, "": here.top}.items():
        other = there.structures.get(name) if name else there.top
        tags = {field.tag: field.name for field in other.fields if field.tagged} if other else {}
        for field in structure.fields:
            if field.is_ours and field.tag in tags and any(version in field.versions for version in versions):
                fact = f"tag {field.tag}"
                yield Difference(message=here.name, field=name, fact=fact, ours=field.name, theirs=tags[field.tag])


def _versions(versions: Sequence[int]) -> str | None:
    """`4-18`, `2`; with commas where versions are missing in between."""
    runs: list[list[int]] = []
    for version in versions:
        if runs and runs[-1][-1] == version - 1:
            runs[-1].append(version)
        else:
            runs.append([version])
    return ",".join(f"{run[0]}-{run[-1]}" if run[1:] else f"{run[0]}" for run in runs) or None


def _text(value: Any) -> str:
    return "none" if value is None else '""' if value == "" else str(value)


# --- the command ----------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 without a difference, 1 with one, 2 when a jar cannot be read."""
    parser = argparse.ArgumentParser(
        prog="python -m kraft.protocol.schema.compare",
        description="Compare our facts of messages with those in Kafka's jars.",
    )
    parser.add_argument(
        "jars", nargs="+", type=Path, metavar="JAR", help="kafka-clients, kafka-metadata and the coordinators' jars"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    without = left_out(LEFT_OUT.read_text(encoding="utf-8"))
    try:
        theirs = list(schemas_in(options.jars))
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if not theirs:
        sys.stderr.write(f"no schema in {', '.join(map(str, options.jars))}: name Kafka's own jars\n")
        return 2
    ours = list(read_schemas())
    found = differences(ours, theirs, without)
    here = {schema.name: set(schema.versions) for schema in ours}
    skipped = {
        schema.name: _versions(sorted(set(schema.versions) & without[schema.name] - here.get(schema.name, set())))
        for schema in sorted(theirs, key=lambda schema: schema.name)
        if schema.name in without
    }
    sys.stdout.write(_as_json(found, skipped) if options.json else _as_text(found, skipped, len(theirs)))
    return 1 if found else 0


def _as_json(found: Sequence[Difference], skipped: Mapping[str, str | None]) -> str:
    return json.dumps({"differences": [asdict(each) for each in found], "left_out": skipped}, indent=2) + "\n"


def _as_text(found: Sequence[Difference], skipped: Mapping[str, str | None], count: int) -> str:
    lines = [*map(str, found), f"{count} messages of Kafka, {len(found)} differences"]
    if skipped:
        names = ", ".join(f"{name}\N{NO-BREAK SPACE}{versions}" for name, versions in skipped.items())
        lines += textwrap.wrap(f"Left out: {names}", LINE_MAX)
    return "\n".join(lines).replace("\N{NO-BREAK SPACE}", " ") + "\n"


if __name__ == "__main__":
    sys.exit(main())
