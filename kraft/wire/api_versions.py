"""ApiVersions (18, KIP-35, KIP-511, KIP-584): what this node serves, to clients and to nodes.

A version that we do not know is answered in version 0 with UNSUPPORTED_VERSION 35 and one entry, that of ApiVersions:
the peer asks again with a version that it finds there.
"""

from __future__ import annotations

import re

from kraft.broker.features import FEATURES
from kraft.protocol import apis, codec
from kraft.protocol.codec import Malformed, RequestHeader
from kraft.protocol.encoding import TooManyItems, counting
from kraft.protocol.errors import InvalidRequest, UnsupportedVersion
from kraft.protocol.messages.api_versions_request import ApiVersionsRequestData
from kraft.protocol.messages.api_versions_response import (
    ApiVersion,
    ApiVersionsResponseData,
    FinalizedFeatureKey,
    SupportedFeatureKey,
)
from kraft.protocol.varints import TAGS_MAX
from kraft.wire.handler_table import SERVED, UNADVERTISED

OWN_ENTRY = ApiVersion.make(
    api_key=apis.API_VERSIONS.key,
    min_version=apis.API_VERSIONS.clients[0],
    max_version=apis.API_VERSIONS.clients[-1],
)
ADVERTISED_FROM = {0: 0}
"""API key -> the oldest version that ApiVersions names, where it is not the oldest that is served."""
LEVEL_0_FROM = 4
"""Clients of an older version of ApiVersions cannot read a feature whose lowest level is 0, and end (KAFKA-17492)."""
SOFTWARE_FROM = 3
_SOFTWARE = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?")
"""What a software's name or version may be: both become names of metrics."""

_KEYS = tuple(
    sorted(
        (
            OWN_ENTRY,
            *(
                ApiVersion.make(
                    api_key=api.key,
                    min_version=ADVERTISED_FROM.get(api.key, api.clients[0]),
                    max_version=api.clients[-1],
                )
                for api in SERVED
                if api.key not in UNADVERTISED
            ),
        ),
        key=lambda each: each.api_key,
    )
)
_SUPPORTED = tuple(
    SupportedFeatureKey.make(name=each.name, min_version=each.oldest, max_version=each.newest) for each in FEATURES
)
_SUPPORTED_ABOVE_0 = tuple(each for each in _SUPPORTED if each.min_version > 0)
_FINAL = tuple(
    FinalizedFeatureKey.make(name=each.name, max_version_level=each.final, min_version_level=each.final)
    for each in FEATURES
)

Software = tuple[str, str]
"""Name and version of a client's library."""


def unknown_version() -> ApiVersionsResponseData:
    """The answer to a version that this node does not know: UNSUPPORTED_VERSION 35 and the entry of ApiVersions alone.
    It has to be written in version 0, which every client reads.
    """
    return ApiVersionsResponseData.make(error_code=UnsupportedVersion.code, api_keys=[OWN_ENTRY])


def node_versions(asked: int) -> tuple[int, ApiVersionsResponseData]:
    """The version in which to answer, and the response: `asked` where this node knows it, else version 0 (KIP-511)."""
    if asked not in apis.API_VERSIONS.nodes:
        return 0, unknown_version()
    keys = [
        ApiVersion.make(api_key=api.key, min_version=api.nodes[0], max_version=api.nodes[-1])
        for api in apis.BY_KEY.values()
        if api.nodes
    ]
    return asked, ApiVersionsResponseData.make(error_code=0, api_keys=keys)


def client_versions(
    header: RequestHeader, frame: memoryview, *, metadata_offset: int
) -> tuple[int, ApiVersionsResponseData, Software | None]:
    """The version of the response, the response, and the client's software if the request has it (from version 3 on).

    The epoch of the finalized features is the metadata offset: clients take the newest over all brokers, and none of
    an epoch below 0. Raises Malformed.
    """
    version = header.api_version
    if version not in apis.API_VERSIONS.clients:
        return 0, unknown_version(), None
    offset = codec.body_offset(header, frame, is_flexible=version >= SOFTWARE_FROM)
    try:
        with counting(TAGS_MAX):
            message = codec.decode_client_body(ApiVersionsRequestData, version, frame, offset)
    except TooManyItems as error:
        raise Malformed(f"ApiVersions version {version}: {error}") from error
    software = None
    if version >= SOFTWARE_FROM:
        software = message.client_software_name, message.client_software_version
        if not all(map(_SOFTWARE.fullmatch, software)):
            return version, ApiVersionsResponseData.make(error_code=InvalidRequest.code), None
    response = ApiVersionsResponseData.make(
        api_keys=_KEYS,
        supported_features=_SUPPORTED if version >= LEVEL_0_FROM else _SUPPORTED_ABOVE_0,
        finalized_features_epoch=max(metadata_offset, 0),
        finalized_features=_FINAL,
    )
    return version, response, software
