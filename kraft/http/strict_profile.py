"""The strict profile (`strict = true` in cluster.toml): what the default dialect forgives is refused here.

One place, before any handler, and by the same declarations that the OpenAPI document is made from: what is not
described is not taken. The bodies' own strictness (no number in a string) is in `Call.model`.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

from kraft.http.endpoint import Call, Route
from kraft.http.errors import BAD_REQUEST, HttpError
from kraft.http.media import media_ranges

HEADERS_CACHED_MAX = 256
_UTF8 = ("charset=utf-8", 'charset="utf-8"')


def check_strictly(call: Call, route: Route) -> None:
    """Raises HttpError 400, 406, 415. Leaves in `call.accept` only what the route describes."""
    _check_query(call, route)
    _check_body(call, route)
    described = _described(route)
    if described:
        call.accept = _acceptable(call.request.headers.get("Accept"), described)


def _check_query(call: Call, route: Route) -> None:
    counts = Counter(name for name, _ in call.request.query.items())
    known = [parameter.name for parameter in route.query]
    for name, count in counts.items():
        if name not in known:
            named = ", ".join(known) or "none"
            raise HttpError(BAD_REQUEST, f"unknown query parameter {name!r}; known are: {named}")
        if count > 1:
            raise HttpError(BAD_REQUEST, f"query parameter {name} is there {count} times; send it once")


def _check_body(call: Call, route: Route) -> None:
    request = call.request
    has_body = request.body_exists and request.content_length != 0
    if route.body is None:
        if has_body:
            raise HttpError(400, f"{route.method} {request.path} takes no body")
    elif has_body or not route.body.is_optional:
        _check_content_type(request.headers.get("Content-Type"), tuple(route.body.content))


@lru_cache(maxsize=HEADERS_CACHED_MAX)
def _check_content_type(content_type: str | None, described: tuple[str, ...]) -> None:
    media, *parameters = (part.strip().lower() for part in (content_type or "").split(";"))
    if media not in described or any(parameter not in _UTF8 for parameter in parameters):
        got = f"content type {content_type}" if content_type else "a body without a content type"
        raise HttpError(415, f"{got} is not taken here; send {' or '.join(described)}")


def _described(route: Route) -> tuple[str, ...]:
    """Media types of the route's answers, without their parameters."""
    bodies = [body for body in route.answers.values() if body is not None]
    return tuple(dict.fromkeys(media.split(";")[0] for body in bodies for media in body.content))


@lru_cache(maxsize=HEADERS_CACHED_MAX)
def _acceptable(accept: str | None, described: tuple[str, ...]) -> str:
    """The header with what is not described left out."""
    families = {f"{media.split('/')[0]}/*" for media in described}
    kept = [media for media in media_ranges(accept) if media in ("*/*", *families, *described)]
    if not kept:
        raise HttpError(406, f"cannot answer in {accept}; accept {' or '.join(described)}")
    return ", ".join(kept)
