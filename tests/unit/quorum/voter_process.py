"""One voter, to be killed: `python -m tests.unit.quorum.voter_process ID DIRECTORY write|idle HOST:PORT...`.

Prints one JSON line for each acknowledged append, and what it holds whenever a line comes in on standard input.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
from collections import deque

from kraft.runtime.environment import system_environment
from kraft.runtime.quorum_thread import QuorumThread
from metadata.quorum.config import QuorumConfig
from metadata.quorum.log import AppendLost, AppendUnknown
from metadata.quorum.raft_log import RaftMetadataLog
from metadata.records import ConfigRecord, ControllerEpochRecord

EVENTS_KEPT = 40


class LastEvents:
    def __init__(self) -> None:
        self.all: deque[str] = deque(maxlen=EVENTS_KEPT)

    def emit(self, event: str, /, **fields: object) -> None:
        self.all.append(f"{event} {fields}")


def say(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


def give_up(error: BaseException) -> None:
    say(fatal=repr(error))
    os._exit(70)


async def write(log: RaftMetadataLog, node: int) -> None:
    number = 0
    while True:
        if not log.leadership.is_self:
            await asyncio.sleep(0.005)
            continue
        try:
            if log.image.controller_id != node:
                epoch = max(log.leadership.term, log.image.controller_epoch + 1)
                record = ControllerEpochRecord(epoch=epoch, node_id=node)
                await log.append([record], controller_epoch=epoch, expected_offset=log.image.offset)
            number += 1
            name = f"{node}.{os.getpid()}.{number}"
            fact = ConfigRecord(resource_type="broker", resource_name="", name=name, value="1")
            image = log.image
            await log.append([fact], controller_epoch=image.controller_epoch, expected_offset=image.offset)
            say(acked=name)
        except (AppendLost, AppendUnknown):
            await asyncio.sleep(0.005)


async def main() -> None:
    node, directory, mode = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    pairs = [address.split(":") for address in sys.argv[4:]]
    addresses = {number: (host, int(port)) for number, (host, port) in enumerate(pairs, 1)}
    host = QuorumThread()
    config = QuorumConfig(
        cluster_id="c",
        node_id=node,
        key=b"s",
        voters=addresses,
        listen=addresses[node],
        directory=f"{directory}/{node}/__cluster_metadata",
        election_timeout_ms=300,
        snapshot_bytes=40_000,
    )
    events = LastEvents()
    log = RaftMetadataLog(
        system_environment(),
        config,
        raft_environment=host.environment,
        host=host,
        events=events,
        on_fatal=give_up,
    )
    await log.start()
    say(started=node)
    writer = asyncio.create_task(write(log, node)) if mode == "write" else None
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.readline():
        names = sorted(log.image.config("broker", ""))
        digest = hashlib.sha256(json.dumps(names).encode()).hexdigest()
        # The voter belongs to the other thread: what is read here may be a moment old, and is only printed.
        voter = str(log._engine._node)
        say(offset=log.image.offset, names=names, digest=digest, voter=voter, events=list(events.all))
    assert writer is None or not writer.done()


if __name__ == "__main__":
    asyncio.run(main())
