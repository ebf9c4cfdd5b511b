"""G1 to G8, row by row: who is refused with which of Kafka's codes, in which phase, and what that leaves unchanged."""

from __future__ import annotations

from typing import Any

import pytest

from kraft.coordinators.groups.classic_group import ClassicGroup, Phase
from kraft.coordinators.groups.classic_join import NEW_MEMBER_JOIN_MS
from kraft.coordinators.groups.classic_requests import Done, Joined, Synced
from kraft.coordinators.groups.offsets import check_commit, check_delete_group, topics_in_use
from kraft.coordinators.groups.subscriptions import Subscription, encode_subscription
from kraft.coordinators.shard import refusal_of
from kraft.protocol import errors
from metadata.settings import BrokerSettings
from replication.requests import ProduceOutcome
from tests.unit.coordinators.test_classic_rebalance import Story, stable

NOBODY: dict[str, Any] = {"member_id": "", "generation": -1}


def in_phase(phase: Phase) -> Story:
    """A group of generation 1 or later, with member `a` unless it is empty."""
    story = stable("a", "b")
    match phase:
        case Phase.EMPTY:
            story.leave("a")
            story.leave("b")
            if story.group.members:
                story.join(next(iter(story.group.members)))
        case Phase.PREPARING:
            story.leave("b")
        case Phase.COMPLETING:
            story.leave("b")
            story.join("a")
    assert story.group.phase is phase
    return story


# --- G4, G6: who commits ----------------------------------------------------------------------------------------

E, P, C, S = Phase.EMPTY, Phase.PREPARING, Phase.COMPLETING, Phase.STABLE
COMMITS: list[tuple[Phase, str, int, str | None, int]] = [
    # phase, member, generation from the group's, instance -> code
    (E, "", -99, None, 0),
    (E, "a", -99, None, 0),
    (E, "a", 0, None, 25),
    (E, "a", 0, "i", 25),
    (S, "", -99, None, 25),
    (S, "a", 0, None, 0),
    (S, "a", -1, None, 22),
    (S, "a", 1, None, 22),
    (S, "a", -99, None, 22),
    (S, "x", 0, None, 25),
    (S, "x", -99, None, 25),
    (S, "a", 0, "i", 25),
    (P, "a", 0, None, 0),
    (P, "x", 0, None, 25),
    (C, "a", 0, None, 27),
    (C, "a", -1, None, 22),
    (C, "", -99, None, 25),
]


@pytest.mark.parametrize(("phase", "member", "offset", "instance", "code"), COMMITS)
def test_g4_commits(phase: Phase, member: str, offset: int, instance: str | None, code: int) -> None:
    group = in_phase(phase).group
    generation = -1 if offset == -99 else group.generation + offset
    assert commit_code(group, member_id=member, generation=generation, instance_id=instance) == code


def commit_code(group: ClassicGroup, **who: Any) -> int:
    try:
        check_commit(group, **who)
    except errors.KafkaError as error:
        return error.code
    return 0


def test_g4_unknown_group_accepts_simple_commits() -> None:
    new = ClassicGroup(group_id="g")
    assert commit_code(new, exists=False, **NOBODY) == 0
    assert commit_code(new, exists=False, member_id="a", generation=1) == 69


def test_g6_the_older_holder_of_an_instance_is_fenced_everywhere() -> None:
    story = Story()
    story.join(instance_id="i", new_member_id="old")
    story.sync("old")
    generation = story.group.generation
    story.join(instance_id="i", new_member_id="new")
    who: dict[str, Any] = {"instance_id": "i"}
    assert isinstance(story.beat("old", generation, **who), errors.FencedInstanceId)
    assert isinstance(story.sync("old", generation=generation, **who), errors.FencedInstanceId)
    assert isinstance(story.join("old", **who), errors.FencedInstanceId)
    assert isinstance(story.leave("old", **who), errors.FencedInstanceId)
    assert commit_code(story.group, member_id="old", generation=generation, **who) == 82
    assert commit_code(story.group, member_id="new", generation=generation, **who) == 0
    assert isinstance(story.beat("new", generation, instance_id="j"), errors.UnknownMemberId)


