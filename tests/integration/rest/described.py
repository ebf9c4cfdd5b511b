"""Whether the node's own OpenAPI document knows what a row was answered."""

from __future__ import annotations

import re
from typing import Any

from tests.integration.rest.rows import Row

UNDESCRIBED = (405,)
"""Of a method that the path does not know, which is no operation."""


class Described:
    def __init__(self, document: Any) -> None:
        """Fewer parameters first: `/topics/-/configs` is not `/topics/{topic}/configs`."""
        paths = sorted(document["paths"].items(), key=lambda item: str(item[0]).count("{"))
        self._paths = [(re.compile(re.sub(r"{\w+}", "[^/]+", path)), item) for path, item in paths]

    def problem(self, row: Row) -> str | None:
        path = row.path.partition("?")[0]
        path = path if path == "/" or path.endswith("//") else path.removesuffix("/")
        for pattern, item in self._paths:
            operation = item.get(row.method.lower())
            if operation is not None and pattern.fullmatch(path):
                is_known = str(row.status) in operation["responses"]
                return None if is_known else f"{operation['operationId']} does not describe a status of {row.status}"
        return None if row.status in (404, *UNDESCRIBED) else "no operation describes it"
