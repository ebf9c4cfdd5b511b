"""A consumer as a process of its own, to be killed or stopped: reads, "processes" (a line in a file), commits.

    python -m tests.integration.support.worker FILE BEFORE|AFTER GROUP NAME TOPIC TIMEOUT_MS URL...

The file has a line per step: `read PARTITION OFFSET`, `processed PARTITION OFFSET`, `committed PARTITION OFFSET` (the
next offset), `refused STATUS KAFKA_CODE`. BEFORE commits what it read before it processes it, AFTER afterwards.
"""

from __future__ import annotations

import json
import sys
import threading

from kraft.client.response import Answer
from tests.integration.support.members import TEXT, Member

STEP_S = 0.01
"""How long one record takes to process."""
READ_BYTES = 400
"""A few records at a time."""


def main(file: str, order: str, group: str, name: str, topic: str, timeout_ms: str, *urls: str) -> None:
    member = Member(group, name, list(urls), commits=True, timeout_ms=int(timeout_ms))
    member.join(topic)
    token, pause = 1, threading.Event()
    with open(file, "a", buffering=1) as steps:
        while not member.is_gone:
            path = f"{member.path}/records?token={token}&timeout=300&max_bytes={READ_BYTES}"
            answer = member.once("GET", path, accept=TEXT)
            if answer is None:
                pause.wait(STEP_S)
                continue
            records = [(record["partition"], record["offset"]) for record in answer.json()]
            token = int(answer.headers["x-next-token"])
            for record in records:
                steps.write("read {} {}\n".format(*record))
            if order == "BEFORE":
                _commit(member, topic, records, steps.write)
            for record in records:
                pause.wait(STEP_S)
                steps.write("processed {} {}\n".format(*record))
            if order == "AFTER":
                _commit(member, topic, records, steps.write)
        steps.write("gone\n")


def _commit(member: Member, topic: str, records: list[tuple[int, int]], write: object) -> None:
    assert callable(write)
    ends = {partition: offset + 1 for partition, offset in records}
    if not ends:
        return
    rows = [{"topic": topic, "partition": partition, "offset": offset} for partition, offset in ends.items()]
    outcome = member._send("POST", member.path + "/offsets", {"partitions": rows}, "application/json")
    if isinstance(outcome, Answer) and outcome.is_success:
        for partition, offset in ends.items():
            write(f"committed {partition} {offset}\n")
    elif isinstance(outcome, Answer):
        write(f"refused {outcome.status} {json.loads(outcome.body).get('kafka_code')}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