def test_g6_static_member_with_new_subscription_returns() -> None:
    """As in Kafka: its own metadata, as of sticky's, differs after every restart."""
    story = Story()
    story.join(instance_id="i", new_member_id="a", protocols=(("sticky", b"owned"), ("range", b"")))
    story.sync("a", ("a", b"mine"))
    generation = story.group.generation
    back = story.join(instance_id="i", new_member_id="a2", protocols=(("sticky", b"nothing"), ("range", b"")))
    assert (back.generation, back.skips_assignment, back.members) == (generation, True, (("a2", "i", b"nothing"),))
    assert story.sync("a2").assignment == b"mine"
    other = story.join(instance_id="i", new_member_id="a3", protocols=(("range", b""), ("sticky", b"")))
    assert other.generation == generation + 1, "the group would choose another protocol now"


def test_g6_static_member_stays_until_session_ends() -> None:
    story = Story()
    story.join(instance_id="i", new_member_id="a", session_timeout_ms=60_000)
    story.sync("a")
    story.join(new_member_id="b", rebalance_timeout_ms=5_000)
    story.wait(20_000)
    assert set(story.group.members) == {"a", "b"}
    assert story.group.leader == "b"
    story.beat("b")
    for _ in range(8):
        story.wait(5_000)
        for member in set(story.group.members) - {"a"}:
            story.beat(member)
    assert "a" not in story.group.members


def test_g6_the_takeover_of_a_member_that_syncs_makes_a_new_generation() -> None:
    story = Story()
    story.join(instance_id="i", new_member_id="a")
    assert story.group.phase is Phase.COMPLETING
    generation = story.group.generation
    assert story.join(instance_id="i", new_member_id="a2").generation == generation + 1


# --- G1 to G3 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", [E, P, C, S])
def test_g3_who_is_unknown_or_late_is_informed_in_every_phase(phase: Phase) -> None:
    story = in_phase(phase)
    assert isinstance(story.join("x"), errors.UnknownMemberId)
    assert isinstance(story.sync("x"), errors.UnknownMemberId)
    assert isinstance(story.beat("x"), errors.UnknownMemberId)
    assert isinstance(story.leave("x"), errors.UnknownMemberId)
    assert isinstance(story.leave(instance_id="i"), errors.UnknownMemberId)
    if phase is not E:
        assert isinstance(story.beat("a", 0), errors.IllegalGeneration)
        assert isinstance(story.sync("a", generation=0), errors.IllegalGeneration)
    expected = {E: errors.UnknownMemberId, P: errors.RebalanceInProgress, C: Done, S: Done}[phase]
    assert isinstance(story.beat("a"), expected)


def test_g3_a_member_goes_on_with_a_protocol_that_all_could_do() -> None:
    story = stable("a")
    assert isinstance(story.join("a", protocols=(("other", b""),)), errors.InconsistentGroupProtocol)
    assert isinstance(story.join("a", protocol_type="connect"), errors.InconsistentGroupProtocol)
    both = story.join("a", protocols=(("other", b""), ("range", b"")))
    assert (both.protocol, both.generation) == ("other", 2), "the only member's first wish"
    story.leave("a")
    fresh = story.join(new_member_id="w", protocol_type="connect", protocols=(("default", b""),))
    assert isinstance(fresh, Joined), "an empty group may become of another type"


def test_g1_assigned_member_ids_expire() -> None:
    story = Story()
    given = story.join(known=True)
    assert isinstance(given, errors.MemberIdRequired)
    story.wait(9_999)
    assert isinstance(story.join(given.message, known=True), Joined)
    late = story.join(known=True)
    story.wait(10_000)
    assert isinstance(story.join(late.message, known=True), errors.UnknownMemberId)


def test_g1_an_id_given_out_during_the_initial_delay_survives_its_end() -> None:
    story = Story(initial_delay_ms=3_000)
    story.join(new_member_id="a", rebalance_timeout_ms=3_000)
    given = story.join(known=True)
    story.wait(3_000)
    assert story.group.phase is Phase.COMPLETING
    assert story.join(given.message, known=True) is None, "it waits in the next rebalance"


