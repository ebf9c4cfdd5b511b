"""The form in which the facts of messages are written, and how they are compared with those in Kafka's jars."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from kraft.protocol import apis
from kraft.protocol.schema.compare import LEFT_OUT, differences, left_out, main, schema_of, schemas_in
from kraft.protocol.schema.facts import NEVER, SchemaError, parsed, read_schemas
from kraft.wire.handler_table import SERVED

FIND = """
api Find 300

request 1-4 flexible 3+
  Name    string?  entity topicName
  Parts   []Part   2+  # in the order of their numbers
    # Counted from 0.
    Number  int32  key
    Root    Root   3+  tag 0
  Others  []Part   4+  null 4+  = null
  struct Root
    Id    uuid
  Seen    int64    3+  tag 10000  = -1  ours

response 1-4 flexible 3+
  ErrorCode  int16
"""
THEIRS: Mapping[str, Any] = {
    "apiKey": 300,
    "type": "request",
    "name": "FindRequest",
    "validVersions": "1-4",
    "flexibleVersions": "3+",
    "fields": [
        {"name": "Name", "type": "string", "versions": "0+", "nullableVersions": "0+", "entityType": "topicName"},
        {
            "name": "Parts",
            "type": "[]Part",
            "versions": "2+",
            "fields": [
                {"name": "Number", "type": "int32", "versions": "2+", "mapKey": True},
                {"name": "Root", "type": "Root", "versions": "3+", "taggedVersions": "3+", "tag": 0},
            ],
        },
        {"name": "Others", "type": "[]Part", "versions": "4+", "nullableVersions": "4+", "default": "null"},
    ],
    "commonStructs": [{"name": "Root", "versions": "3+", "fields": [{"name": "Id", "type": "uuid", "versions": "3+"}]}],
}
PART, NUMBER, ROOT = ("fields", 1), ("fields", 1, "fields", 0), ("fields", 1, "fields", 1)


def test_a_line_contains_what_its_parts_contain():
    request, response = parsed(FIND)
    assert (request.name, request.api_key, request.versions, request.flexible_from) == (
        "FindRequest",
        300,
        range(1, 5),
        3,
    )
    assert (response.name, [field.name for field in response.top.fields]) == ("FindResponse", ["ErrorCode"])
    name, parts, others, seen = request.top.fields
    assert (name.kind, name.is_array, name.versions, name.nullable) == ("string", False, range(1, 5), range(1, 5))
    assert (name.entity, name.default, parts.default, others.default) == ("topicName", "", (), None)
    assert (parts.kind, parts.is_array, parts.versions.start, parts.comment) == (
        "Part",
        True,
        2,
        "in the order of their numbers",
    )
    assert (seen.tag, seen.tagged, seen.default, seen.is_ours) == (10_000, range(3, NEVER), -1, True)
    number, root = request.structures["Part"].fields
    assert (number.is_key, number.versions, number.comment) == (True, range(2, NEVER), "Counted from 0.")
    assert (root.kind, root.tag, root.comment) == ("Root", 0, "")
    assert list(request.structures) == ["Root", "Part"], "inner ones first"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("request 1-4\n  Name  text", "text is no type"),
        ("request 1-4\n  Name  string  sometimes", "sometimes is no fact"),
        ("request 1-4\n  Name  string  1+2", "1+2 are no versions"),
        ("request 1-4\n  Name  string  tag x", "x is no tag"),
        ("request 1-4\n  Name  string  tag", "a word is missing"),
        ("request 1-4\n  Name", "line 3: Name has no type"),
        ("request 1-4 flexible", "flexible and its first version"),
        ("request 1-4\n  Parts  []Part", "Part, the type of Parts, has no fields"),
        ("answer 1-4", "answer where an api"),
        ("  Name  string", "before a message"),
    ],
)
def test_a_line_without_a_fact_is_named(line: str, said: str):
    with pytest.raises(SchemaError, match=r"^find\.txt") as error:
        parsed(f"api Find 300\n{line}\n" if not line.startswith(" ") else line, "find.txt")
    assert said in str(error.value)


def test_clients_are_served_what_their_schemas_say():
    assert {*SERVED, apis.API_VERSIONS} == {api for api in apis.BY_KEY.values() if api.clients}


def test_what_is_described_is_served_or_sent():
    """From the oldest version that anybody asks us for, to the newest."""
    asked = {api.name: [*api.clients, *api.nodes] for api in apis.BY_KEY.values()}
    known = {name: range(min(versions), max(versions) + 1) for name, versions in asked.items()}
    sides = ("Request", "Response")
    schemas = [schema for schema in read_schemas() if schema.name.endswith(sides)]
    described = {schema.name: schema.versions for schema in schemas}
    assert described == {f"{name}{side}": versions for name, versions in known.items() for side in sides}


# --- beside Kafka's -------------------------------------------------------------------------------------------------


def changed(*path: str | int, **facts: Any) -> dict[str, Any]:
    """Kafka's schema with other facts at a place in it; None takes a fact away."""
    found = deepcopy(dict(THEIRS))
    place: Any = found
    for step in path:
        place = place[step]
    for name, value in facts.items():
        if value is None:
            del place[name]
        else:
            place[name] = value
    return found


