"""Kafka's numbers for the place where a setting's value comes from (DescribeConfigs, CreateTopics)."""

from __future__ import annotations

from collections.abc import Mapping

from kraft.broker.configs import (
    DEFAULT,
    DYNAMIC_BROKER,
    DYNAMIC_CLIENT_METRICS,
    DYNAMIC_DEFAULT,
    DYNAMIC_GROUP,
    DYNAMIC_TOPIC,
    STATIC,
)

SOURCES: Mapping[str, int] = {
    DYNAMIC_TOPIC: 1,
    DYNAMIC_BROKER: 2,
    DYNAMIC_DEFAULT: 3,
    STATIC: 4,
    DEFAULT: 5,
    DYNAMIC_CLIENT_METRICS: 7,
    DYNAMIC_GROUP: 8,
}
"""Source: DescribeConfigsResponse.ConfigSource."""
DYNAMIC_LOGGER = 6
"""A level of a logger."""
