"""Our messages read and write what Apache Kafka wrote, byte by byte, in every version that clients are served."""

from __future__ import annotations

from collections import defaultdict
from importlib import import_module

import pytest

from kraft.protocol import apis
from kraft.protocol.codec import decode_body, encode_body
from kraft.protocol.encoding import TopLevel
from kraft.wire.handler_table import SERVED
from tests.clients.golden.compare import shape
from tests.clients.golden.files import load
from tests.clients.golden.peer import Exchange

EXCHANGES = load()
NEVER_WRONG = {
    "ApiVersions": range(3),
    "DescribeCluster": range(1),
    "DescribeLogDirs": range(6),
    "DescribeShareGroupOffsets": range(2),
    "GetTelemetrySubscriptions": range(1),
    "ListConfigResources": range(1),
    "ListGroups": range(6),
    "ListPartitionReassignments": range(1),
    "ListTransactions": range(2),
}
"""Nothing that one broker without an authorizer can be asked in these versions is an error."""
ALWAYS_REFUSED = {"DescribeAcls", "CreateAcls", "DeleteAcls", "AlterUserScramCredentials", "UnregisterBroker"}
ALWAYS_REFUSED |= {"SaslHandshake", "SaslAuthenticate"}
"""Neither broker has an authorizer (54), nobody has credentials that could be deleted, the only broker stays, and
nobody authenticates at its listener (34)."""


def message_type(api: str, side: str) -> type[TopLevel]:
    schema = "".join("_" + each.lower() if each.isupper() else each for each in api).lstrip("_")
    kind: type[TopLevel] = getattr(
        import_module(f"kraft.protocol.messages.{schema}_{side}"), f"{api}{side.title()}Data"
    )
    return kind


@pytest.mark.parametrize("side", ["request", "response"])
def test_recorded_bytes_are_read_and_written_again(side: str) -> None:
    for exchange in EXCHANGES:
        data: bytes = getattr(exchange, side)
        message = decode_body(message_type(exchange.api, side), exchange.version, memoryview(data), 0)
        assert b"".join(encode_body(message, exchange.version)) == data, exchange.key


def test_each_api_and_version_is_recorded_with_a_success_and_an_error() -> None:
    recorded: dict[str, list[Exchange]] = defaultdict(list)
    for exchange in EXCHANGES:
        recorded[f"{exchange.api} {exchange.version}"].append(exchange)
    wanted = {f"{api.name} {version}" for api in SERVED for version in api.clients}
    wanted |= {f"ApiVersions {version}" for version in range(apis.API_VERSIONS.version + 1)}
    assert not sorted(wanted - recorded.keys())
    assert not [
        f"{key}: no error"
        for key in sorted(wanted)
        if not any(has_error(each) for each in recorded[key]) and not is_never_wrong(*key.split())
    ]
    assert not [
        f"{key}: no success"
        for key in sorted(wanted)
        if all(has_error(each) for each in recorded[key]) and key.split()[0] not in ALWAYS_REFUSED
    ]


def is_never_wrong(api: str, version: str) -> bool:
    return int(version) in NEVER_WRONG.get(api, ())


def has_error(exchange: Exchange) -> bool:
    message = decode_body(message_type(exchange.api, "response"), exchange.version, memoryview(exchange.response), 0)
    return any(code not in ("0", "None") for code in error_codes(shape(message)))


def error_codes(shaped: object, name: str = "") -> list[str]:
    if isinstance(shaped, dict):
        return [code for key, each in shaped.items() for code in error_codes(each, key)]
    if isinstance(shaped, list):
        return [code for _, each in shaped for code in error_codes(each, name)]
    return [str(shaped)] if name.endswith("error_code") else []
