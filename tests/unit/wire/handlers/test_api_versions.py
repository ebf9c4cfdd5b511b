"""What clients read of ApiVersions before anything else; some of them end when they find what they do not expect."""

from __future__ import annotations

import struct

import pytest

from kraft.broker.features import FEATURES
from kraft.kafka_data.releases import NEWEST
from kraft.protocol import apis, codec
from kraft.protocol.messages.api_versions_request import ApiVersionsRequestData
from kraft.protocol.messages.api_versions_response import ApiVersionsResponseData
from kraft.wire.api_versions import client_versions
from kraft.wire.handler_table import ROWS

NODES_ONLY = {52, 53, 54, 56, 58, 59, 62, 63, 67, 70, 73, 82, 10_000}
CLIENT_METRICS = {71, 72}
"""Served, and not named: there is no receiver of them (KIP-714)."""
"""Not served yet."""


def asked(
    version: int, *, name: str = "librdkafka", software: str = "2.16.1", offset: int = 77, tags: bytes = b"\0"
) -> tuple[int, ApiVersionsResponseData, tuple[str, str] | None]:
    head = struct.pack(">hhih", 18, version, 5, 2) + b"me" + (tags if version >= 3 else b"")
    known = min(version, 4)
    body = b"".join(
        codec.encode_body(
            ApiVersionsRequestData.make(client_software_name=name, client_software_version=software), known
        )
    )
    frame = memoryview(head + body)
    answered, response, found = client_versions(codec.decode_request_head(frame), frame, metadata_offset=offset)
    data = memoryview(b"".join(codec.encode_body(response, answered)))
    return answered, codec.decode_body(ApiVersionsResponseData, answered, data, 0), found


@pytest.mark.parametrize("version", range(5))
def test_every_version_names_all_apis_in_their_order_and_none_of_nodes(version: int):
    answered, response, software = asked(version)
    assert (answered, response.error_code) == (version, 0)
    keys = [each.api_key for each in response.api_keys]
    assert keys == sorted(set(keys))
    assert set(keys) == set(ROWS) - CLIENT_METRICS | {18}
    assert not set(keys) & NODES_ONLY
    assert software == (("librdkafka", "2.16.1") if version >= 3 else None)


def test_produce_is_advertised_from_0_on():
    """KAFKA-18659: librdkafka before 2.11 compresses nothing otherwise."""
    ranges = {each.api_key: (each.min_version, each.max_version) for each in asked(4)[1].api_keys}
    assert ranges[0] == (0, 13)
    assert ranges[18] == (0, 4)
    assert ranges[1] == (4, 18)


@pytest.mark.parametrize("version", [5, 6, 99, 32_767])
def test_an_unknown_version_is_answered_in_version_0_with_one_entry(version: int):
    answered, response, software = asked(version)
    assert (answered, response.error_code, software) == (0, 35, None)
    assert [(each.api_key, each.min_version, each.max_version) for each in response.api_keys] == [(18, 0, 4)]


@pytest.mark.parametrize("version", range(5))
def test_features_in_api_versions(version: int):
    _, response, _ = asked(version)
    final = {each.name: (each.min_version_level, each.max_version_level) for each in response.finalized_features}
    supported = {each.name: (each.min_version, each.max_version) for each in response.supported_features}
    if version < 3:
        assert (final, supported, response.finalized_features_epoch) == ({}, {}, -1)
        return
    assert response.finalized_features_epoch == 77
    assert final == {
        "group.version": (1, 1),
        "metadata.version": (33, 33),
        "share.version": (2, 2),
        "transaction.version": (2, 2),
    }
    of_level_0 = {"group.version": (0, 1), "share.version": (0, 2), "transaction.version": (0, 2)}
    assert supported == {"metadata.version": (33, 33)} | (of_level_0 if version >= 4 else {})
    assert all(supported[name][1] >= high for name, (_, high) in final.items() if name in supported)


def test_the_metadata_version_is_that_of_the_release_for_which_data_is_exported():
    (level,) = (each.final for each in FEATURES if each.name == "metadata.version")
    assert level == NEWEST.metadata_version


def test_the_epoch_is_never_negative():
    """franz-go takes no features of an epoch below 0."""
    assert asked(4, offset=-1)[1].finalized_features_epoch == 0


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize(
    ("name", "software"),
    [("", "1"), ("a", ""), ("a b", "1"), ("-a", "1"), ("a-", "1"), ("a", "1."), ("a", "ü"), ("a\n", "1"), ('a"', "1")],
)
def test_a_software_that_is_no_name_is_an_invalid_request(version: int, name: str, software: str):
    answered, response, found = asked(version, name=name, software=software)
    assert (answered, response.error_code, response.api_keys, found) == (version, 42, (), None)


@pytest.mark.parametrize("name", ["a", "apache-kafka-java", "9", "a.b-c"])
def test_names_of_software(name: str):
    assert asked(4, name=name)[2] == (name, "2.16.1")


def test_unknown_tagged_fields_of_the_header_are_skipped():
    assert asked(4, tags=b"\x02\x05\x03abc\x90\x4e\x04\0\0\0\1")[1].error_code == 0


@pytest.mark.parametrize("version", range(5))
def test_the_header_of_the_answer_is_never_flexible(version: int):
    _, response, _ = asked(version)
    head = codec.encode_response(ApiVersionsResponseData, version, 9, response)[0]
    assert bytes(head) == b"\0\0\0\x09"
    assert version in apis.API_VERSIONS.clients
