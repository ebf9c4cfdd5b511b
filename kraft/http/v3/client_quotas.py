"""v3 client quotas, an addition of ours: listed, set and removed, with Kafka's names (KIP-546)."""

from __future__ import annotations

from aiohttp import web

from kraft.http.endpoint import Call
from kraft.http.errors import BAD_REQUEST
from kraft.http.v3 import models
from kraft.http.v3.envelope import answer, listing, no_content, raise_refusal, route
from metadata.controller.requests import AlterClientQuotas, QuotaAlteration


async def list_client_quotas(call: Call) -> web.Response:
    """200 with all quotas."""
    quotas = call.context.gateway.image.quotas
    rows = ({"entity": dict(entity), "quotas": dict(quotas[entity])} for entity in sorted(quotas, key=repr))
    return answer(listing(call, "KafkaClientQuotaList", ("client-quotas",), rows))


async def alter_client_quotas(call: Call) -> web.Response:
    """204: the quotas of one entity are set, those with null removed; all or none. Raises InvalidRequest 42."""
    asked = call.model(models.QuotaChange)
    alteration = QuotaAlteration(
        entity=tuple(sorted(asked.entity.items(), key=repr)),
        quotas={name: None if value is None else float(value) for name, value in asked.quotas.items()},
    )
    [outcome] = await call.context.control(AlterClientQuotas(alterations=(alteration,)))
    raise_refusal(outcome)
    return no_content()


ROUTES = (
    route("GET", "/client-quotas", list_client_quotas, "List quotas of clients.", models.Listing[models.ClientQuota]),
    route("POST", "/client-quotas:alter", alter_client_quotas, "Set and remove quotas of a client.",
          body=models.QuotaChange, errors=(BAD_REQUEST,)),
)  # fmt: skip
