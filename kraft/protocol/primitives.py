"""The primitive types of Kafka's protocol: the largest of its integers, and what counts as bytes."""

from __future__ import annotations

from typing import TypeAlias

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1

Buffer: TypeAlias = bytes | bytearray | memoryview
