"""The loggers of this process under Kafka's words, for requests that describe and alter them (BROKER_LOGGER, KIP-412).

A logger without a level of its own has that of the nearest above it, up to `root`. Nothing is kept over a restart.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from kraft.protocol.errors import InvalidConfig, InvalidRequest

ROOT = "root"
LEVELS: Mapping[str, int] = {
    "TRACE": logging.DEBUG // 2,
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARN": logging.WARNING,
    "ERROR": logging.ERROR,
    "FATAL": logging.CRITICAL,
    "OFF": logging.CRITICAL + 10,
}
"""Kafka's name of a level (LogLevelConfig) -> Python's number."""


def logger_levels() -> dict[str, str]:
    """The level that counts for each logger, by its name."""
    known = logging.root.manager.loggerDict
    levels = {name: _name(logging.getLogger(name).getEffectiveLevel()) for name in sorted(known)}
    return {ROOT: _name(logging.root.level), **levels}


def _name(level: int) -> str:
    """The most talkative name that is not below the level."""
    return next((name for name, number in LEVELS.items() if level <= number), "OFF")


def check_level(logger: str, level: str | None) -> None:
    """`level` None: the logger's own level is taken away. Raises InvalidConfig 40 or InvalidRequest 42."""
    if logger != ROOT and logger not in logging.root.manager.loggerDict:
        raise InvalidConfig(f"there is no logger {logger!r}")
    if level is None and logger == ROOT:
        raise InvalidRequest(f"the level of the {ROOT} logger can be set, and not be taken away")
    if level is not None and level not in LEVELS:
        raise InvalidConfig(f"{level!r} is no level of a logger; {', '.join(LEVELS)} are")


def set_level(logger: str, level: str | None) -> None:
    """After `check_level`."""
    found = logging.root if logger == ROOT else logging.getLogger(logger)
    found.setLevel(logging.NOTSET if level is None else LEVELS[level])
