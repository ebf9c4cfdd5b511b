"""Where Confluent's proxy, Strimzi's bridge and Redpanda's proxy answer the same request differently, as data.

The setting `rest.dialect` chooses; Confluent's source is the default. What only one of them has (v3 is Confluent's
alone) is no difference. docs/rest.md names the source of each line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from kraft.http.errors import ILLEGAL_STATE, NOT_FOUND, PARTITION_NOT_FOUND, V3_TOPIC_NOT_FOUND, HttpError
from kraft.http.media import takes_v2
from kraft.protocol.errors import UnknownTopicOrPartition
from kraft.protocol.media_types import PLAIN_JSON, V2_JSON

_ANY_STATUS: Final = frozenset(range(400, 600))


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What differs in the v2 dialect."""

    commits_with_list: bool
    """A commit is answered 200 with an empty list; otherwise 204."""
    unknown_topic: int
    """Code for a GET below a topic that does not exist."""
    unknown_seek: int
    """Code for seeking in a topic or partition that does not exist."""
    unassigned_seek: int
    """Code for seeking in a partition that the consumer has not been assigned."""
    v2_json_errors: frozenset[int]
    """Statuses of errors whose body is `application/vnd.kafka.v2+json`; the others are `application/json`."""
    v2_json_for_kafka: bool
    """Also where it is Kafka that knows no such topic?"""

    def error_media(self, error: HttpError, *, accept: str | None) -> str:
        """Content type of an error of the v2 dialect; what a client takes is `application/json` at least."""
        is_v2 = error.status in self.v2_json_errors and (self.v2_json_for_kafka or not _is_kafkas(error))
        return V2_JSON if is_v2 and takes_v2(accept) else PLAIN_JSON


def _is_kafkas(error: HttpError) -> bool:
    return error.extra.get("kafka_code") == UnknownTopicOrPartition.code and error.code != PARTITION_NOT_FOUND


DIALECTS: Final[Mapping[str, Dialect]] = MappingProxyType(
    {
        "confluent": Dialect(
            commits_with_list=True,
            unknown_topic=V3_TOPIC_NOT_FOUND,
            unknown_seek=ILLEGAL_STATE,
            unassigned_seek=ILLEGAL_STATE,
            v2_json_errors=frozenset({404, 406, 409, 415}),
            v2_json_for_kafka=False,
        ),
        "strimzi": Dialect(
            commits_with_list=False,
            unknown_topic=NOT_FOUND,
            unknown_seek=NOT_FOUND,
            unassigned_seek=NOT_FOUND,
            v2_json_errors=_ANY_STATUS,
            v2_json_for_kafka=True,
        ),
        "redpanda": Dialect(
            commits_with_list=False,
            unknown_topic=PARTITION_NOT_FOUND,
            unknown_seek=PARTITION_NOT_FOUND,
            unassigned_seek=ILLEGAL_STATE,
            v2_json_errors=frozenset(),
            v2_json_for_kafka=False,
        ),
    }
)

UNKNOWN_TOPIC: Final = tuple(sorted({PARTITION_NOT_FOUND, *(each.unknown_topic for each in DIALECTS.values())}))
"""The codes with which a GET below a topic is refused when that, or its partition, does not exist."""
