"""Who belongs to the group, and how that may change.

A change is a list of steps; it is carried out in one of two ways, both ending in the same configuration:

* ``simple``: at most one voter comes or goes, so a majority before and a majority after share a member (thesis, 4.1);
* ``enter_joint`` … ``leave_joint``: any list; between the two every decision needs both majorities (thesis, 4.3).

Guarantees: values are never changed in place. Names stand in order, so the same members encode to the same bytes.
In every configuration returned: there is a voter; ``learners`` are neither in ``voters`` nor in ``outgoing``;
``learners_next`` are in ``outgoing``, not in ``voters``, and empty outside of a joint configuration.
Leaves to the caller: one change at a time, and that a configuration takes effect when its entry is applied.
Layout of the encoding: msgpack array of version, voters, outgoing, learners, learners_next, addresses, auto_leave.
Reference: Raft thesis, chapter 4; etcd-io/raft, package confchange.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum, IntEnum
from types import MappingProxyType
from typing import NamedTuple

import msgspec

ENCODING_VERSION = 1
MEMBERS_MAX = 64
"""Every member costs the leader a stream and a window of appends; etcd advises 7 voters, the rest are learners."""
NAME_BYTES_MAX = 128

_NO_ADDRESSES: Mapping[str, str] = MappingProxyType({})


class ChangeKind(IntEnum):
    """A step of a membership change."""

    ADD_LEARNER = 1
    """A new member receives the log and counts in no majority."""
    PROMOTE = 2
    """A learner becomes a voter."""
    DEMOTE = 3
    """A voter becomes a learner."""
    REMOVE = 4
    """A voter or learner leaves the group."""
    CHANGE_ADDRESS = 5
    """A voter or learner is reached elsewhere."""


ADD_LEARNER = ChangeKind.ADD_LEARNER
PROMOTE = ChangeKind.PROMOTE
DEMOTE = ChangeKind.DEMOTE
REMOVE = ChangeKind.REMOVE
CHANGE_ADDRESS = ChangeKind.CHANGE_ADDRESS


class Change(NamedTuple):
    """One step; ``address`` is the ``host:port`` for peers, needed with ADD_LEARNER and CHANGE_ADDRESS only."""

    kind: ChangeKind
    name: str
    address: str = ""


class Refusal(Enum):
    """Why a change cannot be made; the values are for people."""

    NOTHING_TO_CHANGE = "no change was given"
    BAD_NAME = "a member's name has 1 to 128 bytes and no blank or comma"
    ALREADY_MEMBER = "already a member"
    UNKNOWN_MEMBER = "not a member"
    ALREADY_VOTER = "already a voter"
    NOT_A_VOTER = "a learner, not a voter"
    LAST_VOTER = "the last voter"
    TOO_MANY_MEMBERS = f"there would be more than {MEMBERS_MAX} members"
    MORE_THAN_ONE_VOTER = "more than one voter would change: this needs a joint change"
    ALREADY_JOINT = "a joint change is under way"
    CHANGE_UNDER_WAY = "an earlier change is not applied yet"
    NOT_JOINT = "no joint change is under way"
    NO_MEMBERS = "this node knows no members yet"


class ChangeRefused(ValueError):  # noqa: N818 - says what is the case
    """The configuration does not admit the change; nothing was changed."""

    def __init__(self, reason: Refusal, name: str = "") -> None:
        self.reason = reason
        self.name = name
        super().__init__(f"{name}: {reason.value}" if name else reason.value)


class Configuration(NamedTuple):
    """The members of the group. With no voters at all: a node that has yet to learn whom it belongs to."""

    voters: tuple[str, ...]
    """Of a joint configuration: the new voters."""
    outgoing: tuple[str, ...] = ()
    """The old voters, whose majority is needed too; empty unless joint."""
    learners: tuple[str, ...] = ()
    learners_next: tuple[str, ...] = ()
    """Old voters that become learners when the joint configuration is left; until then they still vote."""
    addresses: Mapping[str, str] = _NO_ADDRESSES
    """``host:port`` for peers of each member, where known."""
    auto_leave: bool = True
    """A joint configuration is left as soon as it is applied, without being asked."""

    @property
    def is_joint(self) -> bool:
        """Whether two majorities are needed."""
        return bool(self.outgoing)

    @property
    def members(self) -> tuple[str, ...]:
        """Everybody who receives the log, in sorted order."""
        return _ordered((*self.voters, *self.outgoing, *self.learners))

    def is_voter(self, name: str) -> bool:
        """Tell whether ``name`` counts in a majority, of the new or of the old voters."""
        return name in self.voters or name in self.outgoing

    def is_learner(self, name: str) -> bool:
        """Tell whether ``name`` receives the log and counts in no majority."""
        return name in self.learners


def simple(configuration: Configuration, changes: Sequence[Change]) -> Configuration:
    """Return the configuration after ``changes`` in their order, of which at most one may change the voters.

    Raises ChangeRefused.
    """
    draft = _Draft(configuration)
    draft.make(changes)
    if len(set(configuration.voters) ^ set(draft.voters)) > 1:
        raise ChangeRefused(Refusal.MORE_THAN_ONE_VOTER)
    return draft.result(auto_leave=True)


def enter_joint(configuration: Configuration, changes: Sequence[Change], auto_leave: bool = True) -> Configuration:
    """Return the joint configuration that stands between ``configuration`` and the one after ``changes``.

    Raises ChangeRefused.
    """
    draft = _Draft(configuration)
    draft.outgoing = list(configuration.voters)
    draft.make(changes)
    return draft.result(auto_leave)


def leave_joint(configuration: Configuration) -> Configuration:
    """Return the configuration that a joint one leads to: the old voters go. Raises ChangeRefused if not joint."""
    if not configuration.is_joint:
        raise ChangeRefused(Refusal.NOT_JOINT)
    learners = _ordered((*configuration.learners, *configuration.learners_next))
    staying = {*configuration.voters, *learners}
    addresses = {name: address for name, address in configuration.addresses.items() if name in staying}
    return Configuration(configuration.voters, (), learners, (), addresses)


def changed(configuration: Configuration, changes: Sequence[Change]) -> Configuration:
    """Return the next configuration on the way to ``changes``: at once where one step is safe, otherwise joint.

    Raises ChangeRefused.
    """
    try:
        return simple(configuration, changes)
    except ChangeRefused as refused:
        if refused.reason is not Refusal.MORE_THAN_ONE_VOTER:
            raise
    return enter_joint(configuration, changes)


class _Draft:
    """A configuration under change, one step after the other."""

    __slots__ = ("addresses", "learners", "learners_next", "outgoing", "voters")

    def __init__(self, configuration: Configuration) -> None:
        if configuration.is_joint:
            raise ChangeRefused(Refusal.ALREADY_JOINT)
        if not configuration.voters:
            raise ChangeRefused(Refusal.NO_MEMBERS)
        self.voters = list(configuration.voters)
        self.outgoing: list[str] = []
        self.learners = list(configuration.learners)
        self.learners_next: list[str] = []
        self.addresses = dict(configuration.addresses)

    def make(self, changes: Sequence[Change]) -> None:
        """Make all ``changes``. Raises ChangeRefused."""
        if not changes:
            raise ChangeRefused(Refusal.NOTHING_TO_CHANGE)
        for kind, name, address in changes:
            if kind is ADD_LEARNER:
                self._add_learner(name, address)
            elif kind is PROMOTE:
                self._promote(name)
            elif kind is DEMOTE:
                self._demote(name)
            elif kind is CHANGE_ADDRESS:
                self._change_address(name, address)
            else:
                self._remove(name)

    def result(self, auto_leave: bool) -> Configuration:
        """Return what the steps made of it."""
        result = Configuration(
            voters=_ordered(self.voters),
            outgoing=_ordered(self.outgoing),
            learners=_ordered(self.learners),
            learners_next=_ordered(self.learners_next),
            addresses={name: self.addresses[name] for name in sorted(self.addresses)},
            auto_leave=auto_leave,
        )
        wrong = _wrong_in(result)
        assert wrong is None, (wrong, result)
        return result

    def _is_member(self, name: str) -> bool:
        return name in self.voters or name in self.learners or name in self.learners_next

    def _add_learner(self, name: str, address: str) -> None:
        if not 1 <= len(name.encode()) <= NAME_BYTES_MAX or "," in name or name.split() != [name]:
            raise ChangeRefused(Refusal.BAD_NAME, name)
        if self._is_member(name):
            raise ChangeRefused(Refusal.ALREADY_MEMBER, name)
        if len({*self.voters, *self.outgoing, *self.learners, name}) > MEMBERS_MAX:
            raise ChangeRefused(Refusal.TOO_MANY_MEMBERS, name)
        self._become_learner(name)
        self.addresses.pop(name, None)
        if address:
            self.addresses[name] = address

    def _promote(self, name: str) -> None:
        if name in self.voters:
            raise ChangeRefused(Refusal.ALREADY_VOTER, name)
        if not self._is_member(name):
            raise ChangeRefused(Refusal.UNKNOWN_MEMBER, name)
        (self.learners if name in self.learners else self.learners_next).remove(name)
        self.voters.append(name)

    def _demote(self, name: str) -> None:
        if name not in self.voters:
            raise ChangeRefused(Refusal.NOT_A_VOTER if self._is_member(name) else Refusal.UNKNOWN_MEMBER, name)
        self._drop_voter(name)
        self._become_learner(name)

    def _change_address(self, name: str, address: str) -> None:
        if not self._is_member(name):
            raise ChangeRefused(Refusal.UNKNOWN_MEMBER, name)
        self.addresses[name] = address

    def _remove(self, name: str) -> None:
        if name in self.voters:
            self._drop_voter(name)
        elif name in self.learners:
            self.learners.remove(name)
        elif name in self.learners_next:
            self.learners_next.remove(name)
        else:
            raise ChangeRefused(Refusal.UNKNOWN_MEMBER, name)
        if name not in self.outgoing:  # an old voter is needed, and so reached, until the joint configuration is left
            self.addresses.pop(name, None)

    def _become_learner(self, name: str) -> None:
        (self.learners_next if name in self.outgoing else self.learners).append(name)

    def _drop_voter(self, name: str) -> None:
        if len(self.voters) == 1:
            raise ChangeRefused(Refusal.LAST_VOTER, name)
        self.voters.remove(name)


def encode(configuration: Configuration) -> bytes:
    """Return the configuration as the payload of a CONFIGURATION entry."""
    voters, outgoing, learners, learners_next, addresses, auto_leave = configuration
    return msgspec.msgpack.encode(
        (ENCODING_VERSION, voters, outgoing, learners, learners_next, dict(addresses), auto_leave)
    )


def decode(payload: bytes) -> Configuration:
    """Return the configuration that ``encode`` wrote. Raises ValueError on anything else."""
    try:
        version, voters, outgoing, learners, learners_next, addresses, auto_leave = _DECODER.decode(payload)
    except msgspec.MsgspecError as error:
        raise ValueError(f"not a configuration: {error}") from error
    if version != ENCODING_VERSION:
        raise ValueError(f"configuration of version {version}, this program knows version {ENCODING_VERSION}")
    configuration = Configuration(voters, outgoing, learners, learners_next, addresses, auto_leave)
    if wrong := _wrong_in(configuration):
        raise ValueError(f"not a configuration: {wrong}")
    return configuration


_Names = tuple[str, ...]
_DECODER = msgspec.msgpack.Decoder(tuple[int, _Names, _Names, _Names, _Names, dict[str, str], bool])


def _wrong_in(configuration: Configuration) -> str | None:
    """Return which promise of this module ``configuration`` breaks, if any."""
    voters, outgoing, learners, learners_next, _, _ = configuration
    for names in (voters, outgoing, learners, learners_next):
        if len(set(names)) != len(names):
            return "a member is named twice"
    if not voters and configuration.members:
        return "there are members but no voters"
    if set(learners) & {*voters, *outgoing}:
        return "a learner is a voter"
    if not set(learners_next) <= set(outgoing) - set(voters):
        return "a voter that is to become a learner is not an old voter, or is a new one"
    return None


def _ordered(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(names)))
