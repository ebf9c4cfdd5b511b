"""SO-L3: the library's listener is gone for ever after one accept without a free descriptor. Ours listens on."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import asyncio, os, resource, socket, uvloop
from kraft.runtime.environment import system_environment

async def main():
    network = system_environment().network
    served = []

    async def echo(connection):
        served.append(connection)
        connection.send([bytes(await connection.receive())])
        await connection.drain()

    listener = await network.listen("127.0.0.1", 0, echo, frame_bytes_max=1000)
    client = socket.socket()
    client.setblocking(False)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
    taken = []
    try:
        while True:
            taken.append(os.dup(0))
    except OSError:
        pass
    await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", listener.port))
    await asyncio.sleep(0.3)
    print("served without a descriptor:", len(served))
    for descriptor in taken:
        os.close(descriptor)
    async with asyncio.timeout(30):
        connection = await network.connect("127.0.0.1", listener.port, frame_bytes_max=1000, timeout_ms=5000)
        connection.send([b"after"])
        print("then:", bytes(await connection.receive()))
    os._exit(0)

uvloop.run(main())
"""


def test_a_listener_without_free_descriptors_listens_on() -> None:
    done = subprocess.run([sys.executable, "-u", "-c", SCRIPT], capture_output=True, text=True, timeout=90, check=False)
    assert "served without a descriptor: 0" in done.stdout, done.stdout + done.stderr
    assert "then: b'after'" in done.stdout, done.stdout + done.stderr
