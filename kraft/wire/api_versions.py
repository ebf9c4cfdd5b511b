"""ApiVersions (18, KIP-35, KIP-511): what this listener speaks, answered in the version that was asked.

A version that we do not know is answered in version 0 with UNSUPPORTED_VERSION 35 and the whole list, so that the
client can choose again.
"""

from __future__ import annotations

from kraft.protocol.errors import UnsupportedVersion
from kraft.wire import apis
from kraft.wire.generated.api_versions_response import ApiVersion, ApiVersionsResponseData


def api_versions_response(asked: int) -> tuple[int, ApiVersionsResponseData]:
    """The version of the response and the response."""
    is_known = apis.API_VERSIONS.takes(asked)
    response = ApiVersionsResponseData.make(
        error_code=0 if is_known else UnsupportedVersion.code,
        api_keys=[
            ApiVersion.make(api_key=api.key, min_version=api.version_min, max_version=api.version)
            for api in apis.BY_KEY.values()
        ],
    )
    return asked if is_known else 0, response
