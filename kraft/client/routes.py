"""A record produced to a route: it goes to every topic whose binding matches its routing key, all or none."""

from __future__ import annotations

from base64 import b64encode
from datetime import datetime
from typing import Any

from kraft.client.connection import Connection
from kraft.client.errors import RecordRefused, RecordUnknown
from kraft.client.records import Delivery, Outgoing
from kraft.client.response import checked, segment


async def send_to_route(
    connection: Connection, route: str, given: Outgoing, *, routing_key: str | None
) -> tuple[Delivery, ...]:
    """One request, which is not repeated when its answer was lost. Raises RecordRefused, RecordUnknown, ServerError,
    NothingDone, OutcomeUnknown."""
    path = await connection.v3(f"/routes/{segment(route)}/records:batch")
    request = connection.request("POST", path, {"entries": [_entry(given, routing_key)]})
    answer = checked(await connection.ask(request, repeatable=False)).json()
    for failure in answer["failures"]:
        kind = RecordRefused if failure.get("is_appended") is False else RecordUnknown
        raise kind(failure["message"], code=failure.get("kafka_code"), retriable=bool(failure.get("retriable")))
    (success,) = answer["successes"]
    return tuple(map(_delivery, success["records"]))


def _entry(given: Outgoing, routing_key: str | None) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": "1"}
    for name, data in (("key", given.key), ("value", given.value)):
        if data is not None:
            entry[name] = {"type": "BINARY", "data": _base64(data)}
    if given.headers:
        entry["headers"] = [
            {"name": name, "value": None if value is None else _base64(value)} for name, value in given.headers
        ]
    if given.timestamp_ms is not None:
        entry["timestamp"] = datetime.fromtimestamp(given.timestamp_ms / 1_000).astimezone().isoformat()
    if routing_key is not None:
        entry["routing_key"] = routing_key
    return entry


def _base64(data: bytes) -> str:
    return b64encode(data).decode()


def _delivery(row: dict[str, Any]) -> Delivery:
    return Delivery(
        topic=row["topic_name"],
        partition=row["partition_id"],
        offset=row["offset"],
        timestamp=round(datetime.fromisoformat(row["timestamp"].replace("Z", "+00:00")).timestamp() * 1_000),
        leader_epoch=row["leader_epoch"],
    )
