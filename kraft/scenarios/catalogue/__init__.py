"""The built-in scenarios, one TOML file each, in the order in which `kraft scenario list` shows them."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Final

from kraft.config.problems import ConfigError, Problem, nearest
from kraft.scenarios.model import Scenario
from kraft.scenarios.parse import parse_scenario

GROUPS: Final[tuple[tuple[str, ...], ...]] = (
    ("acks0-leader-kill", "acks1-leader-kill", "acks-all-leader-kill", "high-watermark-behind"),
    ("last-isr-member-dies-unclean-off", "last-isr-member-dies-unclean-on"),
    ("all-down-wait-for-isr", "all-down-first-alive"),
    ("unclean-switched-on-topic", "unclean-switched-on-cluster"),
    ("min-isr-refuses", "min-isr-lost-in-flight"),
    ("paused-follower", "slow-follower", "returning-follower"),
    (
        "follower-cut-from-leader",
        "leader-cut-from-quorum",
        "shrink-not-committed",
        "deposed-leader",
        "one-way-mute",
        "one-way-deaf",
    ),
    ("controller-killed", "controller-and-leader-killed", "old-controller-isolated", "quorum-majority-lost"),
    ("bridge-partition", "ring-partition"),
    ("rolling-restart",),
    ("cluster-killed", "cluster-power-loss", "cluster-power-loss-flushed"),
    ("last-isr-member-power-loss", "last-isr-member-power-loss-flushed"),
    (
        "corrupt-follower",
        "corrupt-leader",
        "corrupt-closed-follower",
        "corrupt-closed-leader",
        "bit-rot",
        "torn-tail",
        "index-deleted",
        "disk-full-leader",
        "wiped-follower",
    ),
    ("lost-answer-retry", "in-flight-reordered"),
    ("partition-grown", "topic-recreated", "broker-id-taken-over"),
)
NAMES: Final = tuple(name for group in GROUPS for name in group)
LONGEST: Final = (
    "quorum-majority-lost",
    "last-isr-member-power-loss",
    "last-isr-member-power-loss-flushed",
    "bridge-partition",
    "ring-partition",
    "rolling-restart",
    "high-watermark-behind",
    "cluster-power-loss-flushed",
)
"""They begin first when several run, so that none of them is alone at the end."""


def is_long(name: str) -> bool:
    return name in LONGEST


def text_of(name: str) -> str:
    """The file as it was written, comments and all. Raises ConfigError for a name that there is not."""
    if name not in NAMES:
        problem = Problem(key=name, wrong="there is no scenario of this name", right=_hint(name))
        raise ConfigError("catalogue", [problem])
    return resources.files(__name__).joinpath(f"{name}.toml").read_text()


def load(name_or_file: str) -> Scenario:
    """A built-in scenario by its name, or one from a file. Raises ConfigError, or OSError for an unreadable file."""
    if not name_or_file.endswith(".toml"):
        return parse_scenario(text_of(name_or_file), file=f"{name_or_file}.toml")
    return parse_scenario(Path(name_or_file).read_text(), file=name_or_file)


def _hint(name: str) -> str:
    hint = nearest(name, NAMES)
    return hint if hint.startswith("did you mean") else "`kraft scenario list` shows them; a file ends in .toml"
