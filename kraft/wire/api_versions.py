"""ApiVersions (18, KIP-35, KIP-511) for nodes: what they may ask this one, answered in the version that was asked.

A version that we do not know is answered in version 0 with UNSUPPORTED_VERSION 35 and one entry, that of ApiVersions:
the peer asks again with a version that it finds there.
"""

from __future__ import annotations

from kraft.protocol.errors import UnsupportedVersion
from kraft.wire import apis
from kraft.wire.generated.api_versions_response import ApiVersion, ApiVersionsResponseData

OWN_ENTRY = ApiVersion.make(
    api_key=apis.API_VERSIONS.key, min_version=apis.API_VERSIONS.version_min, max_version=apis.API_VERSIONS.version
)


def unknown_version() -> ApiVersionsResponseData:
    """The answer to a version that this node does not know: UNSUPPORTED_VERSION 35 and the entry of ApiVersions alone.
    It has to be written in version 0, which every client reads.
    """
    return ApiVersionsResponseData.make(error_code=UnsupportedVersion.code, api_keys=[OWN_ENTRY])


def api_versions_response(asked: int) -> tuple[int, ApiVersionsResponseData]:
    """The version in which to answer, and the response: `asked` where this node knows it, else version 0 (KIP-511)."""
    if not apis.API_VERSIONS.takes(asked):
        return 0, unknown_version()
    keys = [
        ApiVersion.make(api_key=api.key, min_version=api.version_min, max_version=api.version)
        for api in apis.BY_KEY.values()
    ]
    return asked, ApiVersionsResponseData.make(error_code=0, api_keys=keys)
