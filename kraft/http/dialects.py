"""Where Confluent's proxy, Strimzi's bridge and Redpanda's proxy answer the same request differently, as data.

The setting `rest.dialect` chooses; Confluent's source is the default. What only one of them has (v3 is Confluent's
alone) is no difference. docs/rest.md names the source of each line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from kraft.http.errors import ILLEGAL_STATE, KAFKA_RETRIABLE, NOT_FOUND, PARTITION_NOT_FOUND, V3_TOPIC_NOT_FOUND
from kraft.http.media import v2_error
from kraft.protocol.errors import UnknownTopicOrPartition
from kraft.protocol.media_types import PLAIN_JSON


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
    negotiates_errors: bool
    """The content type of an error follows `Accept`, as that of an answer; otherwise it is `application/json`."""
    refuses_unknown_produce: bool
    """A produce to a topic or partition that does not exist is refused; otherwise 200, and an error for each record."""
    unknown_produce: int = KAFKA_RETRIABLE
    """Error code of each record then."""
    unwritten_offset: int | None = None
    """Offset of a record that was not written."""

    reads_as_accepted: bool = False
    """`Accept` chooses the format of a consumer's read; otherwise that with which the consumer was created."""
    checks_parameters: bool = False
    """A name with a control character, and an empty one, is refused with 400."""

    def error_media(self, accept: str | None) -> str:
        """Content type of an error of the v2 dialect."""
        return v2_error(accept) if self.negotiates_errors else PLAIN_JSON


DIALECTS: Final[Mapping[str, Dialect]] = MappingProxyType(
    {
        "confluent": Dialect(
            commits_with_list=True,
            unknown_topic=V3_TOPIC_NOT_FOUND,
            unknown_seek=ILLEGAL_STATE,
            unassigned_seek=ILLEGAL_STATE,
            negotiates_errors=True,
            refuses_unknown_produce=False,
        ),
        "strimzi": Dialect(
            commits_with_list=False,
            unknown_topic=NOT_FOUND,
            unknown_seek=NOT_FOUND,
            unassigned_seek=NOT_FOUND,
            negotiates_errors=True,
            refuses_unknown_produce=True,
        ),
        "redpanda": Dialect(
            commits_with_list=False,
            unknown_topic=PARTITION_NOT_FOUND,
            unknown_seek=PARTITION_NOT_FOUND,
            unassigned_seek=ILLEGAL_STATE,
            negotiates_errors=False,
            refuses_unknown_produce=False,
            unknown_produce=UnknownTopicOrPartition.code,
            unwritten_offset=-1,
            reads_as_accepted=True,
            checks_parameters=True,
        ),
    }
)

UNKNOWN_TOPIC: Final = tuple(sorted({PARTITION_NOT_FOUND, *(each.unknown_topic for each in DIALECTS.values())}))
"""The codes with which a GET below a topic is refused when that, or its partition, does not exist."""
