"""One consensus core and nobody else: its peers are what a test says they are.

Built with any log, term and vote, all of it durable; driven by ``turn``, which does the driver's duties once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from replication.core.log import RaftLog
from replication.core.membership import Configuration
from replication.core.messages import AppendEntries, AppendReply, Entry, EntryKind, HardState, Message, VoteReply
from replication.core.raft import Raft, Role, Settings

PLAIN = Settings(pre_vote=False, check_quorum=False, coalesce_bytes=0)
"""The algorithm of the paper's section 5."""
STAMP_MS = 0
TICKS_MAX = 1000

Outgoing = list[tuple[str, Message]]


def entries(terms: Sequence[int], first: int = 1) -> list[Entry]:
    """Return entries of these terms, one after the other."""
    return [
        Entry(term, first + at, EntryKind.COMMANDS, STAMP_MS, b"%d/%d" % (first + at, term))
        for at, term in enumerate(terms)
    ]


def node(
    name: str = "n1",
    size: int = 3,
    terms: Sequence[int] = (),
    term: int | None = None,
    vote: str = "",
    committed: int = 0,
    chance: Callable[[int], int] = lambda count: 0,
    settings: Settings = PLAIN,
) -> Raft:
    """Return a node of a group of ``size`` whose log has entries of ``terms``, all of them durable."""
    log = RaftLog(0, 0, 0)
    for entry in entries(terms):
        log.append(entry)
    log.take_unpersisted()
    log.became_durable(len(terms))
    log.commit(committed)
    known_term = term if term is not None else log.last_term
    voters = tuple(f"n{number}" for number in range(1, size + 1))
    return Raft(name, settings, HardState(known_term, vote), Configuration(voters), log, chance)


def turn(raft: Raft, is_stored: bool = True) -> Outgoing:
    """Do the driver's duties once; return what goes out, if not ``is_stored`` only what waits for no disk."""
    ready = raft.ready()
    if ready is None:
        return []
    if not is_stored:
        return ready.messages
    raft.persisted(raft.term, raft.log.last_index, STAMP_MS, raft.log.last_term)
    return ready.messages + ready.messages_after


def candidate(raft: Raft) -> Raft:
    """Make the node a candidate of the next term whose own vote is durable."""
    raft.campaign()
    turn(raft)
    return raft


def leader(raft: Raft) -> Raft:
    """Have the node elected by all others, and its no-op sent."""
    candidate(raft)
    for peer in raft.peers:
        raft.step(peer, VoteReply(raft.term, True, False))
    assert raft.role is Role.LEADER
    return raft


def established(raft: Raft) -> Raft:
    """Have the node elected and its no-op committed and applied."""
    leader(raft)
    acknowledge(raft, turn(raft))
    turn(raft)
    raft.take_committed()
    assert raft.log.applied == raft.log.last_index
    return raft


def acknowledge(raft: Raft, messages: Outgoing, peers: Iterable[str] | None = None) -> None:
    """Answer the appends among ``messages`` as peers that have stored them."""
    for peer, message in messages:
        if isinstance(message, AppendEntries) and (peers is None or peer in peers):
            index = message.previous_index + len(message.entries)
            raft.step(peer, AppendReply(message.term, True, index, 0, 0, message.read_round))


def appends(messages: Outgoing) -> dict[str, AppendEntries]:
    """Return the last append to each peer."""
    return {peer: message for peer, message in messages if isinstance(message, AppendEntries)}


def log_of(raft: Raft) -> list[Entry]:
    """Return the whole log, which is in memory."""
    assert raft.log.memory_first == 1
    return raft.log.entries


def ticks_until_term_grows(raft: Raft) -> int:
    """Return how many ticks pass before the node begins an election."""
    term = raft.term
    for tick in range(1, TICKS_MAX):
        raft.tick()
        if raft.term > term:
            return tick
    raise AssertionError("no election was begun")
