"""ApiVersions (18, KIP-35, KIP-511) for clients: what this listener serves them, and who they say they are."""

from __future__ import annotations

from kraft.protocol.errors import UnsupportedVersion
from kraft.wire import apis, codec
from kraft.wire.clients.table import ROWS
from kraft.wire.codec import RequestHeader
from kraft.wire.generated.api_versions_request import ApiVersionsRequestData
from kraft.wire.generated.api_versions_response import ApiVersion, ApiVersionsResponseData

ADVERTISED_FROM = {0: 0}
"""API key -> the oldest version that ApiVersions names, where it is not the oldest that is served."""


def client_versions(header: RequestHeader, frame: memoryview) -> tuple[int, ApiVersionsResponseData]:
    """The version of the response and the response. An unknown version is answered in version 0 with
    UNSUPPORTED_VERSION 35 and one entry, that of ApiVersions itself: the client asks again then (KIP-511)."""
    own = ApiVersion.make(
        api_key=apis.API_VERSIONS.key, min_version=apis.API_VERSIONS.version_min, max_version=apis.API_VERSIONS.version
    )
    if not apis.API_VERSIONS.takes(header.api_version):
        return 0, ApiVersionsResponseData.make(error_code=UnsupportedVersion.code, api_keys=[own])
    keys = [
        ApiVersion.make(api_key=key, min_version=ADVERTISED_FROM.get(key, row.oldest), max_version=row.newest)
        for key, row in ROWS.items()
    ]
    return header.api_version, ApiVersionsResponseData.make(
        error_code=0, api_keys=sorted([*keys, own], key=lambda each: each.api_key)
    )


def software_of(header: RequestHeader, frame: memoryview) -> tuple[str, str] | None:
    """Name and version of the client's library. None when it does not say (versions before 3). Raises Malformed."""
    if not 3 <= header.api_version <= apis.API_VERSIONS.version:
        return None
    offset = codec.body_offset(header, frame, is_flexible=True)
    message = codec.decode_client_body(ApiVersionsRequestData, header.api_version, frame, offset)
    return message.client_software_name, message.client_software_version
