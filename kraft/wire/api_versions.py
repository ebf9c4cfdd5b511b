"""ApiVersions (18, KIP-35, KIP-511): what this listener speaks, answered in the version that was asked.

A version that we do not know is answered in version 0 with UNSUPPORTED_VERSION 35 and the whole list, so that the
client can choose again.
"""

from __future__ import annotations

from typing import Any

from kraft.wire import apis, schemas
from metadata.errors import UnsupportedVersion


def api_versions_response(asked: int) -> tuple[int, Any]:
    """The version of the response and the response."""
    is_known = apis.API_VERSIONS.takes(asked)
    version = asked if is_known else 0
    types = schemas.responses_of(apis.API_VERSIONS, version)
    fields: dict[str, Any] = {
        "error_code": 0 if is_known else UnsupportedVersion.code,
        "api_keys": tuple(
            types.ApiVersion(api_key=api.key, min_version=api.version_min, max_version=api.version)
            for api in apis.BY_KEY.values()
        ),
    }
    if version >= 1:
        fields["throttle_time"] = schemas.NO_THROTTLE
    return version, types.ApiVersionsResponse(**fields)
