"""The alert with which a handshake fails: the event loop closes the connection without it, and a client whose
certificate is refused would not learn why its connection has ended, and try again for ever."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from typing import Any, Final

_FIELD: Final = "kraft_alert"
_DRAINED_BYTES: Final = 65_536


class AlertingObject(ssl.SSLObject):
    """Keeps the last bytes of a handshake that fails with its error; for `SSLContext.sslobject_class`."""

    _outgoing: ssl.MemoryBIO

    @classmethod
    def _create(cls, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *arguments: Any, **more: Any) -> Any:
        made = super()._create(incoming, outgoing, *arguments, **more)  # type: ignore[misc]
        made._outgoing = outgoing
        return made

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            setattr(error, _FIELD, self._outgoing.read())
            raise


def send_alert(error: BaseException, connection: socket.socket) -> None:
    """What there is to say about the error, to a socket that is closed next. Never waits."""
    alert = getattr(error, _FIELD, b"")
    if not alert:
        return
    with suppress(OSError):
        connection.send(alert)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(_DRAINED_BYTES)  # with unread bytes a close is a reset, which may overtake the alert
