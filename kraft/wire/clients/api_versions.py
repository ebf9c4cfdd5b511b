"""ApiVersions (18, KIP-35, KIP-511, KIP-584) for clients: what this listener serves, and who they say they are."""

from __future__ import annotations

import re

from kraft.broker.features import FEATURES
from kraft.protocol.errors import InvalidRequest
from kraft.wire import apis, codec
from kraft.wire.api_versions import OWN_ENTRY, unknown_version
from kraft.wire.clients.table import ROWS
from kraft.wire.codec import RequestHeader
from kraft.wire.generated.api_versions_request import ApiVersionsRequestData
from kraft.wire.generated.api_versions_response import (
    ApiVersion,
    ApiVersionsResponseData,
    FinalizedFeatureKey,
    SupportedFeatureKey,
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
                ApiVersion.make(api_key=key, min_version=ADVERTISED_FROM.get(key, row.oldest), max_version=row.newest)
                for key, row in ROWS.items()
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


def client_versions(
    header: RequestHeader, frame: memoryview, *, metadata_offset: int
) -> tuple[int, ApiVersionsResponseData, Software | None]:
    """The version of the response, the response, and the client's software if it says (versions 3 and on).

    The epoch of the finalized features is the metadata offset: clients take the newest over all brokers, and none of
    an epoch below 0. Raises Malformed.
    """
    version = header.api_version
    if not apis.API_VERSIONS.takes(version):
        return 0, unknown_version(), None
    message = codec.decode_client_body(
        ApiVersionsRequestData, version, frame, codec.body_offset(header, frame, is_flexible=version >= SOFTWARE_FROM)
    )
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
