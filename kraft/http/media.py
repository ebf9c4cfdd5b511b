"""Content negotiation: which embedded format a body is in, and which one an answer takes.

Names are Confluent's, in their v2, v1 and unversioned spellings, and the two raw types of ours. Pure and cached: a
header is parsed once, as clients send the same few for ever.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum
from functools import lru_cache

from kraft.http.errors import HttpError
from kraft.protocol.media_types import EVENT_STREAM, NDJSON, PLAIN_JSON, RECORD_BATCH, RECORDS, V2_JSON

_ANY_JSON = (PLAIN_JSON, "*/json")
HEADERS_CACHED_MAX = 256

_KAFKA = re.compile(r"application/vnd\.kafka(?:\.(binary|json|text|avro|jsonschema|protobuf))?(?:\.v[12])?\+json")
_UTF_8 = ("utf-8", "utf8", "us-ascii")
_LATIN_1 = ("iso-8859-1", "iso8859-1", "latin1", "latin-1")
_NEED_SCHEMAS = ("avro", "jsonschema", "protobuf")


class Format(StrEnum):
    """How keys and values are embedded in a body: Confluent's embedded formats, and two of ours."""

    BINARY = "binary"
    JSON = "json"
    TEXT = "text"
    RECORD_BATCH = "recordbatch"
    RECORDS = "records"

    @property
    def media_type(self) -> str:
        """The v2 media type that names this format."""
        match self:
            case Format.RECORD_BATCH:
                return RECORD_BATCH
            case Format.RECORDS:
                return RECORDS
        return f"application/vnd.kafka.{self.value}.v2+json"


EMBEDDED = (Format.BINARY, Format.JSON, Format.TEXT)


@lru_cache(maxsize=HEADERS_CACHED_MAX)
def produce_format(content_type: str | None) -> Format:
    """The format of a produce body. No content type, application/json and the bare envelope mean binary."""
    media = _media(content_type or V2_JSON)
    if media == RECORD_BATCH:
        return Format.RECORD_BATCH
    if media == RECORDS:
        return Format.RECORDS
    if media in (PLAIN_JSON, "application/octet-stream"):
        return Format.BINARY
    matched = _KAFKA.fullmatch(media)
    if matched is None:
        raise _unsupported(media)
    embedded = matched.group(1) or "binary"
    if embedded in _NEED_SCHEMAS:
        raise HttpError(415, f"{media} needs a schema registry, which this cluster has not; use binary, json or text")
    return Format(embedded)


@lru_cache(maxsize=HEADERS_CACHED_MAX)
def require_json_body(content_type: str | None) -> None:
    """Raises HttpError 415 for a content type that is not JSON; none at all is taken for JSON."""
    media = _media(content_type or PLAIN_JSON)
    if media != PLAIN_JSON and not media.endswith("+json"):
        raise HttpError(415, f"content type {media} is not supported here; send {PLAIN_JSON}")


@lru_cache(maxsize=HEADERS_CACHED_MAX)
def v2_answer(accept: str | None) -> str:
    """Content type of a v2 answer. Raises HttpError 406."""
    for media in media_ranges(accept):
        if media in ("*/*", "application/*") or _is_v2(media):
            return V2_JSON
        if media in _ANY_JSON:
            return PLAIN_JSON
    raise HttpError(406, f"cannot answer in {accept}; accept {V2_JSON} or {PLAIN_JSON}")


@lru_cache(maxsize=HEADERS_CACHED_MAX)
def read_answer(accept: str | None) -> tuple[Format, str]:
    """Format and content type of records read. Raises HttpError 406."""
    for media in media_ranges(accept):
        if media in ("*/*", "application/*"):
            return Format.BINARY, Format.BINARY.media_type
        if media in _ANY_JSON:
            return Format.BINARY, PLAIN_JSON
        if media in (RECORD_BATCH, RECORDS):
            chosen = Format.RECORD_BATCH if media == RECORD_BATCH else Format.RECORDS
            return chosen, media
        matched = _KAFKA.fullmatch(media)
        if matched and matched.group(1) not in _NEED_SCHEMAS:
            embedded = Format(matched.group(1) or "binary")
            return embedded, embedded.media_type
    known = ", ".join(form.media_type for form in Format)
    raise HttpError(406, f"cannot answer in {accept}; accept one of {known}")


