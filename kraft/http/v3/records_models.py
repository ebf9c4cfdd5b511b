"""Models of the v3 produce stream, for the OpenAPI document; `records_parse` is what checks records."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from kraft.http.limits import INT32_MAX
from kraft.http.v3.models import BatchData, BatchHeader, BatchSize


class StreamRecord(BaseModel):
    """One of the records that follow one another in the body, with or without white space between."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    partition_id: int | None = Field(default=None, ge=0, le=INT32_MAX)
    headers: list[BatchHeader] | None = None
    key: BatchData | None = None
    value: BatchData | None = None
    timestamp: str | None = Field(default=None, description="ISO-8601.")


class StreamResult(BaseModel):
    """One of the results that follow one another, CRLF after each. The last five are of what was not written."""

    error_code: int = Field(description="200: written.")
    cluster_id: str | None = None
    topic_name: str | None = None
    partition_id: int | None = None
    offset: int | None = None
    timestamp: str | None = None
    leader_id: int | None = None
    leader_epoch: int | None = None
    key: BatchSize | None = None
    value: BatchSize | None = None
    message: str | None = None
    kafka_code: int | None = None
    retriable: bool | None = None
    is_appended: bool | None = None
    index: int | None = Field(default=None, description="Of the record in the request, from 0.")