def said_of(theirs: Mapping[str, Any], without: str = "") -> list[str]:
    ours = parsed(FIND)[:1]
    return [str(each) for each in differences(ours, [schema_of(theirs)], left_out(without))]


def test_the_same_facts_have_no_difference():
    assert said_of(THEIRS) == []


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        (changed(apiKey=301), "FindRequest: api key: 300 here, 301 in Kafka"),
        (changed(validVersions="1-5"), "FindRequest: versions: 1-4 here, 1-5 in Kafka"),
        (changed(flexibleVersions="4+"), "FindRequest: flexible versions: 3-4 here, 4 in Kafka"),
        (changed("fields", 0, type="bytes"), "FindRequest Name: type: string here, bytes in Kafka"),
        (changed("fields", 0, nullableVersions="2+"), "FindRequest Name: null: 1-4 here, 2-4 in Kafka"),
        (changed("fields", 0, entityType=None), "FindRequest Name: entity: topicName here, none in Kafka"),
        (changed("fields", 0, default="all"), 'FindRequest Name: default: "" here, all in Kafka'),
        (changed("fields", 0, name="Title"), "FindRequest Title: field: none here, present in Kafka"),
        (changed("fields", 2, default=None), "FindRequest Others: default: none here, () in Kafka"),
        (changed(*PART, versions="1+"), "FindRequest Parts: versions: 2-4 here, 1-4 in Kafka"),
        (changed(*NUMBER, mapKey=False), "FindRequest Parts.Number: map key: True here, False in Kafka"),
        (changed(*ROOT, tag=1), "FindRequest Parts.Root: tag: 0 here, 1 in Kafka"),
        (changed(*ROOT, taggedVersions="4+"), "FindRequest Parts.Root: tagged versions: 3-4 here, 4 in Kafka"),
        (
            changed("commonStructs", 0, "fields", 0, type="int64"),
            "FindRequest Parts.Root.Id: type: uuid here, int64 in Kafka",
        ),
        (
            changed("fields", 0, versions="3+", taggedVersions="3+", tag=10_000),
            "FindRequest: tag 10000: Seen here, Name in Kafka",
        ),
    ],
)
def test_each_planted_difference_is_found(theirs: Mapping[str, Any], said: str):
    assert said in said_of(theirs)


def test_versions_that_are_left_out_are_no_difference_nor_are_their_fields():
    newer = changed(validVersions="0-5")
    newer["fields"].append({"name": "Newer", "type": "int8", "versions": "5+"})
    assert said_of(newer, "FindRequest 0,5  # nobody asks for them") == []
    assert said_of(newer, "FindRequest 0") == [
        "FindRequest: versions: 1-4 here, 1-5 in Kafka",
        "FindRequest Newer: field: none here, present in Kafka",
    ]


def jar(path: Path, *schemas: Mapping[str, Any]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("org/apache/kafka/Some.class", b"\0")
        archive.writestr("common/other.json", "[]")
        for schema in schemas:
            text = json.dumps(schema, indent=2)
            archive.writestr(f"common/message/{schema['name']}.json", f"// Whose it is.\n  // And what.\n{text}")
    return path


def test_schemas_are_read_from_jars(tmp_path: Path):
    header = {"type": "header", "name": "RequestHeader", "validVersions": "1-2", "flexibleVersions": "2+", "fields": []}
    first = jar(tmp_path / "a.jar", THEIRS, header)
    second = jar(tmp_path / "b.jar", {**THEIRS, "name": "Ended", "validVersions": "none"})
    (found,) = schemas_in([first, second])
    assert (found.name, found.structures["Root"].fields[0].kind) == ("FindRequest", "uuid")


def test_exit_code_and_output_with_differences(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(jar(tmp_path / "a.jar", THEIRS)), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    (new,) = (each for each in found["differences"] if each["theirs"] == "present")
    assert new == {"message": "FindRequest", "field": "", "fact": "message", "ours": None, "theirs": "present"}
    assert {"ours": "present", "theirs": None, "message": "FetchRequest", "field": "", "fact": "message"} in found[
        "differences"
    ]
    skipped = {**THEIRS, "name": "VoteRequest"}
    assert main([str(jar(tmp_path / "b.jar", THEIRS, skipped))]) == 1
    text = capsys.readouterr().out
    assert text.count("VoteRequest") == 1
    assert "Left out: VoteRequest 1-4" in text.replace("\n", " ")


@pytest.mark.parametrize("content", [None, b"no jar", b""])
def test_a_jar_that_cannot_be_read_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None):
    path = tmp_path / "a.jar"
    if content is not None:
        path.write_bytes(content)
    assert main([str(path)]) == 2
    error = capsys.readouterr().err
    assert error
    assert main([str(jar(tmp_path / "empty.jar"))]) == 2
    assert "no schema in" in capsys.readouterr().err


def test_what_is_left_out_is_not_described():
    described: Sequence[str] = [schema.name for schema in read_schemas()]
    whole = [
        name for name, versions in left_out(LEFT_OUT.read_text(encoding="utf-8")).items() if len(versions) == NEVER
    ]
    assert not set(whole) & set(described)
    assert len(whole) > 60