@lru_cache(maxsize=HEADERS_CACHED_MAX)
def stream_answer(accept: str | None, *, is_only: bool = False) -> str | None:
    """The kind of stream that is wanted most; None: no stream. `is_only`: nothing else is served (406)."""
    for media in media_ranges(accept):
        if media in (EVENT_STREAM, NDJSON):
            return media
        if not is_only:
            return None
        if media in ("*/*", "application/*"):
            return NDJSON
        if media == "text/*":
            return EVENT_STREAM
    if is_only:
        raise HttpError(406, f"cannot answer in {accept}; accept {EVENT_STREAM} or {NDJSON}")
    return None


@lru_cache(maxsize=HEADERS_CACHED_MAX)
def consumer_format(accept: str | None) -> str | None:
    """The embedded format that a consumer's read asks for; None: the one it was created with. Raises HttpError 406."""
    for media in media_ranges(accept):
        if media in ("*/*", "application/*", *_ANY_JSON):
            return None
        matched = _KAFKA.fullmatch(media)
        if matched:
            return matched.group(1)
    raise HttpError(406, f"cannot answer in {accept}; accept the format that the consumer was created with")


@lru_cache(maxsize=HEADERS_CACHED_MAX)
def require_accepts(accept: str | None, media_type: str) -> None:
    """Raises HttpError 406 unless the client takes `media_type`."""
    kind, _, subtype = media_type.partition("/")
    if not any(media in ("*/*", f"{kind}/*", f"*/{subtype}", media_type) for media in media_ranges(accept)):
        raise HttpError(406, f"cannot answer in {accept}; accept {media_type}")


def v2_error(accept: str | None) -> str:
    """Content type of an error of the v2 dialect, as of an answer; JSON where the client accepts neither."""
    try:
        return v2_answer(accept)
    except HttpError:
        return PLAIN_JSON


def _is_v2(media: str) -> bool:
    return _KAFKA.fullmatch(media) is not None


def _unsupported(media: str) -> HttpError:
    known = ", ".join(form.media_type for form in Format)
    return HttpError(415, f"content type {media} is not supported; send one of {known}")


def _media(content_type: str) -> str:
    media, *parameters = (part.strip().lower() for part in content_type.split(";"))
    charset = _charset(parameters)
    if charset is not None and charset not in (*_UTF_8, *_LATIN_1):
        raise HttpError(400, f"charset {charset} is not known here; send UTF-8, or ISO-8859-1")
    return media


def _charset(parameters: Iterable[str]) -> str | None:
    pairs = (parameter.partition("=") for parameter in parameters)
    return next((value.strip(' "') for name, _, value in pairs if name.strip() == "charset"), None)


@lru_cache(maxsize=HEADERS_CACHED_MAX)
def is_latin_1(content_type: str | None) -> bool:
    """Is it JSON in ISO-8859-1? Some clients' libraries say and send that where nobody has chosen a charset."""
    media, *parameters = (part.strip().lower() for part in (content_type or "").split(";"))
    return media not in (RECORD_BATCH, RECORDS) and _charset(parameters) in _LATIN_1


def utf8_of_latin_1(body: bytes | bytearray) -> bytes:
    """Each byte is a character, so that pieces of a body may be given one by one."""
    return bytes(body) if body.isascii() else body.decode("latin-1").encode()


def media_ranges(accept: str | None) -> list[str]:
    """Media ranges, the most wanted first; those with q=0 are left out."""
    weighted: list[tuple[float, str]] = []
    for part in (accept or "*/*").split(","):
        media, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = next((_quality(p) for p in parameters if p.startswith("q=")), 1.0)
        if media and quality > 0:
            weighted.append((quality, media))
    return [media for _, media in sorted(weighted, key=lambda pair: -pair[0])]


def _quality(parameter: str) -> float:
    try:
        return float(parameter[2:])
    except ValueError:
        return 0.0
