"""How a node with an empty data directory comes into a cluster: it founds one, joins one, or returns without its disk.

Cases, for a node that ``initial_cluster`` names (``decide``), by what the other members answer to Introduce:

A. all are fresh, with the same list of members: the cluster is founded. Each of them concludes the same by itself. Its
   identity is that of the data directory of the smallest name.
B. some belong to a cluster already, and this node's directory is the one that they saw at the founding: it only came
   late. It begins like the others did, once it has heard from all: it never voted or acknowledged anything.
C. some belong to a cluster that has this node as a member, and saw another directory of it: its disk is gone. It begins
   quarantined, so it neither votes nor counts before it has everything again.
D. some belong to a cluster that does not have this node as a member: it was removed, or never was one. Refused. So is
   a second node of a name whose first one answers.
E. otherwise: wait, and ask again.

Why B needs all answers: a directory may have been replaced between the questions of two founders, and then only one of
them knows the present one. If a member does not answer and there is a leader, C is chosen after LATE_SECONDS: always
safe, and the leader makes an end of it.

Why C needs all answers, or LATE_SECONDS: this node may have answered a leader that does not answer now. It must not
acknowledge anything to a leader of an earlier term; the term of the others is the least that it begins with, and after
so long a leader that they do not know of has stepped down for want of a majority.

A node that is told to ``join`` asks members to add it as a learner, and begins quarantined too: it cannot know whether
a node of its name was a member before.

Guarantees: nothing here votes, acknowledges or writes. A cluster is never founded twice from the same directories.
Leaves to the caller: writing the charter durably before the node takes part, and answering Introduce meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol

import grpc

from kvservice.cluster.charter import Charter
from kvservice.logs import Event, Log
from redan.raft.v1 import raft_pb2
from replication.core import membership
from replication.core.membership import Configuration

POLL_SECONDS: Final = 0.1
ASK_SECONDS: Final = 2.0
LATE_SECONDS: Final = 5.0
"""How long a member that does not answer is waited for, if the others have a leader."""
REMIND_SECONDS: Final = 5.0
"""Between two lines in the log about what is waited for."""

log = Log("cluster")


_FINAL: Final = (
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNAUTHENTICATED,
)
"""How a node refuses one that asks to join; asking again would get the same answer."""


class BootstrapRefused(Exception):  # noqa: N818 - it says what happened
    """The settings do not fit what the other nodes say; waiting would change nothing."""


class Asker(Protocol):
    """Asks other nodes (replication/peers)."""

    async def introduce(
        self, address: str, request: raft_pb2.IntroduceRequest, timeout_seconds: float
    ) -> raft_pb2.IntroduceResponse:
        """Ask a node who it is. Raises grpc.aio.AioRpcError, OSError."""

    async def join(self, address: str, request: raft_pb2.JoinRequest, timeout_seconds: float) -> raft_pb2.JoinResponse:
        """Ask a node to add a member. Raises grpc.aio.AioRpcError, OSError."""


class Newcomer(NamedTuple):
    """The node that has an empty data directory."""

    name: str
    directory_id: str
    """Identity of its data directory; random."""
    peer_address: str
    may_found: bool = True
    """False if there was something in the directory that could not be read: then others have to know it."""


class Answer(NamedTuple):
    """What another node said of itself."""

    name: str
    is_fresh: bool
    directory_id: str
    """Only of a fresh one."""
    cluster_id: str
    configuration: Configuration
    """Of a fresh one: what its settings say."""
    founders: Mapping[str, str]
    leader: str
    commit_index: int
    term: int


def answer_of(response: raft_pb2.IntroduceResponse) -> Answer:
    """Return an answer in our own terms. Raises ValueError if its configuration cannot be read."""
    configuration = membership.decode(response.configuration) if response.configuration else Configuration(())
    return Answer(
        response.name,
        response.is_fresh,
        response.fresh_cluster_id,
        response.cluster_id,
        configuration,
        dict(response.founders),
        response.leader,
        response.commit_index,
        response.term,
    )


def decide(
    newcomer: Newcomer, first: Configuration, answers: Mapping[str, Answer | None], *, waited_seconds: float
) -> Charter | None:
    """Return how a node of ``initial_cluster`` begins, None to ask again.

    ``first`` is the configuration of the settings; ``answers`` has all other members, None for one that has not
    answered. Raises BootstrapRefused.
    """
    heard = [answer for answer in answers.values() if answer is not None]
    settled = [answer for answer in heard if not answer.is_fresh]
    if settled:
        is_complete = len(heard) == len(answers)
        return _follow(newcomer, first, settled, is_complete=is_complete, waited_seconds=waited_seconds)
    for answer in heard:
        if answer.configuration != first:
            raise BootstrapRefused(
                f"{answer.name} was started with another initial_cluster ({_members_of(answer.configuration)}) than "
                f"this node ({_members_of(first)})"
            )
    if len(heard) < len(answers) or not newcomer.may_found:
        return None
    founders = {answer.name: answer.directory_id for answer in heard} | {newcomer.name: newcomer.directory_id}
    return Charter(founders[min(founders)], first, 0, founders)


def _follow(
    newcomer: Newcomer, first: Configuration, settled: Sequence[Answer], *, is_complete: bool, waited_seconds: float
) -> Charter | None:
    """Return how a node begins beside others that are in a cluster already: cases B to E."""
    newest = max(settled, key=lambda answer: answer.commit_index)
    if len({answer.cluster_id for answer in settled}) > 1:
        named = ", ".join(f"{answer.name} to {answer.cluster_id}" for answer in settled)
        raise BootstrapRefused(f"the members belong to different clusters: {named}")
    if newcomer.name not in newest.configuration.members:
        if newest.leader:
            raise BootstrapRefused(
                f"{newcomer.name} is no member of the cluster {newest.cluster_id} "
                f"({_members_of(newest.configuration)}); to add it, start it with --join instead of --initial-cluster"
            )
        return None
    is_founder = newcomer.may_found and all(
        answer.founders.get(newcomer.name) == newcomer.directory_id for answer in settled
    )
    if is_founder and set(first.members) != set(newest.founders):
        raise BootstrapRefused(
            f"the cluster was founded by {', '.join(newest.founders)}, and initial_cluster names {_members_of(first)}"
        )
    if is_founder and is_complete:
        return Charter(newest.cluster_id, first, 0, newest.founders)
    is_late = waited_seconds >= LATE_SECONDS and (newest.leader or not is_founder)
    if not is_late and (is_founder or not is_complete):
        return None
    term = max(answer.term for answer in settled)
    return Charter(newest.cluster_id, newest.configuration, 0, newest.founders, is_quarantined=True, term=term)


def _members_of(configuration: Configuration) -> str:
    return ", ".join(f"{name}={configuration.addresses.get(name, '?')}" for name in configuration.members) or "nobody"


async def bootstrap(newcomer: Newcomer, first: Configuration, asker: Asker) -> Charter:
    """Ask the other members of ``initial_cluster`` until it is clear how to begin. Raises BootstrapRefused."""
    others = {name: address for name, address in first.addresses.items() if name != newcomer.name}
    answers: dict[str, Answer | None] = dict.fromkeys(others)
    if not others and newcomer.may_found:
        return Charter(newcomer.directory_id, first, 0, {newcomer.name: newcomer.directory_id})
    loop = asyncio.get_running_loop()
    began = reminded = loop.time()
    problems: dict[str, str] = {}
    while True:
        # An answer counts only in the round in which it came: a node that was fresh may belong to a cluster by now.
        asked = await asyncio.gather(*(_ask(asker, newcomer, name, others[name], problems) for name in others))
        answers.update(asked)
        charter = decide(newcomer, first, answers, waited_seconds=loop.time() - began)
        if charter is not None:
            await _refuse_twin(asker, newcomer, first, charter.configuration)
            return charter
        if loop.time() - reminded >= REMIND_SECONDS:
            reminded = loop.time()
            missing = [f"{name} ({problems.get(name, '')})" for name, answer in answers.items() if answer is None]
            log.info(Event.CLUSTER_AWAITED, missing=", ".join(missing), seconds=round(loop.time() - began))
        await asyncio.sleep(POLL_SECONDS)


async def _refuse_twin(asker: Asker, newcomer: Newcomer, *configurations: Configuration) -> None:
    """Raise BootstrapRefused if another node of this name answers where this one is expected: it would vote twice."""
    places = (configuration.addresses.get(newcomer.name, "") for configuration in configurations)
    for address in dict.fromkeys(filter(None, places)):
        _, found = await _ask(asker, newcomer, newcomer.name, address, {})
        if found is not None and (not found.is_fresh or found.directory_id != newcomer.directory_id):
            raise BootstrapRefused(
                f"another node named {newcomer.name} lives at {address}, with a data directory of its own: names have "
                "to differ, and a node runs once"
            )


async def _ask(
    asker: Asker, newcomer: Newcomer, name: str, address: str, problems: dict[str, str]
) -> tuple[str, Answer | None]:
    request = raft_pb2.IntroduceRequest(name=newcomer.name, peer_address=newcomer.peer_address)
    try:
        answer = answer_of(await asker.introduce(address, request, ASK_SECONDS))
    except (grpc.aio.AioRpcError, OSError, ValueError) as error:
        problems[name] = _text_of(error)
        return name, None
    if answer.name != name:
        problems[name] = f"at {address} {answer.name} answers"
        return name, None
    return name, answer


async def join(newcomer: Newcomer, addresses: Sequence[str], asker: Asker) -> Charter:
    """Ask members, and the leader that they name, until this node is one of them. Raises BootstrapRefused."""
    request = raft_pb2.JoinRequest(name=newcomer.name, peer_address=newcomer.peer_address)
    queue = list(addresses)
    loop = asyncio.get_running_loop()
    reminded = began = loop.time()
    problem = ""
    while True:
        address = queue.pop(0)
        try:
            response = await asker.join(address, request, 3 * ASK_SECONDS)
            if response.accepted:
                configuration = membership.decode(response.configuration)
                return Charter(response.cluster_id, configuration, is_quarantined=True)
            problem = f"{address} names {response.leader or 'no'} leader"
            if response.leader_address:
                queue.insert(0, response.leader_address)
        except grpc.aio.AioRpcError as error:
            if error.code() in _FINAL:
                raise BootstrapRefused(f"{address} refuses: {error.details()}") from error
            problem = f"{address}: {_text_of(error)}"
        except (OSError, ValueError) as error:
            problem = f"{address}: {_text_of(error)}"
        if loop.time() - reminded >= REMIND_SECONDS:
            reminded = loop.time()
            log.info(Event.CLUSTER_AWAITED, missing=problem, seconds=round(loop.time() - began))
        if not queue:
            queue = list(addresses)
        await asyncio.sleep(POLL_SECONDS)


def _text_of(error: Exception) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return str(error)
