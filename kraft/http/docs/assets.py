"""Files that pages are made of, and how answers are cached: weak ETags, and compressed where the client takes it."""

from __future__ import annotations

import gzip
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from aiohttp import web

from metadata.environment import Files

CSS = "text/css"
SCRIPT = "text/javascript"
ASSETS: Mapping[str, str] = {
    "docs.js": SCRIPT,
    "kraft.css": CSS,
}
"""Name -> content type."""
ASSET_BYTES_MAX = 1_048_576
_FOLDER = posixpath.join(posixpath.dirname(__file__), "assets")


@dataclass(frozen=True, slots=True)
class Asset:
    """One file: its content type, its bytes as gzip, and its ETag."""

    media: str
    compressed: bytes
    etag: str


class Assets:
    """Each file of a folder is read once, when it is first asked for. `media`: name -> content type."""

    def __init__(self, files: Files, folder: str = _FOLDER, media: Mapping[str, str] = ASSETS) -> None:
        self._files = files
        self._folder = folder
        self._media = media
        self._loaded: dict[str, Asset] = {}

    def __getitem__(self, name: str) -> Asset:
        asset = self._loaded.get(name)
        if asset is None:
            data = self._read(name)
            asset = self._loaded[name] = Asset(self._media[name], data, etag_of(data))
        return asset

    def _read(self, name: str) -> bytes:
        file = self._files.open(posixpath.join(self._folder, name), read_only=True)
        try:
            assert file.size <= ASSET_BYTES_MAX, (name, file.size)
            data = file.pread(0, file.size)
        finally:
            file.close()
        return gzip.compress(data, mtime=0)


def etag_of(data: bytes) -> str:
    """A weak ETag of these bytes."""
    return f'W/"{sha256(data).hexdigest()[:24]}"'


def cached_answer(request: web.BaseRequest, asset: Asset, headers: Mapping[str, str]) -> web.Response:
    """200, or 304 when the client has it already. Browsers keep it and ask each time (`no-cache`)."""
    common = {
        "ETag": asset.etag,
        "Cache-Control": "no-cache",
        "Vary": "Accept-Encoding",
        "X-Content-Type-Options": "nosniff",
        **headers,
    }
    known = [each.strip() for each in request.headers.get("If-None-Match", "").split(",")]
    if asset.etag in known or "*" in known:
        return web.Response(status=304, headers=common)
    common["Content-Type"] = f"{asset.media}; charset=utf-8"
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        return web.Response(body=asset.compressed, headers={**common, "Content-Encoding": "gzip"})
    return web.Response(body=gzip.decompress(asset.compressed), headers=common)
