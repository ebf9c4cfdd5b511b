"""Asks all nodes of the cluster what they see, over HTTP with the key of the cluster's operator: evidence for
explanations. Neither the quorum nor the links between the nodes are needed; a node that does not answer is named.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from kraft.config.models import has_sasl, has_tls
from kraft.explain.facts import Found, NodeEvidence, read_evidence
from kraft.node.assembly import Node
from kraft.node.evidence import OwnEvidence
from kraft.protocol.operator_tokens import make_token

if TYPE_CHECKING:
    from kraft.client.response import Response
    from kraft.client.transport import Transport

ANSWER_MS: Final = 2_000
"""A node that has not answered by then is unreached: a paused one never answers."""


class Explainer:
    def __init__(self, node: Node, own: OwnEvidence) -> None:
        self._node = node
        self._own = own

    async def find(self, topic: str | None = None, partition: int = 0) -> Found:
        """The facts of this node and of all others, within little more than `ANSWER_MS`."""
        config, own_id, clock = self._node.config, self._node.node.id, self._node.environment.clock
        others = [each.id for each in config.nodes if each.id != own_id]
        query = "" if topic is None else f"?topic={quote(topic, safe='')}&partition={partition}"
        nodes, unreached, ages, answered = {}, {}, {own_id: 0}, {}
        if others:
            async with await self._transport() as transport:
                asked = [self._ask(transport, each, "/kraft/evidence" + query) for each in others]
                for node_id, answer in zip(others, await asyncio.gather(*asked), strict=True):
                    if isinstance(answer, str):
                        unreached[node_id] = answer
                    else:
                        nodes[node_id], answered[node_id] = answer
        now_ms = clock.monotonic_ms()
        ages |= {node_id: now_ms - at_ms for node_id, at_ms in answered.items()}
        nodes[own_id] = self._own(topic, partition)
        return Found(asked=own_id, at_ms=clock.wall_ms(), nodes=nodes, ages_ms=ages, unreached=unreached)

    async def _ask(self, transport: Transport, node_id: int, path: str) -> tuple[NodeEvidence, int] | str:
        from kraft.client.response import Answer, Request

        request = Request(method="GET", path=path, timeout_ms=ANSWER_MS)
        answer: Response = await transport.send(self._node.config.node(node_id).rest_url, request)
        if not isinstance(answer, Answer):
            return answer.reason.partition(" ssl:")[0]  # what aiohttp adds of TLS means nothing where none is
        if not answer.is_success:
            return f"status {answer.status}"
        try:
            return read_evidence(answer.body), self._node.environment.clock.monotonic_ms()
        except ValueError as error:
            return f"an answer that is not understood: {error}"

    async def _transport(self) -> Transport:
        """HTTP clients are loaded by the first explanation: a node starts without them."""
        load: Callable[[], None] = _load
        await self._node.environment.workers.run(load)
        from kraft.client.credentials import Credentials
        from kraft.client.transport import Transport

        node, settings = self._node.node, self._node.publisher.settings
        encrypted = has_tls(node.rest_protocol)
        key, clock = self._node.config.keys.operator, self._node.environment.clock
        token = partial(_token, key, clock.wall_ms) if has_sasl(node.rest_protocol) else None
        is_shown = encrypted and settings.ssl_client_auth == "required"
        return Transport(
            credentials=Credentials(
                ca=settings.ssl_truststore_location if encrypted else None,
                certificate=settings.ssl_keystore_location if is_shown else None,
                token=token,
            )
        )


def _load() -> None:
    import kraft.client.transport  # noqa: F401


def _token(key: bytes, now_ms: Callable[[], int]) -> str:
    return make_token(key, now_ms=now_ms())
