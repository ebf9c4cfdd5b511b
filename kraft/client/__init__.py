"""The client library. `AsyncClient` and `Client` are where everything begins; docs/client.md shows how.

Names are imported when they are first used: the command line needs but one request, and starts sooner without the rest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kraft.client.admin import AsyncAdmin as AsyncAdmin
    from kraft.client.asynchronous import AsyncClient as AsyncClient
    from kraft.client.blocking_producer import Producer as Producer
    from kraft.client.errors import BufferExhausted as BufferExhausted
    from kraft.client.errors import ClientClosed as ClientClosed
    from kraft.client.errors import ConfigError as ConfigError
    from kraft.client.errors import DeliveryFailed as DeliveryFailed
    from kraft.client.errors import KraftError as KraftError
    from kraft.client.errors import NoOffset as NoOffset
    from kraft.client.errors import NothingDone as NothingDone
    from kraft.client.errors import OutcomeUnknown as OutcomeUnknown
    from kraft.client.errors import RecordRefused as RecordRefused
    from kraft.client.errors import RecordUnknown as RecordUnknown
    from kraft.client.errors import ServerError as ServerError
    from kraft.client.group_consumer import AsyncConsumer as AsyncConsumer
    from kraft.client.partition_consumer import AsyncReader as AsyncReader
    from kraft.client.positions import TopicPartition as TopicPartition
    from kraft.client.producer import AsyncProducer as AsyncProducer
    from kraft.client.queue import AsyncQueue as AsyncQueue
    from kraft.client.queue import AsyncQueueRecord as AsyncQueueRecord
    from kraft.client.records import Delivery as Delivery
    from kraft.client.records import Record as Record
    from kraft.client.records import Sent as Sent
    from kraft.client.records import to_json as to_json
    from kraft.client.synchronous import Admin as Admin
    from kraft.client.synchronous import Client as Client
    from kraft.client.synchronous import Consumer as Consumer
    from kraft.client.synchronous import Queue as Queue
    from kraft.client.synchronous import QueueRecord as QueueRecord
    from kraft.client.synchronous import Reader as Reader
    from kraft.client.synchronous import Transaction as Transaction
    from kraft.client.synchronous import TransactionalProducer as TransactionalProducer
    from kraft.client.transactions import AsyncTransaction as AsyncTransaction
    from kraft.client.transactions import AsyncTransactionalProducer as AsyncTransactionalProducer

_HOMES: Final = {
    "admin": ("AsyncAdmin",),
    "asynchronous": ("AsyncClient",),
    "blocking_producer": ("Producer",),
    "group_consumer": ("AsyncConsumer",),
    "errors": (
        "BufferExhausted",
        "ClientClosed",
        "ConfigError",
        "DeliveryFailed",
        "KraftError",
        "NoOffset",
        "NothingDone",
        "OutcomeUnknown",
        "RecordRefused",
        "RecordUnknown",
        "ServerError",
    ),
    "positions": ("TopicPartition",),
    "producer": ("AsyncProducer",),
    "partition_consumer": ("AsyncReader",),
    "queue": ("AsyncQueue", "AsyncQueueRecord"),
    "records": ("Delivery", "Record", "Sent", "to_json"),
    "synchronous": (
        "Admin",
        "Client",
        "Consumer",
        "Queue",
        "QueueRecord",
        "Reader",
        "Transaction",
        "TransactionalProducer",
    ),
    "transactions": ("AsyncTransaction", "AsyncTransactionalProducer"),
}
_HOME_OF: Final = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"kraft.client.{_HOME_OF[name]}"), name)
