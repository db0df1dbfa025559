"""Membership: single steps and joint changes agree, every refusal has its name, bytes come back whole."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec
import pytest

from replication.core.membership import (
    ADD_LEARNER,
    CHANGE_ADDRESS,
    DEMOTE,
    MEMBERS_MAX,
    PROMOTE,
    REMOVE,
    Change,
    ChangeKind,
    ChangeRefused,
    Configuration,
    Refusal,
    changed,
    decode,
    encode,
    enter_joint,
    leave_joint,
    simple,
)
from replication.core.quorum import is_granted

THREE = Configuration(("n1", "n2", "n3"), addresses={"n1": "h1:1", "n2": "h2:1", "n3": "h3:1"})
WITH_LEARNER = THREE._replace(learners=("n4",), addresses={**THREE.addresses, "n4": "h4:1"})
JOINT = enter_joint(WITH_LEARNER, [Change(PROMOTE, "n4"), Change(DEMOTE, "n1")])


def random_changes(chance: random.Random, configuration: Configuration) -> list[Change]:
    """Return a list of changes each of which the single-step path accepts after those before it."""
    changes: list[Change] = []
    wanted = chance.randint(1, 6)
    for _ in range(200):
        if len(changes) == wanted:
            break
        name = f"n{chance.randint(1, 7)}"
        change = Change(chance.choice(list(ChangeKind)), name, f"{name}:{chance.randint(1, 9)}")
        try:
            configuration = simple(configuration, [change])
        except ChangeRefused:
            continue
        changes.append(change)
    assert changes
    return changes


def test_single_steps_and_a_joint_change_end_in_the_same_configuration() -> None:
    chance = random.Random(4)
    for _ in range(1_000):
        voters = tuple(f"n{number}" for number in range(1, chance.randint(1, 5) + 1))
        start = Configuration(voters, addresses={name: f"{name}:0" for name in voters})
        changes = random_changes(chance, start)
        stepwise = start
        for change in changes:
            stepwise = simple(stepwise, [change])
        joint = enter_joint(start, changes)
        assert leave_joint(joint) == stepwise, (start, changes)
        assert joint.outgoing == start.voters
        assert set(stepwise.members) | set(start.voters) == set(joint.members)


def test_a_list_that_one_path_refuses_is_refused_by_the_other_for_the_same_reason() -> None:
    chance = random.Random(5)
    refusals = set()
    for _ in range(3_000):
        changes = [
            Change(chance.choice(list(ChangeKind)), f"n{chance.randint(1, 5)}") for _ in range(chance.randint(1, 4))
        ]
        stepwise: Configuration | tuple[Refusal, str] = WITH_LEARNER
        try:
            for change in changes:
                assert isinstance(stepwise, Configuration)
                stepwise = simple(stepwise, [change])
        except ChangeRefused as refused:
            stepwise = (refused.reason, refused.name)
        try:
            joint: Configuration | tuple[Refusal, str] = leave_joint(enter_joint(WITH_LEARNER, changes))
        except ChangeRefused as refused:
            joint = (refused.reason, refused.name)
        assert joint == stepwise, changes
        if isinstance(joint, tuple) and isinstance(joint[0], Refusal):
            refusals.add(joint[0])
    assert refusals == {
        Refusal.ALREADY_MEMBER,
        Refusal.UNKNOWN_MEMBER,
        Refusal.ALREADY_VOTER,
        Refusal.NOT_A_VOTER,
        Refusal.LAST_VOTER,
    }


def test_majorities_before_and_after_a_single_step_share_a_voter() -> None:
    chance = random.Random(6)
    for _ in range(1_000):
        voters = tuple(f"n{number}" for number in range(1, chance.randint(1, 6) + 1))
        before = Configuration(voters, learners=("n7",))
        after = simple(before, random_changes(chance, before)[:1])
        one = {name for name in before.voters if chance.random() < 0.6}
        other = {name for name in after.voters if chance.random() < 0.6}
        if is_granted(before.voters, one) and is_granted(after.voters, other):
            assert one & other


def test_a_new_member_begins_as_a_learner() -> None:
    after = simple(THREE, [Change(ADD_LEARNER, "n4", "h4:1")])
    assert after == WITH_LEARNER
    assert after.is_learner("n4")
    assert not after.is_voter("n4")
    assert after.members == ("n1", "n2", "n3", "n4")


def test_one_list_may_add_and_promote_a_member() -> None:
    after = simple(THREE, [Change(ADD_LEARNER, "n4", "h4:1"), Change(PROMOTE, "n4")])
    assert after.voters == ("n1", "n2", "n3", "n4")
    assert after.learners == ()


def test_a_voter_that_is_demoted_votes_until_the_joint_configuration_is_left() -> None:
    assert JOINT.is_joint
    assert JOINT.is_voter("n1")
    assert not JOINT.is_learner("n1")
    assert (JOINT.voters, JOINT.outgoing, JOINT.learners_next) == (("n2", "n3", "n4"), ("n1", "n2", "n3"), ("n1",))
    after = leave_joint(JOINT)
    assert (after.voters, after.outgoing, after.learners, after.learners_next) == (("n2", "n3", "n4"), (), ("n1",), ())


def test_a_removed_voter_is_still_reached_until_the_joint_configuration_is_left() -> None:
    joint = enter_joint(THREE, [Change(REMOVE, "n1")], auto_leave=False)
    assert not joint.auto_leave
    assert joint.members == ("n1", "n2", "n3")
    assert joint.addresses["n1"] == "h1:1"
    after = leave_joint(joint)
    assert after.members == ("n2", "n3")
    assert "n1" not in after.addresses


def test_the_only_voter_can_be_replaced() -> None:
    changes = [Change(ADD_LEARNER, "n2", "h2:1"), Change(PROMOTE, "n2"), Change(REMOVE, "n1")]
    joint = enter_joint(Configuration(("n1",)), changes)
    assert (joint.voters, joint.outgoing) == (("n2",), ("n1",))
    assert leave_joint(joint) == Configuration(("n2",), addresses={"n2": "h2:1"})


def test_a_member_comes_back_under_its_name_with_another_address() -> None:
    changes = [Change(REMOVE, "n3"), Change(ADD_LEARNER, "n3", "new:1"), Change(PROMOTE, "n3")]
    after = leave_joint(enter_joint(THREE, changes))
    assert after.voters == THREE.voters
    assert after.addresses == {**THREE.addresses, "n3": "new:1"}


def test_a_change_goes_through_a_joint_configuration_only_where_it_must() -> None:
    assert not changed(WITH_LEARNER, [Change(PROMOTE, "n4")]).is_joint
    assert not changed(THREE, [Change(ADD_LEARNER, "n4"), Change(ADD_LEARNER, "n5")]).is_joint
    assert changed(WITH_LEARNER, [Change(PROMOTE, "n4"), Change(DEMOTE, "n1")]) == JOINT
    with pytest.raises(ChangeRefused, match="n9: not a member"):
        changed(THREE, [Change(PROMOTE, "n9")])


EXPECTED_REFUSALS: list[tuple[Refusal, Callable[[], object]]] = [
    (Refusal.NOTHING_TO_CHANGE, lambda: simple(THREE, [])),
    (Refusal.NOTHING_TO_CHANGE, lambda: enter_joint(THREE, [])),
    (Refusal.BAD_NAME, lambda: simple(THREE, [Change(ADD_LEARNER, "")])),
    (Refusal.BAD_NAME, lambda: simple(THREE, [Change(ADD_LEARNER, "two words")])),
    (Refusal.BAD_NAME, lambda: simple(THREE, [Change(ADD_LEARNER, "n4,n5")])),
    (Refusal.BAD_NAME, lambda: simple(THREE, [Change(ADD_LEARNER, "ä" * 65)])),
    (Refusal.ALREADY_MEMBER, lambda: simple(THREE, [Change(ADD_LEARNER, "n1")])),
    (Refusal.ALREADY_MEMBER, lambda: simple(WITH_LEARNER, [Change(ADD_LEARNER, "n4")])),
    (Refusal.UNKNOWN_MEMBER, lambda: simple(THREE, [Change(PROMOTE, "n9")])),
    (Refusal.UNKNOWN_MEMBER, lambda: simple(THREE, [Change(DEMOTE, "n9")])),
    (Refusal.UNKNOWN_MEMBER, lambda: simple(THREE, [Change(REMOVE, "n9")])),
    (Refusal.ALREADY_VOTER, lambda: simple(THREE, [Change(PROMOTE, "n1")])),
    (Refusal.NOT_A_VOTER, lambda: simple(WITH_LEARNER, [Change(DEMOTE, "n4")])),
    (Refusal.LAST_VOTER, lambda: simple(Configuration(("n1",)), [Change(REMOVE, "n1")])),
    (Refusal.LAST_VOTER, lambda: enter_joint(Configuration(("n1",)), [Change(DEMOTE, "n1")])),
    (
        Refusal.TOO_MANY_MEMBERS,
        lambda: simple(THREE, [Change(ADD_LEARNER, f"l{number}") for number in range(MEMBERS_MAX - 2)]),
    ),
    (Refusal.MORE_THAN_ONE_VOTER, lambda: simple(THREE, [Change(REMOVE, "n1"), Change(DEMOTE, "n2")])),
    (Refusal.MORE_THAN_ONE_VOTER, lambda: simple(WITH_LEARNER, [Change(PROMOTE, "n4"), Change(REMOVE, "n1")])),
    (Refusal.ALREADY_JOINT, lambda: simple(JOINT, [Change(REMOVE, "n2")])),
    (Refusal.ALREADY_JOINT, lambda: enter_joint(JOINT, [Change(REMOVE, "n2")])),
    (Refusal.NOT_JOINT, lambda: leave_joint(THREE)),
    (Refusal.UNKNOWN_MEMBER, lambda: simple(THREE, [Change(CHANGE_ADDRESS, "n9", "h9:1")])),
    (Refusal.NO_MEMBERS, lambda: simple(Configuration(()), [Change(ADD_LEARNER, "n1")])),
]


def test_a_change_of_address_changes_nothing_else() -> None:
    moved = simple(WITH_LEARNER, [Change(CHANGE_ADDRESS, "n2", "new:1"), Change(CHANGE_ADDRESS, "n4", "new:2")])
    assert moved == WITH_LEARNER._replace(addresses={**WITH_LEARNER.addresses, "n2": "new:1", "n4": "new:2"})


@pytest.mark.parametrize(("reason", "change"), EXPECTED_REFUSALS)
def test_a_change_that_cannot_be_made_is_refused_by_name(reason: Refusal, change: Callable[[], object]) -> None:
    with pytest.raises(ChangeRefused) as refused:
        change()
    assert refused.value.reason is reason
    assert reason.value in str(refused.value)
    assert str(refused.value).startswith(refused.value.name)


def test_every_refusal_has_an_example() -> None:
    core_only = {Refusal.CHANGE_UNDER_WAY}  # the core knows what is applied, this module does not
    assert {reason for reason, _ in EXPECTED_REFUSALS} == set(Refusal) - core_only


def test_as_many_members_as_allowed_are_let_in() -> None:
    after = simple(THREE, [Change(ADD_LEARNER, f"l{number}") for number in range(MEMBERS_MAX - 3)])
    assert len(after.members) == MEMBERS_MAX


@pytest.mark.parametrize("configuration", [Configuration(()), THREE, WITH_LEARNER, JOINT, leave_joint(JOINT)])
def test_a_configuration_comes_back_whole_from_its_bytes(configuration: Configuration) -> None:
    assert decode(encode(configuration)) == configuration


def test_the_same_members_have_the_same_bytes_whatever_the_order_of_the_steps() -> None:
    steps = [Change(ADD_LEARNER, "n9", "h9:1"), Change(ADD_LEARNER, "n5", "h5:1")]
    assert encode(simple(THREE, steps)) == encode(simple(THREE, steps[::-1]))


def test_bytes_that_are_cut_or_changed_give_a_valid_configuration_or_a_value_error() -> None:
    payload = encode(JOINT)
    damaged = [payload[:end] for end in range(len(payload))]
    damaged += [
        payload[:at] + bytes([payload[at] ^ mask]) + payload[at + 1 :]
        for at in range(len(payload))
        for mask in (1, 128)
    ]
    refused = 0
    for candidate in damaged:
        try:
            assert encode(decode(candidate))
        except ValueError:
            refused += 1
    assert refused >= len(payload)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ((2, ("a",), (), (), (), {}, True), "configuration of version 2"),
        ((1, ("a", "a"), (), (), (), {}, True), "named twice"),
        ((1, (), (), ("a",), (), {}, True), "no voters"),
        ((1, ("a",), (), ("a",), (), {}, True), "a learner is a voter"),
        ((1, ("a",), ("b",), ("b",), (), {}, True), "a learner is a voter"),
        ((1, ("a",), (), (), ("b",), {}, True), "not an old voter"),
        ((1, ("a",), ("a", "b"), (), ("a",), {}, True), "is a new one"),
        ((1, ("a",)), "not a configuration"),
        ("text", "not a configuration"),
    ],
)
def test_a_configuration_that_breaks_a_promise_is_not_read(fields: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        decode(msgspec.msgpack.encode(fields))
