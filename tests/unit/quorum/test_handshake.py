"""Who proves first, and what a stranger on either side of a handshake learns and may send."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence

import pytest

from kraft.protocol.primitives import Buffer
from kraft.runtime.environment import close_environment, system_environment
from metadata.environment import ConnectionClosed, Environment, FrameConnection
from metadata.quorum.frame_auth import Hello, Refused, Seal, encode_hello
from metadata.quorum.handshake import ANYBODY, shake_hands
from metadata.quorum.link import FRAME_BYTES_MAX, Link, LinkIdentity
from metadata.unauthenticated import QUORUM_LISTENER
from tests.support.ports import free_ports
from tests.unit.quorum.cluster import RecordedEvents, until

KEY, WRONG = b"k" * 32, b"w" * 32


class End:
    """One end of a connection in memory."""

    def __init__(self) -> None:
        self.peer, self.is_closed = "test:1", False
        self.unsent_bytes, self.is_writable = 0, True
        self.frames_up_to = QUORUM_LISTENER.frame_bytes_max
        self.sent: list[bytes] = []
        self._inbox: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.other: End | None = None

    def send(self, parts: Sequence[Buffer]) -> None:
        frame = b"".join(parts)
        self.sent.append(frame)
        if self.other is not None:
            self.other.give(frame)

    def give(self, frame: bytes | None) -> None:
        assert frame is None or len(frame) <= self.frames_up_to, len(frame)
        self._inbox.put_nowait(frame)

    async def receive(self) -> memoryview:
        frame = await self._inbox.get()
        if frame is None:
            raise ConnectionClosed("gone")
        return memoryview(frame)

    def take_frames(self, *, bytes_max: int) -> None:
        self.frames_up_to = bytes_max

    async def drain(self) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


def hello(*, sender: int, receiver: int) -> Hello:
    return Hello(cluster_id="c", sender=sender, receiver=receiver, nonce=bytes([sender]) * 16, incarnation=b"x")


DIALER, ACCEPTOR = hello(sender=2, receiver=1), hello(sender=1, receiver=ANYBODY)


async def shake(end: End, ours: Hello, *, key: bytes = KEY) -> tuple[Hello, Seal]:
    return await shake_hands(end, ours, voters=[1, 2], key=key, frame_bytes_max=FRAME_BYTES_MAX)  # type: ignore[arg-type]


def both(dialer_key: bytes, acceptor_key: bytes) -> tuple[End, End, list[tuple[Hello, Seal] | BaseException]]:
    dialer, acceptor = End(), End()
    dialer.other, acceptor.other = acceptor, dialer

    async def main() -> list[tuple[Hello, Seal] | BaseException]:
        async with asyncio.timeout(10):
            return await asyncio.gather(
                shake(dialer, DIALER, key=dialer_key),
                shake(acceptor, ACCEPTOR, key=acceptor_key),
                return_exceptions=True,
            )

    return dialer, acceptor, asyncio.run(main())


def test_both_prove_themselves_and_take_long_frames_from_then_on() -> None:
    dialer, acceptor, (there, here) = both(KEY, KEY)
    assert not isinstance(there, BaseException), there
    assert not isinstance(here, BaseException), here
    assert (there[0], here[0]) == (ACCEPTOR, DIALER)
    frame = memoryview(b"".join(here[1].close(b"entries")))
    assert bytes(there[1].open(frame)) == b"entries"
    assert dialer.frames_up_to == acceptor.frames_up_to == FRAME_BYTES_MAX


def test_who_calls_without_the_key_is_shown_nothing_that_was_made_with_it() -> None:
    """Only a hello, and the word that the proof is wrong: nothing to try secrets against."""
    dialer, acceptor, (there, here) = both(WRONG, KEY)
    assert isinstance(here, Refused)
    assert isinstance(there, Refused), "the dialer says so too"
    assert acceptor.sent == [encode_hello(ACCEPTOR), b"wrong proof"]
    assert dialer.frames_up_to == acceptor.frames_up_to == QUORUM_LISTENER.frame_bytes_max


@pytest.mark.parametrize("proof", [b"", b"x" * 32, b"x" * 33, b"x" * 4096])
def test_no_proof_of_a_stranger_is_answered_by_ours(proof: bytes) -> None:
    async def main() -> None:
        end = End()
        for frame in (encode_hello(DIALER), proof):
            end.give(frame)
        with pytest.raises(Refused, match="seal"):
            await shake(end, ACCEPTOR)
        assert end.sent == [encode_hello(ACCEPTOR), b"wrong proof"]

    asyncio.run(main())


def test_an_acceptor_that_does_not_know_the_key_is_refused() -> None:
    """It has the dialer's proof, which was made with a key that scrypt made: see `test_cluster_keys`."""

    async def main() -> None:
        end = End()
        for frame in (encode_hello(ACCEPTOR), hashlib.sha256(b"guess").digest()):
            end.give(frame)
        with pytest.raises(Refused, match="seal"):
            await shake(end, DIALER)
        assert end.frames_up_to == QUORUM_LISTENER.frame_bytes_max

    asyncio.run(main())


# --- a stranger on the port that a voter dials ----------------------------------------------------------------------

UTF8_BROKEN = encode_hello(ACCEPTOR).replace(b"kraft-quorum", b"kraft-\xff\xfe\xfdrum")
HOSTILE = {
    "invalid UTF-8": UTF8_BROKEN,
    "nested msgpack": b"\x81\xa6sender" + b"\x91" * 3_000,
    "an unknown field, nested": b"\x81\xa1x" + b"\x91" * 3_000,
    "a number beyond 64 bits as text": b"\x81\xa6sender\xd9\x20" + b"9" * 32,
    "nothing": b"",
    "as long as may be": bytes(QUORUM_LISTENER.frame_bytes_max),
    "longer than may be": bytes(QUORUM_LISTENER.frame_bytes_max + 1),
    "no voter's hello": encode_hello(hello(sender=9, receiver=ANYBODY)),
}


class Handler(RecordedEvents):
    def on_connected(self, peer: int) -> None: ...
    def on_disconnected(self, peer: int) -> None: ...
    def on_message(self, peer: int, message: object) -> None: ...
    def on_refused(self, peer: int) -> None: ...
    def on_duplicate(self, peer: int) -> None: ...


@pytest.mark.parametrize("name", HOSTILE)
def test_whatever_a_stranger_answers_to_a_dialer_ends_that_connection_only(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A voter dials for as long as it lives, whoever listens where the other voter should."""
    monkeypatch.setattr("metadata.quorum.link.REFUSED_RETRY_MS", 20)

    async def main(environment: Environment) -> None:
        called: list[FrameConnection] = []

        async def stranger(connection: FrameConnection) -> None:
            called.append(connection)
            connection.send([HOSTILE[name]])
            while True:
                await connection.receive()

        ports = free_ports(2, host="127.0.0.1")
        listener = await environment.network.listen("127.0.0.1", ports[0], stranger, frame_bytes_max=1 << 20)
        link = Link(
            environment,
            LinkIdentity(cluster_id="c", node_id=2, key=KEY),
            peers={1: ("127.0.0.1", ports[0])},
            listen=("127.0.0.1", ports[1]),
            handler=Handler(),
        )
        await link.start()
        running = asyncio.create_task(link.run())
        await until(lambda: len(called) >= 2 or running.done())
        assert not running.done(), running.exception()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await link.close_port()
        await listener.close()

    async def whole() -> None:
        environment = system_environment(threads=1)
        try:
            await main(environment)
        finally:
            close_environment(environment)

    asyncio.run(whole())
