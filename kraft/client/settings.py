"""Options of clients under Kafka's names, `.` or `_` between the words, with Kafka's defaults. Pure.

`linger_ms=5` and `**{"linger.ms": 5}` are the same. An unknown name, a value out of range and options that contradict
each other are a `ConfigError` before anything is sent (D7).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kraft.client.errors import ConfigError
from kraft.protocol.primitives import INT32_MAX
from kraft.suggestions import nearest_key_hint, what_is_right

Acks: TypeAlias = Literal["all", "1", "0"]
Reset: TypeAlias = Literal["earliest", "latest", "none"]
IN_FLIGHT_MAX: Final = 5
"""What the server remembers of a producer (D2), hence the most that an idempotent one may have on their way."""


def _name(field: str) -> str:
    return field.replace("_", ".")


def _int(default: int, text: str, *, low: int = 0, high: int = INT32_MAX) -> Any:
    return Field(default=default, ge=low, le=high, description=text)


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=_name, populate_by_name=True)


class _Attempts(_Settings):
    request_timeout_ms: int = _int(30_000, "Longest wait for the answer to one attempt.", low=1)
    retry_backoff_ms: int = _int(100, "Wait before the first repetition; doubles.")
    retry_backoff_max_ms: int = _int(1_000, "Longest wait between two attempts.")


class ClientSettings(_Attempts):
    """Settings of the client: how it finds its nodes and keeps their addresses."""

    default_api_timeout_ms: int = _int(60_000, "How long a call is tried at all nodes before it fails.", low=1)
    metadata_max_age_ms: int = _int(300_000, "Nodes and leaders are asked for again after this time.")
    reconnect_backoff_ms: int = _int(50, "A node that failed is left alone for this time; doubles.")
    reconnect_backoff_max_ms: int = _int(1_000, "Longest time that a node is left alone.")


class ProducerSettings(_Attempts):
    acks: Acks = Field(default="all", description="Replicas that must have a record: all in-sync, the leader, none.")
    batch_size: int = _int(16_384, "Bytes that make a batch leave before linger.ms is over. 0: one record each.")
    buffer_memory: int = _int(33_554_432, "Bytes of records that wait or are on their way; then send() waits.", low=1)
    compression_type: Literal["none", "gzip", "snappy", "lz4", "zstd"] = Field(
        default="none", description="Of a batch; the nodes keep it as it is."
    )
    delivery_timeout_ms: int = _int(120_000, "From send() to the result, at the latest.", low=1)
    enable_idempotence: bool = Field(default=True, description="A repeated batch is not written twice.")
    linger_ms: int = _int(5, "How long a batch waits for more records (KIP-1030).")
    max_block_ms: int = _int(60_000, "How long send() waits for room and for the topic's metadata.")
    max_in_flight_requests_per_connection: int = _int(
        5, "Batches on their way to one node; of one partition, one: this keeps its order.", low=1
    )
    max_request_size: int = _int(1_048_576, "Largest record, and largest batch, in bytes.", low=1)
    retries: int = _int(INT32_MAX, "Repetitions of a batch, within delivery.timeout.ms.")


class TransactionSettings(_Attempts):
    buffer_memory: int = _int(33_554_432, "Bytes of records that wait; with more, all of them are written.", low=1)
    compression_type: Literal["none", "gzip", "snappy", "lz4", "zstd"] = Field(
        default="none", description="Of a batch; the nodes keep it as it is."
    )
    delivery_timeout_ms: int = _int(120_000, "How long a batch is tried.", low=1)
    max_request_size: int = _int(1_000_000, "Bytes of one partition that make a batch leave.", low=1)
    transaction_timeout_ms: int = _int(
        60_000, "Open for longer, a transaction is aborted; at most transaction.max.timeout.ms of the cluster.", low=1
    )


class ConsumerSettings(_Settings):
    auto_offset_reset: Reset = Field(default="latest", description="Where to begin without a valid offset.")
    consumer_instance_timeout_ms: int = _int(
        300_000, "A member of a group that asks for nothing for longer leaves it.", low=1
    )
    enable_auto_commit: bool = Field(default=True, description="Commit what was iterated over, when going on.")
    fetch_max_bytes: int = _int(52_428_800, "Bytes of one answer to a member of a group.", low=1)
    fetch_max_wait_ms: int = _int(500, "Longest wait at a node for new records.")
    fetch_min_bytes: int = _int(1, "Wait until there are this many.", low=1)
    isolation_level: Literal["read_uncommitted", "read_committed"] = Field(
        default="read_uncommitted", description="read_committed: no record of an open or aborted transaction."
    )
    max_partition_fetch_bytes: int = _int(1_048_576, "Bytes of one answer from one partition.", low=1)


class QueueSettings(_Settings):
    fetch_max_wait_ms: int = _int(500, "Longest wait at a node for records.", high=20_000)
    max_poll_interval_ms: int = _int(
        300_000, "How long a lock is renewed for one record; with longer work others get it.", low=1
    )
    max_poll_records: int = _int(
        10, "Records that are received at once, and wait here for their turn.", low=1, high=500
    )
    share_record_lock_duration_ms: int | None = Field(
        default=None, ge=1_000, le=3_600_000, description="How long a lock lasts; None: as the group is set."
    )


Model = TypeVar("Model", bound=_Settings)


def parse(model: type[Model], options: Mapping[str, Any]) -> Model:
    """The settings from `options`. Raises ConfigError that names what is wrong and what would be right."""
    known = {name: None for field in model.model_fields for name in (_name(field), field)}
    for name in options:
        if name not in known:
            raise ConfigError(f"there is no option {name!r}; {nearest_key_hint(_name(name), known)}")
    try:
        return model.model_validate({_name(name): value for name, value in options.items()})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        right = what_is_right(first["type"], first.get("ctx", {}))
        raise ConfigError(f"{first['loc'][0]}={first['input']!r} is not valid: it {right}") from error


def parse_producer(options: Mapping[str, Any]) -> ProducerSettings:
    """With the checks of Kafka's producer: what was asked for explicitly must hold, a default may give way (D7)."""
    given = {_name(name): value for name, value in options.items()}
    if "acks" in given:
        given["acks"] = {"-1": "all"}.get(str(given["acks"]), str(given["acks"]))
    settings = parse(ProducerSettings, given)
    settings = _idempotent_or_not(settings, is_asked="enable.idempotence" in given)
    least = settings.linger_ms + settings.request_timeout_ms
    if settings.delivery_timeout_ms < least:
        if "delivery.timeout.ms" in given:
            raise ConfigError(
                f"delivery.timeout.ms={settings.delivery_timeout_ms} is less than linger.ms + request.timeout.ms, "
                f"which is {least}; raise it, or lower one of these"
            )
        settings = settings.model_copy(update={"delivery_timeout_ms": least})
    return settings


def _idempotent_or_not(settings: ProducerSettings, *, is_asked: bool) -> ProducerSettings:
    if not settings.enable_idempotence:
        return settings
    if settings.max_in_flight_requests_per_connection > IN_FLIGHT_MAX:
        raise ConfigError(
            f"max.in.flight.requests.per.connection={settings.max_in_flight_requests_per_connection} is more than "
            f"the {IN_FLIGHT_MAX} that enable.idempotence=true allows; lower it, or set enable.idempotence=false"
        )
    reason = "acks=all" if settings.acks != "all" else "retries above 0" if settings.retries == 0 else ""
    if reason and is_asked:
        raise ConfigError(f"enable.idempotence=true needs {reason}; set that, or enable.idempotence=false")
    return settings.model_copy(update={"enable_idempotence": False}) if reason else settings
