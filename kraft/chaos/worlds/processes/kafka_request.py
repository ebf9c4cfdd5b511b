"""One request to the Kafka port of a node, for what REST has no request for: the settings of a group."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from struct import Struct
from typing import Final

from kraft.protocol import codec
from kraft.protocol.messages.incremental_alter_configs_request import (
    AlterableConfig,
    AlterConfigsResource,
    IncrementalAlterConfigsRequestData,
)
from kraft.protocol.messages.incremental_alter_configs_response import IncrementalAlterConfigsResponseData

GROUP: Final = 32
"""Kafka's number of this kind of resource."""
VERSION: Final = 1
LENGTH: Final = Struct(">i")
HEAD: Final = Struct(">hhihB")
"""API key, version, correlation id, null client id, no tags."""
RESPONSE_HEAD_BYTES: Final = 5


async def alter_group(host: str, port: int, group: str, configs: Mapping[str, str]) -> str:
    """Set these settings. Returns the error, or nothing. Raises OSError, EOFError."""
    settings = [AlterableConfig.make(name=name, value=value) for name, value in configs.items()]
    resource = AlterConfigsResource.make(resource_type=GROUP, resource_name=group, configs=settings)
    message = IncrementalAlterConfigsRequestData.make(resources=[resource])
    reader, writer = await asyncio.open_connection(host, port)
    try:
        body = b"".join(codec.encode_body(message, VERSION))
        head = HEAD.pack(message.API_KEY, VERSION, 1, -1, 0)
        writer.write(LENGTH.pack(len(head) + len(body)) + head + body)
        await writer.drain()
        (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
        frame = memoryview(await reader.readexactly(length))
    finally:
        writer.close()
    answer = codec.decode_body(IncrementalAlterConfigsResponseData, VERSION, frame, RESPONSE_HEAD_BYTES)
    (result,) = answer.responses
    return f"error {result.error_code}: {result.error_message}" if result.error_code else ""
