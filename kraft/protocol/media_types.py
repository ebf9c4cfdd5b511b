"""The media types of the REST API that carry records: Confluent's names for JSON, and for bytes two of this project."""

from __future__ import annotations

V2_JSON = "application/vnd.kafka.v2+json"
BINARY_JSON = "application/vnd.kafka.binary.v2+json"
"""Records in JSON with keys and values in base64."""
PLAIN_JSON = "application/json"
RECORD_BATCH = "application/vnd.kafka.recordbatch.v2"
"""One record batch (magic 2) as it is in the log."""
RECORDS = "application/vnd.kafka.records.v1"
"""Keys, values and headers with their lengths; see `kraft/http/raw_records.py`."""
EVENT_STREAM = "text/event-stream"
NDJSON = "application/x-ndjson"
