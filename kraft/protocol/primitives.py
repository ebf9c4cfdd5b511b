"""The primitive types of Kafka: the largest of its integers, what counts as bytes, and what a setting may be."""

from __future__ import annotations

from typing import TypeAlias

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1

Buffer: TypeAlias = bytes | bytearray | memoryview

TopicPartition: TypeAlias = tuple[str, int]
"""A partition by the name of its topic, and its number."""

SettingValue: TypeAlias = str | int | float | bool
"""Values of a setting: Kafka's ConfigDef types, as TOML and JSON write them."""
