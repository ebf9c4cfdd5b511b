"""Quotas of clients over the Kafka port: set, removed and described as Kafka's `ClientQuotaControlManager` does."""

from __future__ import annotations

import pytest

from kraft.protocol.messages import alter_client_quotas_request as request_module
from kraft.protocol.messages.alter_client_quotas_request import AlterClientQuotasRequestData
from kraft.protocol.messages.alter_client_quotas_response import AlterClientQuotasResponseData
from kraft.protocol.messages.describe_client_quotas_request import ComponentData, DescribeClientQuotasRequestData
from kraft.protocol.messages.describe_client_quotas_response import DescribeClientQuotasResponseData
from kraft.wire.handlers import client_quotas
from metadata.image_codec import decode_image, encode_image
from tests.support.admin_client import AdminClient
from tests.support.controller_world import World

ALICE = {"user": "alice"}
BOTH = {"client-id": "app", "user": "alice"}
DEFAULT_USER = {"user": None}


def client() -> AdminClient:
    return AdminClient(client_quotas.apis, World())


def alter(
    admin: AdminClient,
    *entries: tuple[dict[str, str | None], dict[str, float | None]],
    version: int = 1,
    validate_only: bool = False,
) -> list[int]:
    request = AlterClientQuotasRequestData.make(
        entries=[
            request_module.EntryData.make(
                entity=[request_module.EntityData.make(entity_type=k, entity_name=n) for k, n in entity.items()],
                ops=[
                    request_module.OpData.make(key=key, value=value or 0.0, remove=value is None)
                    for key, value in quotas.items()
                ],
            )
            for entity, quotas in entries
        ],
        validate_only=validate_only,
    )
    answer = admin.ask(request, version, AlterClientQuotasResponseData)
    assert [{each.entity_type: each.entity_name for each in entry.entity} for entry in answer.entries] == [
        entity for entity, _ in entries
    ]
    return [entry.error_code for entry in answer.entries]


def describe(
    admin: AdminClient, *components: tuple[str, int, str | None], strict: bool = False, version: int = 1
) -> list[tuple[dict[str, str | None], dict[str, float]]] | int:
    request = DescribeClientQuotasRequestData.make(
        components=[ComponentData.make(entity_type=k, match_type=m, match=name) for k, m, name in components],
        strict=strict,
    )
    answer = admin.ask(request, version, DescribeClientQuotasResponseData)
    if answer.error_code:
        assert answer.entries is None
        return answer.error_code
    return sorted(
        (
            ({each.entity_type: each.entity_name for each in entry.entity}, {v.key: v.value for v in entry.values})
            for entry in answer.entries or ()
        ),
        key=repr,
    )


@pytest.mark.parametrize("version", [0, 1])
def test_set_described_and_removed(version: int) -> None:
    admin = client()
    quotas: dict[str, float | None] = {"producer_byte_rate": 1024.0, "controller_mutation_rate": 2.5}
    rates: dict[str, float | None] = {"consumer_byte_rate": 7.0}
    assert alter(admin, (ALICE, quotas), (BOTH, rates), (DEFAULT_USER, rates), version=version) == [0, 0, 0]
    assert describe(admin, ("user", 0, "alice"), strict=True, version=version) == [(ALICE, quotas)]
    assert describe(admin, ("user", 0, "alice"), version=version) == [(BOTH, rates), (ALICE, quotas)]
    assert describe(admin, ("user", 1, None), version=version) == [(DEFAULT_USER, rates)]
    assert len(describe(admin, ("user", 2, None), version=version)) == 3  # type: ignore[arg-type]
    assert decode_image(encode_image(admin.gateway.image)) == admin.gateway.image
    assert alter(admin, (ALICE, dict.fromkeys(quotas)), (BOTH, dict.fromkeys(rates)), version=version) == [0, 0]
    assert describe(admin, version=version) == [(DEFAULT_USER, rates)]


def test_validated_only() -> None:
    admin = client()
    assert alter(admin, (ALICE, {"producer_byte_rate": 1.0}), validate_only=True) == [0]
    assert describe(admin) == []


@pytest.mark.parametrize(
    ("entity", "quotas"),
    [
        ({}, {"producer_byte_rate": 1.0}),
        ({"planet": "earth"}, {"producer_byte_rate": 1.0}),
        ({"user": ""}, {"producer_byte_rate": 1.0}),
        ({"user": "alice", "ip": "10.0.0.1"}, {"producer_byte_rate": 1.0}),
        ({"ip": "nowhere"}, {"connection_creation_rate": 1.0}),
        ({"ip": "10.0.0.1"}, {"producer_byte_rate": 1.0}),
        ({"user": "alice"}, {"connection_creation_rate": 1.0}),
        ({"user": "alice"}, {"colour": 1.0}),
        ({"user": "alice"}, {"producer_byte_rate": 0.0}),
        ({"user": "alice"}, {"producer_byte_rate": 1.5}),
        ({"user": "alice"}, {"producer_byte_rate": float("inf")}),
    ],
)
def test_quotas_that_mean_nothing_are_refused(entity: dict[str, str | None], quotas: dict[str, float | None]) -> None:
    admin = client()
    assert alter(admin, (entity, quotas), (DEFAULT_USER, {"producer_byte_rate": 1.0})) == [42, 0]


def test_an_entity_comes_once() -> None:
    assert alter(client(), (ALICE, {"producer_byte_rate": 1.0}), (ALICE, {"consumer_byte_rate": 1.0})) == [0, 42]


@pytest.mark.parametrize(
    ("components", "code"),
    [
        ([("", 2, None)], 42),
        ([("planet", 2, None)], 35),
        ([("user", 0, None)], 42),
        ([("user", 1, "alice")], 42),
        ([("user", 9, None)], 42),
        ([("user", 2, None), ("user", 2, None)], 42),
        ([("user", 2, None), ("ip", 2, None)], 42),
    ],
)
def test_filters_that_mean_nothing_are_refused(components: list[tuple[str, int, str | None]], code: int) -> None:
    assert describe(client(), *components) == code