def test_g1_first_join_wait_is_limited() -> None:
    story = Story(session_ms_max=3_600_000)
    story.join(new_member_id="a", session_timeout_ms=3_600_000, rebalance_timeout_ms=3_600_000)
    story.sync("a")
    assert story.join(new_member_id="b") is None
    waiting = max(story.answers, default=0) + 1
    story.wait(NEW_MEMBER_JOIN_MS - 1)
    assert waiting not in story.answers
    story.wait(1)
    assert isinstance(story.answers[waiting], errors.UnknownMemberId)
    assert set(story.group.members) == {"a"}


def test_g2_who_waits_for_the_leader_needs_no_heartbeat() -> None:
    story = stable("a", "b")
    for member in ("a", "b"):
        story.join(member)
    assert story.group.leader == "a"
    assert story.sync("b") is None
    for _ in range(3):
        story.wait(5_000)
        story.beat("a")
    assert isinstance(story.sync("a", ("b", b"yours")), Synced)
    assert story.group.members["b"].assignment == b"yours"


def test_g2_member_without_sync_is_removed() -> None:
    story = stable("a", "b")
    for member in ("a", "b"):
        story.join(member)
    story.sync("a", ("a", b""), ("b", b""))
    assert story.group.phase is Phase.STABLE
    for _ in range(4):
        story.wait(5_000)
        story.beat("a")
        story.beat("b")
    assert set(story.group.members) == {"a"}
    assert story.group.phase is Phase.PREPARING


def test_g3_a_smaller_group_max_size_sends_the_last_ones_away() -> None:
    story = stable("a", "b", "c")
    story.rules = Story(members_max=2).rules
    story.leave("c")
    assert story.join("a") is None
    assert isinstance(story.join("b"), Joined)
    assert isinstance(story.join(), errors.GroupMaxSizeReached)
    story.rules = Story(members_max=1).rules
    story.sync("a")
    story.join("a")
    refused = story.join("b")
    assert isinstance(refused, errors.GroupMaxSizeReached)
    assert set(story.group.members) == {"a"}


# --- G5, G8 -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "reported"), [(6, 16), (56, 16), (19, 15), (20, 15), (7, 15), (3, 15)])
def test_g5_an_append_that_failed_is_reported_as_kafka_reports_it(code: int, reported: int) -> None:
    assert refusal_of(ProduceOutcome(error_code=code)).code == reported


def test_g5_the_topic_of_the_offsets_has_kafkas_defaults() -> None:
    settings = BrokerSettings()
    assert settings.offsets_topic_num_partitions == 50
    assert settings.offsets_topic_replication_factor == 3
    assert settings.offsets_commit_timeout_ms == 5_000
    assert settings.offsets_retention_minutes == 10_080
    assert (settings.group_min_session_timeout_ms, settings.group_max_session_timeout_ms) == (6_000, 1_800_000)
    assert settings.group_initial_rebalance_delay_ms == 3_000


@pytest.mark.parametrize("phase", [P, C, S])
def test_g8_a_group_with_members_is_not_deleted(phase: Phase) -> None:
    with pytest.raises(errors.NonEmptyGroup):
        check_delete_group(in_phase(phase).group, "g", has_offsets=True)


def test_g8_deleting() -> None:
    check_delete_group(in_phase(E).group, "g", has_offsets=False)
    check_delete_group(None, "g", has_offsets=True)
    with pytest.raises(errors.GroupIdNotFound):
        check_delete_group(None, "g", has_offsets=False)


def test_g8_offsets_of_topics_in_use_stay() -> None:
    story = Story()
    wants = (("range", encode_subscription(Subscription(topics=("t",)))),)
    story.join(new_member_id="a", protocols=wants)
    assert topics_in_use(story.group, frozenset({"t", "u"})) == {"t"}
    other = Story()
    other.join(new_member_id="a", protocol_type="connect", protocols=(("default", b""),))
    with pytest.raises(errors.NonEmptyGroup):
        topics_in_use(other.group, frozenset({"t"}))
    unreadable = Story()
    unreadable.join(new_member_id="a", protocols=(("range", b"?"),))
    assert topics_in_use(unreadable.group, frozenset({"t"})) == {"t"}
    assert topics_in_use(in_phase(E).group, frozenset({"t"})) == frozenset()
