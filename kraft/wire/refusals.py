"""Any request of a client refused as a whole, by who is no broker: as the door itself refuses it.

The answers are those of `ApiHandler.refuse`, which needs nothing of a broker; the handlers beside it are made and never
called.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from kraft.protocol import apis, codec
from kraft.protocol.codec import Malformed, RequestHeader
from kraft.protocol.errors import KafkaError, UnsupportedVersion
from kraft.protocol.messages.api_versions_response import ApiVersionsResponseData
from kraft.protocol.primitives import Buffer
from kraft.wire.api_handler import CloseConnection
from kraft.wire.api_versions import OWN_ENTRY
from kraft.wire.handler_table import ROWS, ApiHandlers
from kraft.wire.node_parts import NodeParts

_NONE = cast(Any, None)
NO_PARTS = NodeParts(
    environment=_NONE,
    config=_NONE,
    gateway=_NONE,
    groups=_NONE,
    lost=_NONE,
    transactions=_NONE,
    share_persister=_NONE,
    answers=_NONE,
    facts=_NONE,
    broker=None,
    controller=None,
    metadata_fetches=None,
)
"""Parts of no node: handlers that are made of them can refuse a request, and nothing else."""


class Refusals:
    """Modules of APIs are imported when they are asked for."""

    def __init__(self) -> None:
        self._apis = ApiHandlers(NO_PARTS)

    def is_served(self, api_key: int) -> bool:
        """Afterwards its first answer takes no longer than the others."""
        if api_key not in ROWS:
            return api_key == apis.API_VERSIONS.key
        return self._apis.get(api_key) is not None

    def answer(self, header: RequestHeader, frame: memoryview, error: KafkaError) -> Sequence[Buffer] | None:
        """The answer as Kafka's `AbstractRequest.getErrorResponse` has it, in the version that was asked. None: the
        connection is closed instead, as for acks=0 and for what the door does not take either."""
        if header.api_key == apis.API_VERSIONS.key:
            return _refused_api_versions(header, error)
        api = self._apis.get(header.api_key)
        if api is None or header.api_version not in apis.BY_KEY[header.api_key].clients:
            return None
        version = header.api_version
        try:
            offset = codec.body_offset(header, frame, is_flexible=version >= api.request.FLEXIBLE_FROM)
            message = codec.decode_client_body(api.request, version, frame, offset)
            response = api.refuse(message, version, error)
        except (CloseConnection, Malformed):
            return None
        return codec.encode_response(api.response, version, header.correlation_id, response)


def _refused_api_versions(header: RequestHeader, error: KafkaError) -> Sequence[Buffer]:
    """A client that asked in an unsupported version gets version 0, with the supported versions (KIP-511)."""
    is_unsupported = error.code == UnsupportedVersion.code
    response = ApiVersionsResponseData.make(error_code=error.code, api_keys=[OWN_ENTRY] if is_unsupported else [])
    version = 0 if is_unsupported or header.api_version not in apis.API_VERSIONS.clients else header.api_version
    return codec.encode_response(ApiVersionsResponseData, version, header.correlation_id, response)
