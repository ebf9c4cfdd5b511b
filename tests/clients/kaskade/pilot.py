"""What kaskade's two pages show of a topic, without a terminal; runs with the Python that has kaskade.

    python pilot.py BOOTSTRAP TOPIC

Writes a JSON line each: the row of the topic, and the records that the consumer's page has read.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from typing import Any

LOOKS = 600
"""A tenth of a second each."""


async def topic_row(bootstrap: str, topic: str) -> list[str]:
    module: Any = importlib.import_module("kaskade.admin")
    app = module.KaskadeAdmin({"bootstrap.servers": bootstrap})
    async with app.run_test(size=(220, 60)) as pilot:
        page = app.query_one(module.ListTopics)
        for _ in range(LOOKS):
            await pilot.pause(0.1)
            if page.last_updated_at is not None:
                return [str(cell) for cell in app.query_one("#topics-table").get_row(topic)]
    raise SystemExit("the page of topics was not filled in time")


async def record_rows(bootstrap: str, topic: str) -> list[list[str]]:
    module: Any = importlib.import_module("kaskade.consumer")
    kind: Any = importlib.import_module("kaskade.deserializers").Deserialization.STRING
    config = {"bootstrap.servers": bootstrap, "auto.offset.reset": "earliest", "group.id": f"{topic}-kaskade"}
    app = module.KaskadeConsumer(topic, config, {}, {}, {}, kind, kind)
    async with app.run_test(size=(220, 60)) as pilot:
        for _ in range(LOOKS):
            await pilot.pause(0.1)
            table = app.query_one("#records-table")
            if table.row_count:
                rows = [table.get_row_at(at) for at in range(table.row_count)]
                return [[str(cell) for cell in row] for row in rows]
    raise SystemExit("the page of records was not filled in time")


def main() -> None:
    bootstrap, topic = sys.argv[1:]
    for look in (topic_row, record_rows):
        sys.stdout.write(json.dumps(asyncio.run(look(bootstrap, topic))) + "\n")


if __name__ == "__main__":
    main()
