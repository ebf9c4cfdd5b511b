"""Profiles of random stories: settings, faults, and the verdict that they allow. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from kraft.chaos.checkers.verdict import Kind
from kraft.chaos.model import ANY, Count, Expect, with_counts
from kraft.protocol.primitives import SettingValue

FaultKind: TypeAlias = Literal[
    "crash", "stop", "pause", "power", "cut", "slow", "isolate", "partition", "admin", "damage"
]
Acks: TypeAlias = Literal["0", "1", "all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    name: str
    sentence: str
    acks: tuple[Acks, ...] = ("all",)
    retries: int = 0
    configs: Mapping[str, SettingValue] = field(default_factory=dict)
    """The settings of the topics."""
    faults: Mapping[FaultKind, int]
    """The weight of each kind of fault."""
    allows: Mapping[str, Count] = field(default_factory=dict)
    """Counts that may be above zero."""
    anomalies: tuple[Kind, ...] = ()

    @property
    def expect(self) -> Expect:
        return with_counts(Expect(kept=ANY, reordered=ANY, anomalies=self.anomalies), self.allows)


_CRASHES: Final[Mapping[FaultKind, int]] = {"crash": 4, "stop": 1, "pause": 3}
_LINKS: Final[Mapping[FaultKind, int]] = {"cut": 3, "slow": 2, "isolate": 2, "partition": 2}
_UNCLEAN_ANOMALIES: Final = (
    Kind.READ_VANISHED,
    Kind.OFFSET_TWO_VALUES,
    Kind.NON_MONOTONIC_READ,
    Kind.HIGH_WATERMARK_BACK,
)

STRICT: Final = Profile(
    name="strict",
    sentence="acks=all, min ISR 2, no unclean election, flush.messages=1: nothing may be lost",
    configs={"min.insync.replicas": 2, "flush.messages": 1},
    faults={**_CRASHES, **_LINKS, "power": 2, "admin": 2, "damage": 4},
)
CRASH: Final = Profile(
    name="crash",
    sentence="acks=all, min ISR 2, no unclean election, nothing flushed, the power stays on: nothing may be lost",
    configs={"min.insync.replicas": 2},
    faults={**_CRASHES, **_LINKS, "admin": 2},
)
RETRY: Final = Profile(
    name="retry",
    sentence="as strict, and clients send again what they are not sure of: duplicates, but no loss",
    retries=5,
    configs={"min.insync.replicas": 2, "flush.messages": 1},
    faults={**_CRASHES, **_LINKS, "power": 2},
    allows={"duplicated": ANY, "reordered": ANY},
)
ACKS1: Final = Profile(
    name="acks1",
    sentence="acks=1 and 0: what only a leader had may be lost, each loss with its cause",
    acks=("1", "0", "all"),
    faults={**_CRASHES, **_LINKS},
    allows={"lost": ANY},
)
POWER: Final = Profile(
    name="power",
    sentence="acks=all without flush: power cuts may lose what was not flushed, each loss with its cause",
    configs={"min.insync.replicas": 2},
    faults={**_CRASHES, "power": 4},
    allows={"lost": ANY},
    anomalies=_UNCLEAN_ANOMALIES,
)
UNCLEAN: Final = Profile(
    name="unclean",
    sentence="unclean elections are on: losses are allowed, each with its cause",
    acks=("all", "1"),
    configs={"unclean.leader.election.enable": True},
    faults={**_CRASHES, **_LINKS},
    allows={"lost": ANY},
    anomalies=_UNCLEAN_ANOMALIES,
)

PROFILES: Final[Mapping[str, Profile]] = MappingProxyType(
    {profile.name: profile for profile in (STRICT, CRASH, RETRY, ACKS1, POWER, UNCLEAN)}
)
